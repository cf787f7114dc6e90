"""The Jacobian J = df/dz at a point: products with it, its spectral radius, its largest singular value.

rho(J) < 1 at a fixed point says that iterates started close enough converge to it, at the asymptotic rate rho. It says
nothing globally, and nothing of any other point: f may have further fixed points, send distant starts to infinity, and
even near z* the error may first grow by a factor that rho does not bound (J non-normal). rho is no norm: rho of a
composition need not be below the product of the rhos. For statements that hold everywhere use a Lipschitz constant, a
supremum of norms. Conversely |J| > 1 somewhere refutes contraction in that norm only.

Eigenvalues of a non-normal J are sensitive: an error E in J moves a simple one by up to kappa |E|, with
kappa = |x| |y| / |y^T x| of its right and left eigenvectors, which may exceed 1e10 (a twisted shift register does, at
40 unknowns). float32 products leave |E| near 1e-7 |J|. So every radius comes with an estimate of its own error, and
`spectral_radius` raises rather than return a number without digits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree

from eqdiff_jax.contraction.rounding import roundoff
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array

DENSE_LIMIT = 512  # systems up to this size get all their eigenvalues
Linear = Callable[[np.ndarray], np.ndarray]  # v [n] -> J v [n], on the host


class Radius(NamedTuple):
    """What Arnoldi's iteration found."""

    value: float  # |theta| of the dominant Ritz value; an estimate, not a bound
    residual: float  # |J x - theta x| / |theta|, |x| = 1, of its Ritz vector, recomputed from products with J
    converged: bool
    products: int  # evaluations of J v and J^T v
    eigenvalue: complex  # theta, one of its pair
    error: float  # estimated |value - rho|: kappa (residual + rounding of a product) |theta|; nan without J^T


def flatten(f: Callable[..., Any], z: Any, *args: Any) -> tuple[Callable[[Array], Array], Array]:
    """f(., *args) as a function of flat vectors, and z flattened: ([n] -> [n'], [n])."""
    flat, unravel = ravel_pytree(z)

    def vector_map(v: Array) -> Array:
        return ravel_pytree(f(unravel(v), *args))[0]

    return vector_map, flat


def jacobian(f: Callable[..., Any], z: Any, *args: Any) -> Array:
    """Dense J = df(z, *args)/dz, rows outputs, columns inputs, pytrees flattened. [n', n]"""
    vector_map, flat = flatten(f, z, *args)
    return jax.jacfwd(vector_map)(flat)


def jvp(f: Callable[..., Any], z: Any, *args: Any) -> Callable[[Any], Any]:
    """The linear map v -> J v at z, v a pytree like z; one linearisation serves many products."""
    return jax.linearize(lambda z: f(z, *args), z)[1]


def vjp(f: Callable[..., Any], z: Any, *args: Any) -> Callable[[Any], Any]:
    """The linear map u -> J^T u at z, u a pytree like f(z, *args)."""
    pull = jax.vjp(lambda z: f(z, *args), z)[1]
    return lambda u: pull(u)[0]


