"""Categorical draws keep rare events, and the fast mode is seen to lose them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from eqdiff_jax.diffusion import categorical

RARE = 1000


def counts(p, draws, mode="high", batch=5000):
    """How often each of 1 + 1000 categories came in `draws` draws of 1000 categories of probability p beside one."""
    logits = jnp.log(jnp.concatenate([jnp.array([1.0 - RARE * p]), jnp.full(RARE, p)]))

    @jax.jit
    def some(total, key):
        drawn = categorical(key, jnp.broadcast_to(logits, (batch, RARE + 1)), mode=mode)
        return total + jnp.bincount(drawn, length=RARE + 1), None

    keys = jax.random.split(jax.random.key(0), draws // batch)
    return np.asarray(jax.jit(lambda: jax.lax.scan(some, jnp.zeros(RARE + 1, jnp.int32), keys)[0])())


@pytest.mark.parametrize(("p", "draws"), [(1e-8, 1_000_000), (1e-7, 500_000), (1e-6, 100_000), (1e-5, 100_000),
                                          (1e-4, 50_000)])
def test_rare_events_come_at_their_rate(p, draws):
    """Chi-square of ten blocks and the rest. benchmarks/rare_events.py makes 5 million draws at 1e-8."""
    found = counts(p, draws)
    assert found.sum() == draws
    blocks = found[1:].reshape(10, -1).sum(axis=1)
    expected = np.full(10, draws * p * RARE / 10)
    assert scipy.stats.chisquare(np.r_[found[0], blocks], np.r_[draws - expected.sum(), expected]).pvalue > 1e-3


def test_the_fast_mode_loses_them():
    """float32 Gumbels end near 16: of the 50 events of 1e-7 expected here it draws far fewer."""
    assert counts(1e-7, 500_000, mode="low")[1:].sum() < 35


def test_law_of_an_ordinary_draw():
    p = np.array([0.5, 0.3, 0.2])
    for mode in ("high", "low"):
        drawn = np.asarray(categorical(jax.random.key(1), jnp.broadcast_to(jnp.log(p), (100_000, 3)), mode=mode))
        np.testing.assert_allclose(np.bincount(drawn) / 1e5, p, atol=0.006)
