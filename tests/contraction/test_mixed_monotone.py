"""The mixed monotone property: recognised, refuted map by map, never proved."""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import contraction
from eqdiff_jax.types import Kind


def sample(key):
    keys = jax.random.split(key)
    return jax.random.normal(keys[0], (4,)), jax.random.normal(keys[1], (3,))


def test_mixed_monotone_maps_are_recognised():
    w = np.float32(np.random.default_rng(0).uniform(0, 1, (4, 3)))
    found = contraction.mixed_monotone(lambda z1, z2: jnp.tanh(z1 - w @ z2), lambda z2, z1: jnp.tanh(z2 - w.T @ z1),
                                       jax.random.key(0), sample)
    assert found.violations == (0.0, 0.0)
    assert found.plausible
    assert found.kind == Kind.ESTIMATED
    assert "sampled evidence" in found.method


def test_nan_breaks_the_order():
    found = contraction.mixed_monotone(lambda z1, z2: z1 * jnp.nan, lambda z2, z1: z2, jax.random.key(0), sample)
    assert found.violations[0] == 1.0
    assert not found.plausible


def test_violations_are_counted_map_by_map():
    w = np.float32(np.random.default_rng(0).uniform(0.1, 1, (4, 3)))
    # F1 increases in z2 where it should not: joint pairs may still hold, pairs in z2 alone never do
    found = contraction.mixed_monotone(lambda z1, z2: z1 + w @ z2, lambda z2, z1: z2 - w.T @ z1,
                                       jax.random.key(0), sample)
    assert found.violations[0] >= 1 / 3
    assert found.violations[1] == 0
    assert not found.plausible
    falling = contraction.mixed_monotone(lambda z1, z2: -z1, lambda z2, z1: -z2, jax.random.key(0), sample, count=64)
    np.testing.assert_allclose(falling.violations, 2 / 3, atol=1e-6)  # all but the pairs that differ in y alone
