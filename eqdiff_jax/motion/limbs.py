"""World poses at any rate -> limb frames [T, 27, 8] at exactly 60 Hz.

A limb's eight features: position (3, body heights), linear velocity (3, body heights/s), angular
speed (1, rad/s), confidence (1, 0 to 1). The frame has its origin at the hips, y up, heading
removed; the hips' own position slot is (0, height above rest, 0). Rates are backward
differences, so a frame depends on itself and the one before: a stream and a file agree.
A limb without data stands at its rest position, unmoving, with confidence 0.
"""

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import bvh
from eqdiff_jax.motion.resample import MAX_SECONDS, RATE, bridge, resample
from eqdiff_jax.motion.skeleton import BONES, LIMB, PARENTS, REST, match, require

RANGES = np.array([3.0] * 3 + [30.0] * 3 + [60.0, 1.0], np.float32)  # largest |feature|
TURN = 20.0  # rad/s, the fastest that the heading follows; a dancer's spin is below 19
LEVEL = 0.3  # below this horizontal share of the body's left-right axis the heading slows down
DECAY = 6.0  # frames after which the rates of a limb that went silent have halved
REST_FRAME = np.pad(REST, ((0, 0), (0, 5))).astype(np.float32)  # [27, 8] nothing is known
SIDES = [(LIMB[f"l_{part}"], LIMB[f"r_{part}"]) for part in ("up_leg", "up_arm", "shoulder")]

# All that numpy raises on a damaged file.
_DAMAGED = (OSError, ValueError, EOFError, SyntaxError, MemoryError, zipfile.BadZipFile, zlib.error,
            tokenize.TokenError)


