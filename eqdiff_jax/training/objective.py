"""What training minimises: how an example is noised, and what the network pays for its cells.

    OBJECTIVES[name] = (draw, cost):   noisy, level = draw(key, tokens, t),   cost(log_posterior, tokens, noisy, level)

t in [1e-3, 1] comes from `antithetic_times`; level is t, the share of masks, or the step k. The mean of each cost over
t and noise bounds the same -log p(tokens): they differ in variance and in what is computed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion import (
    absorbing,
    auxiliary_cross_entropy,
    lambda_cross_entropy,
    masked_cross_entropy,
    score_entropy,
    variational_bound,
)
from eqdiff_jax.diffusion.process import expand_like
from eqdiff_jax.music import VOCABULARY
from eqdiff_jax.types import Array

_PROCESS = absorbing(len(VOCABULARY))
STEPS = 100
_DISCRETE = absorbing(len(VOCABULARY), times=STEPS)
AUXILIARY = 0.01  # weight of D3PM's plain cross-entropy, on the masked cells: the others are given


class Objective(NamedTuple):
    """One way to train the absorbing model; tokens, noisy int32 [B, 12, 32], t, level [B]."""

    draw: Callable[[Array, Array, Array], tuple[Array, Array]]  # (key, tokens, t) -> noisy, level
    cost: Callable[[Array, Array, Array, Array], Array]  # (log_posterior, tokens, noisy, level) -> nats [B, 12, 32]


def _at_time(key: Array, tokens: Array, t: Array) -> tuple[Array, Array]:
    return _PROCESS.corrupt(key, tokens, t), t


def _at_level(key: Array, tokens: Array, level: Array) -> tuple[Array, Array]:
    masked = jax.random.uniform(key, tokens.shape) < expand_like(level, tokens)
    return jnp.where(masked, _PROCESS.mask, tokens), level


def _at_step(key: Array, tokens: Array, t: Array) -> tuple[Array, Array]:
    k = jnp.ceil(t * STEPS).astype(jnp.int32)
    return _DISCRETE.corrupt(key, tokens, k / STEPS), k


def _discrete_bound(log_posterior: Array, tokens: Array, noisy: Array, k: Array) -> Array:
    bound = STEPS * variational_bound(log_posterior, tokens, noisy, k, _DISCRETE)
    masked = noisy == _DISCRETE.mask
    return bound + AUXILIARY * jnp.where(masked, auxiliary_cross_entropy(log_posterior, tokens), 0.0)


OBJECTIVES = {
    "score_entropy": Objective(_at_time, lambda log, x, noisy, t: score_entropy(log, x, noisy, t, _PROCESS)),
    "masked_cross_entropy": Objective(
        _at_time, lambda log, x, noisy, t: masked_cross_entropy(log, x, noisy, t, _PROCESS)),
    "lambda_cross_entropy": Objective(
        _at_level, lambda log, x, noisy, level: lambda_cross_entropy(log, x, noisy == _PROCESS.mask, level)),
    "d3pm": Objective(_at_step, _discrete_bound),
}  # config name -> objective
