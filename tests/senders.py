"""Bodies that move, and the packets that VMC, mocopi and VRChat senders make of them, written without the receivers.

Worlds are motion/skeleton.py's; what is sent is in the sender's own world.
"""

import struct
from typing import NamedTuple

import numpy as np
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder
from scipy.spatial.transform import Rotation

from eqdiff_jax.motion.skeleton import LIMB, OFFSETS, PARENTS, forward_kinematics

BONES = {"Hips": "root", "Spine": "torso_2", "Chest": "torso_4", "UpperChest": "torso_6", "Neck": "neck_1",
         "Head": "head"} | {
    f"{side}{bone}": f"{side[0].lower()}_{limb}" for side in ("Left", "Right") for bone, limb in (
        ("Shoulder", "shoulder"), ("UpperArm", "up_arm"), ("LowerArm", "low_arm"), ("Hand", "hand"),
        ("UpperLeg", "up_leg"), ("LowerLeg", "low_leg"), ("Foot", "foot"), ("Toes", "toes"))}
T_POSE = OFFSETS.copy()
for _side, _sign in (("l", 1.0), ("r", -1.0)):
    for _part in ("low_arm", "hand"):
        T_POSE[LIMB[f"{_side}_{_part}"]] = (_sign * np.linalg.norm(OFFSETS[LIMB[f"{_side}_{_part}"]]), 0.0, 0.0)


class Body(NamedTuple):
    """A dance: local rotations [T, 27, 4] from the T-pose and the hips' path [T, 3] at `times` [T]."""

    times: np.ndarray
    local: np.ndarray
    hips: np.ndarray

    def world(self, height=1.0):
        """World positions [T, 27, 3] and rotations [T, 27, 4]."""
        bones = np.tile(T_POSE, (len(self.times), 1, 1))
        bones[:, 0] = self.hips
        return forward_kinematics(PARENTS, height * bones, self.local)


def body(seconds=4.0, fps=60.0, size=0.4, seed=0) -> Body:
    """Every bone that VMC names swings on its own; the body turns, sways and bobs."""
    random = np.random.default_rng(seed)
    times = np.arange(round(seconds * fps) + 1) / fps
    rates, phases = random.uniform(2.0, 6.0, (27, 3)), random.uniform(0.0, 6.0, (27, 3))
    angles = size * np.sin(rates * times[:, None, None] + phases)
    named = [LIMB[limb] for limb in BONES.values()]
    angles[:, np.setdiff1d(np.arange(27), named)] = 0.0
    angles[:, 0] = np.stack([0.1 * np.sin(times), 0.7 * times, 0.1 * np.sin(2.0 * times)], -1)
    local = Rotation.from_rotvec(angles.reshape(-1, 3)).as_quat().reshape(-1, 27, 4)
    hips = np.stack([0.1 * np.sin(times), 0.53 + 0.03 * np.sin(5.0 * times), 0.1 * np.cos(2.0 * times)], -1)
    return Body(times, local, hips)


def unity(positions, rotations):
    """Right-handed to Unity: mirrored in x."""
    return positions * (-1.0, 1.0, 1.0), rotations * (1.0, -1.0, -1.0, 1.0)


def message(address: str, *args) -> object:
    """One message of python-osc."""
    builder = OscMessageBuilder(address)
    for arg in args:
        builder.add_arg(arg)
    return builder.build()


def bundle(messages) -> bytes:
    """A bundle's bytes, by python-osc."""
    builder = OscBundleBuilder(IMMEDIATELY)
    for one in messages:
        builder.add_content(one)
    return builder.build().dgram


def vmc_messages(dance: Body, frame: int, *, metres: float | None = None, bones=tuple(BONES)) -> list:
    """A frame's bones: places 0 but for the hips', or, with a body height in m, all of them."""
    size = 1.7 if metres is None else metres
    offsets = T_POSE * size
    offsets[0] = dance.hips[frame] * size
    messages = []
    for bone in bones:
        limb = LIMB[BONES[bone]]
        place = _between(limb, bones, offsets) if metres is not None or limb == 0 else np.zeros(3)
        place, turn = unity(place, dance.local[frame, limb])
        messages.append(message("/VMC/Ext/Bone/Pos", bone, *map(float, (*place, *turn))))
    return messages


def _between(limb: int, bones, offsets) -> np.ndarray:
    """Bone vector from the nearest ancestor that is sent; those between do not turn."""
    sent = {LIMB[BONES[bone]] for bone in bones}
    place, parent = offsets[limb].copy(), PARENTS[limb]
    while parent > 0 and parent not in sent:
        place, parent = place + offsets[parent], PARENTS[parent]
    return place


def vmc_packet(dance: Body, frame: int, **kind) -> bytes:
    """A frame as one bundle that ends with OK and T."""
    end = [message("/VMC/Ext/OK", 1, 3, 0, 1), message("/VMC/Ext/T", float(dance.times[frame]))]
    return bundle(vmc_messages(dance, frame, **kind) + end)


def chunk(name: str, value: bytes) -> bytes:
    """mocopi's chunk."""
    return struct.pack("<I", len(value)) + name.encode() + value


def mocopi_head() -> bytes:
    return chunk("head", chunk("ftyp", b"sony motion format") + chunk("vrsn", b"\x01")) + chunk(
        "sndf", chunk("ipad", bytes(8)) + chunk("rcvp", struct.pack("<H", 12351)))


def mocopi_bone(kind: str, bone: int, turn, place, extra=b"") -> bytes:
    return chunk(kind, chunk("bnid", struct.pack("<H", bone)) + extra
                 + chunk("tran", struct.pack("<7f", *turn, *place)))


def mocopi_packet(dance: Body, frame: int, *, metres=1.7, left_handed=False) -> bytes:
    """A frame as mocopi sends it."""
    places, turns = T_POSE * metres, dance.local[frame]
    places[0] = dance.hips[frame] * metres
    if left_handed:
        places, turns = unity(places, turns)
    bones = b"".join(mocopi_bone("btdt", bone, turns[bone], places[bone]) for bone in range(27))
    return mocopi_head() + chunk("fram", chunk("fnum", struct.pack("<I", 1000 + frame))
                                 + chunk("time", struct.pack("<f", frame / 60.0))
                                 + chunk("uttm", struct.pack("<d", 1.7e9 + frame / 60.0))
                                 + chunk("tmcd", bytes(6)) + chunk("btrs", bones))


def mocopi_skeleton(metres=1.7) -> bytes:
    """The packet that comes before the frames."""
    bones = b"".join(mocopi_bone("bndt", bone, (0, 0, 0, 1), metres * T_POSE[bone],
                                 chunk("pbid", struct.pack("<h", PARENTS[bone]))) for bone in range(27))
    return mocopi_head() + chunk("skdf", chunk("bons", bones))


def tracker_messages(positions, rotations, worn: dict[str, int]) -> list:
    """VRChat messages of one frame: `worn` says which limb's world place [27, 3] and turn [27, 4] a tracker sends."""
    messages = []
    for name, limb in worn.items():
        place, turn = unity(positions[limb], rotations[limb])
        y, x, z = Rotation.from_quat(turn).as_euler("YXZ", degrees=True)
        messages.append(message(f"/tracking/trackers/{name}/position", *map(float, place)))
        messages.append(message(f"/tracking/trackers/{name}/rotation", float(x), float(y), float(z)))
    return messages
