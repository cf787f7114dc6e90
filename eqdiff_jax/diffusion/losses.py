"""Training loss and likelihood bound of the absorbing process."""

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.absorbing import absorbing_score, expand_like
from eqdiff_jax.types import Array, Nelbo, Predict, Process

TIME_MIN = 1e-3


def antithetic_times(key: Array, batch: int) -> Array:
    """Stratified times t_i = (u + i/B) mod 1 in [1e-3, 1], one uniform u for the whole batch. [B]"""
    u = jax.random.uniform(key)
    t = (u + jnp.arange(batch) / batch) % 1.0
    return TIME_MIN + (1.0 - TIME_MIN) * t


def score_entropy(logits: Array, tokens: Array, noisy: Array, t: Array, process: Process) -> Array:
    """Denoising score entropy of the absorbing process, per cell, in nats. [B, ...]

        sigma'(t) * sum_{y != mask} [ s(y) - r(y) log s(y) + K(r(y)) ]   where noisy = mask, else 0,
        r(y) = q(y | x_0)/q(mask | x_0) = 1[y = x_0] alpha/(1 - alpha),   K(a) = a log a - a.

    logits [B, ..., V] of p(x_0 | x_t), -inf allowed off the data; tokens, noisy [B, ...]; t [B].
    Reference: Lou et al., equation for the diffusion weighted denoising score entropy.
    """
    log_mu = jax.nn.log_softmax(logits)
    alpha = process.alpha(t)
    ratio = expand_like(alpha / (1.0 - alpha), tokens)
    score_sum = jnp.sum(absorbing_score(log_mu, alpha), axis=-1)
    log_mu_true = jnp.take_along_axis(log_mu, tokens[..., None], axis=-1)[..., 0]
    log_score_true = log_mu_true + jnp.log(ratio)
    entropy = score_sum - ratio * log_score_true + ratio * jnp.log(ratio) - ratio
    return jnp.where(noisy == process.mask, expand_like(process.rate(t), tokens) * entropy, 0.0)


def masked_cross_entropy(logits: Array, tokens: Array, noisy: Array, t: Array, process: Process) -> Array:
    """The closed form of `score_entropy` when sum mu = 1: -alpha'/(1 - alpha) * -log mu(x_0). [B, ...]

    -alpha' = alpha sigma'. Masked cells only. Reference: Sahoo et al. (MDLM); Shi et al. (MD4).
    """
    log_mu = jax.nn.log_softmax(logits)
    cross_entropy = -jnp.take_along_axis(log_mu, tokens[..., None], axis=-1)[..., 0]
    alpha = process.alpha(t)
    weight = expand_like(process.rate(t) * alpha / (1.0 - alpha), tokens)
    return jnp.where(noisy == process.mask, weight * cross_entropy, 0.0)


def nelbo(key: Array, predict: Predict, process: Process, tokens: Array, *, draws: int = 8) -> Nelbo:
    """Monte-Carlo bound on -log p(tokens): E_lambda sum_masked -log mu(x_0) / lambda, in nats per token.

    Each cell is masked with probability lambda; lambda is stratified over the draws of one example. The bound
    holds for every schedule that runs from alpha = 1 to 0. tokens [N, ...]; `draws` network calls; the key is
    consumed; jittable. The standard error is over examples (nan for N = 1).
    Reference: Ou et al. (RADD), the lambda-denoising cross-entropy.
    """
    n = tokens.shape[0]
    shift = jax.random.uniform(key, (n,))

    def one(index, total):
        level = (shift + index / draws) % 1.0
        # A cell is masked when its uniform falls below lambda; lambda = 0 masks nothing and costs nothing.
        uniforms = jax.random.uniform(jax.random.fold_in(key, index + 1), tokens.shape)
        masked = uniforms < expand_like(level, tokens)
        logits = predict(jnp.where(masked, process.mask, tokens), level)
        log_mu = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
        cost = jnp.where(masked, -log_mu, 0.0).reshape(n, -1).mean(-1)
        return total + cost / jnp.maximum(level, 1e-9)

    per_example = jax.lax.fori_loop(0, draws, one, jnp.zeros(n)) / draws
    return Nelbo(per_example.mean(), per_example.std(ddof=1) / jnp.sqrt(n), per_example)
