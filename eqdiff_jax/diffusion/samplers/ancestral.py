"""The ancestral sampler: the posterior q(x_s | x_t, x_0) averaged over what the network thinks of x_0.

By the rule that is exact for the type of the prediction (reverse.posterior). On the absorbing process it has the law of
the analytic sampler, and when a cell is revealed does not depend on any token: so its step is drawn beforehand, and
steps that reveal nothing cost nothing.
References: Austin et al. 2021 (D3PM), Shi et al. 2024 (MD4), Sahoo et al. 2024 (MDLM).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.parameterise import Prediction
from eqdiff_jax.diffusion.reverse import posterior
from eqdiff_jax.diffusion.samplers.base import OnGrid, batched, draw, log_mean
from eqdiff_jax.types import Array, Level, Moment, Process


@dataclass(frozen=True)
class Ancestral(OnGrid):
    """skip: on the absorbing process, pass over the steps that reveal nothing (same tokens either way)."""

    skip: bool = True

    def init(self, key: Array, process: Process, tokens: Array, moment: Callable[[Array], Moment]) -> Any:
        """Absorbing: u [...] uniform, a cell is masked while its share (1 - alpha)/(1 - alpha_start) exceeds u."""
        return (jax.random.uniform(key, tokens.shape), moment(jnp.int32(0)).t) if process.masked == 1 else ()

    def next(self, process: Process, tokens: Array, memory: Any, k: Array,
             moment: Callable[[Array], Moment]) -> Moment:
        """Step k, or the first after it in which a cell is revealed."""
        if process.masked < 1 or not self.skip:
            return moment(k)

        def idle(k: Array) -> Array:
            now = moment(k)
            return ~now.last & ~jnp.any((tokens == process.mask) & _revealed(memory, now.s))

        return moment(jax.lax.while_loop(idle, lambda k: k + 1, k))

    def step(self, key: Array, process: Process, tokens: Array, prediction: Prediction, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """One step; see Sampler."""
        if process.masked < 1:
            law = batched(posterior, prediction, tokens, moment.t, moment.s)
            return draw(key, tokens, law, process), memory, jnp.int32(0)
        mu = log_mean(prediction, tokens, moment.t)
        shown = (tokens == process.mask) & (_revealed(memory, moment.s) | moment.last)
        return jnp.where(shown, categorical(key, mu), tokens), memory, jnp.int32(0)


def _revealed(memory: tuple[Array, Level], s: Level) -> Array:
    """Which cells are no longer masked at level s. [...]"""
    uniforms, start = memory
    return (1.0 - s.unmasked) <= uniforms * (1.0 - start.unmasked)
