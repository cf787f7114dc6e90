"""The parametrised layers keep their bounds in float32 for ordinary, huge, tiny, zero and badly trained parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.contraction.lipschitz import sll_weights
from eqdiff_jax.errors import InputError

MATRICES = {"aol": contraction.aol, "cayley": contraction.cayley, "spectral": contraction.spectral}
JITTED = {name: jax.jit(f) for name, f in MATRICES.items()}
aol, cayley, spectral = JITTED["aol"], JITTED["cayley"], JITTED["spectral"]
SCALES = [0.0, 1e-20, 1e-3, 0.1, 1.0, 30.0, 1e4, 1e20, 1e38]
LAPACK = 1e-12  # what the float64 SVD that judges may err itself
DRAWS = 1000


def raw(rows, columns, scale, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    return np.float32(scale * values)


def draws(shape, seed=0):
    """[1000, *shape] float32 of sizes 1e-4 to 1e5, dense, sparse, of rank one, and with one large entry."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(DRAWS, *shape)) * 10 ** rng.uniform(-4, 5, (DRAWS, 1, 1))
    values[::4] *= rng.random(shape) < 0.2
    values[1::4] = values[1::4, :, :1] * rng.choice([-1, 1], (1, 1, shape[1]))
    values[2::4, 0, 0] *= 1e3
    return np.float32(values)


def singular_values(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(128, 128), (128, 32), (216, 128), (5, 1)])
def test_cayley_columns_are_orthonormal_and_never_longer_than_one(shape, scale):
    matrix = cayley(raw(*shape, scale))
    assert matrix.shape == shape
    values = singular_values(matrix)
    assert values[0] <= 1 + LAPACK
    assert values[-1] >= 1 - 3e-5


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(96, 96), (20, 50)])
@pytest.mark.parametrize("name", ["aol", "spectral"])
def test_norm_is_at_most_one(name, shape, scale):
    matrix = JITTED[name](raw(*shape, scale))
    assert np.isfinite(matrix).all()
    assert singular_values(matrix)[0] <= 1 + LAPACK


def test_spectral_leaves_short_matrices_alone_and_shortens_long_ones_little():
    short = raw(40, 30, 0.05)
    assert singular_values(short)[0] < 1
    np.testing.assert_array_equal(spectral(short), short)
    assert singular_values(spectral(raw(128, 128, 3.0)))[0] >= 1 - 1e-4


def test_a_power_iteration_in_place_of_the_svd_would_break_the_bound():
    long = raw(96, 96, 1.0)
    sigma = contraction.power_iteration(jnp.asarray(long), steps=10)
    assert singular_values(long / np.asarray(sigma))[0] > 1 + 1e-5


def test_rank_one_extremes_keep_the_bounds():
    ones = np.full((64, 64), 1e6, np.float32)
    assert singular_values(aol(ones))[0] <= 1 + LAPACK
    assert singular_values(spectral(ones))[0] <= 1 + LAPACK
    assert singular_values(cayley(np.triu(ones)))[0] <= 1 + LAPACK


