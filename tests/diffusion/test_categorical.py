"""Categorical draws keep rare events."""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.diffusion import categorical


def test_rare_events_come_at_their_rate():
    """500 categories of 2e-7 beside one near 1: 1e-4 in all, 500,000 draws expect 50, sd 7.1."""
    logits = jnp.log(jnp.concatenate([jnp.array([1.0 - 1e-4]), jnp.full(500, 2e-7)]))
    draw = jax.jit(lambda key: jnp.sum(categorical(key, jnp.broadcast_to(logits, (10_000, 501))) > 0))
    rare = sum(int(draw(key)) for key in jax.random.split(jax.random.key(0), 50))
    assert abs(rare - 50) < 4 * 7.1


def test_law_of_an_ordinary_draw():
    p = np.array([0.5, 0.3, 0.2])
    drawn = np.asarray(categorical(jax.random.key(1), jnp.broadcast_to(jnp.log(p), (100_000, 3))))
    np.testing.assert_allclose(np.bincount(drawn) / 1e5, p, atol=0.006)
