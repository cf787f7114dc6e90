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

from eqdiff_jax.contraction.rounding import ULPS, division_factor, frobenius, gamma, product, residual_bound, roundoff
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array

SVD_ERROR = 4.0  # times max(n, m) eps |W|: LAPACK's backward error, of which a tenth is seen in practice


def as_matrix(matrix: Any, name: str = "matrix") -> np.ndarray:
    """`matrix` as finite float64 [n, m].

    Raises: InputError if it has another rank or holds NaN or infinity.
    """
    values = np.asarray(matrix, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"{name} must have two axes, got shape {values.shape}: pass a matrix [outputs, inputs]")
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinity, so it has no norm: look at the training that made it")
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
    _, exponent = jnp.frexp(values[0])
    scale = jnp.ldexp(jnp.ones((), dtype), -exponent)  # a power of two: exact, and brings s_1 into [1/2, 1)
    weighted = left * (values * scale)
    residual = residual_bound(matrix * scale, weighted, right)
    main = isometry_bound(left) * (values[0] * scale) * isometry_bound(right.T)
    return (main * division_factor(matrix.shape, dtype) + residual) * (1.0 + ULPS * roundoff(dtype)) / scale


def gram_bound(matrix: Array) -> Array:
    """Upper bound sqrt(max_j sum_i |W^T W|_ij) on sigma_1(W) (Gershgorin), rounding included. []

    Jittable, one product. W [n, m].
    """
    scale = jnp.maximum(jnp.max(jnp.abs(matrix)), jnp.finfo(matrix.dtype).tiny)  # no square under- or overflows
    largest = jnp.sqrt(jnp.max(gram_sums(matrix / scale)))
    return scale * largest * division_factor(matrix.shape, matrix.dtype) ** 2


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
    dtype = matrix.dtype
    scales, sizes = [], []
    for _ in range(squarings):
        scale = jnp.maximum(jnp.max(jnp.abs(matrix)), jnp.finfo(dtype).tiny)
        unit = matrix / scale
        size = jnp.maximum(frobenius(unit), 1.0)  # 1 at least unless W = 0
        matrix = product((unit / size).T, unit / size)
        scales.append(scale * size)
        sizes.append(unit.shape)
    bound = frobenius(matrix)
    for scale, shape in zip(reversed(scales), reversed(sizes), strict=True):
        # |N|^2 = |N^T N| <= |fl(N^T N)| + gamma |N|_F^2 with |N|_F <= 1 + gamma, then N back to its own scale
        bound = jnp.sqrt(bound + 2 * gamma(shape[0] + 2, dtype)) * division_factor(shape, dtype) ** 2
        bound = (bound + 4 * min(shape) ** 0.5 * ULPS * roundoff(dtype)) * scale
    return bound


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


def max_norm(gains: Any, weights: Any = None) -> float:
    """Norm max_i sum_j G_ij w_j / w_i of a gain matrix G [k, k] >= 0: its contraction factor in max_i |z_i| / w_i.

    If |F_i(z) - F_i(z')| <= sum_j G_ij |z_j - z'_j| then F has this Lipschitz constant in the weighted max-of-blocks
    norm; w = 1 gives the largest row sum, w = `perron(G)` the least value, rho(G). w [k] positive.
    """
    values = as_gains(gains)
    w = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(values),) or not (w > 0).all():
        raise InputError(f"weights must be {len(values)} positive numbers, got {w}")
    return float(np.max(values @ w / w))


def perron(gains: Any) -> tuple[float, np.ndarray]:
    """Perron root rho(G) and a positive right vector w with G w <= (rho + tiny) w, of a matrix G [k, k] >= 0.

    A reducible G has a Perron vector with zeros; they are lifted by 1e-12 of G's size, hence the "tiny".
    Raises: InputError if G is not square, finite and non-negative.
    """
    values = as_gains(gains)
    root = float(np.max(np.abs(np.linalg.eigvals(values))))
    lifted = values + 1e-12 * max(float(values.max()), 1e-300)
    eigenvalues, vectors = np.linalg.eig(lifted)
    vector = np.abs(np.real(vectors[:, np.argmax(np.real(eigenvalues))]))
    return root, vector / vector.max()


def as_gains(gains: Any) -> np.ndarray:
    """`gains` as float64 [k, k], every entry finite and >= 0.

    Raises: InputError otherwise.
    """
    values = as_matrix(gains, "gains")
    if values.shape[0] != values.shape[1] or (values < 0).any():
        raise InputError(f"gains must be a square matrix of numbers >= 0, got shape {values.shape} with least entry "
                         f"{values.min():.3g}: pass constants [[|dF1/dz1|, |dF1/dz2|], [|dF2/dz1|, |dF2/dz2|]]")
    return values
