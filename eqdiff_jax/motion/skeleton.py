"""The 27 limbs, their tree and rest pose, and how foreign joint names map onto them.

World frame everywhere: y up, the performer's left is +x when facing +z, lengths in body heights
unless a function says otherwise. Quaternions are (x, y, z, w).
"""

import re
from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError

_ARM = ("shoulder", "up_arm", "low_arm", "hand")
_LEG = ("up_leg", "low_leg", "foot", "toes")
LIMBS = (
    ("root",)
    + tuple(f"torso_{i}" for i in range(1, 8))
    + ("neck_1", "neck_2", "head")
    + tuple(f"{side}_{part}" for chain in (_ARM, _LEG) for side in "lr" for part in chain)
)
LIMB = {name: index for index, name in enumerate(LIMBS)}
PARENTS = np.array(
    [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]  # hips, torso, neck, head
    + [7, 11, 12, 13, 7, 15, 16, 17]  # arms hang on torso_7
    + [0, 19, 20, 21, 0, 23, 24, 25]  # legs hang on the hips
)
MIN_LIMBS = 7  # a skeleton with fewer mapped limbs says too little about a body


def _rest_offsets() -> np.ndarray:
    """Bone vectors [27, 3] of an upright adult, arms hanging, fractions of body height."""
    offsets = np.zeros((27, 3))
    offsets[0] = (0.0, 0.53, 0.0)
    offsets[1:8] = [(0.0, rise, 0.0) for rise in (0.03, 0.036, 0.038, 0.04, 0.044, 0.05, 0.05)]
    offsets[8:11] = [(0.0, 0.028, 0.0)] * 3
    for side, sign in (("l", 1.0), ("r", -1.0)):
        arm, leg = LIMB[f"{side}_shoulder"], LIMB[f"{side}_up_leg"]
        offsets[arm : arm + 4] = [
            (sign * 0.02, -0.01, 0.0),
            (sign * 0.09, 0.005, 0.0),
            (sign * 0.015, -0.175, 0.0),
            (sign * 0.01, -0.145, 0.0),
        ]
        offsets[leg : leg + 4] = [
            (sign * 0.052, -0.01, 0.0),
            (0.0, -0.245, 0.0),
            (0.0, -0.236, 0.0),
            (0.0, -0.03, 0.1),
        ]
    return offsets


OFFSETS = _rest_offsets()
BONES = np.linalg.norm(OFFSETS, axis=-1)  # [27] bone lengths, body heights
REST_HIPS = float(OFFSETS[0, 1])  # height of the hips over the floor, body heights


def _chain_sums(offsets: np.ndarray) -> np.ndarray:
    """Positions [27, 3] of the unrotated skeleton, hips at the origin."""
    positions = np.zeros_like(offsets)
    for limb in range(1, len(offsets)):
        positions[limb] = positions[PARENTS[limb]] + offsets[limb]
    return positions


REST = _chain_sums(OFFSETS)  # [27, 3] rest positions relative to the hips


