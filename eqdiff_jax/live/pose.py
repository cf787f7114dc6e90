"""One world pose of the 27 limbs, and how it is made of what a sender gives: bones, trackers or points.

World as motion/skeleton.py: y up, the performer's left is +x when facing +z, right-handed. Unity's is left-handed
with x to the right, so it is mirrored in x: positions (-x, y, z), quaternions (x, -y, -z, w).
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from eqdiff_jax.motion.skeleton import LIMB, OFFSETS, PARENTS

Vector = Sequence[float]  # 3 numbers
Quaternion = Sequence[float]  # x, y, z, w

IDENTITY: Quaternion = (0.0, 0.0, 0.0, 1.0)
FORGET = 10  # frames after which a part that no longer comes is missing
HANGING = tuple(map(tuple, OFFSETS.tolist()))  # bone vectors of the rest pose, arms down, body heights


def _arms_out() -> tuple[Vector, ...]:
    offsets = OFFSETS.copy()
    for side, sign in (("l", 1.0), ("r", -1.0)):
        for part in ("low_arm", "hand"):
            limb = LIMB[f"{side}_{part}"]
            offsets[limb] = (sign * np.linalg.norm(OFFSETS[limb]), 0.0, 0.0)
    return tuple(map(tuple, offsets.tolist()))


ARMS_OUT = _arms_out()  # the same body with its arms held out sideways: where Unity's rotations are identities


class Pose(NamedTuple):
    """One body at one moment, all finite."""

    positions: np.ndarray  # [27, 3] world, y up, any length unit
    rotations: np.ndarray  # [27, 4] world, unit quaternions
    confidence: np.ndarray  # [27] in 0..1; a limb nobody reports has 0 and moves with its neighbours
    stamp: float | None = None  # s of the sender's own clock, None where it has none
    height: float | None = None  # of the body in the unit of `positions`, None where it is to be learned


class Gather:
    """Collects the parts of one frame, which a sender gives one by one.

    A frame is over when a part comes again, or when all parts of the frame before have come. A part that was lost on
    the way keeps its last value for FORGET frames.
    """

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}
        self._missed: dict[Any, int] = {}
        self._waiting: set = set()  # parts of the frame before that have not come yet
        self._seen: set = set()

    @property
    def complete(self) -> bool:
        """Whether all parts of the frame before have come again."""
        return bool(self._seen and self._missed) and not self._waiting

    def __len__(self) -> int:
        """Parts that have come of the frame that is open."""
        return len(self._seen)

    def add(self, part: Hashable, value: Any) -> dict | None:
        """Takes one part; the frame that its coming again ends, if it does."""
        ended = self.end() if part in self._seen else None
        self._seen.add(part)
        self._waiting.discard(part)
        self._values[part] = value
        return ended

    def end(self) -> dict:
        """The frame as it is: {part: value}. The next one begins."""
        for part in list(self._values):
            missed = 0 if part in self._seen else self._missed.get(part, 0) + 1
            self._missed[part] = missed
            if missed > FORGET:
                del self._values[part], self._missed[part]
        self._waiting = set(self._values)
        self._seen.clear()
        return dict(self._values)


def mirrored(position: Vector, rotation: Quaternion) -> tuple[Vector, Quaternion]:
    """Unity's left-handed world to ours, or back."""
    (x, y, z), (a, b, c, w) = position, rotation
    return (-x, y, z), (a, -b, -c, w)


def product(p: Quaternion, q: Quaternion) -> Quaternion:
    """The rotation q, then p."""
    (a, b, c, d), (x, y, z, w) = p, q
    return (d * x + a * w + b * z - c * y, d * y - a * z + b * w + c * x,
            d * z + a * y - b * x + c * w, d * w - a * x - b * y - c * z)


def inverse(q: Quaternion) -> Quaternion:
    """Of a unit quaternion."""
    return (-q[0], -q[1], -q[2], q[3])


def rotated(q: Quaternion, v: Vector) -> Vector:
    """The vector v turned by the unit quaternion q."""
    (a, b, c, w), (x, y, z) = q, v
    s, t, u = 2.0 * (b * z - c * y), 2.0 * (c * x - a * z), 2.0 * (a * y - b * x)
    return (x + w * s + b * u - c * t, y + w * t + c * s - a * u, z + w * u + a * t - b * s)


def normalised(q: Iterable[float]) -> Quaternion | None:
    """q at length 1, None where it is no rotation."""
    x, y, z, w = q
    length = math.sqrt(x * x + y * y + z * z + w * w)
    return (x / length, y / length, z / length, w / length) if 1e-3 < length < 1e3 else None


def _next(limb: int) -> int | None:
    """The limb that goes on the same chain outwards."""
    return limb + 1 if limb + 1 < len(PARENTS) and PARENTS[limb + 1] == limb else None


@lru_cache(maxsize=64)
def tree(known: tuple[int, ...], offsets: tuple[Vector, ...]) -> tuple[tuple[int, int, Vector], ...]:
    """Of each known limb but the root: (limb, its nearest known ancestor, the bone vector between them at rest)."""
    rows = []
    for limb in known[1:]:
        bone, parent = np.array(offsets[limb]), int(PARENTS[limb])
        while parent > 0 and parent not in known:
            bone, parent = bone + np.array(offsets[parent]), int(PARENTS[parent])
        rows.append((limb, parent, tuple(bone.tolist())))
    return tuple(rows)


