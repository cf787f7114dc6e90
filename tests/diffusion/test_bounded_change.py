"""Bounded change: the budget's formula, and clamped cells that cannot change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.diffusion import budget, cell_log_likelihood, remask_least_likely


@pytest.mark.parametrize(("distance", "expected"), [(0.0, 8), (0.05, 8), (0.11, 10), (1.0, 27), (6.2, 127), (9.0, 128),
                                                    (1e30, 128), (float("inf"), 128)])
def test_budget(distance, expected):
    moved = jnp.zeros((1, 104)).at[0, 3].set(distance)
    assert int(budget(moved, jnp.zeros((1, 104)), 384)[0]) == expected


@given(st.integers(0, 2**31 - 1), st.floats(0, 10), st.integers(0, 384), st.integers(0, 400), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_budget_never_exceeds_its_two_bounds(seed, size, idle, most, kappa):
    a, b = np.random.default_rng(seed).normal(size=(2, 3, 104)).astype(np.float32) * size
    m = np.asarray(budget(jnp.asarray(a), jnp.asarray(b), 384, kappa=kappa, idle=idle, most=most))
    distance = np.linalg.norm(a.astype(np.float64) - b, axis=-1)
    assert (m <= most).all() and (m <= np.floor(384 * kappa * distance * (1 + 1e-5)) + idle).all()


@given(st.integers(0, 2**31 - 1), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_remask_takes_exactly_the_least_likely(seed, count):
    rng = np.random.default_rng(seed)
    score = jnp.asarray(rng.normal(size=(2, 4, 5)).round(1))  # with ties
    tokens = jnp.asarray(rng.integers(0, 9, (2, 4, 5)))
    got = np.asarray(remask_least_likely(score, tokens, jnp.array([count, 0]), 9))
    assert (got[1] == np.asarray(tokens)[1]).all() and (got[0] == 9).sum() == count
    masked = np.asarray(score)[0][got[0] == 9]
    kept = np.asarray(score)[0][got[0] != 9]
    assert not masked.size or not kept.size or masked.max() <= kept.min()


def test_each_cell_is_scored_only_while_it_is_masked():
    """A predictor that knows the unmasked cells would betray a cell scored in the open."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 6)))

    def predict(x, t):
        del t
        seen = jax.nn.one_hot(x, 4)[..., :3]  # all zero where masked: uniform there
        return 50.0 * seen

    got = cell_log_likelihood(jax.random.key(0), predict, tokens, 3)
    np.testing.assert_allclose(got, -np.log(3), rtol=1e-5)


def test_masks_score_minus_infinity_and_examples_do_not_meet():
    tokens = jnp.array([[0, 3, 1], [2, 2, 2]])

    def predict(x, t):
        return jnp.log(jnp.array([0.5, 0.3, 0.2])) + jnp.zeros((*x.shape, 3)) + 0.0 * t[:, None, None]

    both = np.asarray(cell_log_likelihood(jax.random.key(4), predict, tokens, 3))
    assert np.isneginf(both[0, 1]) and np.isfinite(both[1]).all()
    np.testing.assert_array_equal(cell_log_likelihood(jax.random.key(4), predict, tokens[:1], 3), both[:1])
