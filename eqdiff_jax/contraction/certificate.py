"""Certificates of single layers and equilibria, and the rule that chains them.

A `Certificate` (types.py) says |fl f(x) - fl f(y)| <= bound |x - y| + rounding for the float32 program fl f. The
rounding terms come from the standard model (rounding.py) and assume products accumulated in full float32; an
accelerator needs jax_default_matmul_precision = "highest" for that.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from eqdiff_jax.contraction.norms import as_matrix, spectral_norm
from eqdiff_jax.contraction.rounding import gamma, plus, round_up, roundoff, times
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Certificate, Kind

FULL_PRECISION = "products accumulate in full float32"
ACTIVATION_ULPS = 16.0  # times u |x|: what one evaluation of an activation may err; the tests measure it
# Largest |slope|. GELU: gelu'(x) = Phi(x) + x phi(x) is largest at sqrt(2), 1.12890...; the tanh approximation's is
# 1.1290... too (test_certificate.py bounds it on a grid with the second derivative between the points).
SLOPES = {"identity": 1.0, "relu": 1.0, "tanh": 1.0, "sigmoid": 0.25, "gelu": 1.13, "gelu_exact": 1.13}


def weakest(*kinds: Kind) -> Kind:
    """Proved only if all are; an estimate anywhere makes the whole an estimate, else a mere range dominates."""
    return next((kind for kind in (Kind.ESTIMATED, Kind.RANGE) if kind in kinds), Kind.PROVED)


def compose(*certificates: Certificate) -> Certificate:
    """Certificate of the maps applied one after the other, the first one first.

        L = L_n ... L_1,   eps = eps_n + L_n (eps_{n-1} + L_{n-1} (... eps_1)),
    both rounded up. Proved only if all are (see `weakest`); assumptions are united, and each must hold on the
    output of the map before.

    Raises: InputError for no certificate.
    """
    if not certificates:
        raise InputError("compose needs at least one certificate: pass those of the maps in order of application")
    bound, rounding = 1.0, 0.0
    for certificate in certificates:
        bound = times(certificate.bound, bound)
        rounding = plus(certificate.rounding, times(certificate.bound, rounding))
    assumptions = tuple(dict.fromkeys(text for c in certificates for text in c.assumptions))
    methods = " * ".join(dict.fromkeys(c.method for c in certificates))
    return Certificate(bound, weakest(*(c.kind for c in certificates)), methods, assumptions, rounding)


def dense(matrix: Any, bias: Any = None, *, radius: float = 1.0) -> Certificate:
    """Certificate of the float32 program x -> W x + b on |x| <= radius; W [n, m] and b [n] as float32 holds them.

        L = sigma_1(W) from above,   eps = 2 gamma_{m+1} (| |W| |_2 radius + |b|)
    since one evaluation errs by gamma_{m+1} (|W| |x| + |b|) entry by entry and two are compared.

    Raises: InputError if W or b is not finite, shapes disagree, or the radius is negative.
    """
    values = as_matrix(np.asarray(matrix, np.float32))
    shift = np.zeros(len(values)) if bias is None else np.asarray(np.asarray(bias, np.float32), np.float64)
    if shift.shape != (len(values),) or not np.isfinite(shift).all():
        raise InputError(f"the bias of a {values.shape} matrix must be {len(values)} finite numbers, got {shift.shape}")
    _check_radius(radius)
    reach = spectral_norm(np.abs(values)) * radius + float(np.linalg.norm(shift)) * (1 + 1e-12)
    underflow = values.shape[1] * len(values) ** 0.5 * float(np.finfo(np.float32).tiny)
    rounding = 2 * (gamma(values.shape[1] + 1, np.float32) * reach + underflow) * (1 + 1e-12)
    return Certificate(spectral_norm(values), Kind.PROVED, "SVD norm", (f"|x| <= {radius:g}", FULL_PRECISION), rounding)


def activation(name: str, *, radius: float = 1.0, size: int | None = None) -> Certificate:
    """Certificate of an elementwise activation on |x| <= radius: relu, tanh, sigmoid, gelu, gelu_exact, identity.

    L is the largest slope (1.13 for both GELUs, whose suprema are 1.129); eps = 2 * 16 u radius, 0 where float32 is
    exact. Sigmoid is 1/2 at 0 and errs relative to its value, |sigmoid(x)| <= sqrt(n)/2 + |x|/4: it needs n = `size`,
    the number of entries.

    Raises: InputError for another name, a negative radius, or sigmoid without a size.
    """
    if name not in SLOPES:
        raise InputError(f"no slope is known of activation '{name}': use one of {', '.join(SLOPES)}")
    _check_radius(radius)
    if name in ("identity", "relu"):
        return Certificate(1.0, Kind.PROVED, f"slope of {name}")
    reach, what = radius, "|x|"
    if name == "sigmoid":
        if size is None or size < 1:
            raise InputError(f"sigmoid errs by its value, 1/2 at 0: pass size=, the number of entries, got {size}")
        reach, what = 0.5 * size**0.5 + radius / 4, "of its value"
    rounding = 2 * ACTIVATION_ULPS * roundoff(np.float32) * reach * (1 + 1e-12)
    return Certificate(SLOPES[name], Kind.PROVED, f"slope of {name}",
                       (f"|x| <= {radius:g}", f"{name} errs by at most {ACTIVATION_ULPS:g} u {what} in float32"),
                       rounding)


def equilibrium(contraction: Certificate, input_gain: float, *, residual: float = 0.0) -> Certificate:
    """Certificate of x -> z*(x), z* = f(z*, x), where f is L-Lipschitz in z and `input_gain`-Lipschitz in x.

        |z(x) - z(y)| <= g/(1 - L) |x - y| + (eps + 2 r)/(1 - L)
    for any two approximate solutions z of computed residual |fl f(z, x) - z| <= r = `residual`, eps the rounding of
    `contraction`, that of one step f. r = 0 also covers Picard iterations, any common number of them from one common
    start: |z_k - z'_k| <= sum_i L^i (g |x - y| + eps). Unless L < 1 the bound is inf.

    Raises: InputError for a gain or residual that is negative or not finite.
    """
    if not (np.isfinite(input_gain) and input_gain >= 0):
        raise InputError(f"input_gain must be a finite number >= 0, got {input_gain}: pass the Lipschitz constant in x")
    if not (np.isfinite(residual) and residual >= 0):
        raise InputError(f"residual must be a finite number >= 0, got {residual}: pass what the solver reached")
    if not contraction.bound < 1.0:
        return Certificate(float("inf"), Kind.ESTIMATED,
                           f"not certified: f's constant {contraction.bound:.6g} ({contraction.method}) is not below 1",
                           contraction.assumptions, float("inf"))
    rest = Fraction(1) - Fraction(contraction.bound)
    solved = f"both solutions have residuals |f(z) - z| <= {residual:g}"
    rounding = plus(contraction.rounding, 2 * residual)
    return Certificate(
        round_up(Fraction(input_gain) / rest), contraction.kind, f"gain / (1 - L), L = {contraction.bound:.6g}",
        (*contraction.assumptions, solved if residual else
         "equally many Picard steps from a common start, or solutions of residual 0"),
        round_up(Fraction(rounding) / rest) if np.isfinite(rounding) else float("inf"))


def monotone_equilibrium(m: float, input_gain: float) -> Certificate:
    """Certificate of x -> z*(x), z* = sigma(W z* + U x + b) with I - W >= m I: L = |U| / m, exact arithmetic.

    See `monotone` for the proof. Raises: InputError unless m > 0 and the gain |U| is finite and >= 0.
    """
    if not (m > 0 and np.isfinite(input_gain) and input_gain >= 0):
        raise InputError(f"a monotone equilibrium needs m > 0 and a finite gain >= 0, got m {m}, gain {input_gain}")
    return Certificate(round_up(Fraction(input_gain) / Fraction(m)), Kind.PROVED, f"|U| / m, m = {m:g}",
                       ("sigma acts elementwise with slopes in [0, 1]", "z* is exact"))


def check(matrix: Any, limit: float = 1.0, name: str = "matrix") -> Certificate:
    """Certificate of x -> W x for a given matrix that should have |W| < limit; exact arithmetic.

    The bound is the norm's upper bound either way. If it is not below `limit` the record is not certified: its kind is
    ESTIMATED, so `contraction` is false whatever the limit and whatever it is composed with, and method and assumptions
    name the matrix and its norm. Nothing is clipped or rescaled.

    Raises: InputError if W is not finite or limit is not positive.
    """
    if not (np.isfinite(limit) and limit > 0):
        raise InputError(f"limit must be a finite number > 0, got {limit}")
    norm = spectral_norm(as_matrix(matrix, name))
    if norm < limit:
        return Certificate(norm, Kind.PROVED, f"SVD norm of {name}, {norm:.6g} < {limit:g}")
    return Certificate(norm, Kind.ESTIMATED, f"not certified: |{name}| = {norm:.6g} is not below {limit:g}",
                       (f"violated: |{name}| < {limit:g}; pass it through contraction.cayley, aol or spectral",))


def _check_radius(radius: float) -> None:
    if not (np.isfinite(radius) and radius >= 0):
        raise InputError(f"radius must be a finite number >= 0, got {radius}: it bounds the inputs that are covered")
