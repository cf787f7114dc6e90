"""Body to latent: motion sources give limb frames, the 60 Hz chain turns them into a latent."""

from eqdiff_jax.motion.chain import (
    MotionParams,
    MotionState,
    MotionWeights,
    init_params,
    init_state,
    prepare,
    step,
    step_weights,
    trajectory,
)
from eqdiff_jax.motion.demo import STYLES, demo
from eqdiff_jax.motion.limbs import clean, load

__all__ = [
    "STYLES",
    "MotionParams",
    "MotionState",
    "MotionWeights",
    "clean",
    "demo",
    "init_params",
    "init_state",
    "load",
    "prepare",
    "step",
    "step_weights",
    "trajectory",
]
