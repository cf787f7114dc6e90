"""Training: state, per-device step, loop, checkpoints; evaluation."""

from typing import TYPE_CHECKING

from eqdiff_jax import lazy

if TYPE_CHECKING:
    from eqdiff_jax.training.loop import train_and_evaluate
    from eqdiff_jax.training.state import TrainState

__all__ = ["TrainState", "train_and_evaluate"]

# Who plays loads checkpoints, and needs neither datasets nor an optimiser.
__getattr__ = lazy.attributes(__name__, train_and_evaluate="eqdiff_jax.training.loop",
                              TrainState="eqdiff_jax.training.state")
