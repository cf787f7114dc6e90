"""Lipschitz constant of an equilibrium output x -> C z*(x), z* = sigma(W z* + U x + b), by a linear matrix inequality.

sigma acts elementwise with slopes in [0, 1] (tanh, relu, ...). For two inputs put dv = W dz + U dx. Each entry has
dz_i = d_i dv_i with d_i in [0, 1], so dz_i (dv_i - dz_i) >= 0, and for every diagonal Lambda > 0
    dz^T Lambda (W dz + U dx - dz) >= 0.
Add twice that to |C dz|^2 - rho^2 |dx|^2: the sum is the quadratic form of
    M(Lambda, rho^2) = [[C^T C - 2 Lambda + Lambda W + W^T Lambda, Lambda U], [U^T Lambda, -rho^2 I]]
at (dz, dx), so M <= 0 gives |C dz| <= rho |dx|. For fixed Lambda the least rho^2 is, by the Schur complement,
    lambda_max(U^T Lambda S^-1 Lambda U),   S = 2 Lambda - Lambda W - W^T Lambda - C^T C > 0,
a convex function of Lambda. S > 0 implies 2 Lambda - Lambda W - W^T Lambda > 0, and then z* exists, is unique, and
I - D W is invertible for every D in [0, I]: well-posedness costs no extra condition (Revay, Wang and Manchester 2020,
arXiv:2010.01732, theorem 1). |W| < 1 is not needed. Where it holds Lambda = t I, t = |C|^2/(1 - |W|), attains
|C| |U| / (1 - |W|), and that simple bound is returned should verification in float64 do worse.
References: Fazlyab et al. 2019, arXiv:1906.04893 (LipSDP); Pabbaraju, Winston and Kolter 2021 (equilibrium networks).
A full multiplier matrix, as LipSDP has it, would be unsound here (Pauli et al. 2021, arXiv:2005.02929): diagonal only.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from eqdiff_jax.contraction.norms import as_matrix, block_norms, spectral_norm
from eqdiff_jax.contraction.rounding import round_up, times
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Certificate, Kind

UNIT = 2.0**-53
_MARGINS = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # tried in turn: relative loosening that the check needs
_POWERS = (8, 64)  # of the smooth maximum of eigenvalues, in turn
BLOCK_STEPS = 30  # quasi-Newton steps on block multipliers, for each power


def implicit_lipschitz(w: Any, u: Any, c: Any = None, *, blocks: Sequence[int] | None = None,
                       refine: int = 0) -> Certificate:
    """Certified bound on |C z*(x) - C z*(y)| / |x - y| for z* = sigma(W z* + U x + b), slopes of sigma in [0, 1].

    One multiplier per block (`blocks`: sizes that add up to n, e.g. (128, 32); default one block), then `refine`
    quasi-Newton steps on all n of them; n of them from the outset where the blocks offer no start. The optimiser only
    proposes: `lmi_bound` verifies its multipliers. If none works the bound is inf and nothing is certified. W [n, n],
    U [n, m], C [p, n] (default I), taken as exact; biases do not matter. Exact arithmetic: the rounding of a solver is
    not included. Seconds at n = 160.

    Raises: InputError if a matrix is not finite or shapes or blocks disagree.
    """
    w, u, c, sizes = _problem(w, u, c, blocks)
    u_scale, c_scale = (_power(x) for x in (u, c))
    u, c = u / u_scale, c / c_scale
    # An optimiser needs U U^T only; verification takes U itself.
    thin = scipy.linalg.qr(u.T, mode="r")[0][: len(w)].T if u.shape[1] > len(w) else u
    group = np.repeat(np.arange(len(sizes)), sizes)
    starts = [_best_scale(w, thin, c, start[group]) for start in _starts(w, c, sizes)]
    start = min(starts, key=lambda m: _value(w, thin, c, m))
    best: np.ndarray | None = start
    name = f"LMI, {len(sizes)} block multiplier{'s' * (len(sizes) > 1)}"
    if not np.isfinite(_value(w, thin, c, start)):
        best, name = _feasible(w, thin, c), "LMI, diagonal multipliers"
    elif len(sizes) > 1:
        best = _descend(w, thin, c, start, group, BLOCK_STEPS)
    if best is not None and refine > 0:
        best, name = _descend(w, thin, c, best, np.arange(len(w)), refine), name + ", refined one by one"
    bound = float("inf") if best is None else lmi_bound(w, u, c, best)
    simple = _small_gain(w, u, c)
    if simple <= bound and np.isfinite(simple):
        bound, name = simple, "small gain, |C| |U| / (1 - |W|)"
    bound = times(times(bound, u_scale), c_scale)
    assumptions = ("sigma acts elementwise with slopes in [0, 1]", "z* is exact")
    if not np.isfinite(bound):
        return Certificate(float("inf"), Kind.ESTIMATED, f"not certified: {name} found no multipliers", assumptions)
    return Certificate(bound, Kind.PROVED, name, assumptions)


def _small_gain(w: np.ndarray, u: np.ndarray, c: np.ndarray) -> float:
    """|C| |U| / (1 - |W|), rounded up; inf unless |W| < 1."""
    norm, gain = spectral_norm(w), times(spectral_norm(c), spectral_norm(u))
    return round_up(Fraction(gain) / (1 - Fraction(norm))) if norm < 1 and np.isfinite(gain) else float("inf")


def lmi_bound(w: Any, u: Any, c: Any, multipliers: Any) -> float:
    """Verified rho for given multipliers [n] > 0: M(Lambda, rho^2) <= 0, rounding included; inf if that fails.

    rho comes from the Schur complement; then -M(Lambda, rho^2) is formed in float64, lowered by a bound delta on its
    own rounding and on that of the factorisation, and factored: success of Cholesky proves -M >= 0 (Rump 2006, BIT
    46, 433: delta >= gamma_{N+1}/(1 - gamma_{N+1}) trace). Failing that rho is loosened, by 1 % at most.
    """
    w, u, c, _ = _problem(w, u, c, None)
    lam = np.asarray(multipliers, np.float64)
    if lam.shape != (len(w),):
        raise InputError(f"multipliers must be {len(w)} numbers, one per row of W, got shape {lam.shape}")
    if not (np.isfinite(lam).all() and (lam > 0).all()):
        return float("inf")
    if not (u.any() and c.any()):  # nothing enters, or nothing is read: 0 if z* exists, which I in their place shows
        eye = np.eye(len(w))
        return 0.0 if np.isfinite(lmi_bound(w, eye, eye, lam * 2 / np.min(lam))) else float("inf")
    u_scale, c_scale = (_power(x) for x in (u, c))
    return times(times(_unit_bound(w, u / u_scale, c / c_scale, lam / c_scale / c_scale), u_scale), c_scale)


def _power(x: np.ndarray) -> float:
    """Power of two next above the largest entry (1 if there is none): divided by it x is of order 1, exactly."""
    exponent = int(np.frexp(np.max(np.abs(x)))[1])
    return 2.0 ** min(max(exponent, -1022), 1023)


def _unit_bound(w: np.ndarray, u: np.ndarray, c: np.ndarray, lam: np.ndarray) -> float:
    """`lmi_bound` where U and C are of order 1, so that rho^2 is not below the rounding of the rest."""
    value = _value(w, u, c, lam)
    if not np.isfinite(value):
        return float("inf")
    for margin in _MARGINS:
        rho = max(value, 1e-150) ** 0.5 * (1 + margin)
        # A small loosening may need Lambda a little larger, too: S is singular at some optima.
        for scale in (1.0, 1.0 + margin):
            if _negative(w, u, c, scale * lam, rho):
                return float(rho)
    return float("inf")


def _problem(w: Any, u: Any, c: Any, blocks: Sequence[int] | None
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    w, u = as_matrix(w, "W"), as_matrix(u, "U")
    n = len(w)
    c = np.eye(n) if c is None else as_matrix(c, "C")
    sizes = (n,) if blocks is None else tuple(map(int, blocks))
    if w.shape != (n, n) or len(u) != n or c.shape[1] != n:
        raise InputError(f"an equilibrium needs W [n, n], U [n, m] and C [p, n], got {w.shape}, {u.shape}, {c.shape}")
    if sum(sizes) != n or min(sizes) < 1:
        raise InputError(f"blocks {sizes} must be positive sizes that add up to {n}")
    return w, u, c, sizes


def _schur(w: np.ndarray, c: np.ndarray, lam: np.ndarray) -> np.ndarray:
    scaled = lam[:, None] * w
    return 2 * np.diag(lam) - scaled - scaled.T - c.T @ c


def _value(w: np.ndarray, u: np.ndarray, c: np.ndarray, lam: np.ndarray) -> float:
    """rho^2 of these multipliers, unverified; inf where S is not positive definite."""
    try:
        factor = np.linalg.cholesky(_schur(w, c, lam))
    except np.linalg.LinAlgError:
        return float("inf")
    half = scipy.linalg.solve_triangular(factor, lam[:, None] * u, lower=True, check_finite=False)
    small = half @ half.T if half.shape[0] < half.shape[1] else half.T @ half
    if not np.isfinite(small).all():
        return float("inf")
    value = float(np.linalg.eigvalsh(small)[-1])
    return value if np.isfinite(value) else float("inf")


def _negative(w: np.ndarray, u: np.ndarray, c: np.ndarray, lam: np.ndarray, rho: float) -> bool:
    """Verified: M(Lambda, rho^2) <= 0."""
    n, m, p = len(w), u.shape[1], len(c)
    weight = rho * rho  # as a float: it is this rho^2, rounded down below, that is verified
    weight = np.nextafter(weight, 0)
    cross = lam[:, None] * u
    matrix = np.block([[_schur(w, c, lam), -cross], [-cross.T, weight * np.eye(m)]])
    # Entries are sums of products: gamma_{p+4} times the sum of their magnitudes bounds each one's rounding.
    scaled = lam[:, None] * np.abs(w)
    magnitude = 2 * np.diag(lam) + scaled + scaled.T + np.abs(c).T @ np.abs(c)
    size = float(np.max(magnitude.sum(axis=1) + np.abs(cross).sum(axis=1))) + float(np.abs(cross).sum(axis=0).max())
    forming = 2 * (p + 4) * UNIT * size
    factoring = 2 * (n + m + 1) * UNIT * float(np.trace(matrix)) + 4 * UNIT * float(np.max(np.diag(matrix)))
    lowered = matrix - (forming + factoring) * np.eye(n + m)
    try:
        np.linalg.cholesky(lowered)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(lowered).all())


def _starts(w: np.ndarray, c: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Block multipliers to start from: equal ones, and the small-gain theorem's (left over right Perron vector)."""
    size = max(spectral_norm(c), 1e-100) ** 2
    starts = [np.full(len(sizes), size)]
    if len(sizes) > 1:
        gains = block_norms(w, sizes) + 1e-9
        right, left = (np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
                       for values, vectors in (np.linalg.eig(gains), np.linalg.eig(gains.T)))
        starts.append(size * (left / right) / np.max(left / right))
    return starts


