"""The analytic (Tweedie) sampler of the absorbing process.

Undo the noise of one step on the score, then weight by the forward row:

    p(y) ~ [e^{-dsigma Q} s](y) * [e^{dsigma Q}](x | y)

For a masked x this is p(v) = e^{dsigma} (1 - e^{-dsigma}) s(v), p(mask) = 1 - sum_v p(v); a token stays.
Reference: Lou et al., the analytic sampler (theorem on Tweedie's formula for discrete diffusion).
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.absorbing import absorbing_score, expand_like
from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.types import Array


def analytic_probabilities(log_mu: Array, alpha_t: Array, alpha_s: Array) -> Array:
    """Law of x_s at a masked x_t: [B, ..., V + 1], the last entry the mask. alpha_t < alpha_s are [B].

    At alpha_s = 1 the mask's entry is 0.
    """
    growth = expand_like(alpha_s / alpha_t, log_mu)  # e^{dsigma}
    tokens = (growth - 1.0) * absorbing_score(log_mu, alpha_t)
    rest = expand_like((1.0 - alpha_s) / (1.0 - alpha_t), log_mu)
    return jnp.concatenate([tokens, jnp.broadcast_to(rest, (*tokens.shape[:-1], 1))], axis=-1)


def analytic(key: Array, tokens: Array, logits: Array, alpha_t: Array, alpha_s: Array) -> Array:
    """One reverse step of one example, t -> s: int32 tokens of the same shape. The key is consumed.

    tokens [...] with masks = V, logits [..., V] tempered, alpha_t, alpha_s [].
    """
    vocab = logits.shape[-1]
    probabilities = analytic_probabilities(jax.nn.log_softmax(logits), alpha_t, alpha_s)
    drawn = categorical(key, jnp.log(probabilities))
    return jnp.where(tokens == vocab, drawn, tokens)
