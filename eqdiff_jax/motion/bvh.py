"""BVH motion capture files -> world poses of every joint.

The hierarchy is parsed by bvhio. The motion block is read here, in float64 and all frames at
once, because bvhio never returns from a block that is cut short and keeps poses in float32.
"""

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.skeleton import forward_kinematics

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Importing PyGLM", PendingDeprecationWarning)
    import bvhio

_MOTION = re.compile(
    r"^[ \t]*MOTION[ \t]*\r?\n\s*Frames:[ \t]*(?P<frames>\S+)[ \t]*\r?\n"
    r"\s*Frame[ \t]+Time:[ \t]*(?P<seconds>\S+)[ \t]*(?:\r?\n|$)",
    re.MULTILINE,
)
_JOINT = re.compile(r"^\s*(?:ROOT|JOINT)[ \t]+(\S.*?)\s*$", re.MULTILINE)
_CHANNEL = re.compile(r"^([XYZ])(position|rotation)$")
LEAD_IN = 6.0  # body extents per second


class Clip(NamedTuple):
    """A motion capture clip: F frames of J joints in the world, in the file's length unit."""

    names: tuple[str, ...]  # [J] as written in the file
    parents: tuple[int, ...]  # [J] -1 for the root
    times: np.ndarray  # [F] seconds
    positions: np.ndarray  # [F, J, 3] y up
    rotations: np.ndarray  # [F, J, 4] unit quaternions (x, y, z, w)


def read_bvh(path: str | Path) -> Clip:
    """World poses of every joint of a BVH file; End Sites are left out.

    Euler channels compose in the file's order (R = R_1 R_2 R_3); position channels replace the
    joint's OFFSET, on any joint. A non-finite number makes the joint and all that hang on it NaN.

    Raises:
      InputError: missing, not a BVH, cut short, or inconsistent; one line with the fix.
    """
    path = Path(path)
    text = _read_text(path)
    header, block, frames, seconds = _split(text, path)
    names, parents, offsets, channels = _hierarchy(header, path)
    values = _frames(block, frames, sum(len(joint) for joint in channels), path)
    translations, rotations = _local_poses(values, offsets, channels, path)
    positions, world = _masked_kinematics(parents, translations, rotations)
    if not np.isfinite(positions).any():
        raise InputError(f"{path}: no frame holds a finite pose; export the file again")
    return Clip(names, parents, np.arange(frames) * seconds, positions, world)


def without_lead_in(clip: Clip) -> Clip:
    """The clip without the rest pose that several exporters put in front of the movement.

    Frames go while the joints leave them, on average, faster than LEAD_IN extents of the body
    per second, which no sprinter does; at most the first tenth of a second goes.
    """
    early = int(np.searchsorted(clip.times, 0.1)) + 1
    steps = np.linalg.norm(np.diff(clip.positions[:early], axis=0), axis=-1).mean(axis=-1)
    extent = np.ptp(clip.positions[:early], axis=1).max(axis=-1).min()
    slow = ~(steps > LEAD_IN * extent * np.diff(clip.times[:early]))
    first = int(np.argmax(slow)) if slow.any() else 0
    return clip._replace(
        times=clip.times[first:], positions=clip.positions[first:], rotations=clip.rotations[first:]
    )


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); give a BVH file") from None
    if text.split(None, 1)[:1] != ["HIERARCHY"]:
        raise InputError(f"{path}: not a BVH file (it must begin with HIERARCHY); give a BVH file")
    return text


def _split(text: str, path: Path) -> tuple[str, str, int, float]:
    """(hierarchy text, motion block, frame count, frame time in s); no section is cut."""
    motion = _MOTION.search(text)
    if motion is None:
        raise _cut(path, "it has no complete MOTION header (Frames and Frame Time)")
    header = text[: motion.start()]
    if header.count("{") != header.count("}"):
        raise _cut(path, f"{header.count('{')} '{{' but {header.count('}')} '}}' in its hierarchy")
    try:
        frames, seconds = int(motion["frames"]), float(motion["seconds"])
    except ValueError:
        raise InputError(
            f"{path}: Frames and Frame Time are {motion['frames']!r} and {motion['seconds']!r},"
            " not numbers; export the file again"
        ) from None
    if frames < 1 or not 0.0 < seconds <= 1.0:
        raise InputError(
            f"{path}: {frames} frames of {seconds} s; needs at least one frame and a Frame Time"
            " above 0 and at most 1 s; export the file again"
        )
    return header, text[motion.end() :], frames, seconds


