"""Bounded change: the budget's formula from below, the bucket's law over any stretch, cells scored while masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.diffusion import cell_log_likelihood
from eqdiff_jax.diffusion.bounded_change import UNITS, distance, level

ONES = np.ones(104, np.float32)


def allowed(moved, bucket=0, kappa=0.05, slack=8, cap=128):
    return int(level(bucket, jnp.asarray([moved], jnp.float32), 384, kappa=kappa, slack=slack, cap=cap)[0]) // UNITS


@pytest.mark.parametrize(("moved", "expected"), [(0.0, 8), (0.05, 8), (0.11, 10), (1.0, 27), (6.2, 127), (9.0, 128),
                                                 (1e30, 128), (float("inf"), 128), (float("nan"), 8)])
def test_budget(moved, expected):
    assert allowed(moved) == expected


def test_what_is_left_is_added_and_the_bucket_holds_no_more_than_its_cap():
    assert allowed(1.0, bucket=10 * UNITS) == 37 and allowed(1.0, bucket=10**9) == 128
    assert allowed(0.0, bucket=UNITS // 2, slack=0) == 0 and allowed(0.0, bucket=-5) == 8
    assert allowed(5.0, cap=0) == 0


@given(st.floats(0.0, 7.0), st.integers(0, 2**31 - 1))
@settings(max_examples=300, deadline=None)
def test_float32_never_allows_a_cell_too_many(size, seed):
    """Also where 384 kappa |dc| lies a rounding below an integer: 109 cells were allowed once where 108 are."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=104)
    aim = np.round(384 * 0.05 * size) / (384 * 0.05) * (1.0 - 3e-7 * rng.random())
    a = (aim * direction / np.linalg.norm(direction)).astype(np.float32)
    true = 384 * 0.05 * np.linalg.norm(a.astype(np.float64))
    got = allowed(float(distance(jnp.asarray(a)[None], jnp.zeros((1, 104)), ONES)[0]), slack=0, cap=384)
    assert true - 1.0 - 0.01 <= got <= true


def test_weights_leave_slots_out():
    a = jnp.zeros((1, 104)).at[0, 3].set(3.0).at[0, 9].set(4.0)
    assert float(distance(a, 0 * a, ONES)[0]) == pytest.approx(5.0)
    assert float(distance(a, 0 * a, np.where(np.arange(104) == 9, 0.0, ONES))[0]) == pytest.approx(3.0)


@given(st.integers(0, 2**31 - 1), st.floats(0, 0.2), st.integers(0, 20), st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_over_any_stretch_the_sum_obeys_the_buckets_law(seed, kappa, slack, cap):
    """Whoever spends, and however much of what is allowed: greedily, by chance, never, all at once."""
    rng = np.random.default_rng(seed)
    moved = (rng.exponential(1.0, 60) * rng.choice([0.0, 0.1, 1.0, 8.0], 60)).astype(np.float32)
    bucket, spent = 0, []
    for i, step in enumerate(moved):
        now = int(level(bucket, jnp.asarray([step]), 384, kappa=kappa, slack=slack, cap=cap)[0])
        most = now // UNITS
        spent.append(min(most, (most, int(rng.integers(0, most + 1)), 0, most if i % 9 == 8 else 0)[seed % 4]))
        bucket = now - UNITS * spent[-1]
        assert spent[-1] <= cap
    total, inflow = np.cumsum([0, *spent]), np.cumsum([0.0, *(384 * kappa * moved.astype(np.float64) + slack)])
    for start in range(60):
        assert (total[start + 1:] - total[start] <= inflow[start + 1:] - inflow[start] + cap + 1e-9).all()


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
