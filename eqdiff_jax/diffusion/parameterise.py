"""What a network may predict at a cell i of x_t, as types, so that one is never taken for another.

    Mean          mu(v)  = p(x_0,i = v | x_t)                       a network trained by cross-entropy
    LeaveOneOut   nu(v)  = p(x_0,i = v | x_t without cell i)        a network trained by the product-rule bound (D3PM)
    Score         s(y)   = p_t(x with i -> y) / p_t(x)              a network trained by score entropy (SEDD)

They carry the same information where every q(x_i | v) > 0:
    nu ~ mu / q_t(x_i | .),   mu ~ nu q_t(x_i | .),   s(y) = sum_v nu(v) q_t(y | v) / sum_v nu(v) q_t(x_i | v).
At a mask nu = mu. At a token of the absorbing process mu is certain of it and nu cannot be had from it, nor is it
needed there: the token stays. Logs throughout, natural; [B, ..., V], levels' fields [B].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.process import CLEAN, between, expand_like, likelihood, marginal
from eqdiff_jax.types import Array, Level


class Mean(NamedTuple):
    """log mu(v) up to a constant."""

    log: Array  # [B, ..., V]


class LeaveOneOut(NamedTuple):
    """log nu(v) up to a constant."""

    log: Array  # [B, ..., V]


class Score(NamedTuple):
    """log s(y) for every state y, the mask last (-inf where there is none); 0 at y = x_i."""

    log: Array  # [B, ..., V + 1]


Prediction = Mean | LeaveOneOut | Score


def as_leave_one_out(prediction: Prediction, tokens: Array, at: Level) -> LeaveOneOut:
    """nu of any prediction about `tokens` [B, ...] at level `at`, normalised."""
    if isinstance(prediction, LeaveOneOut):
        return LeaveOneOut(jax.nn.log_softmax(prediction.log))
    if isinstance(prediction, Mean):
        log = jax.nn.log_softmax(prediction.log)
        vocab = log.shape[-1]
        q = likelihood(between(CLEAN, at, vocab), tokens, vocab)[..., :vocab]
        # mu = 0 stays 0, whatever q; q = 0 where mu > 0 is a prediction that the noisy token refutes: it is dropped.
        possible = jnp.isfinite(log) & (q > 0)
        return LeaveOneOut(jax.nn.log_softmax(
            jnp.where(possible, log - jnp.log(jnp.where(q > 0, q, 1.0)), -jnp.inf)))
    vocab = prediction.log.shape[-1] - 1
    alpha, unmasked = (expand_like(x, prediction.log) for x in at)
    ratio = jax.nn.softmax(prediction.log[..., :vocab]) * unmasked  # p_t(y) of the tokens, given the rest
    nu = jnp.maximum(ratio - (unmasked - alpha) / vocab, 0.0) / alpha
    return LeaveOneOut(jnp.log(nu / jnp.sum(nu, axis=-1, keepdims=True)))


def as_mean(prediction: Prediction, tokens: Array, at: Level) -> Mean:
    """mu of any prediction about `tokens` [B, ...] at level `at`, normalised."""
    if isinstance(prediction, Mean):
        return Mean(jax.nn.log_softmax(prediction.log))
    nu = as_leave_one_out(prediction, tokens, at).log
    vocab = nu.shape[-1]
    q = likelihood(between(CLEAN, at, vocab), tokens, vocab)[..., :vocab]
    return Mean(jax.nn.log_softmax(nu + jnp.log(q)))


def as_score(prediction: Prediction, tokens: Array, at: Level) -> Score:
    """s of any prediction about `tokens` [B, ...] at level `at`."""
    if isinstance(prediction, Score):
        return prediction
    nu = as_leave_one_out(prediction, tokens, at).log
    mass = marginal(jnp.exp(nu), at)
    log = jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1.0)), -jnp.inf)
    return Score(log - jnp.take_along_axis(log, tokens[..., None], axis=-1))
