"""Training: state, per-device step, loop, checkpoints."""

from eqdiff_jax.training.loop import evaluate_nelbo, train_and_evaluate
from eqdiff_jax.training.state import TrainState

__all__ = ["TrainState", "evaluate_nelbo", "train_and_evaluate"]
