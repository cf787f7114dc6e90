"""One performer: world poses as they arrive -> limb frames [27, 8] at 60 Hz that never stop and never jump.

    poses -> even time (timeline.py) -> interpolated -> limb features -> held, then faded to rest, when none come
"""

import bisect
import math

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.live.pose import Pose
from eqdiff_jax.live.timeline import LONGEST, Timeline
from eqdiff_jax.motion.limbs import DECAY, LEVEL, RANGES, REST_FRAME, SIDES, TURN, body_height, standing_hips
from eqdiff_jax.motion.resample import RATE

HOLD = 0.5  # s that the last pose stands when no other comes
FADE = 2.0  # s from there to rest
CATCH_UP = (0.1, 1.0)  # s of the passage from a held pose to the next, as long as it was held
ANEW = 0.5  # s of that passage, at least, to what begins anew
LEARN = 1.0  # s of poses that the body's height is learned from
EASE = 0.3  # s, time constant with which a better height is taken over
FARTHEST, SMALLEST = 1e4, 1e-3  # a coordinate, a body's height, in any unit
POSES = 64  # kept to interpolate, at least CLOSEST apart: a quarter of a second
CLOSEST = 1.0 / 250.0  # s
LOW = np.where(np.arange(8) < 6, -RANGES, 0.0)


def faded(frame: np.ndarray, age: float) -> np.ndarray:
    """A limb frame [27, 8] that is `age` seconds old: rates die away, and after HOLD all goes to rest within FADE."""
    frame = frame.copy()
    frame[:, 3:7] *= 0.5 ** (age * RATE / DECAY)
    return mixed(frame, REST_FRAME, (age - HOLD) / FADE)


