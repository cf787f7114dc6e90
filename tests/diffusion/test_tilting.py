"""tilt: the asked sum where it can be had, the nearest of all laws with that sum, no further than allowed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.diffusion import tilt

CELLS, TOKENS = 6, 5


def problem(seed, batch=4, impossible=True):
    """Laws [B, 6, 5] with some impossible tokens, a statistic [5], how much each cell counts [B, 6]."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (batch, CELLS, TOKENS)).astype(np.float32)
    if impossible:
        logits[rng.random(logits.shape) < 0.2] = -np.inf
        logits[..., 0] = 0.0
    weight = np.where(rng.random((batch, CELLS)) < 0.7, rng.uniform(0.2, 1.0, (batch, CELLS)), 0.0).astype(np.float32)
    weight[:, 0] = 1.0
    return jax.nn.log_softmax(jnp.asarray(logits)), jnp.asarray(rng.normal(size=TOKENS), jnp.float32), weight


def total(log, statistic, weight):
    return np.sum((np.exp(log) * np.asarray(statistic)).sum(-1) * weight, axis=1)


def divergence(log_q, log_p, weight):
    return ((np.exp(log_q) * (np.asarray(log_q) - np.asarray(log_p))).sum(-1) * weight).sum(1)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(-1.0, 1.0), st.floats(0.1, 6.0))
def test_the_sum_is_the_goal_or_the_limit_is_reached(seed, place, most):
    log, statistic, weight = problem(seed)
    low, high = (total(jax.nn.log_softmax(log + w * statistic), statistic, weight) for w in (-most, most))
    goal = 0.5 * (low + high) + place * 0.8 * (high - low)  # some of them out of reach
    q = np.asarray(tilt(log, statistic, weight, jnp.asarray(goal), jnp.full(4, most)))
    np.testing.assert_allclose(np.exp(q).sum(-1), 1.0, atol=1e-5)
    assert (np.isneginf(q) == np.isneginf(log)).all()
    np.testing.assert_allclose(total(q, statistic, weight), np.clip(goal, low, high), atol=2e-4)
    possible = ~np.isneginf(q)
    gain = np.where(possible, q, 0.0) - np.where(possible, log, 0.0)
    moved = gain[..., :, None] - gain[..., None, :]  # log odds of two tokens
    most_moved = most * np.abs(np.asarray(statistic)[:, None] - np.asarray(statistic))
    both = possible[..., :, None] & possible[..., None, :]
    assert (np.abs(moved) <= most_moved + 1e-4)[both].all()


def test_no_law_with_the_same_sum_is_nearer():
    """Steps that keep every cell a law and the sum what it is only lead away, in proportion to their square."""
    rng = np.random.default_rng(0)
    log, statistic, weight = problem(3, batch=1, impossible=False)
    goal = total(log, statistic, weight) + 0.7
    q = np.asarray(tilt(log, statistic, weight, jnp.asarray(goal), jnp.full(1, 20.0)), np.float64)
    best = divergence(q, log, weight)[0]
    assert best > 0.01
    s = np.asarray(statistic, np.float64) - np.mean(np.asarray(statistic, np.float64))
    for _ in range(200):
        step = rng.normal(size=q.shape) * (weight > 0)[..., None]
        step -= step.mean(-1, keepdims=True)
        counts = weight[..., None] * s
        step -= counts * (step * counts).sum() / (counts * counts).sum()
        near = np.exp(q) + 0.3 * step * np.exp(q).min() / np.abs(step).max()
        assert (near > 0).all()
        assert total(np.log(near), statistic, weight)[0] == pytest.approx(goal[0], abs=1e-4)
        assert divergence(np.log(near), log, weight)[0] > best - 1e-7


def test_a_statistic_of_its_own_for_every_example_and_cell():
    log, _, weight = problem(5)
    statistic = jnp.asarray(np.random.default_rng(1).normal(size=log.shape), jnp.float32)
    goal = np.asarray(total(log, statistic, weight)) + np.array([0.5, -0.5, 0.2, 0.0])
    q = tilt(log, statistic, weight, jnp.asarray(goal), jnp.full(4, 20.0))
    np.testing.assert_allclose(total(q, statistic, weight), goal, atol=2e-4)


def test_nothing_is_moved_without_a_limit_or_a_cell_that_counts():
    log, statistic, weight = problem(7)
    np.testing.assert_allclose(tilt(log, statistic, weight, jnp.full(4, 9.0), jnp.zeros(4)), log, atol=1e-6)
    weight[2] = 0.0
    q = tilt(log, statistic, jnp.asarray(weight), jnp.full(4, 9.0), jnp.full(4, 3.0))
    np.testing.assert_allclose(q[2], log[2], atol=1e-6)
    assert (np.abs(np.exp(q[3]) - np.exp(log[3])) > 0.1).any()


def test_what_stands_may_say_anything():
    log, statistic, weight = problem(8)
    weight[:, 3] = 0.0
    goal, most = jnp.full(4, 0.3), jnp.full(4, 3.0)
    clean, odd = (np.asarray(tilt(x, statistic, weight, goal, most)) for x in (log, log.at[:, 3].set(jnp.nan)))
    np.testing.assert_array_equal(np.delete(clean, 3, axis=1), np.delete(odd, 3, axis=1))


def test_examples_do_not_know_of_each_other():
    log, statistic, weight = problem(9)
    goal, most = jnp.asarray([1.0, -1.0, 0.0, 2.0]), jnp.asarray([1.0, 2.0, 3.0, 4.0])
    whole = tilt(log, statistic, weight, goal, most)
    broken = tilt(log.at[1].set(jnp.nan), statistic, weight, goal, most)
    for i in (0, 2, 3):
        np.testing.assert_array_equal(whole[i], broken[i])
        np.testing.assert_array_equal(whole[i], tilt(log[i:i + 1], statistic, weight[i:i + 1], goal[i:i + 1],
                                                     most[i:i + 1])[0])
    assert np.isnan(broken[1]).all()


def test_derivatives_are_those_of_the_solution():
    """Against central differences in float64, of law, statistic, weight and goal, in reach and out of it."""
    with jax.enable_x64(True):
        log, statistic, weight = (jnp.asarray(x, jnp.float64) for x in problem(11, batch=2, impossible=False))
        pick = jnp.asarray(np.random.default_rng(2).normal(size=log.shape))
        base = total(log, statistic, weight)

        def loss(log, statistic, weight, goal):
            return jnp.sum(pick * jnp.exp(tilt(log, statistic, weight, goal, jnp.asarray([9.0, 1.5]))))

        point = (log, statistic, weight, jnp.asarray(base + np.array([0.4, 50.0])))
        grads = jax.grad(loss, argnums=(0, 1, 2, 3))(*point)
        assert float(grads[3][0]) != 0 and float(grads[3][1]) == 0
        rng = np.random.default_rng(3)
        for k, grad in enumerate(grads):
            way = jnp.asarray(rng.normal(size=grad.shape)) * (weight > 0 if k == 2 else 1.0)
            ends = [loss(*(x + e * way if i == k else x for i, x in enumerate(point))) for e in (1e-5, -1e-5)]
            assert float((grad * way).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-8)
