"""Time-stamped poses at any rate -> poses at exactly 60 Hz, gaps bridged."""

import numpy as np
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError

RATE = 60.0  # frames per second
MAX_SECONDS = 7200.0  # longest recording taken in one piece


def bridge(
    times: np.ndarray, positions: np.ndarray, rotations: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaps filled by straight lines and slerp, with confidence 0 there, so that all is finite.

    Without the hips nothing has a place: all limbs of such a frame are gaps. Shapes as `resample`.

    Raises:
      InputError: no frame shows the hips.
    """
    good = np.isfinite(positions).all(-1) & np.isfinite(rotations).all(-1) & (confidence > 0.0)
    good &= np.linalg.norm(rotations, axis=-1) > 1e-6
    good &= good[:, :1]
    if not good.any():
        raise InputError("no frame shows the hips; record or export the motion again")
    positions, rotations = positions.copy(), rotations.copy()
    for limb in np.flatnonzero(~good.all(axis=0)):
        known = np.flatnonzero(good[:, limb])
        if len(known) == 0:
            positions[:, limb], rotations[:, limb] = 0.0, (0.0, 0.0, 0.0, 1.0)
            continue
        after = np.searchsorted(known, np.arange(len(times)))
        left, right = known[np.maximum(after - 1, 0)], known[np.minimum(after, len(known) - 1)]
        span = times[right] - times[left]
        share = np.clip((times - times[left]) / np.where(span > 0.0, span, 1.0), 0.0, 1.0)
        start, end = positions[left, limb], positions[right, limb]
        positions[:, limb] = start + share[:, None] * (end - start)
        rotations[:, limb] = _slerp(rotations[left, limb], rotations[right, limb], share)
    return positions, rotations, np.where(good, np.clip(confidence, 0.0, 1.0), 0.0)


def resample(
    times: np.ndarray, positions: np.ndarray, rotations: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses at t_0 + k/60 s up to the last time stamp: cubic spline, slerp, the lesser confidence.

    Args as `from_world`, all finite; returns [T, 27, 3], [T, 27, 4], [T, 27].
    """
    if len(times) == 1:
        return positions, rotations, confidence
    count = int((times[-1] - times[0]) * RATE + 1e-6) + 1
    grid = np.minimum(times[0] + np.arange(count) / RATE, times[-1])
    before = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(times) - 2)
    share = (grid - times[before]) / (times[before + 1] - times[before])
    turned = _slerp(rotations[before], rotations[before + 1], share[:, None])
    # a frame that coincides with a sample takes that sample's confidence alone
    low = np.where(share[:, None] < 1.0 - 1e-6, confidence[before], 1.0)
    high = np.where(share[:, None] > 1e-6, confidence[before + 1], 1.0)
    from scipy.interpolate import CubicSpline  # for files only; much else comes with it
    return CubicSpline(times, positions)(grid), turned, np.minimum(low, high)


def _slerp(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    """R_0 exp(s log(R_0^T R_1)) of quaternions [..., 4], s broadcast to [...]."""
    shape = start.shape
    first, second = Rotation.from_quat(start.reshape(-1, 4)), Rotation.from_quat(end.reshape(-1, 4))
    share = np.broadcast_to(share, shape[:-1]).reshape(-1, 1)
    step = Rotation.from_rotvec(share * (first.inv() * second).as_rotvec())
    return (first * step).as_quat().reshape(shape)
