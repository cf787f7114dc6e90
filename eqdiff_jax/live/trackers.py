"""VRChat's OSC trackers: a head and up to eight worn trackers to a world pose of the 27 limbs.

    /tracking/trackers/{head, 1..8}/position x y z    m, Unity's world, y up from the floor
    /tracking/trackers/{head, 1..8}/rotation x y z    degrees, Unity's order: turned about z, then x, then y

Nobody says where a tracker is worn: after SETTLE frames of the same trackers each is given the place of the standing
body that it is nearest to, among hips, chest, knees, feet and elbows, at most one to a place. Limbs in between lie on
straight lines, with confidence 0.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from eqdiff_jax.live.pose import (
    HANGING,
    IDENTITY,
    Gather,
    Pose,
    Quaternion,
    Vector,
    complete,
    confidences,
    inverse,
    mirrored,
    product,
    rotated,
)
from eqdiff_jax.motion.skeleton import LIMB, REST, REST_HIPS

PREFIX = "/tracking/trackers/"
SETTLE = 15  # frames, about 0.3 s
GUESSED = 0.5  # confidence of hips that follow from the head
HEAD = LIMB["head"]
HEAD_AT = REST_HIPS + float(REST[HEAD, 1])  # its height, body heights
METRES, LOWEST = 1.7, 0.6  # body height without a head on a floor; a head is above this, m
ROLES = [0, LIMB["torso_6"]] + [LIMB[f"{side}_{part}"] for part in ("low_leg", "foot", "low_arm") for side in "lr"]
NAMES = ("head", *map(str, range(1, 9)))
_ADDRESSES = {f"{PREFIX}{name}/{kind}": (name, kind) for name in NAMES for kind in ("position", "rotation")}


def _standing() -> np.ndarray:
    """Places [2, 8, 3] of ROLES over the floor between the feet: arms down, and elbows out sideways."""
    places = np.stack([REST[ROLES]] * 2) + (0.0, REST_HIPS, 0.0)
    for row, limb in enumerate(ROLES):
        if limb in (LIMB["l_low_arm"], LIMB["r_low_arm"]):
            upper = REST[limb - 1]
            reach = np.linalg.norm(REST[limb] - upper) * np.sign(upper[0])
            places[1, row] = upper + (reach, REST_HIPS, 0.0)
    return places


_STANDING = _standing()


class Trackers:
    """The frames of one sender."""

    def __init__(self) -> None:
        self._parts = Gather()
        self._names: tuple[str, ...] = ()
        self._same = 0  # frames in which the trackers have been the same
        self._height = METRES
        self._limbs: dict[str, int] = {}  # tracker -> where it is worn
        self._worn: dict[str, Quaternion] = {}  # tracker -> from its turn to the limb's

    def take(self, address: str, args: Sequence) -> Pose | None:
        """One message in; the pose of the frame that it ends, if it does. Nothing is raised."""
        part = _ADDRESSES.get(address)
        if part is None or len(args) < 3 or any(type(value) not in (float, int) for value in args[:3]):
            return None
        x, y, z = (float(value) for value in args[:3])
        frame = self._parts.add(part, mirrored((x, y, z), IDENTITY)[0] if part[1] == "position" else euler(x, y, z))
        if self._parts.complete:
            frame = self._parts.end()
        return self._pose(frame) if frame is not None else None

    def _pose(self, frame: Mapping[tuple[str, str], Sequence[float]]) -> Pose | None:
        places = {name: frame[name, "position"] for name in NAMES if (name, "position") in frame}
        turns = {name: frame.get((name, "rotation"), IDENTITY) for name in places}
        names = tuple(places)
        self._same = self._same + 1 if names == self._names else 0
        self._names = names
        if self._same == SETTLE:
            self._calibrate(places, turns)
        limbs = {name: limb for name, limb in self._limbs.items() if name in places}
        at = {limb: places[name] for name, limb in limbs.items()}
        turned = {limb: product(turns[name], self._worn[name]) for name, limb in limbs.items()}
        sure = dict.fromkeys(at, 1.0)
        if 0 not in at:
            if HEAD not in at:
                return None
            facing = _yaw(turned[HEAD])
            drop = rotated(facing, tuple((-self._height * REST[HEAD]).tolist()))
            (a, b, c), (x, y, z) = at[HEAD], drop
            at[0], turned[0], sure[0] = (a + x, b + y, c + z), facing, GUESSED
        positions, rotations = complete(at, turned, offsets=HANGING, scale=self._height)
        return Pose(positions, rotations, confidences(sure), None, self._height)

    def _calibrate(self, places: Mapping[str, Vector], turns: Mapping[str, Quaternion]) -> None:
        """Sets the height and which tracker is worn where, from a frame in which the body stands."""
        head = places.get("head")
        self._height = head[1] / HEAD_AT if head is not None and head[1] > LOWEST else METRES
        facing = _yaw(turns["head"]) if head is not None else IDENTITY
        worn = [name for name in places if name != "head"]
        middle = head if head is not None else np.mean(list(places.values()), axis=0).tolist()
        self._limbs = {"head": HEAD} if head is not None else {}
        if worn:
            seen = np.array([rotated(inverse(facing), (places[name][0] - middle[0], places[name][1],
                                                       places[name][2] - middle[2])) for name in worn])
            away = np.linalg.norm(seen[None, :, None] / self._height - _STANDING[:, None], axis=-1).min(0)
            self._limbs |= {worn[row]: ROLES[role] for row, role in zip(*linear_sum_assignment(away), strict=True)}
        self._worn = {name: product(inverse(turns[name]), facing) for name in self._limbs}


def euler(x: float, y: float, z: float) -> Quaternion:
    """Unity's Euler angles, degrees, to a quaternion of our world."""
    a, b, c = (math.radians(angle % 360.0) / 2.0 for angle in (x, y, z))
    turn = product((0.0, math.sin(b), 0.0, math.cos(b)),
                   product((math.sin(a), 0.0, 0.0, math.cos(a)), (0.0, 0.0, math.sin(c), math.cos(c))))
    return mirrored((0.0, 0.0, 0.0), turn)[1]


def _yaw(turn: Quaternion) -> Quaternion:
    """The part about y of a rotation, by where it takes +z."""
    x, _, z = rotated(turn, (0.0, 0.0, 1.0))
    half = math.atan2(x, z) / 2.0
    return (0.0, math.sin(half), 0.0, math.cos(half))
