"""Upper bounds lie above, lower estimates below, by as much as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.contraction.norms import svd_bound
from eqdiff_jax.contraction.rounding import gamma, length, residual_bound, roundoff
from eqdiff_jax.errors import InputError


def exact(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)[0]


def orthogonal(n, m, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, m)))[0]


@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1.0, 1e12])
@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (30, 7), (96, 96)])
def test_upper_bounds_in_float32_are_never_below(shape, scale):
    matrix = np.float32(scale * np.random.default_rng(1).normal(size=shape))
    sigma = exact(matrix)
    assert sigma <= float(jax.jit(contraction.schatten)(matrix)) <= 1.1 * sigma
    assert sigma <= float(jax.jit(contraction.gram_bound)(matrix)) <= sigma * (1 + 1e-5) * min(shape) ** 0.5
    assert sigma <= contraction.spectral_norm(matrix) <= sigma * (1 + 1e-12)
    assert float(contraction.power_iteration(jnp.asarray(matrix))) <= sigma * (1 + 1e-5)


def test_bounds_of_matrices_whose_norm_is_known():
    ones = np.ones((9, 4), np.float32)  # norm 6: rank one, where every Gram bound is exact
    for bound in (contraction.schatten(ones), contraction.gram_bound(ones), contraction.spectral_norm(ones)):
        assert 6 <= float(bound) <= 6.001
    assert contraction.spectral_norm(np.zeros((3, 2))) == 0.0
    assert 0 <= float(contraction.schatten(np.zeros((3, 2), np.float32))) < 1e-30
    assert contraction.spectral_norm([[3.0, 4.0]]) == pytest.approx(5.0, rel=1e-12)
    assert contraction.spectral_norm([[1e200]]) >= 1e200


def test_isometry_bound_is_tight_for_orthonormal_columns():
    matrix = np.float32(orthogonal(128, 64))
    assert exact(matrix) <= float(contraction.isometry_bound(matrix)) <= 1 + 2e-5
    stretched = np.float32(matrix * 3)  # beyond what the exact grid covers
    assert float(contraction.isometry_bound(stretched)) >= 3


def test_residual_bound_sees_a_defect_below_the_rounding_of_the_product():
    left = np.float32(orthogonal(256, 256))
    with jax.enable_x64(True):
        defect = float(np.linalg.norm(np.eye(256) - left.astype(np.float64).T @ left.astype(np.float64)))
    bound = float(residual_bound(jnp.eye(256), left.T, left))
    assert defect <= bound <= defect + 2e-5
    assert gamma(256, np.float32) * 256 > 3e-3  # what the product in float32 would have had to allow


def test_rounding_model():
    assert roundoff(np.float32) == 2.0**-24
    assert roundoff(np.float64) == 2.0**-53
    assert gamma(2**24, np.float32) == np.inf


def test_power_iteration_of_a_map_and_from_below():
    matrix = np.float32(np.diag([2.0, 1.0, 0.5]))
    value = contraction.power_iteration(lambda z: {"a": 2 * z["a"], "b": z["b"]}, {"a": jnp.ones(2), "b": jnp.ones(3)})
    assert float(value) == pytest.approx(2.0, rel=1e-6)
    few = contraction.power_iteration(jnp.asarray(matrix), steps=1)
    assert float(few) < 2.0
    with pytest.raises(InputError, match="like="):
        contraction.power_iteration(lambda z: z)


def test_block_norms():
    blocks = contraction.block_norms(np.diag([1.0, 2.0, 3.0]), (1, 2))
    np.testing.assert_allclose(blocks, [[1, 0], [0, 3]], rtol=1e-12)


def test_block_gains_bound_the_product_norm():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(8, 8))
    factor = contraction.max_norm(contraction.block_norms(matrix, (5, 3)))
    for _ in range(50):
        x = rng.normal(size=8)
        norm = max(np.linalg.norm(x[:5]), np.linalg.norm(x[5:]))
        y = matrix @ x
        assert max(np.linalg.norm(y[:5]), np.linalg.norm(y[5:])) <= factor * norm


@pytest.mark.parametrize("matrix", [np.ones(3), [[np.nan, 1]], [[np.inf]], np.zeros((0, 3))])
def test_no_matrix_is_refused(matrix):
    with pytest.raises(InputError):
        contraction.spectral_norm(matrix)


def test_blocks_must_fit():
    with pytest.raises(InputError, match="sizes"):
        contraction.block_norms(np.eye(3), (1, 1))


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 8.6e37, 3e38])
def test_in_program_bounds_over_the_whole_range_of_float32(size):
    rng = np.random.default_rng(0)
    matrix = np.float32(size) * np.clip(rng.normal(size=(6, 5)) / 9, -1, 1).astype(np.float32)
    sigma = contraction.spectral_norm(matrix)

    def by_svd(w):
        return svd_bound(w, *jnp.linalg.svd(w, full_matrices=False))

    for bound in (contraction.gram_bound, contraction.schatten, by_svd):
        found = float(jax.jit(bound)(matrix))
        assert sigma <= found <= 1.6 * sigma or (found == np.inf and sigma > 1.5e38)


def test_length_neither_overflows_nor_vanishes():
    x = np.array([3.0, -4.0], np.float32)
    for size in (1e-37, 1e-20, 1.0, 1e20, 5e37):
        assert float(jax.jit(length)(np.float32(size) * x)) == pytest.approx(5 * size, rel=1e-6)
    assert float(length(jnp.zeros(3))) == 0
    np.testing.assert_array_equal(jax.grad(length)(jnp.zeros(3)), 0)
    np.testing.assert_allclose(jax.grad(length)(x), x / 5, rtol=1e-6)
    for bad in (np.nan, np.inf):
        assert not np.isfinite(length(np.array([1.0, bad], np.float32)))


def test_complex_matrices_are_refused():
    with pytest.raises(InputError, match="complex"):
        contraction.spectral_norm(np.eye(2) * 1j)
