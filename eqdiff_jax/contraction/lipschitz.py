"""Matrices of spectral norm <= 1 for every value of their parameters.

Each function maps an unconstrained real matrix to a constrained one, so training cannot leave
the constraint. The bounds hold in exact arithmetic; in float32 they hold to about 1e-5, which is
why the gains built on them keep a margin.
"""

import jax.numpy as jnp

from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array

CAYLEY_LIMIT = 4.0  # Frobenius norm in units of sqrt(columns); longer parameters are rescaled
AOL_LIMIT = 1e3  # same, so that no square overflows


def tame(raw: Array, limit: float) -> Array:
    """Rescale `raw` [n, m] to Frobenius norm `limit` when it is longer; else return it.

    Keeps the solves and products below well conditioned in float32 for arbitrarily large finite
    parameters. Any such preprocessing leaves a bound valid that holds for every parameter.
    """
    peak = jnp.maximum(jnp.max(jnp.abs(raw)), 1.0)
    unit = raw / peak
    size = jnp.sqrt(jnp.sum(unit * unit) + 1e-30)
    return jnp.where(peak * size > limit, unit * (limit / size), raw)


def cayley(raw: Array) -> Array:
    """Matrix `[n, m]`, n >= m, with orthonormal columns, from any real `raw` of that shape.

    With U the first m rows of raw, V the others and A = U - U^T + V^T V,
        Q = [(I - A)(I + A)^-1 ; -2 V (I + A)^-1].
    Proof: A + A^T = 2 V^T V >= 0, so |(I + A)x| |x| >= x^T (I + A) x >= |x|^2 and I + A is
    invertible; and (I - A)^T (I - A) + 4 V^T V = I + A^T A + 2 V^T V = (I + A)^T (I + A), hence
    Q^T Q = I: every singular value is 1. For n = m this is the Cayley transform of a skew matrix
    (Trockman and Kolter 2021, arXiv:2104.07167). Use the transpose for a wide matrix.

    Raises: InputError if raw has fewer rows than columns.
    """
    rows, columns = raw.shape
    if rows < columns:
        raise InputError(
            f"cayley needs at least as many rows as columns, got {raw.shape}: pass the transpose"
        )
    raw = tame(raw, CAYLEY_LIMIT * columns**0.5)
    top, rest = raw[:columns], raw[columns:]
    generator = top - top.T + rest.T @ rest
    identity = jnp.eye(columns, dtype=raw.dtype)
    numerator = jnp.concatenate([identity - generator, -2.0 * rest])
    return jnp.linalg.solve((identity + generator).T, numerator.T).T


def aol(raw: Array) -> Array:
    """Matrix of the shape of `raw` [n, m] with spectral norm < 1: columns rescaled by a Gram bound.

        W = R D,  D_jj = (1 + sum_i |R^T R|_ij)^(-1/2).
    Proof: D^-2 - R^T R is symmetric, and its diagonal exceeds the absolute sum of the rest of its
    row by at least 1, so it is positive definite (Gershgorin); thus W^T W = D R^T R D < I.
    The 1 makes the map smooth at R = 0, which it sends to 0 (the almost-orthogonal layer of Prach
    and Lampert 2022, arXiv:2208.03160, has none).
    """
    raw = tame(raw, AOL_LIMIT * raw.shape[1] ** 0.5)
    bound = 1.0 + jnp.sum(jnp.abs(raw.T @ raw), axis=0)
    return raw / jnp.sqrt(bound)