def test_known_values():
    np.testing.assert_allclose(cayley(np.zeros((3, 3), np.float32)), np.eye(3), atol=5e-6)
    # a plane rotation: A = [[0, a], [-a, 0]] gives the rotation by 2 atan(a)
    turn = cayley(np.float32([[0, 0.5], [0, 0]]))
    angle = 2 * np.arctan(0.5)
    expected = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(turn, expected, atol=5e-6)
    np.testing.assert_allclose(aol(np.eye(4, dtype=np.float32)), np.eye(4) / np.sqrt(2), atol=5e-6)
    np.testing.assert_allclose(spectral(np.diag(np.float32([4, 2, 1]))), np.diag([1, 0.5, 0.25]), atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_gradients_are_finite(scale):
    weights = np.random.default_rng(1).normal(size=(12, 8))
    total = jax.jit(jax.grad(lambda r: ((cayley(r) + spectral(r)) * weights + aol(r)).sum()))
    chex.assert_tree_all_finite(total(raw(12, 8, scale)))


def test_spectral_gradient_is_that_of_the_quotient():
    weights = np.random.default_rng(1).normal(size=(12, 8))
    with jax.enable_x64(True):
        point, along = (jnp.asarray(raw(12, 8, 1.0, seed), jnp.float64) for seed in (0, 1))
        total = jax.jit(jax.value_and_grad(lambda r: (contraction.spectral(r) * weights).sum()))
        ahead, behind = total(point + 1e-5 * along)[0], total(point - 1e-5 * along)[0]
        slope = float((total(point)[1] * along).sum())
    assert slope == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


def test_wide_matrix_is_refused():
    with pytest.raises(InputError, match="transpose"):
        cayley(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("shape", [(24, 24), (24, 9)])
@pytest.mark.parametrize("name", MATRICES)
def test_a_thousand_draws_keep_the_bound(name, shape):
    matrices = jax.jit(jax.vmap(MATRICES[name]))(draws(shape))
    assert singular_values(matrices).max() <= 1 + LAPACK


def sll_problem(seed=0):
    rng = np.random.default_rng(seed)
    raws = draws((20, 12), seed)
    return raws, np.float32(rng.normal(size=(DRAWS, 20))), np.float32(rng.normal(size=(DRAWS, 20)) * 20)


def test_sll_a_thousand_draws_keep_every_jacobian_below_one():
    raws, biases, log_q = sll_problem()
    weight, diagonal = (np.asarray(x, np.float64) for x in jax.jit(jax.vmap(sll_weights))(raws, log_q))
    x = np.random.default_rng(3).normal(size=(DRAWS, 12))
    slopes = (np.einsum("bij,bj->bi", weight, x) + biases > 0) / diagonal
    jacobians = np.eye(12) - 2 * np.einsum("bki,bk,bkj->bij", weight, slopes, weight)
    worst = singular_values(jacobians).max(axis=1)
    assert worst.max() <= 1 + LAPACK
    assert np.sort(worst)[DRAWS // 2] > 0.99  # the bound is reached, not merely kept


def test_sll_ratios_stay_below_one_and_its_formula_is_the_paper():
    rng = np.random.default_rng(0)
    raws, biases, log_q = (np.float32(rng.normal(size=shape)) for shape in ((20, 12), 20, 20))
    layer = jax.jit(lambda x: contraction.sll(x, raws, biases, log_q))
    with jax.enable_x64(True):
        wide = [jnp.asarray(v, jnp.float64) for v in (raws, biases, log_q)]
        found = contraction.worst_ratio(lambda x: contraction.sll(x, *wide), jax.random.key(0),
                                        lambda key: jax.random.normal(key, (12,), jnp.float64), 500)
        assert float(found.ratio) <= 1 + LAPACK
    x = rng.normal(size=12).astype(np.float32)
    q = np.exp(15 * np.tanh(log_q.astype(np.float64) / 15))
    w = raws.astype(np.float64)
    t = 1e-6 + (np.abs(w @ w.T) * q[None, :] / q[:, None]).sum(axis=1)
    expected = x - 2 * w.T @ (np.maximum(w @ x + biases, 0) / t)
    np.testing.assert_allclose(layer(x), expected, rtol=2e-5, atol=2e-5)


def test_monotone_a_thousand_draws_keep_the_margin():
    m = 0.25
    matrices = np.asarray(jax.jit(jax.vmap(lambda a, b: contraction.monotone(a, b, m)))(
        draws((10, 16)), draws((16, 16), 1)), np.float64)
    symmetric = np.eye(16) - (matrices + matrices.transpose(0, 2, 1)) / 2
    least, largest = np.linalg.eigvalsh(symmetric).min(axis=1), np.abs(symmetric).max(axis=(1, 2))
    assert (least >= m - LAPACK * largest).all()
    assert singular_values(matrices).max() > 10  # far from |W| < 1, which is the point of the parametrisation
    for seed in range(2, 10):  # long B: rescaled, where a contracted b - b^T has a diagonal
        b = np.float32(np.random.default_rng(seed).normal(size=(100, 16, 16)) * 3e6)
        w = np.asarray(jax.jit(jax.vmap(lambda b: contraction.monotone(jnp.zeros((1, 16)), b, m)))(b), np.float64)
        assert np.linalg.eigvalsh(np.eye(16) - (w + w.transpose(0, 2, 1)) / 2).min() >= m
    small = np.asarray(contraction.monotone(np.zeros((2, 3), np.float32), np.float32([[0, 1, 0]] * 3), m))
    np.testing.assert_allclose(small, [[0.75, 1, 0], [-1, 0.75, -1], [0, 1, 0.75]], atol=1e-5)


@pytest.mark.parametrize("m", [0.0, -1.0, 1.5])
def test_monotone_margin_is_refused_outside_its_range(m):
    with pytest.raises(InputError, match="margin"):
        contraction.monotone(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), m)


def test_bounds_hold_after_training_at_an_absurd_rate():
    shape, m = (16, 16), 0.1
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name in [*MATRICES, "sll", "a", "b", "log_q"]}
    target = rng.normal(size=shape)
    x = jnp.asarray(rng.normal(size=16), jnp.float32)

    def outputs(p):
        matrices = {name: f(p[name]) for name, f in MATRICES.items()}
        return {**matrices, "monotone": contraction.monotone(p["a"], p["b"], m),
                "sll": contraction.sll(x, p["sll"], jnp.zeros(16), p["log_q"][0])}

    optimiser = optax.adam(10.0)

    def step(carry, _):
        params, state = carry
        loss, gradient = jax.value_and_grad(
            lambda p: sum(jnp.sum((y - target) ** 2) for y in outputs(p).values()))(params)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), None, 200))(params)
    chex.assert_tree_all_finite((params, losses))
    assert max(float(jnp.abs(p).max()) for p in params.values()) > 100  # training did run away
    trained = jax.jit(outputs)(params)
    for name in MATRICES:
        assert singular_values(trained[name])[0] <= 1 + LAPACK, name
    w = np.asarray(trained["monotone"], np.float64)
    assert np.linalg.eigvalsh(np.eye(16) - (w + w.T) / 2)[0] >= m - LAPACK * np.abs(w).max()
    weight, diagonal = (np.asarray(v, np.float64) for v in sll_weights(params["sll"], params["log_q"][0]))
    assert singular_values(weight / diagonal[:, None] ** 0.5)[0] <= 1 + LAPACK  # T >= W W^T