def mixed(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """From one frame to another, gently at both ends."""
    share = min(max(share, 0.0), 1.0)
    share *= share * (3.0 - 2.0 * share)
    return start + share * (end - start)


class Performer:
    """One body. Poses come in by `update` in any rhythm, frames go out by `frame` at each 60 Hz tick."""

    def __init__(self) -> None:
        self.last = -math.inf  # arrival of the last pose
        self._out = REST_FRAME.astype(np.float64)
        self._asked = -math.inf  # when a frame was last asked for
        self._stale: tuple[np.ndarray, float] | None = None  # the last frame that was seen, and when it was current
        self.restart()

    def restart(self) -> None:
        """The sender begins anew: nothing that was received has to do with what will be."""
        self._time = Timeline()
        self._learned: list[Pose] | None = []  # None when enough has been learned
        self._began = 0.0  # when the first of them came
        self._size: np.ndarray | None = None  # [2] body height, height of the standing hips, as they are used
        self._better: np.ndarray | None = None  # [2] as they were measured
        self._cut()

    def _cut(self) -> None:
        self._times: list[float] = []
        self._poses: list[Pose] = []
        self._heading: float | None = None
        self._passage = (self._out, -math.inf, 1.0)  # a frame to leave, from when, for how long
        self._shortest = ANEW

    def update(self, now: float, pose: Pose) -> bool:
        """A pose that arrived now; False where it says nothing: not finite, or hips without confidence."""
        positions, rotations, confidence = pose.positions, pose.rotations, pose.confidence
        if not confidence[0] > 0.0 or not all(np.isfinite(part).all() for part in (positions, rotations, confidence)):
            return False
        pose = pose._replace(positions=np.clip(positions, -FARTHEST, FARTHEST))
        time, new = self._time.place(now, pose.stamp)
        if new or now - self.last > HOLD:
            self._cut()
        self.last = now
        self._learn(now, pose)
        at = bisect.bisect_left(self._times, time)
        if any(abs(time - other) < CLOSEST for other in self._times[max(at - 1, 0):at + 1]):
            return True
        self._times.insert(at, time)
        self._poses.insert(at, pose)
        del self._times[:-POSES], self._poses[:-POSES]
        return True

    def frame(self, now: float) -> np.ndarray:
        """Limb frame f32 [27, 8] at `now`, the nominal time of the tick, on the clock of `update`."""
        passed = now - self._asked
        self._asked = now
        if not 0.0 <= passed < LONGEST:  # nobody watched
            passed, self._heading = 1.0 / RATE, None
        self._ease(passed)
        time = self._time.read(now)
        if time is not None and self._times and self._times[0] <= time <= self._times[-1] and self._size is not None:
            target = self._features(time, passed)
            if self._stale is not None:
                length = min(max(now - self._stale[1], self._shortest), CATCH_UP[1])
                self._passage, self._stale, self._shortest = (self._out, now, length), None, CATCH_UP[0]
            out = mixed(self._passage[0], target, (now - self._passage[1]) / self._passage[2])
        else:
            if self._stale is None:
                self._stale = self._out, now - passed
            out = faded(self._stale[0], now - self._stale[1])
        self._out = np.clip(out, LOW, RANGES)
        return self._out.astype(np.float32)

    def _features(self, time: float, passed: float) -> np.ndarray:
        """[27, 8] as motion.limbs.features gives them, of the body at `time` and one tick before."""
        assert self._size is not None
        height, rest_hips = self._size
        positions, rotations, confidence = self._at(time)
        span = min(1.0 / RATE, time - self._times[0])
        frame = np.zeros((27, 8))
        heading = self._turned(positions, confidence, passed)
        relative = positions - positions[0]
        relative[0, 1] = positions[0, 1] - rest_hips
        frame[:, :3] = _yawed(relative, heading) / height
        if span > CLOSEST / 2.0:
            before, turned, _ = self._at(time - span)
            frame[:, 3:6] = _yawed(positions - before, heading) / (height * span)
            frame[:, 6] = 2.0 / span * np.arccos(np.minimum(np.abs((rotations * turned).sum(-1)), 1.0))
        frame[:, 7] = confidence
        return frame

    def _at(self, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions [27, 3], rotations [27, 4] and confidence [27] between the poses around `time`: a cubic through
        them with the slopes of their neighbours, slerp, the lesser confidence."""
        times, poses = self._times, self._poses
        k = min(max(bisect.bisect_right(times, time) - 1, 0), max(len(times) - 2, 0))
        if len(times) == 1:
            return poses[0].positions, poses[0].rotations, poses[0].confidence
        span = times[k + 1] - times[k]
        share = min(max((time - times[k]) / span, 0.0), 1.0)
        start, end = poses[k], poses[k + 1]
        step = end.positions - start.positions
        positions = start.positions + share * step
        # Hermite's cubic is the straight line and s (1-s) ((1-s) (m_0 - step) - s (m_1 - step)), with the slopes m.
        if k > 0 and times[k + 1] - times[k - 1] < LONGEST:
            slope = (end.positions - poses[k - 1].positions) * (span / (times[k + 1] - times[k - 1]))
            positions += share * (1.0 - share) ** 2 * (slope - step)
        if k + 2 < len(times) and times[k + 2] - times[k] < LONGEST:
            slope = (poses[k + 2].positions - start.positions) * (span / (times[k + 2] - times[k]))
            positions -= share**2 * (1.0 - share) * (slope - step)
        return positions, _slerp(start.rotations, end.rotations, share), np.minimum(start.confidence, end.confidence)

    def _turned(self, positions: np.ndarray, confidence: np.ndarray, passed: float) -> float:
        """The heading after `passed` seconds, as motion.limbs.headings follows it."""
        axis, pairs = np.zeros(3), 0
        for left, right in SIDES:
            if confidence[left] > 0.0 and confidence[right] > 0.0:
                across = positions[left] - positions[right]
                axis += across / max(math.sqrt(across @ across), 1e-9)
                pairs += 1
        if pairs == 0:
            return self._heading or 0.0
        x, _, z = (axis / pairs).tolist()
        angle = math.atan2(-z, x)
        if self._heading is None:
            self._heading = angle
        limit = TURN * passed * min(1.0, math.hypot(x, z) / LEVEL) ** 2
        turn = (angle - self._heading + math.pi) % (2.0 * math.pi) - math.pi
        self._heading += min(max(turn, -limit), limit)
        return self._heading

    def _learn(self, now: float, pose: Pose) -> None:
        """Measures the body at the first pose, and again after LEARN seconds of them."""
        if self._learned is None:
            return
        self._began = now if not self._learned else self._began
        self._learned.append(pose)
        done = now - self._began >= LEARN
        if self._size is not None and not done:
            return
        some = self._learned[::max(1, len(self._learned) // 32)]
        tracked = np.any([pose.confidence > 0.0 for pose in some], axis=0)
        positions = np.stack([pose.positions for pose in some])
        try:
            height = pose.height or body_height(positions, tracked)
        except InputError:  # all limbs in one point
            height = 0.0
        if height < SMALLEST:
            self._learned = []
            return
        self._better = np.array([height, standing_hips(positions, tracked)])
        self._size = self._better.copy() if self._size is None else self._size
        self._learned = None if done else self._learned

    def _ease(self, passed: float) -> None:
        """Takes over what was measured."""
        if self._size is not None and self._better is not None:
            self._size += (1.0 - math.exp(-passed / EASE)) * (self._better - self._size)


def _yawed(vectors: np.ndarray, heading: float) -> np.ndarray:
    """Vectors [27, 3] seen from a body that faces `heading`."""
    cosine, sine = math.cos(heading), math.sin(heading)
    return vectors @ np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


def _slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """Quaternions [27, 4] on the shorter arc."""
    cosine = (start * end).sum(-1, keepdims=True)
    end = np.where(cosine < 0.0, -end, end)
    angle = np.arccos(np.minimum(np.abs(cosine), 1.0))
    near = angle < 1e-4
    sine = np.where(near, 1.0, np.sin(angle))
    first = np.where(near, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    second = np.where(near, share, np.sin(share * angle) / sine)
    return first * start + second * end