@lru_cache(maxsize=64)
def _fills(known: tuple[int, ...]) -> tuple[tuple[int, int, int, float], ...]:
    """Of each unknown limb: (limb, parent, next known limb of its chain or -1, share of the way there)."""
    rows = []
    lengths = [math.hypot(*bone) for bone in HANGING]
    for limb, parent in enumerate(PARENTS.tolist()):
        if limb in known:
            continue
        end, way = _next(limb), lengths[limb]
        while end is not None and end not in known:
            way, end = way + lengths[end], _next(end)
        rows.append((limb, parent, -1, 0.0) if end is None
                    else (limb, parent, end, lengths[limb] / (way + lengths[end])))
    return tuple(rows)


def complete(positions: Mapping[int, Vector], rotations: Mapping[int, Quaternion], *, offsets: tuple[Vector, ...],
             scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Positions [27, 3] and rotations [27, 4] of all limbs from those of some, the root among them.

    A limb nobody knows turns with its parent. It lies on the straight line to the next known limb of its chain, or at
    the end of a chain where the parent carries it; `offsets` are the bone vectors at identity, times `scale`.
    """
    known = tuple(sorted(positions))
    places: list[Vector] = [positions.get(limb, (0.0, 0.0, 0.0)) for limb in range(len(PARENTS))]
    turns: list[Quaternion] = [rotations.get(limb, IDENTITY) for limb in range(len(PARENTS))]
    for limb, parent, end, share in _fills(known):
        (x, y, z), turns[limb] = places[parent], turns[parent]
        if end >= 0:
            a, b, c = places[end]
            places[limb] = (x + share * (a - x), y + share * (b - y), z + share * (c - z))
        else:
            a, b, c = rotated(turns[parent], offsets[limb])
            places[limb] = (x + scale * a, y + scale * b, z + scale * c)
    return np.array(places), np.array(turns)


def confidences(known: Mapping[int, float]) -> np.ndarray:
    """[27] of the confidence of each known limb, 0 elsewhere."""
    values = np.zeros(len(PARENTS))
    for limb, value in known.items():
        values[limb] = value
    return values


_MIDDLES = ((0, LIMB["l_up_leg"], LIMB["r_up_leg"]), (LIMB["torso_7"], LIMB["l_up_arm"], LIMB["r_up_arm"]))
_CHAIN = np.array([PARENTS.tolist().index(limb) if limb in PARENTS else -1 for limb in range(len(PARENTS))])
_AIMED = np.flatnonzero(_CHAIN >= 0)  # limbs with a limb after them, which they point at
_POINTING = OFFSETS[_CHAIN[_AIMED]] / np.linalg.norm(OFFSETS[_CHAIN[_AIMED]], axis=-1, keepdims=True)


def from_points(points: Mapping[int, Vector], confidence: Mapping[int, float]) -> Pose | None:
    """A pose of places alone: each limb is turned so that it points at the next. None where the hips are unknown.

    The hips lie between the upper legs and the top of the torso between the upper arms where they are not given.
    """
    points = dict(points)
    sure = {limb: confidence.get(limb, 1.0) for limb in points}
    for limb, left, right in _MIDDLES:
        if limb not in points and left in points and right in points:
            points[limb] = tuple((a + b) / 2.0 for a, b in zip(points[left], points[right], strict=True))
            sure[limb] = min(sure[left], sure[right])
    if 0 not in points:
        return None
    positions, _ = complete(points, {}, offsets=HANGING, scale=0.0)
    side = positions[LIMB["l_up_leg"]] - positions[LIMB["r_up_leg"]]
    heading = math.atan2(-side[2], side[0]) if math.hypot(side[0], side[2]) > 0.0 else 0.0
    cosine, sine = math.cos(heading), math.sin(heading)
    yaw = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    aims = (positions[_CHAIN[_AIMED]] - positions[_AIMED]) @ yaw  # seen by one who faces that way
    aims /= np.maximum(np.linalg.norm(aims, axis=-1, keepdims=True), 1e-9)
    # The shortest turn from a to b is the quaternion (a x b, 1 + a b), at length 1.
    arcs = np.concatenate([np.cross(_POINTING, aims), 1.0 + (_POINTING * aims).sum(-1, keepdims=True)], axis=-1)
    lengths = np.linalg.norm(arcs, axis=-1, keepdims=True)
    arcs = np.where(lengths > 1e-6, arcs / np.maximum(lengths, 1e-6), IDENTITY)
    half = (0.0, math.sin(heading / 2.0), 0.0, math.cos(heading / 2.0))
    turns: list[Quaternion] = [IDENTITY] * len(PARENTS)
    for limb, arc in zip(_AIMED.tolist(), arcs.tolist(), strict=True):
        turns[limb] = product(half, arc)
    for limb in set(range(len(PARENTS))) - set(_AIMED.tolist()):
        turns[limb] = turns[int(PARENTS[limb])]
    return Pose(positions, np.array(turns), confidences(sure))
