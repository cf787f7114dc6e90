"""One reverse step t -> s of one cell, p(x_s,i = y | x_t) for every state y, by three rules that agree if fed rightly.

    mixture   sum_v mu(v) q(x_s = y | x_t,i, x_0 = v)                      exact with the mean
    product   ~ q(x_t,i | y) sum_v nu(v) q_s(y | v)                        exact with the leave-one-out mean
    tweedie   ~ [s K^-1](y) K(y, x_t,i),  K the forward kernel s -> t      exact with the score

Feeding mu to the product rule is wrong by up to 0.11 in probability on toy worlds; the types prevent it.
All return [B, ..., V + 1], the mask last; tokens [B, ...]; levels' fields [B].
References: Austin et al. 2021 (product), Gu et al. 2022 (mixture, as coded), Lou et al. 2024 (tweedie).
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.parameterise import LeaveOneOut, Mean, Prediction, Score
from eqdiff_jax.diffusion.process import CLEAN, between, expand_like, likelihood, marginal
from eqdiff_jax.types import Array, Level


def mixture(mean: Mean, tokens: Array, t: Level, s: Level) -> Array:
    """sum_v mu(v) q_s(y | v) q(x_t | y) / q_t(x_t | v), over those v that x_t does not refute."""
    mu = jax.nn.softmax(mean.log)
    vocab = mu.shape[-1]
    forward = likelihood(between(CLEAN, t, vocab), tokens, vocab)[..., :vocab]
    weight = jnp.where(forward > 0, mu / jnp.where(forward > 0, forward, 1.0), 0.0)
    at_s = marginal(weight / jnp.sum(weight, axis=-1, keepdims=True), s)
    return _normalised(at_s * likelihood(between(s, t, vocab), tokens, vocab))


def product(prediction: LeaveOneOut, tokens: Array, t: Level, s: Level) -> Array:
    """q(x_t | y) sum_v nu(v) q_s(y | v), normalised."""
    nu = jax.nn.softmax(prediction.log)
    vocab = nu.shape[-1]
    return _normalised(marginal(nu, s) * likelihood(between(s, t, vocab), tokens, vocab))


def tweedie(score: Score, tokens: Array, t: Level, s: Level) -> Array:
    """[s K^-1](y) K(y, x_t), clipped at 0 and normalised. K^-1 in closed form:

    p_s(tokens) = (p_t - spread P_t / stay) / keep with P_t = sum of p_t over tokens and stay = 1 - to_mask,
    p_s(mask) = p_t(mask) - to_mask P_t / stay.
    """
    vocab = score.log.shape[-1] - 1
    kernel = between(s, t, vocab)
    keep, spread, to_mask = (expand_like(x, score.log) for x in kernel)
    ratio = jnp.exp(score.log)
    of_token, hidden = ratio[..., :vocab], ratio[..., vocab:]
    total = jnp.sum(of_token, axis=-1, keepdims=True) / (1.0 - to_mask)
    before = jnp.concatenate([(of_token - spread * total) / keep, hidden - to_mask * total], axis=-1)
    return _normalised(jnp.maximum(before, 0.0) * likelihood(kernel, tokens, vocab))


def posterior(prediction: Prediction, tokens: Array, t: Level, s: Level) -> Array:
    """p(x_s = y | x_t) [B, ..., V + 1] by the rule that is exact for the type of prediction."""
    if isinstance(prediction, Mean):
        return mixture(prediction, tokens, t, s)
    return product(prediction, tokens, t, s) if isinstance(prediction, LeaveOneOut) else tweedie(
        prediction, tokens, t, s)


def _normalised(joint: Array) -> Array:
    return joint / jnp.sum(joint, axis=-1, keepdims=True)
