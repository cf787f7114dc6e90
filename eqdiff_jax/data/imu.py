"""Recordings of one inertial sensor -> limb frames [T, 27, 8] in which that limb alone has confidence.

    gyroscope, accelerometer -> orientation (imufusion) -> gravity removed, world frame -> leaky integrals -> 60 Hz

A sensor is a partial performer: it names its limb, so it passes by the skeleton's mapping (which refuses a body with
fewer than seven limbs), and several are joined by `fused`. Nothing measures its heading, which is that of the first
sample, nor its place: velocity and position forget with LEAK seconds, so that they hold what the body does in a beat.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from eqdiff_jax import motion
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.resample import RATE
from eqdiff_jax.motion.skeleton import LIMB

GRAVITY = 9.81  # m/s^2
BODY_HEIGHT = 1.7  # m, unless the performer's is known
GAIN = 2.0  # of the accelerometer over the gyroscope
LEAK = 0.5  # s, after which the integrals of acceleration have forgotten
PHONE = ("rotationRate", "gravity", "userAcceleration")  # rad/s, g, g: MotionSense, an iPhone in a pocket
EULER = ("yaw_hand", "pitch_hand", "roll_hand")  # degrees: CG4002, a sensor on the hand
LARGEST_ANGLE = 400.0  # degrees; what lies beyond is a transmission error


def load_imu(path: str | Path, *, limb: str | None = None, rate: float = 50.0,
             height: float = BODY_HEIGHT) -> np.ndarray:
    """Limb frames float32 [T, 27, 8] at 60 Hz of a CSV recording, the kind told by its columns.

    Args:
      limb: where the sensor is; the right upper leg for a phone, the right hand for yaw, pitch and roll.
      rate: samples per second. height: the performer's, m.
    Yaw, pitch and roll say how the hand turns; the accelerometer beside them has no known unit and is left out.
    Raises InputError: missing, not a recording, damaged, or an unknown limb.
    """
    path = Path(path)
    if not rate > 0.0 or not height > 0.0:
        raise InputError(f"{path}: rate {rate:g} Hz and height {height:g} m must be positive")
    columns = _columns(path)
    if all(f"{name}.{axis}" in columns for name in PHONE for axis in "xyz"):
        gyroscope, gravity, user = (np.stack([columns[f"{name}.{axis}"] for axis in "xyz"], 1) for name in PHONE)
        # The phone has told gravity from acceleration, with more samples than it wrote. Its signs are those of an
        # accelerometer that reads -1 g upwards at rest.
        turned, _ = orientation(gyroscope, -gravity, rate)
        return limb_frames(limb or "r_up_leg", turned, turned.apply(-GRAVITY / height * user), rate)
    if all(name in columns for name in EULER):
        angles = np.stack([columns[name] for name in EULER], 1)
        angles = angles[(np.abs(angles) <= LARGEST_ANGLE).all(1)]
        if len(angles):
            turned = _turned(Rotation.from_euler("ZYX", angles, degrees=True))
            return limb_frames(limb or "r_hand", turned, np.zeros_like(angles), rate)
    raise InputError(f"{path}: neither columns {PHONE[0]}.x … {PHONE[2]}.z nor {', '.join(EULER)} with angles in "
                     "degrees; give a recording of one of these kinds")


def orientation(gyroscope: np.ndarray, force: np.ndarray, rate: float) -> tuple[Rotation, np.ndarray]:
    """Orientations of a sensor in the world (y up) and its acceleration there, without gravity. T and [T, 3] m/s^2

    The gyroscope [T, 3], rad/s, is integrated and its drift from the vertical mended by the specific force [T, 3], in
    g (1 upwards at rest), with a time constant of about 1/GAIN s.
    """
    try:
        import imufusion
    except ImportError:
        raise InputError("inertial sensors need the package imufusion: pip install 'eqdiff_jax[imu]'") from None
    filtered = imufusion.Ahrs()
    filtered.set_settings(imufusion.AhrsSettings(
        convention=imufusion.CONVENTION_NWU, sample_rate=rate, gain=GAIN, gyroscope_range=2000.0))
    quaternions, acceleration = np.empty((len(force), 4)), np.empty((len(force), 3))
    for i, (turn, pull) in enumerate(zip(np.degrees(gyroscope), force, strict=True)):
        filtered.update_no_magnetometer(turn, pull)
        quaternions[i] = filtered.get_quaternion()  # w, x, y, z
        acceleration[i] = filtered.get_earth_acceleration()
    return _turned(Rotation.from_quat(np.roll(quaternions, -1, axis=1))), GRAVITY * acceleration[:, [1, 2, 0]]


def _turned(rotations: Rotation) -> Rotation:
    """North, west, up -> the world of motion/skeleton.py: west is +x, up +y, north +z."""
    return Rotation.from_matrix([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]) * rotations


def limb_frames(limb: str, rotations: Rotation, acceleration: np.ndarray, rate: float) -> np.ndarray:
    """Limb frames [T, 27, 8] at 60 Hz of T orientations and accelerations [T, 3] (body heights/s^2) of one limb.

    v' = a - v/LEAK and x' = v - x/LEAK; the position is the limb's at rest plus x, the angular speed the angle
    between neighbours. Every other limb rests with confidence 0.
    """
    if limb not in LIMB:
        raise InputError(f"unknown limb {limb!r}: name one of {', '.join(LIMB)}")
    keep = np.exp(-1.0 / (LEAK * rate))
    velocity, place = np.zeros_like(acceleration), np.zeros_like(acceleration)
    for i in range(1, len(acceleration)):
        velocity[i] = keep * velocity[i - 1] + acceleration[i] / rate
        place[i] = keep * place[i - 1] + velocity[i] / rate
    turns = np.zeros(len(acceleration))
    if len(turns) > 1:
        turns[1:] = (rotations[:-1].inv() * rotations[1:]).magnitude() * rate
        turns[0] = turns[1]
    rest = REST_FRAME[LIMB[limb]]
    values = np.column_stack([rest[:3] + place, velocity, turns, np.ones(len(turns))])
    times = np.arange(int((len(values) - 1) / rate * RATE + 1e-6) + 1) / RATE * rate  # in samples
    frames = np.tile(REST_FRAME, (len(times), 1, 1))
    for feature in range(8):
        frames[:, LIMB[limb], feature] = np.interp(times, np.arange(len(values)), values[:, feature])
    return motion.clean(frames)


def fused(devices: Sequence[np.ndarray]) -> np.ndarray:
    """One performer of several devices' limb frames [T, 27, 8], as long as the shortest.

    Each limb is the mean over devices weighted by confidence, its confidence the largest.
    """
    if not devices:
        raise InputError("no device to fuse: give at least one")
    length = min(map(len, devices))
    stack = np.stack([device[:length] for device in devices])  # [D, T, 27, 8]
    weight = stack[..., 7:]
    known = weight.sum(0) > 0.0
    mean = (weight * stack).sum(0) / np.where(known, weight.sum(0), 1.0)
    mean = np.where(known, mean, REST_FRAME)
    mean[..., 7] = stack[..., 7].max(0)
    return motion.clean(mean)


def _columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file by name, rows with a number missing left out of those that are numbers."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); give a recording") from None
    if len(rows) < 3:
        raise InputError(f"{path}: {max(len(rows) - 1, 0)} samples are no recording; give at least 2 under a header")
    wanted = [i for i, name in enumerate(rows[0]) if name in EULER or name.partition(".")[0] in PHONE]
    kept = []
    for row in rows[1:]:
        try:
            numbers = [float(row[i]) for i in wanted]
        except (ValueError, IndexError):
            continue  # a line that was cut
        if np.isfinite(numbers).all():
            kept.append(numbers)
    if len(kept) < 2:
        raise InputError(f"{path}: no two samples with all of their numbers; record it again")
    return dict(zip([rows[0][i] for i in wanted], np.array(kept).reshape(len(kept), -1).T, strict=True))
