"""Training losses, per cell and in nats; their averages bound -log p(x_0) (likelihood.py evaluates that)."""

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.parameterise import LeaveOneOut, Mean, Prediction, Score, as_score
from eqdiff_jax.diffusion.process import CLEAN, between, expand_like, marginal, rates_into
from eqdiff_jax.diffusion.reverse import posterior, product
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Process

TIME_MIN = 1e-3


def antithetic_times(key: Array, batch: int) -> Array:
    """Stratified times t_i = (u + i/B) mod 1 in [1e-3, 1], one uniform u for the whole batch. [B]"""
    u = jax.random.uniform(key)
    t = (u + jnp.arange(batch) / batch) % 1.0
    return TIME_MIN + (1.0 - TIME_MIN) * t


def score_entropy(prediction: Prediction | Array, tokens: Array, noisy: Array, t: Array, process: Process) -> Array:
    """Diffusion weighted denoising score entropy at x = noisy, per cell, in nats. [B, ...]

        sum_{y != x} R_t(y -> x) [ s(y) - r(y) log s(y) + K(r(y)) ],   r(y) = q(y | x_0)/q(x | x_0),

    K(a) = a log a - a, R the forward rates. Its mean over t in [0, 1] and q(x_t | x_0) bounds -log p(x_0), but for the
    prior's term.
    prediction: any of parameterise.py, or logits [B, ..., V] of the mean, -inf allowed off the data; tokens, noisy
    [B, ...]; t [B]. Reference: Lou, Meng and Ermon 2024, arXiv:2310.16834, equation (10).
    """
    prediction = prediction if isinstance(prediction, Mean | LeaveOneOut | Score) else Mean(prediction)
    at = process.level(t)
    rates = rates_into(process, noisy, t)
    log_s = as_score(prediction, noisy, at).log
    clean = jax.nn.one_hot(tokens, process.vocab, dtype=log_s.dtype)
    mass = marginal(clean, at)
    ratio = mass / jnp.take_along_axis(mass, noisy[..., None], axis=-1)
    needed = (rates > 0) & (ratio > 0)  # where r = 0 only s(y) is left of the bracket
    safe_log, safe_ratio = jnp.where(needed, log_s, 0.0), jnp.where(needed, ratio, 1.0)
    cross = jnp.where(needed, safe_ratio * (jnp.log(safe_ratio) - safe_log) - safe_ratio, 0.0)
    linear = jnp.exp(jnp.where(rates > 0, log_s, -jnp.inf))
    return jnp.sum(rates * (linear + cross), axis=-1)


def masked_cross_entropy(logits: Array, tokens: Array, noisy: Array, t: Array, process: Process) -> Array:
    """`score_entropy` of the absorbing process where sum mu = 1: alpha sigma'/(1 - alpha) (-log mu(x_0)). [B, ...]

    Masked cells only. References: Sahoo et al. 2024 (MDLM); Shi et al. 2024 (MD4).
    """
    log_mu = jax.nn.log_softmax(logits)
    cross_entropy = -jnp.take_along_axis(log_mu, tokens[..., None], axis=-1)[..., 0]
    alpha = process.alpha(t)
    weight = expand_like(process.rate(t) * alpha / (1.0 - alpha), tokens)
    return jnp.where(noisy == process.mask, weight * cross_entropy, 0.0)


def lambda_cross_entropy(logits: Array, tokens: Array, masked: Array, level: Array) -> Array:
    """-log mu(x_0)/lambda at the masked cells, each masked with probability lambda = `level` [B] in (0, 1]. [B, ...]

    The same bound without a schedule: lambda uniform stands for 1 - alpha. masked bool [B, ...].
    Reference: Ou et al. 2024 (RADD), arXiv:2406.03736, the lambda-denoising cross-entropy.
    """
    log_mu = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    return jnp.where(masked, -log_mu / expand_like(level, tokens), 0.0)


def variational_bound(prediction: Prediction | Array, tokens: Array, noisy: Array, k: Array, process: Process) -> Array:
    """Term k of the discrete-time variational bound at x_k = noisy, per cell, in nats. [B, ...]

        k > 1:  KL( q(x_{k-1} | x_k, x_0) || p(x_{k-1} | x_k) ),      k = 1:  -log p(x_0 | x_1),

    x_k at t = k/T, T = process.times; the sum over k = 1..T (T times the mean over uniform k) bounds -log p(x_0), less
    the prior's term KL(q(x_T | x_0) || p(x_T)). p goes by the rule that is exact for the type of the prediction.
    k int [B]. Raises: InputError for a continuous process, which has no steps.
    Reference: Austin et al. 2021 (D3PM), arXiv:2107.03006, equation (1).
    """
    prediction = prediction if isinstance(prediction, Mean | LeaveOneOut | Score) else Mean(prediction)
    steps = process.times
    if steps is None:
        raise InputError("this process runs in continuous time: build it with times=T, or train with score_entropy")
    t, s = process.level(k / steps), process.level((k - 1) / steps)
    s = jax.tree.map(lambda x, clean: jnp.where(k == 1, clean, x), s, CLEAN)
    truth = jnp.log(jax.nn.one_hot(tokens, process.vocab, dtype=jnp.result_type(t.alpha)))
    target = product(LeaveOneOut(truth), noisy, t, s)
    model = posterior(prediction, noisy, t, s)
    needed = target > 0
    gap = jnp.log(jnp.where(needed, target, 1.0)) - jnp.log(jnp.where(needed, model, 1.0))
    return jnp.sum(jnp.where(needed, target * gap, 0.0), axis=-1)  # at k = 1 the target is x_0 itself


def auxiliary_cross_entropy(logits: Array, tokens: Array) -> Array:
    """-log mu(x_0) of every cell, which D3PM adds 0.01 times to its bound and VQ-Diffusion 5e-4 times. [B, ...]"""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]


def prior_term(tokens: Array, process: Process) -> Array:
    """KL(q(x_1 | x_0) || p(x_1)) of a cell for the uniform process, the schedule's own remainder; in nats. [B, ...]

    For processes with masks the prior is taken at alpha = 0 and the term is 0.
    """
    if process.masked > 0:
        return jnp.zeros(tokens.shape)
    kernel = between(CLEAN, process.level(jnp.asarray(1.0)), process.vocab)
    own, rest = kernel.keep + kernel.spread, kernel.spread
    count = process.vocab
    return jnp.broadcast_to(own * jnp.log(own * count) + (count - 1) * rest * jnp.log(rest * count), tokens.shape)