def local_lipschitz(f: Callable[..., Any], z: Any, *args: Any, steps: int = 8, key: Array | None = None) -> Array:
    """LOWER estimate of sigma_1(J(z)), J = df/dz, by Golub-Kahan-Lanczos with `steps` products with J and J^T. []

    |J v| maximised over |v| = 1 in the Krylov space of J^T J, orthogonalised twice; never above sigma_1 but for
    rounding. Exact once `steps` reaches n. Jittable, vmappable, and differentiable in z and args: at a maximiser v the
    derivative of sigma_1 is that of |J v| for fixed v, so a search can ascend it. z is a pytree.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}: a lower estimate takes at least one product with J")
    vector_map, flat = flatten(f, z, *args)
    fixed = jax.lax.stop_gradient(flat)
    _, push = jax.linearize(vector_map, fixed)
    pull = jax.linear_transpose(push, fixed)
    tiny = jnp.finfo(flat.dtype).tiny ** 0.5
    steps = min(steps, flat.size)

    def orthogonal(v: Array, basis: Array) -> Array:
        size = jnp.linalg.norm(v)
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        left = jnp.linalg.norm(v)  # nothing left but rounding: the space is invariant, and 0 adds nothing to it
        return jnp.where(left > 10 * jnp.finfo(v.dtype).eps * size + tiny, v / jnp.maximum(left, tiny), 0.0)

    def extend(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        basis, v = carry
        basis = basis.at[i].set(v)
        image = push(v)
        return (basis, orthogonal(pull(image)[0], basis)), image

    start = jax.random.normal(jax.random.key(0) if key is None else key, flat.shape, flat.dtype)
    empty = jnp.zeros((steps, flat.size), flat.dtype)
    (basis, _), images = jax.lax.scan(extend, (empty, start / jnp.linalg.norm(start)), jnp.arange(steps))
    images = jax.lax.stop_gradient(images)
    largest = jnp.maximum(jnp.max(jnp.abs(images)), tiny)
    _, vectors = jnp.linalg.eigh((images / largest) @ (images / largest).T)
    v = vectors[:, -1] @ basis
    v = jax.lax.stop_gradient(v / jnp.maximum(jnp.linalg.norm(v), tiny))
    tangent = jax.jvp(vector_map, (flat,), (v,))[1]
    square = jnp.sum(tangent**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def spectral_radius(f: Callable[..., Any], z: Any, *args: Any, key: Array | None = None,
                    dense_limit: int = DENSE_LIMIT, subspace: int = 48, restarts: int = 100,
                    tol: float = 1e-6) -> float:
    """rho(J), the largest |eigenvalue| of J = df(z, *args)/dz at z.

    Up to `dense_limit` unknowns by all eigenvalues of the dense J (float64 on the host; J itself in z's type); beyond,
    matrix-free by JVPs, VJPs and Arnoldi's iteration, safe for complex pairs: a rotation of radius r gives r, where a
    power iteration with a real Rayleigh quotient gives 0. z a pytree of real arrays; f returns the like; the key
    (default fixed) draws the start vector. Not jittable. See the module's head for what rho(J) does not say.

    Raises: InputError if f(z) is not of z's size, J is not finite or a knob is below 1 (tol: not above 0);
    ArithmeticError if Arnoldi's restarts end before the dominant eigenvalue is within `tol` (relative residual), or
    if J is so far from normal that the value's estimated error exceeds 100 tol rho.
    """
    if subspace < 1 or restarts < 1 or not tol > 0:
        raise InputError(f"subspace {subspace} and restarts {restarts} must be at least 1, tol {tol} above 0")
    vector_map, flat = flatten(f, z, *args)
    size = jax.eval_shape(vector_map, flat).size
    if size != flat.size:
        raise InputError(f"spectral_radius needs f(z) of the size of z, {flat.size} numbers, got {size}: a radius "
                         "belongs to a map of a space into itself")
    if flat.size <= dense_limit:
        matrix = np.asarray(jax.jacfwd(vector_map)(flat), np.float64)
        value = dense_radius(matrix)
        error = dense_error(matrix, value, flat.dtype)
    else:
        found = arnoldi(linear_map(vector_map, flat), flat.size, transpose=transpose_map(vector_map, flat), key=key,
                        subspace=subspace, restarts=restarts, tol=tol, dtype=flat.dtype)
        if not found.converged:
            raise ArithmeticError(
                f"spectral_radius did not converge in {found.products} products: the estimate {found.value:.6g} has "
                f"relative residual {found.residual:.1e}, tol is {tol:.0e}; the leading eigenvalues lie too close in "
                "size. Raise subspace, restarts, tol or (exact) dense_limit; contraction.arnoldi returns the estimate")
        value, error = found.value, found.error
    if not error <= 100 * tol * value:
        raise ArithmeticError(
            f"rho is near {value:.6g}, but errs by {error:.1e} or so: J is far from normal, and rounding moves its "
            "eigenvalues by much more than itself. Compute in float64 (jax_enable_x64), or ask for what decides how "
            "iterates behave: norms of J (contraction.local_lipschitz) and of its powers")
    return value


def dense_radius(matrix: np.ndarray) -> float:
    """rho of a matrix [n, n], from its eigenvalues in float64.

    Raises: InputError if it is not finite.
    """
    if not np.isfinite(matrix).all():
        raise InputError("the Jacobian at z holds NaN or infinity: look at z and at f's derivative there")
    return float(np.max(np.abs(np.linalg.eigvals(matrix))))


def dense_error(matrix: np.ndarray, value: float, dtype: np.typing.DTypeLike, draws: int = 4) -> float:
    """Estimated |rho - value| of a matrix [n, n] computed in `dtype`: how far rho moves when J is rounded otherwise.

    Twice the largest change over `draws` perturbations of 8 u |J_ij| entry by entry, plus eps |J|_F / sqrt(n) of
    float64 everywhere for the eigenvalues' own computation. Sampled, so that clusters and Jordan blocks, to which no
    first-order condition number applies, count by what they do.
    """
    rng, n = np.random.default_rng(0), len(matrix)
    wide = float(np.finfo(np.float64).eps) * np.linalg.norm(matrix) / n**0.5
    narrow = 8 * roundoff(dtype) * np.abs(matrix)
    moved = [dense_radius(matrix + narrow * rng.standard_normal((n, n)) + wide * rng.standard_normal((n, n)))
             for _ in range(draws)]
    return 2 * max(abs(m - value) for m in moved)


def linear_map(f: Callable[[Array], Array], z: Array) -> Linear:
    """v -> J v for flat z [n], jitted, with host arrays in and out; J v is computed in z's type."""
    tangent = jax.jit(lambda z, v: jax.jvp(f, (z,), (v,))[1])
    return lambda v: np.asarray(tangent(z, jnp.asarray(v, z.dtype)), np.float64)


def transpose_map(f: Callable[[Array], Array], z: Array) -> Linear:
    """u -> J^T u for flat z [n], jitted, with host arrays in and out; J^T u is computed in z's type."""
    cotangent = jax.jit(lambda z, u: jax.vjp(f, z)[1](u)[0])
    return lambda u: np.asarray(cotangent(z, jnp.asarray(u, z.dtype)), np.float64)


def arnoldi(linear: Linear, size: int, *, transpose: Linear | None = None, key: Array | None = None,
            subspace: int = 48, restarts: int = 100, tol: float = 1e-6,
            dtype: np.typing.DTypeLike = np.float64) -> Radius:
    """Dominant eigenvalue of the real linear map v -> J v of R^n, n = `size`, by thick-restarted Arnoldi.

        J V = V H + w e_m^T,  V [n, m] orthonormal (Gram-Schmidt twice), Ritz values: eigenvalues of H.
    A restart keeps the Schur vectors of the largest Ritz values, about half of them, conjugate pairs together, in real
    arithmetic (Krylov-Schur: Stewart 2001, SIAM J. Matrix Anal. Appl. 23, 601). It has converged when the residual of
    the dominant Ritz pair is within tol |theta| and one more cycle has brought up nothing larger.
    m = `subspace` vectors of n float64 are held. Returns a Radius; `value` is an estimate also when converged: a
    start vector without a component along the dominant eigenvector misses it (probability 0), and for a non-normal J
    the eigenvalue errs by the residual times its condition number kappa. Given `transpose`, v -> J^T v, the iteration
    is repeated on it from the same start for the left eigenvector, and `error` says so; products have the rounding
    of `dtype`.

    Raises: InputError if a product is not finite.
    """
    found, x = _dominant(linear, size, key, subspace, restarts, tol, None)
    if transpose is None or found.value == 0:
        return found
    left, y = _dominant(transpose, size, key, subspace, restarts, tol, found.eigenvalue)
    gap, other = (abs(left.eigenvalue - e) for e in (found.eigenvalue, found.eigenvalue.conjugate()))
    across = abs((y if gap <= other else np.conj(y)) @ x)
    kappa = float(np.linalg.norm(x) * np.linalg.norm(y) / max(across, 1e-300))
    met = min(gap, other) <= 1e-3 * found.value  # the left iteration found the same eigenvalue
    error = kappa * (found.residual + roundoff(dtype)) * found.value if met else np.inf
    return found._replace(error=error, products=found.products + left.products)


def _dominant(linear: Linear, size: int, key: Array | None, subspace: int, restarts: int, tol: float,
              target: complex | None) -> tuple[Radius, np.ndarray]:
    """The dominant Ritz pair, or of those as large the one nearest to `target` (or its conjugate): record, x [n]."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0) if key is None else key)))
    m = min(subspace, size)
    basis, h = np.zeros((m + 1, size)), np.zeros((m + 1, m))
    start = rng.standard_normal(size)
    basis[0] = start / np.linalg.norm(start)
    kept = products = 0
    last = np.inf  # dominant |theta| of the cycle before, if it had converged there
    found, x = Radius(0.0, np.inf, False, 0, 0j, np.nan), basis[0]
    for cycle in range(restarts):
        m_now, scale = m, 0.0
        for j in range(kept, m):
            w = linear(basis[j])
            products += 1
            before = np.linalg.norm(w)
            if not np.isfinite(before):
                raise InputError("a product with the Jacobian at z holds NaN or infinity: look at z and at f there")
            scale = max(scale, float(before))
            for _ in range(2):  # einsum: threaded BLAS stalls on a busy machine, by a factor of 20 at this shape
                overlap = np.einsum("ij,j->i", basis[: j + 1], w)
                w = w - np.einsum("i,ij->j", overlap, basis[: j + 1])
                h[: j + 1, j] += overlap
            h[j + 1, j] = np.linalg.norm(w)
            if j + 1 == size or h[j + 1, j] <= 1e-13 * scale:  # the space is invariant: H has J's own eigenvalues
                m_now, h[j + 1, j] = j + 1, 0.0
                break
            basis[j + 1] = w / h[j + 1, j]
        values, vectors = np.linalg.eig(h[:m_now, :m_now])
        errors = np.abs(h[m_now, :m_now] @ vectors)  # |J x - theta x| of each Ritz pair
        order = np.argsort(-np.abs(values), kind="stable")
        top = order[0] if target is None else min(order, key=lambda i: min(abs(values[i] - target),
                                                                           abs(values[i] - target.conjugate())))
        theta, x = values[top], vectors[:, top] @ basis[:m_now]
        radius = float(np.abs(theta))
        invariant = h[m_now, m_now - 1] == 0.0
        settled = abs(radius - last) <= tol * radius
        last = radius if errors[top] <= tol * radius else np.inf
        done = invariant or (settled and last == radius)
        if done or cycle == restarts - 1:
            error = linear(x.real) + 1j * linear(x.imag) - theta * x
            residual = float(np.linalg.norm(error) / np.linalg.norm(x) / max(radius, 1e-300)) if radius > 0 else 0.0
            found = Radius(radius, residual, bool(done), products + 2, complex(theta), np.nan if radius > 0 else 0.0)
            break
        kept = _restart(basis, h, np.abs(values[order]), x.real + x.imag)
    return found, x


def _restart(basis: np.ndarray, h: np.ndarray, sizes: np.ndarray, ritz: np.ndarray) -> int:
    """Compress V [m + 1, n] and H [m + 1, m] in place to the Schur vectors of the larger Ritz values; their number.

    `sizes` [m] descending; the cut is where they fall off most, about the middle. Should sorting the Schur form fail
    (eigenvalues too close to be told apart), start again from the dominant Ritz vector `ritz` [n] alone.
    """
    m = h.shape[1]
    middle = np.arange(max(1, m // 3), max(2, 2 * m // 3))
    cut = middle[np.argmin(sizes[middle] / np.maximum(sizes[middle - 1], 1e-300))]
    threshold = 0.5 * (sizes[cut] + sizes[cut - 1])
    try:
        schur, rotation, kept = scipy.linalg.schur(
            h[:m], output="real", sort=lambda re, im: np.hypot(re, im) >= threshold)
    except np.linalg.LinAlgError:
        basis[0] = ritz / np.linalg.norm(ritz)
        h[:] = 0.0
        return 0
    kept = min(kept, m - 1)
    if kept and schur[kept, kept - 1] != 0.0:  # never cut a conjugate pair
        kept -= 1
    last = h[m] @ rotation
    basis[:kept] = rotation[:, :kept].T @ basis[:m]
    basis[kept] = basis[m]
    h[:] = 0.0
    h[:kept, :kept] = schur[:kept, :kept]
    h[kept, :kept] = last[:kept]
    return kept
