"""Windows of two bars: where they begin at a tempo, and the means that stand for them."""

import jax
import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.chain import trajectory
from eqdiff_jax.motion.dynamics import phase_slot
from eqdiff_jax.types import Dynamics, MotionFrame

FRAME_RATE = 60
BEATS = 8  # two bars of 4/4


def window_seconds(bpm: float) -> float:
    """Length of two bars in seconds: 480 / bpm."""
    return BEATS * 60.0 / bpm


def boundaries(frames: int, bpm: float) -> np.ndarray:
    """First frames of the consecutive whole windows in `frames` frames, and the end of the last. int [N + 1]

    Boundary k is the frame nearest to k windows, so windows never drift from the beat. N may be 0.
    """
    length = window_seconds(bpm) * FRAME_RATE
    edges = np.round(np.arange(int(frames / length + 1e-9) + 2) * length).astype(int)
    return edges[edges <= frames]


def require_windows(limbs, bpm: float, count: int | None, source: str) -> np.ndarray:
    """The boundaries of the first `count` windows (None: all). int [count + 1]

    Raises InputError when the motion is shorter than one window or holds fewer than `count`.
    """
    if count is not None and count < 1:
        raise InputError(f"--num is {count}: ask for at least 1 window")
    edges = boundaries(len(limbs), bpm)
    seconds, needed = len(limbs) / FRAME_RATE, window_seconds(bpm)
    if len(edges) < 2:
        raise InputError(f"{source} is too short: {seconds:.2f} s of motion, and one window of two bars at "
                         f"{bpm:g} bpm takes {needed:.2f} s; give a longer motion or a higher --bpm")
    if count is not None and count > len(edges) - 1:
        raise InputError(f"{source} holds {len(edges) - 1} windows of {needed:.2f} s in {seconds:.2f} s of "
                         f"motion, --num asks for {count}; lower --num or give a longer motion")
    return edges if count is None else edges[:count + 1]


_trajectory = jax.jit(trajectory)


def padded_trajectory(params, limbs: np.ndarray, multiple: int = 1024) -> MotionFrame:
    """`trajectory` of limbs [T, 27, 8], jitted; the last frame is repeated up to a multiple, so few shapes compile."""
    padded = np.pad(limbs, ((0, -len(limbs) % multiple), (0, 0), (0, 0)), mode="edge")
    return jax.tree.map(lambda x: x[:len(limbs)], _trajectory(params, padded))


def window_means(frames: MotionFrame, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, Dynamics[np.ndarray]]:
    """Means of z [N, 32], velocity [N, 32] and the dynamics (fields [N]) between the edges [N + 1].

    `phase` is averaged as its continuous slot 0.5 (1 - cos 2 pi phase). float32.
    """
    dynamics = frames.dynamics._replace(phase=phase_slot(frames.dynamics.phase))

    def means(values) -> np.ndarray:
        windows = np.split(np.asarray(values, np.float64)[:edges[-1]], edges[1:-1])
        return np.stack([window.mean(0) for window in windows]).astype(np.float32)

    return means(frames.z), means(frames.velocity), jax.tree.map(means, dynamics)
