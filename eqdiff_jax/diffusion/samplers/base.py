"""What samplers share: the defaults of one on a fixed grid of times, and functions of a batch for one example."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.parameterise import Prediction, as_mean
from eqdiff_jax.types import Array, Level, Moment, Process


class OnGrid:
    """Defaults of the Sampler protocol (types.py)."""

    absorbing = False
    keeps = True
    steady = True

    def init(self, key: Array, process: Process, tokens: Array, moment: Callable[[Array], Moment]) -> Any:
        """No memory."""
        del key, process, tokens, moment
        return ()

    def next(self, process: Process, tokens: Array, memory: Any, k: Array,
             moment: Callable[[Array], Moment]) -> Moment:
        """Step k."""
        del process, tokens, memory
        return moment(k)

    def horizon(self, steps: Array, cells: int) -> Array:
        """T."""
        del cells
        return steps


def draw(key: Array, tokens: Array, probabilities: Array, process: Process) -> Array:
    """Every cell from its own law [..., V + 1]; on an absorbing process tokens stay exactly. int32 [...]"""
    drawn = categorical(key, jnp.log(probabilities))
    return jnp.where(tokens == process.mask, drawn, tokens) if process.masked == 1 else drawn


def batched(function: Callable, *arguments: Any) -> Array:
    """function of arrays with a batch axis, applied to one example without it."""
    return function(*jax.tree.map(lambda x: jnp.asarray(x)[None], arguments))[0]


def log_mean(prediction: Prediction, tokens: Array, at: Level) -> Array:
    """log mu [..., V] of one example's prediction about `tokens` [...]."""
    return batched(lambda p, x, t: as_mean(p, x, t).log, prediction, tokens, at)