def _best_scale(w: np.ndarray, u: np.ndarray, c: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """`lam` times the scalar that minimises rho: one-dimensional and convex."""
    lowest = np.linalg.eigvalsh(_schur(w, 0 * c, lam))[0]
    if lowest <= 0:
        return lam
    enough = max(spectral_norm(c), 1e-100) ** 2 / lowest  # S > 0 from here on
    found = scipy.optimize.minimize_scalar(lambda t: min(_value(w, u, c, enough * np.exp(t) * lam), 1e300),
                                           bounds=(-12.0, 6.0), method="bounded", options={"xatol": 1e-9})
    candidates = (enough * np.exp(found.x) * lam, enough * 1.0000001 * lam)
    return min(candidates, key=lambda m: _value(w, u, c, m))


def _feasible(w: np.ndarray, u: np.ndarray, c: np.ndarray) -> np.ndarray | None:
    """Full diagonal Lambda with 2 Lambda - Lambda W - W^T Lambda > 0, by ascent on its least eigenvalue, or None."""

    def lowest(x: np.ndarray) -> tuple[float, np.ndarray]:
        lam = np.exp(x - x.mean())
        values, vectors = np.linalg.eigh(_schur(w, 0 * c, lam))
        soft = np.exp(-(values - values[0]) / 0.01)
        soft /= soft.sum()
        slope = 2 * (vectors * (vectors - w @ vectors)) @ soft * lam
        return -float(soft @ values), -(slope - slope.mean())

    found = scipy.optimize.minimize(lowest, np.zeros(len(w)), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    scaled = _best_scale(w, u, c, np.exp(found.x - found.x.mean()))
    return scaled if np.isfinite(_value(w, u, c, scaled)) else None


def _descend(w: np.ndarray, u: np.ndarray, c: np.ndarray, lam: np.ndarray, group: np.ndarray, steps: int) -> np.ndarray:
    """Smaller rho over one multiplier per group (group [n] of 0..k-1), from a feasible start: L-BFGS on log Lambda.

    The maximum over eigenvalues is smoothed by power sums. With K = U^T Lambda S^-1 Lambda U, K q = s q and
    y = S^-1 Lambda U q, ds/dLambda_i = 2 y_i ((U q)_i - y_i + (W y)_i).
    """

    def smooth(x: np.ndarray, power: int) -> tuple[float, np.ndarray]:
        multipliers = lam * np.exp(x)[group]
        try:
            factor = scipy.linalg.cho_factor(_schur(w, c, multipliers), lower=True)
        except np.linalg.LinAlgError:
            return 1e300, np.zeros_like(x)
        cross = multipliers[:, None] * u
        inverse = scipy.linalg.cho_solve(factor, cross)
        values, vectors = np.linalg.eigh(cross.T @ inverse)
        top = max(values[-1], 1e-300)
        weights = np.clip(values / top, 0, None)
        total = (weights**power).sum()
        y, drive = inverse @ vectors, u @ vectors
        slope = (2 * y * (drive - y + w @ y)) @ (weights ** (power - 1)) / (top * total)
        return float(np.log(top) + np.log(total) / power), np.bincount(group, slope * multipliers)

    best = lam
    for power in _POWERS:
        found = scipy.optimize.minimize(smooth, np.zeros(int(group.max()) + 1), args=(power,), jac=True,
                                        method="L-BFGS-B", options={"maxiter": steps})
        lam = lam * np.exp(found.x)[group]
        best = min((best, lam, _best_scale(w, u, c, lam)), key=lambda m: _value(w, u, c, m))
        lam = best
    return best