@pytest.mark.parametrize("largest", [1e37, 8.6e37, 3e38])
def test_the_largest_floats_are_bounded_too(largest):
    """From 8.5e37 on 1/max|raw| is subnormal, which compiled programs take for 0."""
    rng = np.random.default_rng(0)
    raw = rng.uniform(-1, 1, (12, 8)).astype(np.float32)
    raw[0, 0] = 1.0
    raw = np.float32(largest) * raw
    for make in (contraction.cayley, contraction.aol, contraction.spectral):
        matrix = np.asarray(jax.jit(make)(raw))
        assert np.isfinite(matrix).all()
        assert 0.3 < singular_values(matrix).max() <= 1
    layer = jax.jit(lambda x: contraction.sll(x, raw, jnp.zeros(12), jnp.zeros(12)))
    assert not np.allclose(layer(jnp.ones(8)), 1.0)  # it still does something
    skew = np.asarray(jax.jit(lambda b: contraction.monotone(jnp.zeros((1, 8)), b, 0.5))(raw[:8]))
    assert np.abs(skew).max() > 10


@pytest.mark.parametrize("make", [contraction.cayley, contraction.aol, contraction.spectral])
@pytest.mark.parametrize("raw", [np.zeros((0, 0), np.float32), np.zeros(4, np.float32), np.zeros((4, 4), np.float16)])
def test_what_is_no_matrix_is_refused(make, raw):
    with pytest.raises(InputError, match="matrix"):
        make(jnp.asarray(raw))
