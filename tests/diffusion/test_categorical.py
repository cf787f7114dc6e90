"""Categorical draws keep rare events, and the fast mode is seen to lose them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.rare_events import counts, p_value
from eqdiff_jax.diffusion import categorical


@pytest.mark.parametrize(("p", "draws"), [(1e-8, 1_000_000), (1e-7, 500_000), (1e-6, 100_000), (1e-5, 100_000),
                                          (1e-4, 50_000)])
def test_rare_events_come_at_their_rate(p, draws):
    """1,000 categories of p beside one near 1. benchmarks/rare_events.py makes 5 million draws at 1e-8."""
    found = counts(p, draws, "high")
    assert found.sum() == draws
    assert p_value(found, p) > 1e-3


def test_the_fast_mode_loses_them():
    """float32 Gumbels end near 16: of the 50 events of 1e-7 expected here it draws far fewer."""
    assert counts(1e-7, 500_000, "low")[1:].sum() < 35


def test_law_of_an_ordinary_draw():
    p = np.array([0.5, 0.3, 0.2])
    for mode in ("high", "low"):
        drawn = np.asarray(categorical(jax.random.key(1), jnp.broadcast_to(jnp.log(p), (100_000, 3)), mode=mode))
        np.testing.assert_allclose(np.bincount(drawn) / 1e5, p, atol=0.006)
