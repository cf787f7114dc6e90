"""The movement behind a pair, limb by limb: what training needs when it goes through the motion chain."""

from collections.abc import Sequence

import numpy as np

from eqdiff_jax.data.movement import TEMPI, MotionSource, played, source
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.equilibrium_chain import PERIOD
from eqdiff_jax.motion.windows import FRAME_RATE, window_seconds

LONGEST = int(np.ceil(window_seconds(min(TEMPI)) * FRAME_RATE))  # frames of a window
PREROLL = 96  # frames before it at least, in which slow equilibria and filtered rates arrive
FRAMES = -(-(PREROLL + LONGEST) // PERIOD) * PERIOD


def recordings(sources: Sequence[str | MotionSource], splits: Sequence[str]) -> dict[str, np.ndarray]:
    """Limb frames [T, 27, 8] of every recording of these sources, played as `movement.played` plays them, by name."""
    kinds = [source(name) if isinstance(name, str) else name for name in sources]
    return {recording.name: recording.limbs for kind in kinds for split in splits
            for recording in played(kind, split)}


def limb_windows(found: dict[str, np.ndarray], clips: Sequence[str], frames: np.ndarray) -> dict[str, np.ndarray]:
    """limbs float32 [B, FRAMES, 27, 8] that end with each window, and inside bool [B, FRAMES], where the window is.

    frames int [B, 2], from and to in the recording `clips[i]`; before its beginning its first frame stands still. 0, 0
    is a pair without limbs: all zero, and `inside` nowhere. Raises InputError for a recording that is not there.
    """
    moved = frames[:, 1] > 0
    missing = sorted({clip for clip, has in zip(clips, moved, strict=True) if has} - found.keys())
    if missing:
        raise InputError(f"no recording {missing[0]!r} ({len(missing)} missing): the pairs were made from other "
                         "recordings; delete the data folder, and they are made again")
    place = frames[:, 1:] - FRAMES + np.arange(FRAMES)  # [B, FRAMES]
    none = np.zeros((FRAMES, 27, 8), np.float32)
    limbs = np.stack([found[clip][np.maximum(row, 0)] if has else none
                      for clip, row, has in zip(clips, place, moved, strict=True)])
    return {"limbs": limbs.astype(np.float32), "inside": moved[:, None] & (place >= frames[:, :1])}
