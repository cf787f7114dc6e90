"""Forward processes: every token is kept, drawn anew from all tokens, or turned into the mask, which stays.

Two decreasing functions of t in [0, 1] say it all, alpha(t) <= beta(t): with V tokens and the mask m = V,

    q(x_t = y | x_0 = v) = alpha 1[y = v] + (beta - alpha)/V  for tokens y,    q(x_t = m | x_0 = v) = 1 - beta.

| process   | alpha             | beta          | reference                                             |
|-----------|-------------------|---------------|-------------------------------------------------------|
| absorbing | the schedule      | alpha         | Lou, Meng and Ermon 2024 (SEDD), arXiv:2310.16834     |
| uniform   | the schedule      | 1             | same; Q = 11^T/V - I                                  |
| hybrid    | the schedule      | in between    | Gu et al. 2022 (VQ-Diffusion), arXiv:2111.14822       |

The family is closed under composition: from s to t > s the same form holds with alpha_t/alpha_s and beta_t/beta_s. So
a discrete-time process (D3PM, Austin et al. 2021, arXiv:2107.03006) is one of these, seen at t = k/T only, `times` = T.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion import schedule as schedules
from eqdiff_jax.diffusion.schedule import LogLinear
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Level, Process, Schedule

DEFAULT = LogLinear()
CLEAN = Level(1.0, 1.0)  # t = 0 exactly, whatever the schedule says there


class Kernel(NamedTuple):
    """q(x_t = . | x_s = x) for a token x: keep 1[. = x] + spread on every token, `to_mask` on the mask. [B] or []."""

    keep: Array | float
    spread: Array | float
    to_mask: Array | float


def absorbing(vocab: int, schedule: Schedule = DEFAULT, times: int | None = None) -> Process:
    """Every token turns into the mask (id `vocab`) at rate sigma'(t) and stays there."""
    return _process(vocab, schedule, 1.0, times)


def uniform(vocab: int, schedule: Schedule = DEFAULT, times: int | None = None) -> Process:
    """Every token is drawn anew from all `vocab` tokens at rate sigma'(t); no mask."""
    return _process(vocab, schedule, 0.0, times)


def hybrid(vocab: int, schedule: Schedule = DEFAULT, times: int | None = None, masked: float = 0.9) -> Process:
    """A share `masked` in (0, 1) of all events masks the token, the others draw it anew: beta = alpha^masked.

    As in VQ-Diffusion, where a mask is some ten times as likely as another token.
    """
    if not 0.0 < masked < 1.0:
        raise InputError(f"masked is {masked}: a share between 0 and 1; take absorbing for 1 and uniform for 0")
    return _process(vocab, schedule, masked, times)


PROCESSES = {
    "absorbing": absorbing, "uniform": uniform, "hybrid": hybrid,
    "d3pm_absorbing": partial(absorbing, times=100), "d3pm_uniform": partial(uniform, times=100),
    "d3pm_hybrid": partial(hybrid, schedule=schedules.SCHEDULES["vq_linear"], times=100),
}  # config name -> constructor of V


def _process(vocab: int, schedule: Schedule, masked: float, times: int | None) -> Process:
    if vocab < 2:
        raise InputError(f"vocab is {vocab}: a process needs at least 2 tokens")
    if times is not None and times < 1:
        raise InputError(f"times is {times}: a discrete-time process has at least 1 step")
    if schedule is not DEFAULT:  # which tests check: an import must not start JAX, as jax.distributed comes first
        schedules.check(schedule)

    def level(t: Array) -> Level:
        alpha = schedule.alpha(t)
        # Powers of alpha only where needed: 1 and 0 are exact.
        return Level(alpha, alpha if masked == 1.0 else jnp.ones_like(alpha) if masked == 0.0 else alpha**masked)

    def corrupt(key: Array, tokens: Array, t: Array) -> Array:
        at = level(t)
        u = jax.random.uniform(key, tokens.shape)
        kept = u < expand_like(at.alpha, tokens)
        if masked == 1.0:
            return jnp.where(kept, tokens, vocab)
        fresh = jax.random.randint(jax.random.fold_in(key, 1), tokens.shape, 0, vocab, tokens.dtype)
        other = jnp.where(u < expand_like(at.unmasked, tokens), fresh, vocab)
        return jnp.where(kept, tokens, other)

    return Process(vocab, schedule.alpha, schedule.rate, corrupt, level, schedule.inverse, masked, times)


def between(s: Level, t: Level, vocab: int) -> Kernel:
    """The forward kernel from s to a later t."""
    keep, stay = t.alpha / s.alpha, t.unmasked / s.unmasked
    return Kernel(keep, (stay - keep) / vocab, 1.0 - stay)


def rates_into(process: Process, tokens: Array, t: Array) -> Array:
    """Forward rates R_t(y -> x_i) from every other state y into x_i = tokens [B, ...]: [B, ..., V + 1]; t [B].

    0 at y = x_i, and 0 at y = mask, which nothing leaves.
    """
    vocab = process.vocab
    hidden = (tokens == vocab)[..., None]
    other = 1.0 - jax.nn.one_hot(tokens, vocab, dtype=jnp.result_type(t, jnp.float32))
    rate = expand_like(process.rate(t), other)
    into = rate * other * jnp.where(hidden, process.masked, (1.0 - process.masked) / vocab)
    return jnp.concatenate([into, jnp.zeros_like(into[..., :1])], axis=-1)


def likelihood(kernel: Kernel, tokens: Array, vocab: int) -> Array:
    """q(x_t = tokens | x_s = y) for every state y: [B, ...] -> [B, ..., V + 1], the mask last; kernel's fields [B]."""
    same = jax.nn.one_hot(tokens, vocab, dtype=jnp.result_type(kernel.keep))
    kernel = Kernel(*(expand_like(x, same) for x in kernel))
    hidden = (tokens == vocab)[..., None]
    of_token = jnp.where(hidden, kernel.to_mask, kernel.keep * same + kernel.spread)
    return jnp.concatenate([of_token, hidden.astype(of_token.dtype)], axis=-1)


def marginal(clean: Array, at: Level) -> Array:
    """sum_v p(v) q(x_t = y | v) for every state y: p [B, ..., V] -> [B, ..., V + 1], the mask last; at's fields [B]."""
    vocab = clean.shape[-1]
    alpha, unmasked = expand_like(at.alpha, clean), expand_like(at.unmasked, clean)
    hidden = jnp.broadcast_to(1.0 - unmasked, (*clean.shape[:-1], 1))
    return jnp.concatenate([alpha * clean + (unmasked - alpha) / vocab, hidden], axis=-1)


def prior(key: Array, process: Process, shape: tuple[int, ...]) -> Array:
    """x_1: masks if the process has them, else uniform tokens. int32 of `shape`; the key is consumed."""
    if process.masked > 0:
        return jnp.full(shape, process.mask, jnp.int32)
    return jax.random.randint(key, shape, 0, process.vocab, jnp.int32)


def expand_like(per_example: Array | float, tokens: Array) -> Array:
    """[B] -> [B, 1, ..., 1] with as many axes as tokens; [] likewise."""
    per_example = jnp.asarray(per_example)
    return per_example.reshape(per_example.shape + (1,) * (tokens.ndim - per_example.ndim))