def load(path: str | Path) -> np.ndarray:
    """Limb frames f32 [T, 27, 8] at 60 Hz of a .bvh file, or recorded ones of a .npy/.npz file.

    An .npz keeps them under `limbs`.

    Raises:
      InputError: missing, unknown kind, damaged, or not a body; one line with the fix.
    """
    path = Path(path)
    readers = {".bvh": _load_bvh, ".npy": _load_numpy, ".npz": _load_numpy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown kind of motion file; give one of {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    return reader(path)


def _load_bvh(path: Path) -> np.ndarray:
    clip = bvh.without_lead_in(bvh.read_bvh(path))
    joints = require(match(clip.names), clip.names, str(path))
    positions, rotations = clip.positions[:, joints], clip.rotations[:, joints]
    confidence = np.broadcast_to((joints >= 0).astype(np.float64), positions.shape[:2])
    try:
        return from_world(clip.times, positions, rotations, confidence)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _load_numpy(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            stored = np.load(file, allow_pickle=False)
            limbs = stored if isinstance(stored, np.ndarray) else stored["limbs"]
    except KeyError:
        raise InputError(f"{path}: holds no array named 'limbs'; save one [T, 27, 8]") from None
    except _DAMAGED as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read ({why}); save it with numpy again") from None
    try:
        return clean(limbs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_world(
    times: np.ndarray,
    positions: np.ndarray,
    rotations: np.ndarray,
    confidence: np.ndarray,
    *,
    height: float | None = None,
    rest_hips: float | None = None,
) -> np.ndarray:
    """Limb frames f32 [T, 27, 8] at 60 Hz from world poses with time stamps.

    Args:
      times: [F] seconds, strictly increasing.
      positions: [F, 27, 3], y up, any length unit.
      rotations: [F, 27, 4] quaternions (x, y, z, w), either sign.
      confidence: [F, 27] in 0 to 1; 0 where a limb is not tracked.
      height: body height in the unit of `positions`; estimated from the bones when None.
      rest_hips: world height of the standing performer's hips, likewise.
    Raises:
      InputError: shapes or time stamps are wrong, or no frame shows the hips.
    """
    times, positions, rotations, confidence = _checked(times, positions, rotations, confidence)
    positions, rotations, confidence = bridge(times, positions, rotations, confidence)
    tracked = np.any(confidence > 0.0, axis=0)
    height = body_height(positions, tracked) if height is None else height
    rest_hips = standing_hips(positions, tracked) if rest_hips is None else rest_hips
    positions, rotations, confidence = resample(times, positions, rotations, confidence)
    limbs = features(positions / height, rotations, confidence, rest_hips=rest_hips / height)
    return clean(np.where(confidence[..., None] > 0.0, limbs, np.nan))


def features(
    positions: np.ndarray, rotations: np.ndarray, confidence: np.ndarray, *, rest_hips: float
) -> np.ndarray:
    """Limb features [T, 27, 8] of world poses at 60 Hz.

    With Y the rotation by minus the heading: p = Y (x - x_hips), v = 60 Y (x_t - x_{t-1}),
    w = 60 |log(R_{t-1}^T R_t)|. The first frame takes the second's rates, a lone frame none.

    Args:
      positions: [T, 27, 3] body heights, y up. rotations: [T, 27, 4] quaternions.
      confidence: [T, 27]. rest_hips: height of the standing hips in the same world.
    """
    tracked = np.any(confidence > 0.0, axis=0)
    heading = headings(positions, tracked)
    relative = _yawed(positions - positions[:, :1], heading)
    relative[:, 0] = 0.0
    relative[:, 0, 1] = positions[:, 0, 1] - rest_hips
    steps = np.diff(positions, axis=0) * RATE
    turns = _angles(rotations[:-1], rotations[1:]) * RATE
    if len(positions) == 1:
        steps, turns = np.zeros_like(positions), np.zeros_like(confidence)
    else:
        steps, turns = np.concatenate([steps[:1], steps]), np.concatenate([turns[:1], turns])
    velocity = _yawed(steps, heading)
    return np.concatenate([relative, velocity, turns[..., None], confidence[..., None]], axis=-1)


def headings(positions: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """Heading [T] in radians about y (0 faces +z), continuous and never undefined.

    The body's left-right axis (hips and shoulders) points left; its horizontal part, of length
    s of 1, gives the angle. The heading follows it exactly up to TURN rad/s, and slower, by
    (s / LEVEL)^2, as the axis nears the vertical: lying on one's side it stands still.

    Args:
      positions: [T, 27, 3] world. tracked: [27] bool; without any left-right pair it is 0.
    """
    pairs = [(left, right) for left, right in SIDES if tracked[left] and tracked[right]]
    if not pairs:
        return np.zeros(len(positions))
    units = (_unit(positions[:, left] - positions[:, right]) for left, right in pairs)
    axis = sum(units, np.zeros((len(positions), 3)))
    axis = axis / len(pairs)
    angles = np.arctan2(-axis[:, 2], axis[:, 0])  # left is +x when facing +z
    limits = TURN / RATE * np.minimum(1.0, np.hypot(axis[:, 0], axis[:, 2]) / LEVEL) ** 2
    heading = np.empty(len(positions))
    current = angles[0]
    for frame, (angle, limit) in enumerate(zip(angles, limits, strict=True)):
        turn = (angle - current + np.pi) % (2.0 * np.pi) - np.pi
        current += min(max(turn, -limit), limit)
        heading[frame] = current
    return heading


def body_height(positions: np.ndarray, tracked: np.ndarray) -> float:
    """Body height in the unit of `positions` [F, 27, 3]: bone lengths over those of the rest body.

    height = sum |bone| / sum |rest bone| over hips to head and thigh to ankle (every bone where
    those are not tracked), each bone the median over frames: no particular pose is needed.
    Against a real stature it is good to about 5 %.

    Raises:
      InputError: the limbs coincide.
    """
    legs = [LIMB[f"{side}_{part}"] for side in "lr" for part in ("low_leg", "foot")]
    upright = [*range(1, 11), *legs]
    for limbs in (upright, range(1, len(PARENTS))):
        bones, rests = [], []
        for limb in limbs:
            ancestor, rest = PARENTS[limb], BONES[limb]
            while ancestor > 0 and not tracked[ancestor]:
                rest, ancestor = rest + BONES[ancestor], PARENTS[ancestor]
            if tracked[limb]:
                bones.append(_median_length(positions[:, limb] - positions[:, ancestor]))
                rests.append(rest)
        if sum(rests) > 0.3:
            break
    if not sum(bones) > 0.0:
        raise InputError("all limbs lie in one point; give a motion with a body's proportions")
    return float(sum(bones) / sum(rests))


def standing_hips(positions: np.ndarray, tracked: np.ndarray) -> float:
    """World height of the hips when standing: ankle level + straight leg + hips over leg joint.

    The ankle level is the 5th percentile over frames of the lowest ankle. Without a tracked leg
    it is the hips' median height. Unit as `positions` [F, 27, 3].
    """
    heights = positions[..., 1]
    legs = [[LIMB[f"{side}_{part}"] for part in ("up_leg", "low_leg", "foot")] for side in "lr"]
    legs = [leg for leg in legs if tracked[leg].all()]
    if not legs:
        return float(np.median(heights[:, 0]))
    lengths = [
        _median_length(positions[:, hip] - positions[:, knee])
        + _median_length(positions[:, knee] - positions[:, ankle])
        for hip, knee, ankle in legs
    ]
    floor = np.percentile(np.min([heights[:, leg[2]] for leg in legs], axis=0), 5)
    over = np.median([heights[:, 0] - heights[:, leg[0]] for leg in legs])
    return float(floor + np.mean(lengths) + over)


def clean(limbs: np.ndarray) -> np.ndarray:
    """Finite limb frames f32 [T, 27, 8] inside RANGES, from any real array of that shape.

    A limb with a non-finite value keeps the position of its last good frame (rest before the
    first) and the rates of it, halving every DECAY frames, and has confidence 0 there.
    Each component is clipped: positions to 3 body heights, velocities to 30 per second, angular
    speed to 0..60 rad/s, confidence to 0..1.

    Raises:
      InputError: the shape is wrong, there is no frame, or no limb is finite in any frame.
    """
    if np.iscomplexobj(limbs):
        raise InputError("limb frames are complex; give real numbers [T, 27, 8]")
    try:
        limbs = np.asarray(limbs, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("limb frames are no numbers; give real numbers [T, 27, 8]") from None
    if limbs.ndim != 3 or limbs.shape[1:] != (27, 8) or len(limbs) == 0:
        raise InputError(
            f"limb frames have shape {list(limbs.shape)}; give [T, 27, 8] with T at least 1"
        )
    good = np.isfinite(limbs).all(axis=-1)  # [T, 27]
    if not good.any():
        raise InputError("no limb is finite in any frame; record or export the motion again")
    frames = np.arange(len(limbs))[:, None]
    last = np.maximum.accumulate(np.where(good, frames, -1), axis=0)
    held = np.take_along_axis(limbs, np.maximum(last, 0)[..., None], axis=0)
    held = np.where((last >= 0)[..., None], held, REST_FRAME)
    held[..., 3:7] *= 0.5 ** ((frames - last) / DECAY)[..., None]
    held[..., 7] *= good
    low = np.where(np.arange(8) < 6, -RANGES, 0.0)
    return np.clip(held, low, RANGES).astype(np.float32)

def _checked(times, positions, rotations, confidence):
    """The arguments of `from_world` as float64 arrays of the right shapes."""
    arrays = [np.asarray(a, dtype=np.float64) for a in (times, positions, rotations, confidence)]
    frames = len(arrays[0])
    shapes = [(frames,), (frames, 27, 3), (frames, 27, 4), (frames, 27)]
    names = ("times", "positions", "rotations", "confidence")
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        if array.shape != shape or frames == 0:
            raise InputError(f"{name} has shape {list(array.shape)}; give {list(shape)}, F >= 1")
    if not np.isfinite(arrays[0]).all() or not (np.diff(arrays[0]) > 0.0).all():
        raise InputError("time stamps must be finite and strictly increasing; sort them")
    if arrays[0][-1] - arrays[0][0] > MAX_SECONDS:
        raise InputError(f"the motion is longer than {MAX_SECONDS:.0f} s; cut it into pieces")
    return arrays


def _angles(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Angle |log(R_0^T R_1)| in [0, pi] between quaternions [..., 4]; their signs do not matter."""
    first, second = Rotation.from_quat(start.reshape(-1, 4)), Rotation.from_quat(end.reshape(-1, 4))
    return (first.inv() * second).magnitude().reshape(start.shape[:-1])


def _yawed(vectors: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Vectors [T, 27, 3] seen from a body that faces `heading` [T]."""
    cosine, sine = np.cos(heading)[:, None], np.sin(heading)[:, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _median_length(vectors: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(vectors, axis=-1)))
