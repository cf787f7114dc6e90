"""Picard iteration, the method that every other one here must not lose to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.contraction.rounding import length
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Map, Step


class Picard(NamedTuple):
    """z <- (1 - d) z + d f(z), d = `damping` in (0, 1].

    For an L-Lipschitz f, L < 1, the undamped iteration converges from anywhere, |z_k - z*| <= L^k |z_0 - z*|
    (Banach). Damping by d turns the eigenvalues l of f' into 1 - d + d l: it can tame a negative or complex l
    outside the unit disc with real part below 1, and slows down a contraction.
    """

    damping: float = 1.0

    def init(self, f: Map, z: Array) -> tuple[Array, Any]:
        """The first point to evaluate, and no memory."""
        del f
        return z, ()

    def step(self, f: Map, z: Array, memory: Any, k: Array) -> Step:
        """One evaluation."""
        del k
        fz = f(z)
        after = fz if self.damping == 1.0 else z + self.damping * (fz - z)
        return Step(z, fz, after, memory, jnp.int32(1))


def iterate(f: Map, z: Array, steps: int, rate: float) -> tuple[Array, Array]:
    """z_k after k = `steps` iterations z <- f(z), and the a posteriori bound on |z_k - z*| for an L-contraction.

    Real-time use: a fixed number of steps, at least 1, unrolled. z [n], L = `rate` < 1.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}: the bound needs the last step, so iterate at least once")
    for _ in range(steps):
        z, last = f(z), z
    return z, error_bound(rate, z - last)


def error_bound(rate: Array | float, step: Array) -> Array:
    """A posteriori |z_k - z*| <= L/(1 - L) |z_k - z_{k-1}| of Picard, L = `rate` < 1. step = z_k - z_{k-1} [n] -> [].

    Proof: |z_k - z*| <= L |z_{k-1} - z*| <= L (|z_k - z_{k-1}| + |z_k - z*|).
    Raises: InputError unless 0 <= rate < 1; a traced rate cannot be looked at: there the answer is inf.
    """
    if isinstance(rate, jax.core.Tracer):
        return jnp.where((rate >= 0) & (rate < 1), rate / (1.0 - rate), jnp.inf) * length(step)
    if not 0 <= rate < 1:
        raise InputError(f"the a posteriori bound needs a contraction, got rate {rate}: use a bound below 1")
    return rate / (1.0 - rate) * length(step)
