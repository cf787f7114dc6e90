"""Training: state, per-device step, loop, checkpoints; evaluation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqdiff_jax.training.loop import train_and_evaluate
    from eqdiff_jax.training.state import TrainState

__all__ = ["TrainState", "train_and_evaluate"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: who plays loads checkpoints, and needs neither datasets nor an optimiser."""
    if name == "train_and_evaluate":
        from eqdiff_jax.training.loop import train_and_evaluate
        return train_and_evaluate
    if name == "TrainState":
        from eqdiff_jax.training.state import TrainState
        return TrainState
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
