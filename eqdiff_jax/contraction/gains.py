"""Arithmetic of gain matrices G >= 0, |F_i(z) - F_i(z')| <= sum_j G_ij |z_j - z'_j|: decided exactly, rounded up."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from eqdiff_jax.contraction.norms import as_matrix
from eqdiff_jax.contraction.rounding import round_up
from eqdiff_jax.errors import InputError


class CouplingLimits(NamedTuple):
    """Supremum of the factors by which couplings may be multiplied while a condition holds; 0 if it fails uncoupled.

    inf: it never fails; for (c) only that it does not up to small_gain.SCALE_LIMIT (of both; its square of one alone).
    """

    both: float  # (s b, s c)
    slow_to_fast: float  # (s b, c): how F1 depends on z2
    fast_to_slow: float  # (b, s c): how F2 depends on z1


def max_norm(gains: Any, weights: Any = None) -> float:
    """Norm max_i sum_j G_ij w_j / w_i of a gain matrix G [k, k] >= 0: its contraction factor in max_i |z_i| / w_i.

    If |F_i(z) - F_i(z')| <= sum_j G_ij |z_j - z'_j| then F has this Lipschitz constant in the weighted max-of-blocks
    norm; w = 1 gives the largest row sum, w = `perron(G)` the least value, rho(G). w [k] positive. Rounded up.
    """
    values = as_gains(gains)
    w = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(values),) or not (w > 0).all():
        raise InputError(f"weights must be {len(values)} positive numbers, got {w}")
    exact = [Fraction(float(x)) for x in w]
    return max(round_up(sum((Fraction(float(g)) * x for g, x in zip(row, exact, strict=True)), Fraction(0)) / own)
               for row, own in zip(values, exact, strict=True))


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


def perron_root(gains: Any) -> float:
    """rho(G) = (a+d)/2 + sqrt(((a-d)/2)^2 + bc) of G = [[a, b], [c, d]] >= 0, rounded up: below 1 it proves (b)."""
    (a, b), (c, d) = ([Fraction(float(x)) for x in row] for row in as_gains(gains))
    return round_up((a + d) / 2 + _root(((a - d) / 2) ** 2 + b * c))


def _root(x: Fraction) -> Fraction:
    """sqrt(x), exact for squares, else from above within 2^-64 of itself."""
    shift = max(0, 130 + x.denominator.bit_length() - x.numerator.bit_length())
    scaled = -((-x.numerator << 2 * shift) // x.denominator)  # rounded up
    root = math.isqrt(scaled)
    return Fraction(root + (root * root < scaled), 1 << shift)


def contracting_weights(gains: Any) -> np.ndarray:
    """w [2] > 0, largest 1, for which max_norm(G, w) is near rho(G), and below 1 if rho(G) is.

    The Perron vector, or where that has zeros (one-way coupling) w with w2/w1 between c/(1-d) and (1-a)/b.
    """
    matrix = as_gains(gains)
    (a, b), (c, d) = matrix
    choices = [perron(matrix)[1]]
    if a < 1 and d < 1:
        least, most = c / (1 - d), _ratio(1 - a, b)
        if least > 0:
            ratio = np.sqrt(least * most) if most < np.inf else 2 * least
        else:
            ratio = most / 2 if most < np.inf else 1.0
        choices.append(np.array([1.0, ratio]) / max(1.0, ratio))
    choices = [w for w in choices if (w > 0).all() and np.isfinite(w).all()]
    return min(choices, key=lambda w: max_norm(matrix, w), default=np.ones(2))


def distance(gains: np.ndarray, off: Sequence[float]) -> float:
    """Largest entry of (I - G)^-1 r, rounded up: bounds errors e <= r + G e where rho(G) < 1. r [2] = `off`."""
    if not np.isfinite(off).all():
        return float("inf")
    (a, b), (c, d) = ([Fraction(float(x)) for x in row] for row in gains)
    r1, r2 = map(Fraction, off)
    across = (1 - a) * (1 - d) - b * c
    return round_up(max((1 - d) * r1 + b * r2, c * r1 + (1 - a) * r2) / across)


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


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("inf")
