"""First hitting: the exact times at which masked cells are revealed, one at a time (absorbing process).

With N cells masked at level 1 - alpha, the next reveal is at 1 - alpha' = (1 - alpha) u^(1/N), u uniform; any of the
masked cells with equal probability, its token from mu. As many evaluations as cells, whatever `steps` says, and no
error of discretisation: the law is that of any-order decoding.
Reference: Zheng et al. 2024, arXiv:2409.02908.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.parameterise import Prediction
from eqdiff_jax.diffusion.samplers.base import OnGrid, log_mean
from eqdiff_jax.types import Array, Level, Moment, Process


@dataclass(frozen=True)
class FirstHitting(OnGrid):
    """One cell a step, at its exact time."""

    absorbing = True
    steady = False

    def init(self, key: Array, process: Process, tokens: Array, moment: Callable[[Array], Moment]) -> Any:
        """(key of the times, level 1 - alpha)."""
        del tokens
        return key, 1.0 - moment(jnp.int32(0)).t.unmasked

    def next(self, process: Process, tokens: Array, memory: Any, k: Array,
             moment: Callable[[Array], Moment]) -> Moment:
        """The time of the k-th reveal."""
        key, level = memory
        left = jnp.maximum(jnp.sum(tokens == process.mask), 1)
        u = jax.random.uniform(jax.random.fold_in(key, k), minval=jnp.finfo(jnp.float32).tiny)
        after = 1.0 - level * u ** (1.0 / left)
        before = process.inverse(1.0 - level)
        return Moment(k, process.inverse(after), before - process.inverse(after), Level(1.0 - level, 1.0 - level),
                      Level(after, after), left <= 1)

    def step(self, key: Array, process: Process, tokens: Array, prediction: Prediction, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """One step; see Sampler."""
        key_place, key_token = jax.random.split(key)
        masked = (tokens == process.mask).reshape(-1)
        place = categorical(key_place, jnp.where(masked, 0.0, -jnp.inf))
        mu = log_mean(prediction, tokens, moment.s)
        drawn = categorical(key_token, mu).reshape(-1)
        new = jnp.where(masked & (jnp.arange(masked.size) == place), drawn, tokens.reshape(-1))
        return new.reshape(tokens.shape), (memory[0], 1.0 - moment.s.unmasked), jnp.int32(0)

    def horizon(self, steps: Array, cells: int) -> Array:
        """One step a cell."""
        return jnp.full_like(steps, cells)
