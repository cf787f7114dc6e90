"""Confidence: of all masked cells the surest are revealed, as many as the schedule asks for (absorbing process).

Each masked cell draws v_i from mu_i and has confidence log mu_i(v_i) + noise (1 - k/T) Gumbel; those of largest
confidence are kept until the number of masks is floor(N (1 - alpha_s)/(1 - alpha_start)). A heuristic: its law is not
that of the process, and better samples may come of it.
Reference: Chang et al. 2022 (MaskGIT), arXiv:2202.04200.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.parameterise import Prediction
from eqdiff_jax.diffusion.samplers.base import OnGrid, log_mean
from eqdiff_jax.types import Array, Moment, Process


@dataclass(frozen=True)
class Confidence(OnGrid):
    """noise: scale of the Gumbels at the first step, falling to 0 with the share of masks; 0: the surest places."""

    noise: float = 4.5

    absorbing = True

    def init(self, key: Array, process: Process, tokens: Array, moment: Callable[[Array], Moment]) -> Any:
        """(number of masks at the start, 1 - alpha there)."""
        del key
        return jnp.sum(tokens == process.mask), 1.0 - moment(jnp.int32(0)).t.unmasked

    def step(self, key: Array, process: Process, tokens: Array, prediction: Prediction, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """One step; see Sampler."""
        key_token, key_place = jax.random.split(key)
        first, start = memory
        masked = (tokens == process.mask).reshape(-1)
        mu = log_mean(prediction, tokens, moment.t).reshape(masked.size, -1)
        drawn = categorical(key_token, mu)
        heat = self.noise * (1.0 - moment.t.unmasked) / start
        sure = jnp.take_along_axis(mu, drawn[:, None], axis=1)[:, 0] + heat * jax.random.gumbel(key_place, drawn.shape)
        left = jnp.floor(first * (1.0 - moment.s.unmasked) / start + 1e-6).astype(jnp.int32)
        count = jnp.where(moment.last, masked.size, jnp.sum(masked) - left)
        rank = jnp.argsort(jnp.argsort(jnp.where(masked, -sure, jnp.inf), stable=True), stable=True)
        new = jnp.where(masked & (rank < count), drawn, tokens.reshape(-1))
        return new.reshape(tokens.shape), memory, jnp.int32(0)
