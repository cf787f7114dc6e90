"""Layers whose Lipschitz constant is known for every value of their parameters, in float32 as in exact arithmetic.

Each function maps unconstrained real arrays to constrained ones, so training cannot leave the constraint.

| function   | guarantees, for every finite parameter            | assumes beyond finite parameters          |
|------------|---------------------------------------------------|-------------------------------------------|
| `cayley`   | |Q| <= 1, orthonormal columns up to 2e-4          | n >= m                                    |
| `aol`      | |W| < 1                                           | nothing                                   |
| `spectral` | |W| <= 1, W = raw where |raw| <= 1 - 1e-3         | nothing                                   |
| `sll`      | x -> sll(x) is 1-Lipschitz, residual              | exact evaluation of the layer itself      |
| `monotone` | I - W >= m I (symmetric part)                     | for |U|/m: activation with slope in [0, 1]|

"|Q| <= 1" holds for the float32 matrix that is returned, not only for the formula: each is divided by a factor that
includes a proved bound on its own rounding (rounding.py, the standard model; products in full float32). What remains
is the rounding of the layer's evaluation; certificate.py accounts for it.
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.contraction.norms import gram_sums, isometry_bound, svd_bound
from eqdiff_jax.contraction.rounding import ULPS, division_factor, gamma, product, roundoff, scaling
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array

CAYLEY_LIMIT = 4.0  # Frobenius norm in units of sqrt(columns); longer parameters are rescaled
NORM_LIMIT = 1e3  # same, so that no square overflows
SLL_FLOOR = 1e-6  # least diagonal of T: keeps 1/T finite at W = 0 and only loosens T >= W W^T
SLL_LOG_RANGE = 15.0  # log q saturates here, so that no ratio q_j/q_i overflows


def tame(raw: Array, limit: float) -> Array:
    """Rescale `raw` [n, m] to Frobenius norm `limit` when it is longer; else return it.

    Keeps the solves and products below well conditioned in float32 for arbitrarily large finite
    parameters. Any such preprocessing leaves a bound valid that holds for every parameter.
    """
    down, up = scaling(jnp.concatenate([jnp.ravel(raw), jnp.ones(1, raw.dtype)]))
    unit = down(raw)
    size = jnp.sqrt(jnp.sum(unit * unit) + 1e-30)
    return jnp.where(up(size) > limit, unit * (limit / size), raw)


def _check_matrix(raw: Array, name: str) -> None:
    """Raises InputError unless raw is a non-empty matrix of float32 or float64."""
    if raw.ndim != 2 or raw.size == 0:
        raise InputError(f"{name} needs a matrix [outputs, inputs] with entries, got shape {raw.shape}")
    if raw.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"{name} proves its bound for float32 and float64, got {raw.dtype}: cast the parameters, and "
                         "the matrix afterwards")


def cayley(raw: Array) -> Array:
    """Matrix `[n, m]`, n >= m, with orthonormal columns, from any real `raw` of that shape.

    With U the first m rows of raw, V the others and A = U - U^T + V^T V,
        Q = [(I - A)(I + A)^-1 ; -2 V (I + A)^-1].
    Proof: A + A^T = 2 V^T V >= 0, so |(I + A)x| |x| >= x^T (I + A) x >= |x|^2 and I + A is
    invertible; and (I - A)^T (I - A) + 4 V^T V = I + A^T A + 2 V^T V = (I + A)^T (I + A), hence
    Q^T Q = I: every singular value is 1. For n = m this is the Cayley transform of a skew matrix
    (Trockman and Kolter 2021, arXiv:2104.07167). Use the transpose for a wide matrix.

    In floating point one Newton-Schulz step Q (3 I - Q^T Q)/2 squares the solve's defect, and division by
    sqrt(1 + |Q^T Q - I|_F) >= |Q|, rounding included, leaves |Q| <= 1 exactly. The factor's derivative is that of the
    constant 1.

    Raises: InputError if raw has fewer rows than columns, or is no matrix of float32 or float64.
    """
    _check_matrix(raw, "cayley")
    rows, columns = raw.shape
    if rows < columns:
        raise InputError(
            f"cayley needs at least as many rows as columns, got {raw.shape}: pass the transpose"
        )
    raw = tame(raw, CAYLEY_LIMIT * columns**0.5)
    top, rest = raw[:columns], raw[columns:]
    generator = top - top.T + product(rest.T, rest)
    identity = jnp.eye(columns, dtype=raw.dtype)
    numerator = jnp.concatenate([identity - generator, -2.0 * rest])
    matrix = jnp.linalg.solve((identity + generator).T, numerator.T).T
    matrix = matrix + 0.5 * product(matrix, identity - product(matrix.T, matrix))
    factor = isometry_bound(jax.lax.stop_gradient(matrix)) * division_factor(raw.shape, raw.dtype)
    return matrix / factor


def aol(raw: Array) -> Array:
    """Matrix of the shape of `raw` [n, m] with spectral norm < 1: columns rescaled by a Gram bound.

        W = R D,  D_jj = (1 + sum_i |R^T R|_ij)^(-1/2).
    Proof: D^-2 - R^T R is symmetric, and its diagonal exceeds the absolute sum of the rest of its
    row by at least 1, so it is positive definite (Gershgorin); thus W^T W = D R^T R D < I.
    The 1 makes the map smooth at R = 0, which it sends to 0 (the almost-orthogonal layer of Prach
    and Lampert 2022, arXiv:2208.03160, has none).
    In floating point the sums and the 1 are enlarged by the rounding of the product and of the division.

    Raises: InputError if raw is no matrix of float32 or float64.
    """
    _check_matrix(raw, "aol")
    raw = tame(raw, NORM_LIMIT * raw.shape[1] ** 0.5)
    bound = (1.0 + gram_sums(raw)) * division_factor(raw.shape, raw.dtype) ** 2
    return raw / jnp.sqrt(bound)


def spectral(raw: Array) -> Array:
    """Matrix raw / max(1, sigma_1(raw)) of the shape of `raw` [n, m], spectral norm <= 1.

    sigma_1 comes from an SVD, differentiable, times the a-posteriori bound on the error of that very SVD. Power
    iteration, the usual choice (Miyato et al. 2018, arXiv:1802.05957), approaches sigma_1 from below: the quotient
    trains, but its norm exceeds 1 by an unknown amount and nothing can be certified.
    The derivative is exact wherever sigma_1 is simple, a subgradient elsewhere.

    Raises: InputError if raw is no matrix of float32 or float64.
    """
    _check_matrix(raw, "spectral")
    raw = tame(raw, NORM_LIMIT * raw.shape[1] ** 0.5)
    largest = jnp.linalg.svd(raw, compute_uv=False)[0]
    fixed = jax.lax.stop_gradient(raw)
    bound = svd_bound(fixed, *jnp.linalg.svd(fixed, full_matrices=False))
    ratio = jax.lax.stop_gradient(bound / jnp.maximum(largest, jnp.finfo(raw.dtype).tiny))
    return raw / jnp.maximum(1.0, largest * ratio * division_factor(raw.shape, raw.dtype) ** 2)


def sll_weights(raw: Array, log_q: Array) -> tuple[Array, Array]:
    """W [inner, in] and the diagonal T [inner] >= W W^T of `sll`; T_i = sum_j |W W^T|_ij q_j/q_i, q = exp(log_q)."""
    weight = tame(raw, NORM_LIMIT)
    q = jnp.exp(SLL_LOG_RANGE * jnp.tanh(log_q / SLL_LOG_RANGE))
    return weight, SLL_FLOOR + gram_sums(weight.T, q)


def sll(x: Array, raw: Array, bias: Array, log_q: Array) -> Array:
    """Residual layer x - 2 W^T T^-1 relu(W x + b), 1-Lipschitz for every parameter. [in]

    Proof: relu(v) - relu(v') = D (v - v') with 0 <= D <= I diagonal, so differences are multiplied by
    J = I - 2 W^T T^-1 D W, and
        J^T J = I - 4 W^T T^-1 D W + 4 W^T D T^-1 W W^T T^-1 D W <= I - 4 W^T T^-1 (D - D^2) W <= I,
    where W W^T <= T because diag(q) (T - W W^T) diag(q) is diagonally dominant, rounding of T included.
    The layer's own evaluation rounds like any other. Shapes: x [in], raw [inner, in], bias and log_q [inner].
    Reference: Araujo et al. 2023, arXiv:2303.03169 (SDP-based Lipschitz layers), theorem 3.
    """
    weight, diagonal = sll_weights(raw, log_q)
    return x - 2.0 * product(weight.T, jax.nn.relu(product(weight, x) + bias) / diagonal)


def monotone(a: Array, b: Array, m: Array | float) -> Array:
    """W = (1 - m) I - A^T A + B - B^T, so that x^T (I - W) x >= m |x|^2 for every A [k, n], B [n, n]. [n, n]

    Then z = sigma(W z + U x + b) has exactly one solution for each x, although |W| may exceed 1, and x -> z* is
    (|U|/m)-Lipschitz, for every elementwise sigma with slopes in [0, 1] (such a sigma is a proximal map, so
    W z + U x + b - z is a subgradient at z and <dz, W dz + U dx - dz> >= 0, hence m |dz|^2 <= |dz| |U| |dx|).
    Picard iteration need not converge, damped or not: take forward-backward splitting (proximal steps of sigma with a
    small enough step), or an accelerated solver of eqdiff_jax.equilibrium.
    The diagonal is lowered by a bound on the rounding of A^T A and of the sums.

    Raises: InputError unless 0 < m <= 1; a traced m is not looked at.
    Reference: Winston and Kolter 2020, arXiv:2006.08591; Pabbaraju et al. 2021 for the constant.
    """
    if not isinstance(m, jax.core.Tracer) and not 0.0 < m <= 1.0:
        raise InputError(f"monotone needs 0 < m <= 1, got {m}: m is the margin of I - W")
    size = a.shape[1]
    a, b = tame(a, NORM_LIMIT * size**0.5), tame(b, NORM_LIMIT * size**0.5)
    gram, skew = product(a.T, a), b - b.T
    gram = 0.5 * (gram + gram.T)  # some backends return a product that is not quite symmetric
    magnitude = product(jnp.abs(a).T, jnp.abs(a))
    # |b| + |b^T|, not |skew|: a compiler may contract the scaling of b into b - b^T, which is then not quite skew.
    sizes = 1.0 + magnitude + jnp.abs(b) + jnp.abs(b).T
    error = gamma(a.shape[0] + 4, a.dtype) * magnitude + 4 * roundoff(a.dtype) * sizes
    lowered = jnp.max(jnp.sum(error, axis=0)) * (1.0 + gamma(size + 4, a.dtype) + ULPS * roundoff(a.dtype))
    return (1.0 - m - lowered) * jnp.eye(size, dtype=a.dtype) - gram + skew
