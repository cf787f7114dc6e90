"""Two coupled equilibria z1 = F1(z1, z2), z2 = F2(z2, z1): three small-gain conditions and how far couplings may grow.

Suprema of spectral norms G = [[a, b], [c, d]] = [[|dF1/dz1|, |dF1/dz2|], [|dF2/dz1|, |dF2/dz2|]]; strongest first:
(a) row sums a + b < 1, c + d < 1: a contraction in max(|z1|, |z2|);
(b) Perron root rho(G) = (a+d)/2 + sqrt(((a-d)/2)^2 + bc) < 1, equivalently a, d < 1 and bc < (1-a)(1-d): a contraction
    in max(|z1|/w1, |z2|/w2), w the Perron vector, since G w = rho w. (a) implies (b). Both are decided on the gains
    as they are given, in rational arithmetic, and values are rounded up;
(c) rho(J) < 1, J the block Jacobian at one point: says something about that point alone. (b) implies it everywhere.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from eqdiff_jax.contraction.gains import (
    CouplingLimits,
    as_gains,
    contracting_weights,
    distance,
    max_norm,
    perron_limits,
    perron_root,
    row_sum_limits,
)
from eqdiff_jax.contraction.jacobian import (
    DENSE_LIMIT,
    arnoldi,
    dense_error,
    dense_radius,
    jacobian,
    linear_map,
    local_lipschitz,
    transpose_map,
)
from eqdiff_jax.contraction.rounding import length
from eqdiff_jax.contraction.search import ascend
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Kind

UNDECIDED = 1e-6  # |rho - 1| within which condition (c) decides nothing, whatever its error
CAUTION = 10.0  # times the estimated error of rho: closer to 1 nothing is decided either
SCALE_LIMIT = 100.0  # for (c) couplings are not followed further than this multiple


class Condition(NamedTuple):
    """One sufficient condition, or (c), the local one."""

    name: str
    value: float  # what must be below 1
    kind: Kind
    holds: bool | None  # None: undecided
    implies: str
    not_implied: str

    @property
    def margin(self) -> float:
        """1 - value."""
        return 1.0 - self.value


class CoupledReport(NamedTuple):
    """Result of `coupled_report`."""

    gains: np.ndarray  # [2, 2] float64
    kind: Kind  # of the gains
    violated: tuple[str, ...]  # blocks of the Jacobian at the point whose norm exceeds the gain that was supplied
    weights: np.ndarray  # [2] w of (b)'s norm
    row_sums: Condition  # (a)
    perron_root: Condition  # (b)
    local: Condition  # (c)
    limits: tuple[CouplingLimits, CouplingLimits, CouplingLimits]  # of (a), (b), (c)
    residual: float  # |(F1 - z1, F2 - z2)| at the point: how far it is from being the equilibrium
    distance: float  # proved bound on |z1 - z1*| and |z2 - z2*|, residuals taken as exact; inf if (b) is not proved

    def __str__(self) -> str:
        return describe(self)


def coupled_report(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], z1: Any, z2: Any, *,
                   gains: Any = None, key: Array | None = None, starts: int = 8, steps: int = 40, spread: float = 1.0,
                   dense_limit: int = DENSE_LIMIT) -> CoupledReport:
    """Conditions (a), (b), (c) for F1 = f1(z1, z2), F2 = f2(z2, z1), with values, margins, kinds and coupling limits.

    `gains` [2, 2]: PROVED bounds on the four suprema, supplied by the caller, who answers for them; (a) and (b) are
    then proved, unless a block of the Jacobian at (z1, z2) is already larger than its gain: then `violated` names
    block, norm and gain, and the norms at the point, estimates, take the place of all four. Without gains they are
    estimated: gradient ascent on each block's norm from `starts` normal draws of size `spread` around (z1, z2),
    `steps` steps. Estimates are from below, so a value below 1 proves nothing and one of 1 or more refutes. (c) is
    computed numerically at (z1, z2), eigenvalues up to `dense_limit` unknowns, Arnoldi beyond, and stays estimated: it
    is exact only up to an estimated error, and only for this point. z1, z2 are pytrees of float arrays; the key
    (default fixed) is consumed. Not jittable.

    Distance: with r_i = |F_i(z) - z_i| the errors satisfy e <= r + G e, hence e <= (I - G)^-1 r if rho(G) < 1.

    Raises: InputError for gains that are no 2 x 2 matrix of numbers >= 0, points that are not of float type, or maps
    that change a shape.
    """
    for name, z in (("z1", z1), ("z2", z2)):
        for leaf in jax.tree.leaves(z):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise InputError(f"{name} has entries of type {jnp.result_type(leaf)}: a Jacobian needs floats, "
                                 "pass jnp.zeros(...) or .astype(float)")
    for name, out, z in (("f1", jax.eval_shape(f1, z1, z2), z1), ("f2", jax.eval_shape(f2, z2, z1), z2)):
        if jax.tree.map(jnp.shape, out) != jax.tree.map(jnp.shape, z):
            raise InputError(f"{name} returns shapes {jax.tree.map(jnp.shape, out)} for a variable of "
                             f"{jax.tree.map(jnp.shape, z)}: pass f1(z1, z2) like z1 and f2(z2, z1) like z2")
    key = jax.random.key(0) if key is None else key
    kind, violated = Kind.ESTIMATED, list[str]()
    if gains is None:
        matrix = estimate_gains(f1, f2, z1, z2, key, starts=starts, steps=steps, spread=spread)
    else:
        matrix = as_gains(gains)
        if matrix.shape != (2, 2):
            raise InputError(f"gains must have shape (2, 2), got {matrix.shape}: pass [[|dF1/dz1|, |dF1/dz2|], "
                             "[|dF2/dz1|, |dF2/dz2|]]")
        here = np.array([[float(block((z1, z2))) for block in row] for row in block_maps(f1, f2)])
        violated = contradictions(matrix, here, ravel_pytree((z1, z2))[0])
        matrix, kind = (here, Kind.ESTIMATED) if violated else (matrix, Kind.PROVED)
    off = [float(length(ravel_pytree(jax.tree.map(jnp.subtract, out, z))[0]))
           for out, z in ((f1(z1, z2), z1), (f2(z2, z1), z2))]

    local, local_limits = _local(f1, f2, z1, z2, key, dense_limit)
    root, weights = perron_root(matrix), contracting_weights(matrix)
    largest = max_norm(matrix)
    row_sums = _global("(a) largest row sum", largest, largest, kind, "max(|z1|, |z2|)")
    perron_condition = _global("(b) Perron root", root, max_norm(matrix, weights), kind,
                               f"max(|z1|/w1, |z2|/w2), w = ({weights[0]:.4g}, {weights[1]:.4g})")
    within = distance(matrix, off) if kind == Kind.PROVED and root < 1 else float("inf")
    return CoupledReport(matrix, kind, tuple(violated), weights, row_sums, perron_condition, local,
                         (row_sum_limits(matrix), perron_limits(matrix), local_limits), math.hypot(*off), within)


def contradictions(gains: np.ndarray, here: np.ndarray, point: Array) -> list[str]:
    """Which of the norms `here` [2, 2] of the Jacobian's blocks at `point` [n] exceed their gains, rounding allowed."""
    allowed = 1 + 8 * point.size**0.5 * float(jnp.finfo(point.dtype).eps)
    return [f"|dF{i + 1}/dz{j + 1}| is {norm:.6g} at the point, more than its gain {gains[i, j]:.6g}"
            for (i, j), norm in np.ndenumerate(here) if not norm <= gains[i, j] * allowed + 1e-30]


