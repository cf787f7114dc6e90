"""Searches stay below the true constant and come close to it where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax import contraction


def test_gradient_ascent_finds_the_steepest_point():
    """f(x) = (tanh(3 (x_1 - 1)), x_2/2): the worst slope, 3, is at x_1 = 1 only."""

    def f(x):
        return jnp.stack([jnp.tanh(3 * (x[0] - 1)), 0.5 * x[1]])

    starts = jnp.array([[0.2, 0.0], [2.0, 1.0], [1.8, -3.0]])
    found = contraction.worst_lipschitz(f, starts, steps=200, rate=0.05)
    assert found.ratio.dtype == jnp.float32
    assert 2.999 < float(found.ratio) <= 3 * (1 + 1e-6)
    assert abs(float(found.x[0]) - 1) < 0.02
    unmoved = contraction.worst_lipschitz(f, starts, steps=1, rate=0.0)
    assert float(unmoved.ratio) < 1.5


def test_it_respects_the_domain():
    """|d/dx x^2| = 2 |x| is at most 6 on |x| <= 3, without limit outside."""
    found = contraction.worst_lipschitz(lambda x: x * x, jnp.array([[0.5], [-1.0], [9.0]]), steps=100, rate=0.2,
                                        project=lambda x: jnp.clip(x, -3, 3))
    assert float(found.ratio) == pytest.approx(6.0, rel=1e-5)
    assert abs(float(found.x[0])) <= 3


def test_pytrees_and_float64():
    with jax.enable_x64(True):
        w = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)))
        starts = {"a": jnp.ones((3, 2)), "b": (jnp.zeros((3, 4)),)}

        def f(x):
            return {"out": jnp.tanh(w @ jnp.concatenate([x["a"], x["b"][0]]))}

        found = contraction.worst_lipschitz(f, starts, steps=150, rate=0.05)
        sigma = float(jnp.linalg.svd(w, compute_uv=False)[0])  # the supremum, reached at 0
        assert found.ratio.dtype == jnp.float64
        assert 0.99 * sigma < float(found.ratio) <= sigma * (1 + 1e-12)
        assert set(found.x) == {"a", "b"}


def test_points_that_are_not_finite_never_win():
    found = contraction.worst_lipschitz(lambda x: jnp.log(x), jnp.array([[1.0], [-1.0]]), steps=3, rate=0.01)
    assert float(found.ratio) == pytest.approx(1.0, abs=0.05)


def test_observed_ratios():
    key = jax.random.key(0)

    def sample(key):
        return jax.random.normal(key, (5,))

    assert float(contraction.worst_ratio(lambda x: -2 * x, key, sample, 50).ratio) == pytest.approx(2, rel=1e-3)
    # relu(|x|)-like folds are steep close by and flat far away: close pairs see what far pairs miss
    steep = contraction.worst_ratio(lambda x: jnp.sin(50 * x), key, sample, 200, near=1e-3)
    far = contraction.worst_ratio(lambda x: jnp.sin(50 * x), key, sample, 200, near=1.0)
    assert 25 < float(steep.ratio) <= 50 * (1 + 1e-3)
    assert float(far.ratio) < 10
    distance = jnp.linalg.norm(steep.x - steep.y)
    assert float(jnp.linalg.norm(jnp.sin(50 * steep.x) - jnp.sin(50 * steep.y)) / distance) == pytest.approx(
        float(steep.ratio), rel=1e-3)
    constant = contraction.worst_ratio(lambda x: 0 * x, key, lambda key: jnp.ones(3), 4)  # equal points: no 0/0
    assert float(constant.ratio) == 0


def test_ratio_is_never_above_a_proved_bound():
    matrix = jax.jit(contraction.cayley)(jnp.asarray(np.random.default_rng(0).normal(size=(48, 32)), jnp.float32))
    certificate = contraction.dense(matrix)
    starts = jax.random.normal(jax.random.key(1), (4, 32))
    found = contraction.worst_lipschitz(lambda x: jnp.tanh(matrix @ x), starts, steps=60, rate=0.1)
    assert 0.9 < float(found.ratio) <= certificate.bound + 1e-6
