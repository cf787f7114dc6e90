"""The analytic (Tweedie) sampler: undo the noise of one step on the score, then weight by the forward row.

    p(y) ~ [s e^{-dsigma Q}](y) * [e^{dsigma Q}](y -> x_i)       (reverse.tweedie)

Exact for one cell if the score is. On the absorbing process a masked cell becomes v with probability
(e^{dsigma} - 1) s(v) = mu(v) (alpha_s - alpha_t)/(1 - alpha_t), and a token stays.
Reference: Lou, Meng and Ermon 2024, arXiv:2310.16834, theorem 4.2.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from eqdiff_jax.diffusion.parameterise import Prediction, as_score
from eqdiff_jax.diffusion.reverse import tweedie
from eqdiff_jax.diffusion.samplers.base import OnGrid, batched, draw
from eqdiff_jax.types import Array, Moment, Process


@dataclass(frozen=True)
class Analytic(OnGrid):
    """SEDD's analytic sampler."""

    def step(self, key: Array, process: Process, tokens: Array, prediction: Prediction, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """One step; see Sampler."""
        law = batched(lambda p, x, t, s: tweedie(as_score(p, x, t), x, t, s), prediction, tokens, moment.t, moment.s)
        return draw(key, tokens, law, process), memory, jnp.int32(0)
