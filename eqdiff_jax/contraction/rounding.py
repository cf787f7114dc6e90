"""The standard model of floating point, and what can be proved with it inside a jitted program.

Each +, -, *, /, sqrt errs by a relative u = eps/2 at most, so a sum of k products errs by gamma_k sum |a_i b_i| in any
order, gamma_k = k u / (1 - k u) (Higham, Accuracy and Stability of Numerical Algorithms, chapters 2 and 3). Under-
flow adds at most k times the least normal number, far below the terms that are kept here. Products ask for the highest
precision, since accelerators may otherwise round the factors to fewer bits.
"""

from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.types import Array

ULPS = 4.0  # times u: allowed for one division or square root; a GPU's approximate ones err by up to 2 ulp = 4 u
SLOP = 1.001  # times a computed error term of a few percent of its own significance: covers its evaluation


def roundoff(dtype: np.typing.DTypeLike) -> float:
    """u = eps/2 of a float type: 2^-24 for float32, 2^-53 for float64."""
    return float(jnp.finfo(dtype).eps) / 2


def round_up(value: Fraction) -> float:
    """Least float that is no smaller than `value`."""
    near = float(value)
    return near if Fraction(near) >= value else float(np.nextafter(near, np.inf))


def times(a: float, b: float) -> float:
    """a * b >= 0, rounded up; inf if either is, as nothing is certified then."""
    return round_up(Fraction(a) * Fraction(b)) if np.isfinite(a) and np.isfinite(b) else float("inf")


def plus(a: float, b: float) -> float:
    """a + b, rounded up."""
    return round_up(Fraction(a) + Fraction(b)) if np.isfinite(a) and np.isfinite(b) else float("inf")


def gamma(k: int, dtype: np.typing.DTypeLike) -> float:
    """gamma_k = k u / (1 - k u), the relative error of k roundings; inf from k u = 1 on."""
    error = k * roundoff(dtype)
    return error / (1.0 - error) if error < 1 else float("inf")


def product(left: Array, right: Array) -> Array:
    """Matrix product in the full precision of its type, on accelerators too."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def scaling(x: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """(down, up): v -> 2^-e v and v -> 2^e v, with largest |down(x)| in [1/2, 1). Powers of two: both are exact.

    Only what is 2^125 times smaller is lost. x / max|x| is not safe: compiled as a product with 1 / max|x|, it is 0
    where that reciprocal is subnormal, from 8.5e37 on. For 0, NaN and infinity e = 0. e has no derivative.
    """
    one = jnp.ones((), x.dtype)
    exponent = jnp.frexp(jax.lax.stop_gradient(jnp.max(jnp.abs(x), initial=0)))[1]
    half = exponent // 2  # in two halves, since 2^-e itself may be subnormal
    halves = half, exponent - half
    down, up = ([jnp.ldexp(one, sign * h) for h in halves] for sign in (-1, 1))
    return lambda v: v * down[0] * down[1], lambda v: v * up[0] * up[1]


def length(x: Array) -> Array:
    """Euclidean norm of all entries of x, without over- or underflow in the squares; derivative 0 at x = 0. []"""
    down, up = scaling(x)
    square = jnp.sum(down(x) ** 2)
    return up(jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square))))


def frobenius(matrix: Array) -> Array:
    """Upper bound on the Frobenius norm of `matrix` [n, m], entries of which squares are subnormal left out. []"""
    size = matrix.size + 4
    return jnp.sqrt(jnp.sum(matrix * matrix)) * (1.0 + gamma(size, matrix.dtype) + ULPS * roundoff(matrix.dtype))


def division_factor(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> float:
    """1 + relative error in spectral norm that rounding W / s entry by entry may add, W of this shape.

    | |W| |_2 <= |W|_F <= sqrt(min(n, m)) |W|_2, and each entry errs by ULPS u of itself.
    """
    return 1.0 + ULPS * roundoff(dtype) * (1.0 + min(shape) ** 0.5)


def residual_bound(target: Array, left: Array, right: Array) -> Array:
    """Upper bound on |target - left right|_F that sees below gamma_k |left| |right|. []

    Both factors split into a grid part and a rest, left = H + R with H a multiple of g = 2^-11 (float32): products of
    grid parts are multiples of g^2, so their sums are exact, in any order, while they stay below 2^24 g^2 = 4, and
    they do when rows of `left` and columns of `right` have norm < sqrt(3) (Cauchy-Schwarz). Only the products with a
    rest, 2^-12 times smaller, err (error-free splitting: Ogita, Rump and Oishi 2005). Where the norms are larger
    the ordinary gamma_k |left|_F |right|_F is added.

    Shapes: target [n, m], left [n, k], right [k, m], one float type.
    """
    dtype, inner = target.dtype, left.shape[1]
    grid = 2.0 ** -((jnp.finfo(dtype).nmant - 1) // 2)
    left_grid, right_grid = (jnp.round(x / grid) * grid for x in (left, right))
    left_rest, right_rest = left - left_grid, right - right_grid
    exact = (jnp.max(jnp.sum(left_grid**2, axis=1)) < 3.0) & (jnp.max(jnp.sum(right_grid**2, axis=0)) < 3.0)

    near = target - product(left_grid, right_grid)
    rest = product(left_grid, right_rest) + product(left_rest, right)
    sizes = frobenius(left_grid) * frobenius(right_rest) + frobenius(left_rest) * frobenius(right)
    error = gamma(inner + 2, dtype) * sizes + 4 * roundoff(dtype) * (frobenius(near) + frobenius(rest))
    inexact = jnp.where(exact, 0.0, gamma(inner + 2, dtype) * frobenius(left_grid) * frobenius(right_grid))
    return SLOP * (frobenius(near - rest) + error + inexact)
