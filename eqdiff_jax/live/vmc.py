"""VMC protocol: Unity's humanoid bones, by name, to a world pose of the 27 limbs.

    /VMC/Ext/Bone/Pos name px py pz qx qy qz qw   a bone in its parent's frame
    /VMC/Ext/Root/Pos name px py pz qx qy qz qw   the avatar in the world
    /VMC/Ext/OK loaded [calibration [mode [tracking]]]      /VMC/Ext/T seconds

A frame is over with T or OK, when a bone comes again, or when T is known and all bones of the frame before have
come. Bones whose positions are 0 hang on the rest skeleton, arms out, where Unity's rotations are identities.
Fingers, eyes, faces, devices, unknown addresses and further arguments are ignored.
"""

import math
from collections.abc import Sequence

from eqdiff_jax.live.pose import (
    ARMS_OUT,
    IDENTITY,
    Gather,
    Pose,
    Quaternion,
    Vector,
    complete,
    confidences,
    mirrored,
    normalised,
    product,
    rotated,
    tree,
)
from eqdiff_jax.motion.skeleton import LIMB, REST_HIPS

PREFIX = "/VMC/Ext/"
CALIBRATED = 3  # the last of four calibration states
METRES = 1.7  # height taken where nothing tells it
SILENT_CLOCK = 3  # frames without T after which the sender has no clock

_SIDED = ("Shoulder", "UpperArm", "LowerArm", "Hand", "UpperLeg", "LowerLeg", "Foot", "Toes")
_LIMBS = ("shoulder", "up_arm", "low_arm", "hand", "up_leg", "low_leg", "foot", "toes")
BONES = {"Hips": 0, "Spine": LIMB["torso_2"], "Chest": LIMB["torso_4"], "UpperChest": LIMB["torso_6"],
         "Neck": LIMB["neck_1"], "Head": LIMB["head"]}
BONES |= {side + bone: LIMB[f"{side[0].lower()}_{limb}"]
          for side in ("Left", "Right") for bone, limb in zip(_SIDED, _LIMBS, strict=True)}


class Vmc:
    """The frames of one sender."""

    def __init__(self) -> None:
        self._bones = Gather()  # limb -> its place and turn in its parent's frame, our handedness
        self._root: tuple[Vector, Quaternion] = ((0.0, 0.0, 0.0), IDENTITY)
        self._usable = True
        self._time: float | None = None  # of the frame that is open
        self._without = SILENT_CLOCK  # frames since the last T
        self._unit: float | None = None  # body heights to the sender's length unit, where bones have no lengths

    def take(self, address: str, args: Sequence) -> Pose | None:
        """One message in; the pose of the frame that it ends, if it does. Nothing is raised."""
        if address == "/VMC/Ext/Bone/Pos":
            return self._bone(args)
        if address == "/VMC/Ext/Root/Pos":
            self._root = _transform(args) or self._root
        elif address == "/VMC/Ext/T":
            if args and type(args[0]) in (float, int):
                return self._clock(float(args[0]))
        elif address == "/VMC/Ext/OK":
            states = [arg for arg in args[:4] if type(arg) is int]
            self._usable = len(states) == min(len(args), 4) > 0 and states[0] != 0
            self._usable &= (len(states) < 2 or states[1] == CALIBRATED) and (len(states) < 4 or states[3] != 0)
            if len(self._bones) and self._timed:
                return self._ended(self._bones.end())
        return None

    @property
    def _timed(self) -> bool:
        """Whether the open frame has all the time it will get."""
        return self._time is not None or self._without >= SILENT_CLOCK

    def _bone(self, args: Sequence) -> Pose | None:
        limb = BONES.get(args[0]) if args and type(args[0]) is str else None
        local = _transform(args) if limb is not None else None
        if local is None:
            return None
        frame = self._bones.add(limb, local)
        pose = self._ended(frame) if frame is not None else None
        if self._bones.complete and self._timed:
            pose = self._ended(self._bones.end())
        return pose

    def _clock(self, time: float) -> Pose | None:
        """T of the frame it ends, or, from a sender who says it first, of the frame to come."""
        self._without = 0
        if not len(self._bones):
            self._time = time
            return None
        if self._time is None:
            self._time = time
            return self._ended(self._bones.end())
        pose = self._ended(self._bones.end())
        self._time = time
        return pose

    def _ended(self, frame: dict[int, tuple[Vector, Quaternion]]) -> Pose | None:
        time, self._time = self._time, None
        self._without += time is None
        if 0 not in frame:
            return None
        known = tuple(sorted(frame))
        rows = tree(known, ARMS_OUT)
        given = [(frame[limb][0], bone) for limb, _, bone in rows if math.hypot(*frame[limb][0]) > 1e-5]
        lengths = sum(math.hypot(*bone) for _, bone in given)
        scale = sum(math.hypot(*place) for place, _ in given) / lengths if lengths > 0.0 else 1.0
        body = 1.0 if given else self._body_heights(frame[0][0][1])
        (x, y, z), turn = self._root
        a, b, c = rotated(turn, frame[0][0])
        places: dict[int, Vector] = {0: (body * (x + a), body * (y + b), body * (z + c))}
        turns: dict[int, Quaternion] = {0: product(turn, frame[0][1])}
        for limb, parent, bone in rows:
            place, turn = frame[limb]
            if not math.hypot(*place) > 1e-5:
                place = (scale * bone[0], scale * bone[1], scale * bone[2])
            (x, y, z), (a, b, c) = places[parent], rotated(turns[parent], place)
            places[limb], turns[limb] = (x + a, y + b, z + c), product(turns[parent], turn)
        positions, rotations = complete(places, turns, offsets=ARMS_OUT, scale=scale)
        confidence = confidences(dict.fromkeys(known, 1.0 if self._usable else 0.0))
        return Pose(positions, rotations, confidence, time, None if given else 1.0)

    def _body_heights(self, hips: float) -> float:
        """What takes the hips' path to body heights: they stood at rest when they were first seen off the floor."""
        if self._unit is None and hips > 0.1:
            self._unit = REST_HIPS / hips
        return self._unit or 1.0 / METRES


def _transform(args: Sequence) -> tuple[Vector, Quaternion] | None:
    """Place and turn after the name, in our handedness; None where they are none."""
    values = args[1:8]
    if len(values) < 7 or any(type(value) not in (float, int) for value in values):
        return None
    turn = normalised(values[3:])
    return mirrored(values[:3], turn) if turn is not None else None
