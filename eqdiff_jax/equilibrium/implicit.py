"""Derivatives of a fixed point, as values: implicit, phantom, unrolled; and the linear solve behind the first.

Every one has `attach(run, unroll, f, z0, args, tolerances)`: run(f, z0, args, tolerances) solves, and the answer comes
back with the derivative in args that the value stands for. z0 has none: a fixed point does not depend on the start.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.contraction.rounding import length, scaling
from eqdiff_jax.equilibrium import loop
from eqdiff_jax.equilibrium.anderson import Anderson
from eqdiff_jax.types import Array, LinearInfo, Map, Solution, Solver, Status

LINEAR = ("auto", "fixed_point", "gmres", "bicgstab", "dense")
DENSE = 64  # unknowns up to which "auto" forms I - J and factors it: cheaper there than iterating


class Implicit(NamedTuple):
    """dz* = (I - J)^-1 (df/da) da with J = df/dz at z* (implicit function theorem); forward and reverse mode.

    The system is solved by `linear`. Without forming J: fixed_point iterates u <- J u + b (or its transpose) with
    `solver`, gmres and bicgstab are jax.scipy's. dense forms J by n products and factors I - J; auto is dense up to
    DENSE unknowns and fixed_point beyond. The relative residual r = |b - (I - J)u|/|b| is recomputed from the
    answer; above `accept` the derivative is NaN, never zero, and below it u errs by |(I - J)^-1| r |b| at most. It is
    NaN, too, where the forward solve diverged or was not finite; at the step limit it is the formula's value at the
    iterate of least residual, whose error is of the order of that residual. `pullback` returns r as a number; it
    also serves an f that has only a custom_vjp, since it needs no forward mode of f. Only `value` has a derivative:
    that of `residual` is 0.

    rtol: relative tolerance of the system; 0 takes 1e-6 in float32, 1e-12 in float64. max_steps: products with J.
    Reference: Bai, Kolter and Koltun 2019, arXiv:1909.01377, theorem 1.
    """

    linear: str = "auto"
    rtol: float = 0.0
    max_steps: int = 500
    accept: float = 1e-3
    solver: Solver = Anderson()

    def attach(self, run: Callable, unroll: Callable, f: Callable, z0: Array, args: tuple,
               tolerances: tuple[Array, Array]) -> Solution:
        """See the module; works under jit, vmap, scan, jvp, vjp and their compositions."""
        del unroll

        @jax.custom_jvp
        def solve(z0, args, tolerances) -> Solution:
            return run(f, z0, args, tolerances)

        @solve.defjvp
        def _(primals, tangents):
            args, args_dot = primals[1], tangents[1]
            solution = solve(*primals)
            z = solution.value
            _, b = jax.jvp(lambda a: f(z, *a), (args,), (args_dot,))
            _, push = jax.linearize(lambda z: f(z, *args), z)

            astray = (solution.status == Status.DIVERGED) | (solution.status == Status.NOT_FINITE)

            def guarded(matvec: Map, b: Array) -> Array:
                # Inside the solve, so that forward and reverse mode meet it, and a cotangent of 0 (a loss that masks
                # this problem out) stays 0.
                return jnp.where(astray & jnp.any(b != 0), jnp.nan, solve_linear(self, matvec, b)[0])

            z_dot = jax.lax.custom_linear_solve(lambda u: u - push(u), b, guarded, guarded)
            return solution, jax.tree.map(_zero, solution)._replace(value=z_dot)

        return solve(z0, args, tolerances)


class Phantom(NamedTuple):
    """The derivative of `steps` damped iterations z <- (1 - d) z + d f(z, a) started at z*, z* held constant.

    A truncated Neumann series of the implicit one: cheap, biased. Only `value` has a derivative, also where the solve
    went astray: look at `status`. Reference: Geng et al. 2021, arXiv:2111.05177.
    """

    steps: int = 5
    damping: float = 0.5

    def attach(self, run: Callable, unroll: Callable, f: Callable, z0: Array, args: tuple,
               tolerances: tuple[Array, Array]) -> Solution:
        """See the module; the value stays z*, the derivative is the iterations'."""
        del unroll
        solution = jax.lax.stop_gradient(run(f, *jax.lax.stop_gradient((z0, args, tolerances))))
        z = solution.value
        for _ in range(self.steps):
            z = (1.0 - self.damping) * z + self.damping * f(z, *args)
        return solution._replace(value=solution.value + (z - jax.lax.stop_gradient(z)))


class Unrolled(NamedTuple):
    """The derivative of the iterations themselves, all `max_steps` of them kept in memory."""

    def attach(self, run: Callable, unroll: Callable, f: Callable, z0: Array, args: tuple,
               tolerances: tuple[Array, Array]) -> Solution:
        """See the module; exact for the truncated iteration, also where no fixed point was reached."""
        del run
        return unroll(f, jax.lax.stop_gradient(z0), args, tolerances)


Adjoint = Implicit | Phantom | Unrolled


def solve_linear(adjoint: Implicit, matvec: Map, b: Array) -> tuple[Array, LinearInfo]:
    """u with matvec(u) = b [n], NaN where it was not found, and how it went. matvec(u) = u - J u or its transpose."""
    eps = float(jnp.finfo(b.dtype).eps)
    rtol = adjoint.rtol or (1e-12 if eps < 1e-10 else 1e-6)
    # Cotangents can be tiny or huge: solved at size 1, or squares would leave the range and the system look solved.
    down, up = scaling(b)
    b = down(b)
    size = length(b)
    linear = adjoint.linear if adjoint.linear != "auto" else "dense" if b.size <= DENSE else "fixed_point"
    if linear == "dense":
        u = jnp.linalg.solve(jax.vmap(matvec, out_axes=1)(jnp.eye(b.size, dtype=b.dtype)), b)
    elif linear == "fixed_point":
        pure, consts = loop.hoist(lambda u: u - matvec(u), b)
        u = loop.run(adjoint.solver, lambda u, b, *c: b + pure(u, *c), b, (b, *consts), jnp.zeros_like(size),
                     rtol * size, adjoint.max_steps).value
    else:
        method = getattr(jax.scipy.sparse.linalg, linear)
        extra = {"restart": 20, "solve_method": "incremental"} if linear == "gmres" else {}
        rounds = adjoint.max_steps // 20 + 1 if linear == "gmres" else adjoint.max_steps // 2
        u = method(matvec, b, tol=rtol, atol=0.0, maxiter=rounds, **extra)[0]
    residual = jnp.where(size == 0, 0.0, length(b - matvec(u)) / jnp.where(size == 0, 1.0, size))
    converged = residual <= adjoint.accept  # False for NaN
    return jnp.where(converged, jnp.where(size == 0, 0.0, up(u)), jnp.nan), LinearInfo(residual, converged)


def _zero(x: Array):
    """The tangent of an output that does not depend on the arguments."""
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
