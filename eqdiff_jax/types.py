"""Records that cross package borders, with their shapes. `State` is carried, `Info` is diagnostic.

Shapes: T frames at 60 Hz, B examples, 27 limbs x 8 features, 12 tracks x 32 sixteenths.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

Array = jax.Array
Params = Any  # a pytree of arrays
Scalar = TypeVar("Scalar", covariant=True)


class Dynamics(NamedTuple, Generic[Scalar]):
    """The 15 scalars of movement; ranges, units and rest values stand in motion/dynamics.py.

    Each field is of one type: a float, or a float32 array, [] for a frame, [T] for a trajectory.
    """

    curvature: Scalar
    curvature_rate: Scalar
    periodicity: Scalar
    internal_tempo: Scalar
    phase: Scalar
    tension: Scalar
    grounding: Scalar
    verticality: Scalar
    coherence: Scalar
    lr_pan: Scalar
    prediction_confidence: Scalar
    energy: Scalar
    transition_intensity: Scalar
    speed: Scalar
    acceleration: Scalar


class MotionFrame(NamedTuple):
    """What the 60 Hz chain says of one frame (or, stacked, of a trajectory: leading axis T)."""

    z: Array  # [32] smoothed latent, first block of the LIM-RPS state
    velocity: Array  # [32] its rate, per second
    acceleration: Array  # [32] the rate of that, per second squared
    dynamics: Dynamics[Array]
    prediction: Array  # [32] z extrapolated one prediction horizon ahead
    x_fast: Array  # [32] DELL fast output
    y_slow: Array  # [32] DELL slow output
    error_fast: Array  # [] a posteriori bound on |h - h*|
    error_slow: Array  # [] a posteriori bound on |y - y*|
    error_lim_rps: Array  # [] a posteriori bound on |s - s*|


class Process(NamedTuple):
    """A forward corruption process over V tokens; the mask is id V."""

    vocab: int  # V, number of tokens without the mask
    alpha: Callable[[Array], Array]  # time t in [0, 1] -> survival, decreasing from 1
    rate: Callable[[Array], Array]  # t -> d sigma/dt with sigma = -log alpha
    corrupt: Callable[[Array, Array, Array], Array]  # (key, tokens [B, ...], t [B]) -> tokens of the same shape

    @property
    def mask(self) -> int:
        return self.vocab


# (tokens [B, ...], t [B]) -> logits [B, ..., V]
Predict = Callable[[Array, Array], Array]


class Samples(NamedTuple):
    """Result of `diffusion.sample`."""

    tokens: Array  # [B, ...] int32, no masks left
    evaluations: Array  # [] network calls made for the whole batch
    unmasked_at: Array  # [B, ...] int32 step at which each cell was filled, -1 where it was given


class Nelbo(NamedTuple):
    """Negative evidence lower bound, a bound on -log p(tokens)."""

    nats: Array  # [] mean, in nats per token
    stderr: Array  # [] its standard error over examples
    per_example: Array | np.ndarray  # [N] nats per token; NumPy where batches were gathered


class Change(NamedTuple):
    """A bounded step from one grid to the next."""

    tokens: Array  # [B, 12, 32] int32 the new grid
    changed: Array  # [B] int32 number of cells that differ from the previous grid
    budget: Array  # [B] int32 number of cells that were allowed to
    steps: Array  # [B] int32 denoising steps used
    temperature: Array  # [B] temperature used
    evaluations: Array  # [] network calls of the sampler
