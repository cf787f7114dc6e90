"""Categorical draws: the one place where sampling precision is decided."""

import jax

from eqdiff_jax.types import Array


def categorical(key: Array, logits: Array) -> Array:
    """One draw from softmax(logits) over the last axis, int32. The key is consumed.

    A Gumbel maximum in plain float32 cannot produce gaps wider than about 16 nats, so events rarer than
    1e-7 never come; mode "high" draws the Gumbels to about 1e-14.
    """
    return jax.random.categorical(key, logits, mode="high")
