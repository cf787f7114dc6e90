"""Training: state, per-device step, loop, checkpoints; evaluation."""

from eqdiff_jax.training.loop import train_and_evaluate
from eqdiff_jax.training.state import TrainState

__all__ = ["TrainState", "train_and_evaluate"]
