"""Inertial sensors, one message at a time: a performer of whom only the limbs that wear one are known.

The mathematics is that of data/imu.py: orientation by imufusion (or the sender's own quaternion), acceleration in
the world without gravity, leaky integrals. Sensors are joined by their confidence, each held and faded on its own.
"""

import importlib.util
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from eqdiff_jax.data.imu import BODY_HEIGHT, GAIN, GRAVITY, LEAK
from eqdiff_jax.errors import InputError
from eqdiff_jax.live.controls import Reading, Row
from eqdiff_jax.live.performer import LOW, faded
from eqdiff_jax.live.pose import IDENTITY, Gather, Quaternion, Vector, inverse, normalised, product, rotated
from eqdiff_jax.live.timeline import Timeline
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME

FUSED = ("accel", "gyro", "gravity")
SAMPLES = 64  # kept of a sensor
SHORTEST, LONGEST = 1.0 / 500.0, 0.1  # s between samples, as they are integrated
PAUSE = 1.0  # s after which a sensor begins anew
MOST, FORGOTTEN = 32, 10.0  # sensors; s of silence after which one makes room
LARGEST = 1e3  # g or rad/s
# North, west, up to our world: west is +x, up +y, north +z.
_TURNED: Quaternion = (-0.5, -0.5, -0.5, 0.5)


def require(rows: Sequence[Row]) -> None:
    """Raises InputError if the rows need imufusion and it is not installed."""
    wanting = [row.to for row in rows if row.component in FUSED]
    if wanting and importlib.util.find_spec("imufusion") is None:
        raise InputError(f"{wanting[0]} in the map needs the package imufusion: pip install 'eqdiff_jax[imu]'")


class Sensor:
    """One sensor on one limb."""

    def __init__(self, limb: int):
        self.limb = limb
        self.last = -math.inf
        self._parts = Gather()
        self._time = Timeline()
        self._filter: Any = None  # imufusion's, made when it is first needed
        self._before: tuple[float, Quaternion] | None = None  # time and orientation of the last sample
        self._velocity, self._place = np.zeros(3), np.zeros(3)
        self._samples: deque[tuple[float, np.ndarray]] = deque(maxlen=SAMPLES)  # time, [8]
        self._rest = REST_FRAME[limb].astype(np.float64)

    def update(self, now: float, reading: Reading) -> None:
        """What a message tells of it."""
        self.last = now
        values = tuple(min(max(value, -LARGEST), LARGEST) for value in reading.values)
        frame = self._parts.add((reading.component, reading.axis), values)
        if self._parts.complete:
            frame = self._parts.end()
        if frame is not None:
            self._sample(now, {name: _joined(frame, name) for name, _ in frame})

    def _sample(self, now: float, parts: dict[str, Sequence[float]]) -> None:
        """One sample of all that the sensor measures."""
        time, new = self._time.place(now, None)
        if new or self._before is None or time - self._before[0] > PAUSE:
            self._before, self._velocity, self._place = None, np.zeros(3), np.zeros(3)
            self._samples.clear()
        passed = min(max(time - self._before[0], SHORTEST), LONGEST) if self._before is not None else 1.0 / 60.0
        turned = normalised(parts["quaternion"]) if "quaternion" in parts else None
        if turned is None:
            turned = self._oriented(parts, passed)
        turned = product(_TURNED, turned)
        pull: Vector = parts.get("accel", (0.0, 0.0, 0.0))
        acceleration = np.array(rotated(turned, pull[:3]))
        if "accel" in parts and "gravity" not in parts:
            acceleration[1] -= 1.0
        acceleration *= GRAVITY / BODY_HEIGHT
        turn = 0.0
        if self._before is not None:
            keep = math.exp(-passed / LEAK)
            self._velocity = keep * self._velocity + passed * acceleration
            self._place = keep * self._place + passed * self._velocity
            turn = 2.0 * math.acos(min(abs(product(inverse(self._before[1]), turned)[3]), 1.0)) / passed
        self._before = time, turned
        row = np.concatenate([self._rest[:3] + self._place, self._velocity, [turn, 1.0]])
        self._samples.append((time, np.clip(row, LOW, RANGES)))

    def _oriented(self, parts: dict[str, Sequence[float]], passed: float) -> Quaternion:
        """Sensor to north, west, up, by gyroscope and specific force."""
        import imufusion  # optional, and `require` has seen that it is there

        if self._filter is None:
            self._filter = imufusion.Ahrs()
            self._filter.set_settings(imufusion.AhrsSettings(
                convention=imufusion.CONVENTION_NWU, sample_rate=1.0 / passed, gain=GAIN, gyroscope_range=2000.0))
        self._filter.set_sample_period(passed)
        force = parts.get("gravity", parts.get("accel", (0.0, 0.0, 0.0)))
        gyroscope = parts.get("gyro", (0.0, 0.0, 0.0))
        self._filter.update_no_magnetometer(np.degrees(gyroscope), np.array(force, dtype=np.float64))
        w, x, y, z = self._filter.get_quaternion().tolist()
        return normalised((x, y, z, w)) or IDENTITY

    def row(self, now: float) -> np.ndarray | None:
        """[8] of its limb at `now`, held and faded when it is silent; None before the first sample."""
        time = self._time.read(now)
        if time is None or not self._samples:
            return None
        times = [sample[0] for sample in self._samples]
        k = int(np.searchsorted(times, time))
        if k == len(times):
            frame = REST_FRAME.astype(np.float64)
            frame[self.limb] = self._samples[-1][1]
            return faded(frame, time - times[-1])[self.limb]
        end = self._samples[k][1]
        if k == 0:
            return end
        start = self._samples[k - 1][1]
        return start + (time - times[k - 1]) / max(times[k] - times[k - 1], 1e-9) * (end - start)


def _joined(frame: dict[tuple[str, int | None], Sequence[float]], name: str) -> Sequence[float]:
    """A component given whole, or axis by axis."""
    if (name, None) in frame:
        return frame[name, None]
    return [frame.get((name, axis), (0.0,))[0] for axis in range(4 if name == "quaternion" else 3)]


class Sensors:
    """All sensors together, a player of the Cast."""

    def __init__(self) -> None:
        self.last = -math.inf
        self._sensors: dict[tuple[str, int], Sensor] = {}  # by host and limb

    def update(self, host: str, now: float, reading: Reading) -> bool:
        """What a message from `host` tells of a limb; False where there are too many sensors."""
        sensor = self._sensors.get((host, reading.limb))
        if sensor is None:
            for key in [key for key, other in self._sensors.items() if now - other.last > FORGOTTEN]:
                del self._sensors[key]
            if len(self._sensors) >= MOST:
                return False
            sensor = self._sensors[host, reading.limb] = Sensor(reading.limb)
        sensor.update(now, reading)
        self.last = now
        return True

    def frame(self, now: float) -> np.ndarray:
        """Limb frame f32 [27, 8]: each limb the mean of its sensors by confidence, its confidence the largest."""
        frame = REST_FRAME.astype(np.float64)
        known: dict[int, list[np.ndarray]] = {}
        for sensor in self._sensors.values():
            row = sensor.row(now)
            if row is not None:
                known.setdefault(sensor.limb, []).append(row)
        for limb, rows in known.items():
            weights = np.array([row[7] for row in rows])
            if weights.sum() > 0.0:
                frame[limb] = weights @ np.array(rows) / weights.sum()
                frame[limb, 7] = weights.max()
        return frame.astype(np.float32)