def block_maps(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any]) -> tuple:
    """Lower estimates of the four block norms of the Jacobian, each a function of (z1, z2)."""
    return (
        (lambda z: local_lipschitz(f1, z[0], z[1]), lambda z: local_lipschitz(lambda u: f1(z[0], u), z[1])),
        (lambda z: local_lipschitz(lambda u: f2(z[1], u), z[0]), lambda z: local_lipschitz(f2, z[1], z[0])),
    )


def estimate_gains(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], z1: Any, z2: Any, key: Array, *,
                   starts: int = 8, steps: int = 40, spread: float = 1.0) -> np.ndarray:
    """LOWER estimates of G by gradient ascent on the four blocks' norms from draws around (z1, z2). float64 [2, 2]

    The point itself is among the starts. The key is consumed.
    """
    flat, unravel = ravel_pytree((z1, z2))
    noise = spread * jax.random.normal(key, (starts, flat.size), flat.dtype)
    points = jax.vmap(unravel)(flat + noise.at[0].set(0.0))
    return np.array([[float(ascend(block, points, steps=steps, rate=0.1 * spread).ratio) for block in row]
                     for row in block_maps(f1, f2)])


def _global(name: str, value: float, rate: float, kind: Kind, norm: str) -> Condition:
    if kind == Kind.PROVED:
        return Condition(
            name, value, kind, value < 1,
            f"one equilibrium, reached from every start at rate {rate:.6g} per sweep in {norm}" if value < 1 else
            "nothing: the condition is sufficient, not necessary",
            "anything about other inputs' equilibria than that each is unique" if value < 1 else
            "divergence, or a second equilibrium: a weaker condition may still hold")
    return Condition(
        name, value, kind, None if value < 1 else False,
        "nothing for certain: the gains are lower estimates" if value < 1 else
        "the condition fails: gains this large occur",
        "a contraction: larger gains may exist where the search did not look" if value < 1 else
        "divergence, or a second equilibrium: a weaker condition may still hold")


