"""Two coupled equilibria z1 = F1(z1, z2), z2 = F2(z2, z1): three small-gain conditions and how far couplings may grow.

Suprema of spectral norms G = [[a, b], [c, d]] = [[|dF1/dz1|, |dF1/dz2|], [|dF2/dz1|, |dF2/dz2|]]; strongest first:
(a) row sums a + b < 1, c + d < 1: a contraction in max(|z1|, |z2|);
(b) Perron root rho(G) = (a+d)/2 + sqrt(((a-d)/2)^2 + bc) < 1, equivalently a, d < 1 and bc < (1-a)(1-d): a contraction
    in max(|z1|/w1, |z2|/w2), w the Perron vector, since G w = rho w. (a) implies (b);
(c) rho(J) < 1, J the block Jacobian at one point: says something about that point alone. (b) implies it everywhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from eqdiff_jax.contraction.jacobian import DENSE_LIMIT, arnoldi, dense_radius, jacobian, linear_map, local_lipschitz
from eqdiff_jax.contraction.norms import as_gains, max_norm, perron
from eqdiff_jax.contraction.search import ascend
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Kind

UNDECIDED = 1e-6  # |rho - 1| within which condition (c) decides nothing
SCALE_LIMIT = 100.0  # couplings are not followed further than this multiple


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


class CouplingLimits(NamedTuple):
    """Supremum of the factors by which couplings may be multiplied while a condition holds; 0 if it fails uncoupled."""

    both: float  # (s b, s c)
    slow_to_fast: float  # (s b, c): how F1 depends on z2
    fast_to_slow: float  # (b, s c): how F2 depends on z1


class CoupledReport(NamedTuple):
    """Result of `coupled_report`."""

    gains: np.ndarray  # [2, 2] float64
    kind: Kind  # of the gains
    row_sums: Condition  # (a)
    perron_root: Condition  # (b)
    local: Condition  # (c)
    limits: tuple[CouplingLimits, CouplingLimits, CouplingLimits]  # of (a), (b), (c)
    residual: float  # |(F1 - z1, F2 - z2)| at the point: how far it is from being the equilibrium
    distance: float  # proved bound on the distance to it in the weighted max norm of (b); inf if (b) is not proved

    def __str__(self) -> str:
        return describe(self)


def coupled_report(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], z1: Any, z2: Any, *,
                   gains: Any = None, key: Array | None = None, starts: int = 8, steps: int = 40, spread: float = 1.0,
                   dense_limit: int = DENSE_LIMIT) -> CoupledReport:
    """Conditions (a), (b), (c) for F1 = f1(z1, z2), F2 = f2(z2, z1), with values, margins, kinds and coupling limits.

    `gains` [2, 2]: PROVED bounds on the four suprema, supplied by the caller, who answers for them; (a) and (b) are
    then proved. Without it they are estimated: gradient ascent on each block's norm from `starts` normal draws of size
    `spread` around (z1, z2), `steps` steps; such gains are lower estimates, so a value below 1 proves nothing and one
    of 1 or more refutes. (c) is computed numerically at (z1, z2), eigenvalues up to `dense_limit` unknowns,
    Arnoldi beyond, and stays estimated: it is exact only up to rounding, and only for this point. z1, z2 are
    pytrees; the key (default fixed) is consumed. Not jittable.

    Raises: InputError for gains that are no 2 x 2 matrix of numbers >= 0, or maps that change a shape.
    """
    for name, out, z in (("f1", jax.eval_shape(f1, z1, z2), z1), ("f2", jax.eval_shape(f2, z2, z1), z2)):
        if jax.tree.map(jnp.shape, out) != jax.tree.map(jnp.shape, z):
            raise InputError(f"{name} returns shapes {jax.tree.map(jnp.shape, out)} for a variable of "
                             f"{jax.tree.map(jnp.shape, z)}: pass f1(z1, z2) like z1 and f2(z2, z1) like z2")
    kind = Kind.ESTIMATED if gains is None else Kind.PROVED
    key = jax.random.key(0) if key is None else key
    matrix = estimate_gains(f1, f2, z1, z2, key, starts=starts, steps=steps, spread=spread) if gains is None \
        else as_gains(gains)
    if matrix.shape != (2, 2):
        raise InputError(f"gains must have shape (2, 2), got {matrix.shape}: pass [[|dF1/dz1|, |dF1/dz2|], "
                         "[|dF2/dz1|, |dF2/dz2|]]")
    off = ravel_pytree((jax.tree.map(jnp.subtract, f1(z1, z2), z1), jax.tree.map(jnp.subtract, f2(z2, z1), z2)))[0]
    residual = float(jnp.linalg.norm(off))

    local, local_limits = _local(f1, f2, z1, z2, key, dense_limit)
    root = perron_root(matrix)
    row_sums = _global("(a) largest row sum", float(matrix.sum(axis=1).max()), kind, "max(|z1|, |z2|)")
    perron_condition = _global("(b) Perron root", root, kind, "max(|z1|/w1, |z2|/w2), w the Perron vector")
    distance = float("inf")
    if kind == Kind.PROVED and root < 1:
        w = perron(matrix)[1]
        rate = max_norm(matrix, w)
        if rate < 1:
            distance = residual / float(w.min()) / (1 - rate)
    return CoupledReport(matrix, kind, row_sums, perron_condition, local,
                         (row_sum_limits(matrix), perron_limits(matrix), local_limits), residual, distance)


def perron_root(gains: Any) -> float:
    """rho(G) = (a+d)/2 + sqrt(((a-d)/2)^2 + bc) of G = [[a, b], [c, d]] >= 0."""
    (a, b), (c, d) = as_gains(gains)
    return float((a + d) / 2 + np.hypot((a - d) / 2, np.sqrt(b) * np.sqrt(c)))


def row_sum_limits(gains: Any) -> CouplingLimits:
    """How far couplings may grow before (a) fails: s b < 1 - a and s c < 1 - d; closed form."""
    (a, b), (c, d) = as_gains(gains)
    if a >= 1 or d >= 1:
        return CouplingLimits(0.0, 0.0, 0.0)
    first, second = _ratio(1 - a, b), _ratio(1 - d, c)
    return CouplingLimits(min(first, second), first if c + d < 1 else 0.0, second if a + b < 1 else 0.0)


def perron_limits(gains: Any) -> CouplingLimits:
    """How far couplings may grow before (b) fails: only their product counts, b c < (1 - a)(1 - d); closed form."""
    (a, b), (c, d) = as_gains(gains)
    if a >= 1 or d >= 1:
        return CouplingLimits(0.0, 0.0, 0.0)
    product = _ratio((1 - a) * (1 - d), b * c)
    return CouplingLimits(product**0.5, product, product)


def estimate_gains(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], z1: Any, z2: Any, key: Array, *,
                   starts: int = 8, steps: int = 40, spread: float = 1.0) -> np.ndarray:
    """LOWER estimates of G by gradient ascent on the four blocks' norms from draws around (z1, z2). float64 [2, 2]

    The point itself is among the starts. The key is consumed.
    """
    flat, unravel = ravel_pytree((z1, z2))
    noise = spread * jax.random.normal(key, (starts, flat.size), flat.dtype)
    points = jax.vmap(unravel)(flat + noise.at[0].set(0.0))
    blocks = (
        (lambda z: local_lipschitz(f1, z[0], z[1]), lambda z: local_lipschitz(lambda u: f1(z[0], u), z[1])),
        (lambda z: local_lipschitz(lambda u: f2(z[1], u), z[0]), lambda z: local_lipschitz(f2, z[1], z[0])),
    )
    return np.array([[float(ascend(block, points, steps=steps, rate=0.1 * spread).ratio) for block in row]
                     for row in blocks])


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("inf")


def _global(name: str, value: float, kind: Kind, norm: str) -> Condition:
    if kind == Kind.PROVED:
        return Condition(
            name, value, kind, value < 1,
            f"one equilibrium, reached from every start at rate {value:.6g} per sweep in {norm}" if value < 1 else
            "nothing: the condition is sufficient, not necessary",
            "anything about other inputs' equilibria than that each is unique" if value < 1 else
            "divergence, or a second equilibrium: a weaker condition may still hold")
    return Condition(
        name, value, kind, None if value < 1 else False,
        "nothing for certain: the gains are lower estimates found by search" if value < 1 else
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
    else:
        product = linear_map(sweep, flat)

        def radius(s: float) -> float:
            def scaled(v: np.ndarray) -> np.ndarray:
                first, second = product(np.r_[v[:cut], 0 * v[cut:]]), product(np.r_[0 * v[:cut], v[cut:]])
                return np.r_[first[:cut] + s * second[:cut], s * first[cut:] + second[cut:]]

            found = arnoldi(scaled, flat.size, key=key)
            return found.value if found.converged else float("nan")

    value = radius(1.0)
    holds = value < 1 if abs(value - 1) > UNDECIDED else None  # nan: the comparison below fails too
    holds = None if np.isnan(value) else holds
    implies = {
        True: "Jacobi sweeps from close enough converge to an equilibrium at this point, at asymptotic rate rho",
        False: "an equilibrium at this point repels: almost every sweep started near it leaves",
        None: "nothing: " + ("Arnoldi's iteration did not converge" if np.isnan(value) else "rho = 1 is undecided"),
    }[holds]
    condition = Condition("(c) spectral radius of the block Jacobian", value, Kind.ESTIMATED, holds, implies,
                          "anything globally: other equilibria, divergence from afar and first growth stay possible, "
                          "and it presumes that the point is the equilibrium (see residual)")
    both = float("nan") if np.isnan(value) else coupling_limit(radius, value)
    # diag(I, t I) is a similarity that turns (s b, s c) into (s^2 b, c): one coupling alone may grow by the square.
    return condition, CouplingLimits(both, both**2, both**2)


def coupling_limit(radius: Callable[[float], float], value: float) -> float:
    """Where rho(s), both off-diagonal blocks times s, first reaches 1; inf if not up to SCALE_LIMIT. rho(1) = `value`.

    From s = 1 upwards if rho(1) < 1, else from 0. rho(s) need not be monotone: a grid (ratio 1.25, or 16 steps
    of 1/16) finds a bracket, bisection narrows it to 1e-5; a crossing and return between two grid points is missed.
    """
    if value < 1:
        grid = 1.25 ** np.arange(np.ceil(np.log(SCALE_LIMIT) / np.log(1.25)) + 1)
    else:
        grid = np.linspace(0.0, 1.0, 17)
        if radius(0.0) >= 1:
            return 0.0
    low = float(grid[0])
    for high in map(float, grid[1:]):
        if not radius(high) < 1:
            break
        low = high
    else:
        return float("inf") if value < 1 else 1.0
    while high - low > 1e-5 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if radius(middle) < 1 else (low, middle)
    return 0.5 * (low + high)


class MixedMonotone(NamedTuple):
    """Sampled evidence for or against the mixed monotone property."""

    violations: tuple[float, float]  # share of ordered pairs on which F1, F2 break the order
    kind: Kind
    method: str

    @property
    def plausible(self) -> bool:
        """No sampled pair broke the order; not a proof."""
        return max(self.violations) == 0.0


def mixed_monotone(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], key: Array,
                   sample: Callable[[Array], tuple[Any, Any]], *, count: int = 256,
                   slack: float = 1e-6) -> MixedMonotone:
    """Share of sampled ordered pairs that break F(z, y) nondecreasing in z and nonincreasing in y, entry by entry.

    The hypothesis of Bhaskar and Lakshmikantham 2006 (Nonlinear Analysis 65, 1379) on coupled fixed points in ordered
    spaces, related to (a) but not needed for it. sample(key) -> (z1, z2) pytrees; two draws give z <= z', y >= y' by
    entrywise minimum and maximum, tested jointly, in z alone and in y alone (3 count pairs); differences below
    `slack` (rounding) do not count. One violation refutes; none is evidence only. The key is consumed.
    """

    def violated(f: Callable[[Any, Any], Any], own: tuple[Any, Any], other: tuple[Any, Any]) -> Array:
        (low, high), (small, large) = own, other

        def breaks(below: Any, above: Any) -> Array:
            fall = jax.tree.map(lambda p, q: jnp.max(p - q - slack * (1 + jnp.abs(q))), below, above)
            return jnp.max(ravel_pytree(fall)[0]) > 0

        return jnp.stack([breaks(f(low, large), f(high, small)), breaks(f(low, small), f(high, small)),
                          breaks(f(low, large), f(low, small))])

    def trial(key: Array) -> tuple[Array, Array]:
        (z1, z2), (y1, y2) = (sample(k) for k in jax.random.split(key))
        first, second = ((jax.tree.map(jnp.minimum, p, q), jax.tree.map(jnp.maximum, p, q))
                         for p, q in ((z1, y1), (z2, y2)))
        return violated(f1, first, second), violated(f2, second, first)

    shares = [float(jnp.mean(v)) for v in jax.jit(jax.vmap(trial))(jax.random.split(key, count))]
    return MixedMonotone((shares[0], shares[1]), Kind.ESTIMATED, f"sampled evidence, {3 * count} ordered pairs each")


def describe(report: CoupledReport) -> str:
    """The report in lines for a reader."""
    (a, b), (c, d) = report.gains
    lines = [f"gains ({report.kind}): dF1/dz1 {a:.4g}, dF1/dz2 {b:.4g}, dF2/dz1 {c:.4g}, dF2/dz2 {d:.4g}"]
    for condition, limits in zip((report.row_sums, report.perron_root, report.local), report.limits, strict=True):
        verdict = {True: "holds", False: "fails", None: "undecided"}[condition.holds]
        lines += [
            f"{condition.name} = {condition.value:.6g}, margin {condition.margin:+.3g} ({condition.kind}): {verdict}",
            f"    implies {condition.implies}",
            f"    does not imply {condition.not_implied}",
            f"    couplings may grow by: both {limits.both:.4g}, z2 -> F1 alone {limits.slow_to_fast:.4g}, "
            f"z1 -> F2 alone {limits.fast_to_slow:.4g}",
        ]
    lines += ["    (for (c) with the point and the diagonal blocks held fixed, though the equilibrium moves with them)",
              f"residual of the point {report.residual:.3g}: each part is within {report.distance:.3g} of equilibrium"]
    return "\n".join(lines)