def _cut(path: Path, why: str) -> InputError:
    return InputError(f"{path}: the file is cut or damaged: {why}; export or copy it again")


def _hierarchy(
    header: str, path: Path
) -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray, list[list[str]]]:
    """Names, parents, offsets [J, 3] and channels, depth first, as bvhio reads them."""
    try:
        root = bvhio.readAsBvh(str(path), loadKeyFrames=False).Root
    except (SyntaxError, IndexError, ValueError, TypeError, RecursionError) as error:
        why = error.msg if isinstance(error, SyntaxError) else error
        raise InputError(f"{path}: its hierarchy is damaged ({why}); export it again") from None
    layout = root.layout()
    parents: list[int] = []
    stack: list[int] = []
    for index, (_, _, depth) in enumerate(layout):
        stack = stack[:depth]
        parents.append(stack[-1] if stack else -1)
        stack.append(index)
    names = tuple(_JOINT.findall(header))  # whole names: bvhio keeps a name's first word
    if len(names) != len(layout):
        raise InputError(f"{path}: its hierarchy is damaged (unnamed joints); export it again")
    offsets = np.array([list(joint.Offset) for joint, _, _ in layout], dtype=np.float64)
    return names, tuple(parents), offsets, [joint.Channels for joint, _, _ in layout]


def _frames(block: str, frames: int, channels: int, path: Path) -> np.ndarray:
    """Channel values [F, C] of the motion block."""
    rows = [row for row in (line.split() for line in block.splitlines()) if row]
    if len(rows) != frames:
        raise _cut(path, f"it announces {frames} frames and holds {len(rows)}")
    for number, row in enumerate(rows, 1):
        if len(row) != channels:
            raise _cut(path, f"frame {number} has {len(row)} numbers where {channels} belong")
    try:
        return np.array(rows, dtype=np.float64).reshape(frames, channels)
    except ValueError as error:
        raise _cut(path, f"a frame holds something other than numbers ({error})") from None


def _local_poses(
    values: np.ndarray, offsets: np.ndarray, channels: list[list[str]], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Local translations [F, J, 3] and quaternions [F, J, 4]; NaN where a channel is not finite."""
    frames = len(values)
    translations = np.tile(offsets, (frames, 1, 1))
    rotations = np.tile([0.0, 0.0, 0.0, 1.0], (frames, len(offsets), 1))
    column = 0
    for joint, labels in enumerate(channels):
        kinds = [kind for label in labels if (kind := _CHANNEL.match(label))]
        if len(kinds) < len(labels):
            raise InputError(f"{path}: unknown channels {' '.join(labels)}; export it again")
        block = values[:, column : column + len(labels)]
        column += len(labels)
        order = ""
        turned: list[int] = []
        for place, kind in enumerate(kinds):
            if kind[2] == "position":
                translations[:, joint, "XYZ".index(kind[1])] = block[:, place]
            else:
                order, turned = order + kind[1], turned + [place]
        bad = ~np.isfinite(block).all(axis=1)
        if order:
            angles = np.where(bad[:, None], 0.0, block[:, turned])
            try:
                rotations[:, joint] = Rotation.from_euler(order, angles, degrees=True).as_quat()
            except ValueError as error:
                why = f"Euler order {order} ({error})"
                raise InputError(f"{path}: {why}; export it again") from None
        translations[bad, joint] = np.nan
    return translations, rotations


def _masked_kinematics(
    parents: tuple[int, ...], translations: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics; what hangs on a non-finite joint is NaN."""
    bad = ~np.isfinite(translations).all(axis=-1)  # [F, J]
    for joint, parent in enumerate(parents):
        if parent >= 0:
            bad[:, joint] |= bad[:, parent]
    positions, world = forward_kinematics(
        parents, np.where(bad[..., None], 0.0, translations), rotations
    )
    positions[bad], world[bad] = np.nan, np.nan
    return positions, world
