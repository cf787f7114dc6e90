"""Bounds on -log p(tokens), by Monte Carlo and exactly."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.diffusion.losses import lambda_cross_entropy, prior_term, score_entropy
from eqdiff_jax.diffusion.process import expand_like
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Nelbo, Predict, Process

EXACT_CELLS = 14  # 2^14 masks, as many network calls


def nelbo(key: Array, predict: Predict, process: Process, tokens: Array, *, draws: int = 8,
          where: Array | None = None) -> Nelbo:
    """Monte-Carlo bound on -log p(tokens), in nats per token (`.bits`: in bits), with its standard error over examples.

    Absorbing: E_lambda sum_masked -log mu(x_0)/lambda, each cell masked with probability lambda, for every schedule
    that runs from alpha = 1 to 0 (predict gets t = lambda). Else: the score entropy at times t in (0, 1], plus the
    prior's term. lambda or t is stratified over the draws of one example. tokens [N, ...]; `draws` network calls; the
    key is consumed; jittable. The standard error is nan for N = 1. where bool, broadcastable to tokens: the cells that
    count; the others stay masked, whatever they hold, and cost nothing, so that the bound is on the counted cells'
    marginal law, per counted cell of each example (absorbing only; nan for an example without any).
    Raises: InputError for `where` with a process that is not absorbing.
    Reference: Ou et al. 2024 (RADD); Lou et al. 2024 (SEDD).
    """
    n = tokens.shape[0]
    if where is not None and process.masked != 1:
        raise InputError("`where` leaves cells masked, which only the absorbing process can: leave it out")
    counted = jnp.broadcast_to(True if where is None else where, tokens.shape)
    cells = counted.reshape(n, -1).sum(-1)
    tokens = jnp.where(counted, tokens, 0)  # what is not counted need not be a token
    shift = jax.random.uniform(key, (n,))

    def one(index: Array, total: Array) -> Array:
        level = (shift + index / draws) % 1.0
        key_noise = jax.random.fold_in(key, index + 1)
        if process.masked == 1:
            # A cell is masked when its uniform falls below lambda; lambda = 0 masks nothing and costs nothing.
            masked = jax.random.uniform(key_noise, tokens.shape) < expand_like(level, tokens)
            logits = predict(jnp.where(masked | ~counted, process.mask, tokens), level)
            cost = lambda_cross_entropy(logits, tokens, masked & counted, jnp.maximum(level, 1e-9))
        else:
            level = jnp.maximum(level, 1e-5)
            noisy = process.corrupt(key_noise, tokens, level)
            cost = score_entropy(predict(noisy, level), tokens, noisy, level, process)
        return total + cost.reshape(n, -1).sum(-1) / cells

    per_example = jax.lax.fori_loop(0, draws, one, jnp.zeros(n, jnp.result_type(shift))) / draws
    per_example = per_example + prior_term(tokens, process).reshape(n, -1).mean(-1)
    return Nelbo(per_example.mean(), per_example.std(ddof=1) / jnp.sqrt(n), per_example)


def exact_nelbo(predict: Predict, process: Process, tokens: Array) -> Nelbo:
    """The absorbing bound without Monte Carlo: a sum over all sets of masked cells, in nats per token.

        sum_M B(|M|, L - |M| + 1) sum_{i in M} -log mu_i(x_i | x outside M),   B Euler's beta function,

    which is the integral over lambda. 2^L network calls: for up to 14 cells. tokens [N, ...].
    Raises: InputError for more cells, or a process that is not absorbing.
    """
    n, cells = tokens.shape[0], int(np.prod(tokens.shape[1:]))
    if process.masked != 1 or cells > EXACT_CELLS:
        raise InputError(f"exact_nelbo sums over all 2^{cells} masks of an absorbing process, for at most "
                         f"{EXACT_CELLS} cells: take nelbo")
    total = jnp.zeros(n)
    for pattern in itertools.islice(itertools.product((False, True), repeat=cells), 1, None):
        masked = jnp.broadcast_to(jnp.asarray(pattern).reshape(tokens.shape[1:]), tokens.shape)
        count = sum(pattern)
        weight = math.exp(math.lgamma(count) + math.lgamma(cells - count + 1) - math.lgamma(cells + 1))
        logits = predict(jnp.where(masked, process.mask, tokens), jnp.full(n, count / cells))
        cost = lambda_cross_entropy(logits, tokens, masked, jnp.ones(n))
        total = total + weight * cost.reshape(n, -1).sum(-1)
    per_example = total / cells
    return Nelbo(per_example.mean(), per_example.std(ddof=1) / jnp.sqrt(n), per_example)
