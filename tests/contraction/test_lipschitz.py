"""The parametrised matrices keep their bounds for ordinary, huge, tiny and zero parameters."""

import chex
import jax
import numpy as np
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.errors import InputError

aol, cayley = jax.jit(contraction.aol), jax.jit(contraction.cayley)
SCALES = [0.0, 1e-20, 1e-3, 0.1, 1.0, 30.0, 1e4, 1e20, 1e38]


def raw(rows, columns, scale, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    return np.float32(scale * values)


def singular_values(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(128, 128), (33, 33), (128, 32), (216, 128), (5, 1)])
def test_cayley_columns_are_orthonormal(shape, scale):
    matrix = cayley(raw(*shape, scale))
    assert matrix.shape == shape
    np.testing.assert_allclose(singular_values(matrix), 1.0, atol=2e-4)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(96, 96), (20, 50), (50, 20)])
def test_aol_norm_is_at_most_one(shape, scale):
    matrix = aol(raw(*shape, scale))
    assert np.isfinite(matrix).all()
    assert singular_values(matrix)[0] <= 1 + 1e-5


def test_rank_one_extremes_keep_the_bounds():
    ones = np.full((64, 64), 1e6, np.float32)
    assert singular_values(aol(ones))[0] <= 1 + 1e-5
    np.testing.assert_allclose(singular_values(cayley(np.triu(ones))), 1.0, atol=2e-4)


def test_known_values():
    np.testing.assert_allclose(cayley(np.zeros((3, 3), np.float32)), np.eye(3), atol=1e-7)
    # a plane rotation: A = [[0, a], [-a, 0]] gives the rotation by 2 atan(a)
    turn = cayley(np.float32([[0, 0.5], [0, 0]]))
    angle = 2 * np.arctan(0.5)
    expected = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(turn, expected, atol=1e-6)
    np.testing.assert_allclose(aol(np.eye(4, dtype=np.float32)), np.eye(4) / np.sqrt(2), atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_gradients_are_finite(scale):
    weights = np.random.default_rng(1).normal(size=(12, 8))
    gradient = jax.jit(jax.grad(lambda r: (cayley(r) * weights + aol(r)).sum()))
    chex.assert_tree_all_finite(gradient(raw(12, 8, scale)))


def test_wide_matrix_is_refused():
    with pytest.raises(InputError, match="transpose"):
        cayley(np.zeros((2, 3), np.float32))
