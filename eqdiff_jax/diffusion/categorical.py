"""Categorical draws: the one place where sampling precision is decided."""

import jax
import jax.numpy as jnp

from eqdiff_jax.types import Array


def categorical(key: Array, logits: Array, *, mode: str = "high") -> Array:
    """One draw from softmax(logits) over the last axis, int32. The key is consumed.

    A Gumbel maximum in plain float32 (mode "low") cannot produce gaps wider than about 16 nats, so events rarer than
    1e-7 come too seldom or never; mode "high" draws the Gumbels to about 1e-14, at twice the cost of the draw.
    """
    return jax.random.categorical(key, logits, mode=mode).astype(jnp.int32)
