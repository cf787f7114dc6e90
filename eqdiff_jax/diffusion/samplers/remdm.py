"""Remasking (ReMDM): cells that were revealed are masked again, so that early mistakes can be mended.

With 0 <= r <= r_max = min(1, (1 - alpha_s)/alpha_t):
    a token  -> mask with probability r, else it stays;
    a mask   -> v with probability (alpha_s - (1 - r) alpha_t)/(1 - alpha_t) mu(v), else it stays.
For every r the marginals of the process are kept: averaged over q(x_t | x_0) it gives q(x_s | x_0). r = 0 is the
ancestral sampler. `cap` r = min(eta, r_max); `rescale` r = eta r_max; `conf` r_i = r_max softmax_i(-p_i) over the
revealed cells, p_i the probability with which cell i was revealed.
Reference: Wang et al. 2025, arXiv:2503.00307.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.parameterise import Prediction
from eqdiff_jax.diffusion.samplers.base import OnGrid, log_mean
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Level, Moment, Process

KINDS = ("cap", "rescale", "conf")


@dataclass(frozen=True)
class ReMDM(OnGrid):
    """kind: cap, rescale or conf. eta in [0, 1], not used by conf.

    loop = (on, off, alpha): before t = on the survival rises to `alpha` without remasking, between on and off it stays
    there and cells are only exchanged, after off it rises to 1 (0.55, 0.05, 0.9 in the paper). None: remask throughout.
    """

    kind: str = "cap"
    eta: float = 0.04
    loop: tuple[float, float, float] | None = None

    absorbing = True
    keeps = False
    steady = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown kind of remasking {self.kind!r}: choose one of {', '.join(KINDS)}")
        if not 0.0 <= self.eta <= 1.0:
            raise InputError(f"eta is {self.eta}: a share of r_max or a probability, in [0, 1]")
        if self.loop is not None and not (0.0 < self.loop[1] <= self.loop[0] < 1.0 and 0.0 < self.loop[2] < 1.0):
            raise InputError(f"loop is {self.loop}: needs 0 < off <= on < 1 and a survival between 0 and 1")

    def init(self, key: Array, process: Process, tokens: Array, moment: Callable[[Array], Moment]) -> Any:
        """Probability with which each cell was revealed [...]: 1 for those that are given."""
        del key, moment
        return jnp.ones(tokens.shape)

    def next(self, process: Process, tokens: Array, memory: Any, k: Array,
             moment: Callable[[Array], Moment]) -> Moment:
        """Step k, its levels bent by the loop."""
        del tokens, memory
        now = moment(k)
        if self.loop is None:
            return now
        on, off, alpha = self.loop
        rest = process.inverse(jnp.asarray(alpha))

        def bent(t: Array) -> Array:
            rising = 1.0 - (1.0 - t) / (1.0 - on) * (1.0 - rest)
            return jnp.where(t > on, rising, jnp.where(t >= off, rest, rest * t / off))

        end = process.level(bent(now.time - now.duration))
        end = jax.tree.map(lambda x: jnp.where(now.last, 1.0, x), end)
        return now._replace(time=bent(now.time), t=process.level(bent(now.time)), s=end)

    def step(self, key: Array, process: Process, tokens: Array, prediction: Prediction, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """One step; see Sampler."""
        key_token, key_show, key_hide = jax.random.split(key, 3)
        masked = tokens == process.mask
        mu = log_mean(prediction, tokens, moment.t)
        again = self._rate(moment, masked, memory)
        show = reveal(moment.t, moment.s, again)
        shown = masked & (jax.random.uniform(key_show, tokens.shape) < show)
        hidden = ~masked & (jax.random.uniform(key_hide, tokens.shape) < again)
        drawn = categorical(key_token, mu)
        sure = jnp.exp(jnp.take_along_axis(mu, drawn[..., None], axis=-1)[..., 0])
        new = jnp.where(shown, drawn, jnp.where(hidden, process.mask, tokens))
        return new, jnp.where(shown, sure, memory), jnp.int32(0)

    def _rate(self, moment: Moment, masked: Array, sure: Array) -> Array:
        """r of every cell [...]."""
        most = jnp.minimum(1.0, (1.0 - moment.s.alpha) / moment.t.alpha)
        if self.loop is not None:
            most = jnp.where(moment.s.alpha > moment.t.alpha, 0.0, most)
        if self.kind == "conf":
            share = jax.nn.softmax(jnp.where(masked, -jnp.inf, -sure).reshape(-1)).reshape(sure.shape)
            return most * jnp.nan_to_num(share)  # nothing revealed yet: 0/0
        rate = jnp.minimum(self.eta, most) if self.kind == "cap" else self.eta * most
        return jnp.broadcast_to(rate, masked.shape)


def reveal(t: Level, s: Level, again: Array) -> Array:
    """Probability (alpha_s - (1 - r) alpha_t)/(1 - alpha_t) that a mask is revealed, r = `again`."""
    return (s.alpha - (1.0 - again) * t.alpha) / (1.0 - t.alpha)
