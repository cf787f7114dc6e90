"""The absorbing process: every token turns into the mask at rate sigma'(t) and stays there.

q(x_t = v | x_0 = v) = alpha(t), q(x_t = mask | x_0) = 1 - alpha(t).
Reference: Lou, Meng, Ermon, "Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution".
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.schedule import loglinear_alpha, loglinear_rate
from eqdiff_jax.types import Array, Process


def absorbing(vocab: int, alpha=loglinear_alpha, rate=loglinear_rate) -> Process:
    """Absorbing process over `vocab` tokens with the given schedule; the mask is id `vocab`."""

    def corrupt(key: Array, tokens: Array, t: Array) -> Array:
        survives = jax.random.uniform(key, tokens.shape) < expand_like(alpha(t), tokens)
        return jnp.where(survives, tokens, vocab)

    return Process(vocab, alpha, rate, corrupt)


def expand_like(per_example: Array, tokens: Array) -> Array:
    """[B] -> [B, 1, ..., 1] with as many axes as tokens."""
    per_example = jnp.asarray(per_example)
    return per_example.reshape(per_example.shape + (1,) * (tokens.ndim - per_example.ndim))


def absorbing_score(log_mu: Array, alpha: Array) -> Array:
    """Concrete score at a masked position: s(v) = p_t(x with mask -> v)/p_t(x) = mu(v) alpha/(1 - alpha).

    log_mu [B, ..., V] is log p(x_0 = v | x_t); alpha [B] or [].
    """
    return jnp.exp(log_mu) * expand_like(alpha / (1.0 - alpha), log_mu)