def _local(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], z1: Any, z2: Any, key: Array,
           dense_limit: int) -> tuple[Condition, CouplingLimits]:
    flat, unravel = ravel_pytree((z1, z2))
    cut = ravel_pytree(z1)[0].size

    def sweep(v: Array) -> Array:
        first, second = unravel(v)
        return ravel_pytree((f1(first, second), f2(second, first)))[0]

    if flat.size <= dense_limit:
        dense = np.asarray(jacobian(sweep, flat), np.float64)

        def radius(s: float) -> float:
            scaled = dense.copy()
            scaled[:cut, cut:] *= s
            scaled[cut:, :cut] *= s
            return dense_radius(scaled)

        value = radius(1.0)
        error = dense_error(dense, value, flat.dtype)
    else:
        product, transposed = linear_map(sweep, flat), transpose_map(sweep, flat)

        def radius(s: float) -> float:
            def scaled(v: np.ndarray) -> np.ndarray:
                first, second = product(np.r_[v[:cut], 0 * v[cut:]]), product(np.r_[0 * v[:cut], v[cut:]])
                return np.r_[first[:cut] + s * second[:cut], s * first[cut:] + second[cut:]]

            found = arnoldi(scaled, flat.size, key=key)
            return found.value if found.converged else float("nan")

        found = arnoldi(product, flat.size, transpose=transposed, key=key, dtype=flat.dtype)
        value, error = (found.value, found.error) if found.converged else (float("nan"), float("inf"))

    # nan compares false, too
    holds = value < 1 if abs(value - 1) > max(UNDECIDED, CAUTION * error) else None
    why = "Arnoldi's iteration did not converge" if np.isnan(value) else \
        f"rho = {value:.6g}, which errs by {error:.1e} or so, is undecided"
    implies = {
        True: "Jacobi sweeps from close enough converge to an equilibrium at this point, at asymptotic rate rho",
        False: "an equilibrium at this point repels: almost every sweep started near it leaves",
        None: f"nothing: {why}",
    }[holds]
    condition = Condition("(c) spectral radius of the block Jacobian", value, Kind.ESTIMATED, holds, implies,
                          "anything globally: other equilibria, divergence from afar and first growth stay possible, "
                          "and it presumes that the point is the equilibrium (see residual)")
    both = float("nan") if not CAUTION * error < 1 else coupling_limit(radius, value)
    # diag(I, t I) is a similarity that turns (s b, s c) into (s^2 b, c): one coupling alone may grow by the square.
    return condition, CouplingLimits(both, both**2, both**2)


def coupling_limit(radius: Callable[[float], float], value: float) -> float:
    """Where rho(s), both off-diagonal blocks times s, first reaches 1; inf if not up to SCALE_LIMIT. rho(1) = `value`.

    nan where a rho(s) that is needed is nan.

    From s = 1 upwards if rho(1) < 1, else from 0. rho(s) need not be monotone: a grid (ratio 1.25, or 16 steps
    of 1/16) finds a bracket, bisection narrows it to 1e-5; a crossing and return between two grid points is missed.
    """
    met: list[float] = []

    def below(s: float) -> bool:
        met.append(radius(s))
        return met[-1] < 1

    found = _first_crossing(below, value)
    return float("nan") if np.isnan(met).any() else found


def _first_crossing(below: Callable[[float], bool], value: float) -> float:
    if value < 1:
        grid = 1.25 ** np.arange(np.ceil(np.log(SCALE_LIMIT) / np.log(1.25)) + 1)
    else:
        grid = np.linspace(0.0, 1.0, 17)
        if not below(0.0):
            return 0.0
    low = float(grid[0])
    for high in map(float, grid[1:]):
        if not below(high):
            break
        low = high
    else:
        return float("inf") if value < 1 else 1.0
    while high - low > 1e-5 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if below(middle) else (low, middle)
    return 0.5 * (low + high)


def describe(report: CoupledReport) -> str:
    """The report in lines for a reader."""
    (a, b), (c, d) = report.gains
    lines = [f"gains ({report.kind}): dF1/dz1 {a:.4g}, dF1/dz2 {b:.4g}, dF2/dz1 {c:.4g}, dF2/dz2 {d:.4g}",
             *(f"    not proved: {text}" for text in report.violated)]
    for condition, limits in zip((report.row_sums, report.perron_root, report.local), report.limits, strict=True):
        verdict = {True: "holds", False: "fails", None: "undecided"}[condition.holds]
        lines += [
            f"{condition.name} = {condition.value:.6g}, margin {condition.margin:+.3g} ({condition.kind}): {verdict}",
            f"    implies {condition.implies}",
            f"    does not imply {condition.not_implied}",
            f"    couplings may grow by: both {_times(limits.both, condition, 1)}, "
            f"z2 -> F1 alone {_times(limits.slow_to_fast, condition, 2)}, "
            f"z1 -> F2 alone {_times(limits.fast_to_slow, condition, 2)}",
        ]
    lines += ["    (for (c) with the point and the diagonal blocks held fixed, though the equilibrium moves with them)",
              f"residual of the point {report.residual:.3g}: each part is within {report.distance:.3g} of equilibrium"]
    return "\n".join(lines)


def _times(limit: float, condition: Condition, power: int) -> str:
    """A coupling limit in words; (c) is only followed so far."""
    if limit == float("inf"):
        return f"more than {SCALE_LIMIT**power:g}" if condition.name.startswith("(c)") else "without limit"
    return f"{limit:.4g}"
