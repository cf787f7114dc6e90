"""Bounded change: how many cells of the playing grid may differ in the next one, and which.

    m = min(m_max, floor(kappa ||c - c_prev||_2 * cells) + m_idle)

The m cells that the new conditioning finds least likely are masked again, the rest are clamped. Whatever the
network says, Hamming(g', g) <= m: the clamped cells cannot change.
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.types import Array, Predict

KAPPA, IDLE, MOST = 0.05, 8, 128


def budget(conditioning: Array, previous: Array, cells: int, *, kappa: Array | float = KAPPA,
           idle: Array | int = IDLE, most: Array | int = MOST) -> Array:
    """m = min(most, floor(kappa ||c - c_prev|| cells) + idle), int32 [B]. conditioning, previous [B, C]."""
    distance = jnp.linalg.norm(conditioning - previous, axis=-1)
    # Clipped before the cast: an overflowing float would otherwise become a negative integer.
    moved = jnp.clip(jnp.floor(kappa * distance * cells), 0, most).astype(jnp.int32)
    return jnp.minimum(most, moved + idle)


def cell_log_likelihood(key: Array, predict: Predict, tokens: Array, mask: int, *, pairs: int = 1) -> Array:
    """log p(cell | other cells), each cell scored only while it is masked. [B, ...]

    Complementary random masks: 2 `pairs` network calls, each cell scored once per pair; cells that are the mask
    already score -inf. tokens [B, ...]; example i uses fold_in(key, i) only. The key is consumed.
    """
    batch, given = tokens.shape[0], tokens != mask
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    safe = jnp.where(given, tokens, 0)

    def score(hidden):
        logits = predict(jnp.where(hidden, mask, tokens), jnp.full(batch, 0.5))
        return jnp.take_along_axis(jax.nn.log_softmax(logits), safe[..., None], axis=-1)[..., 0]

    total = jnp.zeros(tokens.shape)
    for pair in range(pairs):
        half = jax.vmap(lambda k, p=pair: jax.random.bernoulli(
            jax.random.fold_in(k, p), 0.5, tokens.shape[1:]))(keys)
        total = total + jnp.where(half, score(half), score(~half))
    return jnp.where(given, total / pairs, -jnp.inf)


def remask_least_likely(log_likelihood: Array, tokens: Array, count: Array, mask: int) -> Array:
    """tokens with the `count` [B] least likely cells of each example masked; ties go to the lower index."""
    flat = log_likelihood.reshape(tokens.shape[0], -1)
    rank = jnp.argsort(jnp.argsort(flat, axis=-1, stable=True), axis=-1, stable=True)
    chosen = (rank < count[:, None]).reshape(tokens.shape)
    return jnp.where(chosen, mask, tokens)