def forward_kinematics(
    parents: Sequence[int] | np.ndarray, translations: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """World pose of each joint: R_j = R_p R'_j and x_j = x_p + R_p t_j, with p j's parent.

    Args:
      parents: [J] parent index, -1 for a root; a parent stands before its children.
      translations: [T, J, 3] or [J, 3] bone vectors t in the parent's frame, any length unit.
      rotations: [T, J, 4] local unit quaternions R'.
    Returns:
      positions [T, J, 3] in the unit of `translations`; rotations [T, J, 4].
    """
    frames, joints = rotations.shape[:2]
    translations = np.array(np.broadcast_to(translations, (frames, joints, 3)), dtype=np.float64)
    positions = translations.copy()
    world: list[Rotation] = []
    for joint, parent in enumerate(parents):
        local = Rotation.from_quat(rotations[:, joint])
        world.append(local if parent < 0 else world[parent] * local)
        if parent >= 0:
            positions[:, joint] = positions[:, parent] + world[parent].apply(translations[:, joint])
    return positions, np.stack([rotation.as_quat() for rotation in world], axis=1)


# Names of one limb, best first; a name may stand for two limbs (a "shoulder" is the upper arm's
# joint where there is no better one), so the order of this table matters too.
_CENTRE = {"root": ("hips", "pelvis", "hip", "root"), "head": ("head", "skull")}
_SIDED = {
    "up_arm": ("uparm", "upperarm", "arm", "shldr", "humerus", "shoulder", "shoulderjoint"),
    "shoulder": ("collar", "clavicle", "shoulder", "collarbone", "scapula"),
    "low_arm": ("lowarm", "lowerarm", "forearm", "elbow", "radius"),
    "hand": ("wrist", "hand"),
    "up_leg": ("upleg", "upperleg", "thigh", "femur", "hip", "hipjoint", "buttock"),
    "low_leg": ("lowleg", "lowerleg", "shin", "calf", "knee", "tibia", "leg"),
    "foot": ("ankle", "foot"),
    "toes": ("toes", "toebase", "toe", "ball", "foot"),
}
_SPINE: tuple[str, ...] = ("waist", "lowerback", "back", "abdomen", "spine", "torso", "belly", "chest", "thorax")
_SPINE += ("ribcage", "upperback", "upperchest")  # from the hips upwards
_NECK = ("neck", "lowerneck", "upperneck")
_GLUED = re.compile(r"^(mixamorig|bip)\d*")  # prefixes that exporters join without a separator
_SIDE_WORDS = (("left", "l"), ("right", "r"))


def _readings(name: str) -> list[tuple[str, int]]:
    """Ways to read a name: lower case, no separators, 0, 1, … leading words dropped."""
    words = re.findall(r"[^\W_]+", re.split(r"[:|]", name)[-1].lower())
    joined = ["".join(words[start:]) for start in range(len(words))]
    glued = [_GLUED.sub("", text) for text in joined[:1]]
    texts = joined[:1] + glued + joined[1:]
    texts += [text[1:] for text in texts if text.startswith("c")]  # "c_hips": a centre mark
    return [(text, dropped) for dropped, text in enumerate(texts) if text]


def _sided(text: str) -> tuple[str, str] | None:
    """("l" or "r", bare name) of a side limb's name, None for any other."""
    known = {alias for aliases in _SIDED.values() for alias in aliases}
    for word, letter in _SIDE_WORDS:
        without = text.replace(word, "", 1)
        for bare in (without, text.removeprefix(letter), text.removesuffix(letter)):
            if bare != text and bare in known:
                return letter, bare
    return None


def _numbered(text: str) -> tuple[str, int]:
    """("spine", 2) of "spine02"; 0 where there is no number."""
    bare = text.rstrip("0123456789")
    return bare, int(text[len(bare) :] or 0)


def _spread(joints: Sequence[int], slots: Sequence[int]) -> dict[int, int]:
    """Slot -> joint: n joints spread evenly and in order over the slots, ends on ends."""
    count = min(len(joints), len(slots))
    if count == 0:
        return {}
    if count == 1:
        return {slots[(len(slots) - 1) // 2]: joints[0]}
    places = np.round(np.linspace(0, len(slots) - 1, count)).astype(int)
    chosen = np.round(np.linspace(0, len(joints) - 1, count)).astype(int)
    return {slots[place]: joints[joint] for place, joint in zip(places, chosen, strict=True)}


def match(names: Sequence[str]) -> np.ndarray:
    """Joint index of each limb [27], -1 for a limb that no name stands for.

    Case, separators, prefixes and the order of the names do not matter. A spine with fewer
    than seven joints is spread evenly, lowest joint on torso_1 and highest on torso_7.
    """
    found: dict[tuple[str, str], tuple[int, str, int]] = {}  # (side, bare name) -> best joint
    spine: dict[tuple[int, int], tuple[int, str, int]] = {}
    neck: dict[tuple[int, int], tuple[int, str, int]] = {}
    centre = {alias for aliases in _CENTRE.values() for alias in aliases}

    def offer(table: dict, entry: tuple, dropped: int, joint: int) -> None:
        candidate = (dropped, names[joint], joint)
        table[entry] = min(table.get(entry, candidate), candidate)

    for joint, name in enumerate(names):
        for text, dropped in _readings(name):
            bare, number = _numbered(text)
            if text in centre:
                offer(found, ("", text), dropped, joint)
            elif bare in _SPINE:
                offer(spine, (_SPINE.index(bare), number), dropped, joint)
            elif bare in _NECK:
                offer(neck, (_NECK.index(bare), number), dropped, joint)
            elif (sided := _sided(text)) is not None:
                offer(found, sided, dropped, joint)
            else:
                continue
            break

    joints = np.full(len(LIMBS), -1)
    taken: set[int] = set()

    def assign(limb: str, side: str, aliases: Sequence[str]) -> None:
        for alias in aliases:
            joint = found.get((side, alias), (0, "", -1))[2]
            if joint >= 0 and joint not in taken:
                joints[LIMB[limb]] = joint
                taken.add(joint)
                return

    for limb, aliases in _CENTRE.items():
        assign(limb, "", aliases)
    for side in "lr":
        for part, aliases in _SIDED.items():
            assign(f"{side}_{part}", side, aliases)
    for table, slots in ((spine, range(1, 8)), (neck, range(8, 10))):
        ordered = [table[entry][2] for entry in sorted(table)]
        for slot, joint in _spread(ordered, list(slots)).items():
            joints[slot] = joint
    return joints


def require(joints: np.ndarray, names: Sequence[str], source: str) -> np.ndarray:
    """`joints` [27] as `match` gives them, or InputError where they are too few to be a body.

    Raises:
      InputError: the hips are missing, or fewer than seven limbs are mapped.
    """
    mapped = int((np.asarray(joints) >= 0).sum())
    seen = ", ".join(list(names)[:6]) + (", …" if len(names) > 6 else "")
    fix = "rename its joints to mocopi, Unity (VMC) or Mixamo names"
    if joints[0] < 0:
        raise InputError(f"{source}: no joint is named like the hips (found {seen}); {fix}")
    if mapped < MIN_LIMBS:
        raise InputError(
            f"{source}: only {mapped} of its joints are known limbs, {MIN_LIMBS} are needed"
            f" (found {seen}); {fix}"
        )
    return joints
