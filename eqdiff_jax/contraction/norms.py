"""Spectral norms, from above where a certificate needs them and from below where a search wants them.

| function          | side  | where      | slack                                    |
|-------------------|-------|------------|------------------------------------------|
| `spectral_norm`   | above | host, f64  | about 1e-13 (relative)                   |
| `isometry_bound`  | above | inside jit | 1e-5 at 128 orthonormal columns, 1e-4 at 512 |
| `svd_bound`       | above | inside jit | 3e-5 at 128, 3e-4 at 512                                   |
| `schatten`        | above | inside jit | min(n, m)^(1/64): 8 % at 128             |
| `gram_bound`      | above | inside jit | up to sqrt(m), none for orthogonal columns |
| `power_iteration` | below | inside jit | any: a LOWER estimate, never a certificate |
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from eqdiff_jax.contraction.rounding import (
    ULPS,
    division_factor,
    frobenius,
    gamma,
    product,
    residual_bound,
    roundoff,
    scaling,
)
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array

SVD_ERROR = 4.0  # times max(n, m) eps |W|: LAPACK's backward error, of which a tenth is seen in practice


def as_matrix(matrix: Any, name: str = "matrix") -> np.ndarray:
    """`matrix` as finite float64 [n, m].

    Raises: InputError if it has another rank, is complex, or holds NaN or infinity.
    """
    values = np.asarray(matrix)
    if np.iscomplexobj(values):
        raise InputError(f"{name} is complex: for a norm pass [[Re, -Im], [Im, Re]], which has the same")
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"{name} must have two axes, got shape {values.shape}: pass a matrix [outputs, inputs]")
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinity, so it has no norm: look at what made it")
    return values


def spectral_norm(matrix: Any) -> float:
    """Upper bound on sigma_1(W), W [n, m]: float64 SVD times 1 + 4 max(n, m) eps.

    The factor covers the SVD's backward error (LAPACK Users' Guide, section 4.9: p(n, m) eps |W| with p a "modestly
    growing" function). Power iteration in its place would under-estimate.

    Raises: InputError if W is no finite matrix.
    """
    values = as_matrix(matrix)
    scale = float(np.max(np.abs(values)))
    if scale == 0.0:
        return 0.0
    largest = float(np.linalg.svd(values / scale, compute_uv=False)[0]) * scale
    return largest * (1.0 + SVD_ERROR * max(values.shape) * float(np.finfo(np.float64).eps))


def isometry_bound(matrix: Array) -> Array:
    """Upper bound sqrt(1 + |Q^T Q - I|_F) on sigma_1(Q), rounding included; tight for orthonormal columns. []

    Jittable. |Q|^2 = |Q^T Q| <= |I| + |Q^T Q - I|. Q [n, m].
    """
    identity = jnp.eye(matrix.shape[1], dtype=matrix.dtype)
    return jnp.sqrt(1.0 + residual_bound(identity, matrix.T, matrix)) * (1.0 + ULPS * roundoff(matrix.dtype))


def svd_bound(matrix: Array, left: Array, values: Array, right: Array) -> Array:
    """Upper bound on sigma_1(W) from a computed SVD W ~ U diag(s) V^T, whatever its error. []

        |W| <= |U| s_1 |V| + |W - U diag(s) V^T|_F,
    each norm bounded a posteriori, rounding included. W [n, m], U [n, k], s [k] descending, V^T [k, m]. Jittable.
    """
    dtype = matrix.dtype
    down, up = scaling(values)  # brings s_1 into [1/2, 1)
    residual = residual_bound(down(matrix), left * down(values), right)
    main = isometry_bound(left) * down(values[0]) * isometry_bound(right.T)
    return up((main * division_factor(matrix.shape, dtype) + residual) * (1.0 + ULPS * roundoff(dtype)))


def gram_bound(matrix: Array) -> Array:
    """Upper bound sqrt(max_j sum_i |W^T W|_ij) on sigma_1(W) (Gershgorin), rounding included. []

    Jittable, one product. W [n, m].
    """
    down, up = scaling(matrix)  # no square under- or overflows
    return up(jnp.sqrt(jnp.max(gram_sums(down(matrix)))) * division_factor(matrix.shape, matrix.dtype) ** 2)


def gram_sums(matrix: Array, weights: Array | None = None) -> Array:
    """Upper bounds on sum_i |W^T W|_ij w_i / w_j, W [n, m], w [m] positive (default 1). [m]

    For t_j no less than these, diag(t) >= W^T W: diag(w) (diag(t) - W^T W) diag(w) is diagonally dominant.
    The rounding of the product, gamma_n |W|^T |W|, and of the sum are added.
    """
    rows, columns = matrix.shape
    ratio = 1.0 if weights is None else weights[:, None] / weights
    size = jnp.abs(matrix)
    error = gamma(rows + 2, matrix.dtype) * product(size.T, size)
    sums = jnp.sum((jnp.abs(product(matrix.T, matrix)) + error) * ratio, axis=0)
    return sums * (1.0 + gamma(columns + 4, matrix.dtype) + 2 * ULPS * roundoff(matrix.dtype))


def schatten(matrix: Array, squarings: int = 5) -> Array:
    """Upper bound |(W^T W)^(2^(s-1))|_F^(1/2^s) on sigma_1(W), s = `squarings`, rounding included. []

    The Schatten norm of order 2^(s+1): at most min(n, m)^(1/2^(s+1)) above sigma_1. Jittable, s products. W [n, m].
    """
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    dtype, empty = matrix.dtype, jnp.all(matrix == 0)
    steps = []
    for _ in range(squarings):
        down, up = scaling(matrix)
        size = jnp.maximum(frobenius(down(matrix)), 0.5)  # no less unless W = 0
        scaled = down(matrix) / size
        steps.append((matrix.shape, size, up))
        matrix = product(scaled.T, scaled)
    bound = frobenius(matrix)
    for shape, size, up in reversed(steps):
        # |N|^2 = |N^T N| <= |fl(N^T N)| + gamma |N|_F^2 with |N|_F <= 1 + gamma, then N back to its own scale
        bound = jnp.sqrt(bound + 2 * gamma(shape[0] + 2, dtype)) * division_factor(shape, dtype) ** 2
        bound = up((bound + 4 * min(shape) ** 0.5 * ULPS * roundoff(dtype)) * size)
    return jnp.where(empty, 0.0, bound)


def power_iteration(linear: Array | Callable[[Any], Any], like: Any = None, *, steps: int = 32,
                    key: Array | None = None) -> Array:
    """LOWER estimate |W v| of sigma_1(W), v after `steps` of power iteration on W^T W. []

    Kind.ESTIMATED, never a certificate. Jittable. W is a matrix [n, m] or a linear map of pytrees like `like`; a
    random start (key, default fixed) misses the largest singular vector with probability 0 but may be slow: relative
    error of order (sigma_2/sigma_1)^(4 steps).

    Raises: InputError if W is a function and `like` is missing.
    """
    if not callable(linear):
        like = jnp.zeros(linear.shape[1], linear.dtype)
    elif like is None:
        raise InputError("power_iteration of a function needs an example of its argument: pass like=")
    flat, unravel = ravel_pytree(like)

    def flat_map(v: Array) -> Array:
        return ravel_pytree(linear(unravel(v)))[0] if callable(linear) else product(linear, v)

    transpose = jax.linear_transpose(flat_map, flat)
    start = jax.random.normal(jax.random.key(0) if key is None else key, flat.shape, flat.dtype)

    def unit(v: Array) -> Array:
        return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)

    v = jax.lax.fori_loop(0, steps, lambda _, v: unit(transpose(unit(flat_map(v)))[0]), unit(start))
    return jnp.linalg.norm(flat_map(v))


def block_norms(matrix: Any, sizes: Sequence[int]) -> np.ndarray:
    """Upper bounds on the spectral norms of the blocks of W [n, n], cut into `sizes`. float64 [k, k]

    Raises: InputError unless W is finite and square with n = sum(sizes).
    """
    values = as_matrix(matrix)
    if values.shape != (sum(sizes), sum(sizes)) or min(sizes) < 1:
        raise InputError(f"a matrix of shape {values.shape} has no square blocks of sizes {tuple(sizes)}: make "
                         "the sizes add up to its side")
    cuts = np.cumsum(sizes)[:-1]
    return np.array([[spectral_norm(block) for block in np.split(row, cuts, axis=1)]
                     for row in np.split(values, cuts, axis=0)])
