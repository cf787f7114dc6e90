"""Euler's method for the reverse jump process (tau-leaping): rates at t, held for the whole step.

    x_i -> y != x_i  with probability (t - s) R_t(y -> x_i) s(y),   R the forward rates,

and stays with the rest. For a long step the rest can be negative: then the probabilities are clipped, normalised, and
the cell is counted. The last step is the analytic one, since a mask may be left at t = 0 (SEDD's noise removal).
Reference: Lou, Meng and Ermon 2024, arXiv:2310.16834, section 4.1; the error is of order 1/T.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.parameterise import Prediction, Score, as_score
from eqdiff_jax.diffusion.process import rates_into
from eqdiff_jax.diffusion.reverse import tweedie
from eqdiff_jax.diffusion.samplers.base import OnGrid, batched, draw
from eqdiff_jax.types import Array, Moment, Process


@dataclass(frozen=True)
class Euler(OnGrid):
    """tau-leaping."""

    def step(self, key: Array, process: Process, tokens: Array, prediction: Prediction, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """One step; see Sampler."""
        score = Score(batched(lambda p, x, t: as_score(p, x, t).log, prediction, tokens, moment.t))
        leap, short = probabilities(score.log, tokens, process, moment)
        end = batched(tweedie, score, tokens, moment.t, moment.s)
        law = jnp.where(moment.last, end, leap)
        return draw(key, tokens, law, process), memory, jnp.where(moment.last, 0, jnp.sum(short, dtype=jnp.int32))


def probabilities(log_score: Array, tokens: Array, process: Process, moment: Moment) -> tuple[Array, Array]:
    """(law of the leap [..., V + 1], whether it had to be clipped [...]) of one example."""
    into = batched(lambda x, t: rates_into(process, x, t), tokens, moment.time)
    own = jax.nn.one_hot(tokens, process.vocab + 1, dtype=log_score.dtype)
    jump = moment.duration * into * jnp.exp(log_score)
    total = jnp.sum(jump, axis=-1, keepdims=True)
    return (jump + own * jnp.maximum(1.0 - total, 0.0)) / jnp.maximum(total, 1.0), total[..., 0] > 1.0
