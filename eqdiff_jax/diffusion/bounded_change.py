"""Bounded change: how many cells of the playing grid may differ in the next one.

    level' = min(cap, level - spent + floor_1024(kappa ||W (c - c_prev)|| cells) + slack),    allowed = floor(level')

What is not spent stays in a bucket that holds at most `cap`, so that over any stretch of N grids, whatever the network
or the motion does,

    sum of Hamming <= kappa cells sum ||W dc|| + slack N + cap,    and never more than cap in one grid.

W leaves out the slots that report the music itself. Levels are integers, 1024 to a cell, so adding them up is exact,
and the distance is taken from below, so float32 never allows a cell too many.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.types import Array, Predict

UNITS = 1024  # levels to a cell
# float32 rounds the norm of 104 differences by less than 60 times 2^-24, relatively; this is more than that.
BELOW = 1.0 - 1e-5


def distance(conditioning: Array, previous: Array, weights: Array | np.ndarray) -> Array:
    """||W (c - c_prev)||_2, [B, C] -> [B]."""
    return jnp.linalg.norm((conditioning - previous) * weights, axis=-1)


def level(bucket: Array | int, moved: Array, cells: int, *, kappa: Array | float, slack: Array | int,
          cap: Array | int) -> Array:
    """What may be spent now, in units of 1/1024 cell: min(cap, bucket + kappa moved cells + slack), int32 [B].

    bucket: what was left before; moved: a `distance` [B]. NaN moves nothing.
    """
    # Clipped before the cast: an overflowing float would otherwise become a negative integer.
    most = jnp.asarray(cap, jnp.int32) * UNITS
    inflow = jnp.nan_to_num(jnp.floor(kappa * cells * UNITS * BELOW * moved), nan=0.0, posinf=jnp.inf)
    inflow = jnp.clip(inflow, 0, jnp.float32(cells * UNITS)).astype(jnp.int32)
    before = jnp.clip(jnp.asarray(bucket, jnp.int32), 0, most)
    return jnp.minimum(most, before + inflow + jnp.asarray(slack, jnp.int32) * UNITS)


def cell_log_likelihood(key: Array, predict: Predict, tokens: Array, mask: int, *, pairs: int = 1) -> Array:
    """log p(cell | other cells), each cell scored only while it is masked. [B, ...]

    Complementary random masks: 2 `pairs` network calls, each cell scored once per pair; cells that are the mask
    already score -inf. tokens [B, ...]; example i uses fold_in(key, i) only. The key is consumed.
    """
    batch, given = tokens.shape[0], tokens != mask
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    safe = jnp.where(given, tokens, 0)

    def score(hidden: Array) -> Array:
        logits = predict(jnp.where(hidden, mask, tokens), jnp.full(batch, 0.5))
        return jnp.take_along_axis(jax.nn.log_softmax(logits), safe[..., None], axis=-1)[..., 0]

    total = jnp.zeros(tokens.shape)
    for pair in range(pairs):
        half = jax.vmap(lambda k, p=pair: jax.random.bernoulli(
            jax.random.fold_in(k, p), 0.5, tokens.shape[1:]))(keys)
        total = total + jnp.where(half, score(half), score(~half))
    return jnp.where(given, total / pairs, -jnp.inf)
