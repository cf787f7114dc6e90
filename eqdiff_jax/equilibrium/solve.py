"""z* = f(z*, a): the one entrance, with solver and derivative given as values.

    solution = fixed_point(f, z0, a)                                    # safeguarded Anderson, implicit derivative
    solution = fixed_point(f, z0, a, solver=SOLVERS["picard"], adjoint=Phantom(steps=3), trace=True)
    print(Status.of(solution.status))                                   # the member is the message

How to choose. `anderson` is the default: on contractions of 32 unknowns and more it took one evaluation more than
Picard at most, and often a small part of them (benchmarks/evaluations.py); on smaller ones up to 2 + log2 of Picard's
more (tests; anderson.py has the worst case). `picard` when f is cheap and contracts by 2 or more a step, or when an a
posteriori bound is wanted (`picard.error_bound`). `broyden` when f is costly and not a contraction. jaxopt's two are
there to compare.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from eqdiff_jax.equilibrium import loop
from eqdiff_jax.equilibrium.anderson import Anderson
from eqdiff_jax.equilibrium.broyden import Broyden
from eqdiff_jax.equilibrium.implicit import LINEAR, Adjoint, Implicit, solve_linear
from eqdiff_jax.equilibrium.jaxopt_backend import JaxoptAnderson, JaxoptBroyden
from eqdiff_jax.equilibrium.picard import Picard
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, LinearInfo, Solution, Solver, Status

SOLVERS: dict[str, Solver] = {
    "anderson": Anderson(), "picard": Picard(), "broyden": Broyden(),
    "jaxopt_anderson": JaxoptAnderson(), "jaxopt_broyden": JaxoptBroyden(),
}  # config names
DEFAULT_SOLVER, DEFAULT_ADJOINT = Anderson(), Implicit()


def fixed_point(f: Callable, z0: Any, *args: Any, solver: Solver = DEFAULT_SOLVER,
                adjoint: Adjoint = DEFAULT_ADJOINT, rtol: Array | float = 1e-5, atol: Array | float = 1e-6,
                max_steps: int = 500, trace: bool = False) -> Solution:
    """z* with z* = f(z*, *args), found from z0; stops when |f(z) - z| <= atol + rtol |f(z)|.

    Args:
      f: f(z, *args) -> z, z a pytree of float32 or of float64 arrays; may close over traced values.
      z0: start, like z. Norms are Euclidean over the whole pytree: use vmap for a batch of separate problems, each
        of which then stops by itself.
      args: anything; the result is differentiable in them and in what f closes over, as `adjoint` says.
      solver: a record with init and step, e.g. SOLVERS[name]. adjoint: Implicit, Phantom or Unrolled. Both are fixed
        at compilation: their numbers are Python's, not traced.
      rtol, atol: at least 0, may be traced.
      max_steps: evaluations of f, at least 1; a solver with a line search may overrun it by one search.
      trace: also return the residual of every evaluation.
    Returns:
      Solution: `value` the iterate of least residual, `steps` the number of evaluations of f, `status` a Status.
    Raises:
      InputError: z0 is not of float32 or float64, f changes its shapes or dtype, max_steps < 1, a tolerance is negative
        or NaN, or solver or adjoint is not such a record.
    """
    if max_steps < 1:
        raise InputError(f"max_steps is {max_steps}: allow at least one evaluation of f")
    if not (hasattr(solver, "init") and hasattr(solver, "step")):
        raise InputError(f"solver is {solver!r}: pass a record, SOLVERS[name] with one of {', '.join(SOLVERS)}")
    if not hasattr(adjoint, "attach"):
        raise InputError(f"adjoint is {adjoint!r}: pass Implicit(), Phantom() or Unrolled()")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) >= 0):
            raise InputError(f"{name} is {value}: a tolerance is a number of at least 0")
    if isinstance(adjoint, Implicit) and adjoint.linear not in LINEAR:
        raise InputError(f"unknown linear solver {adjoint.linear!r}: choose one of {', '.join(LINEAR)}")
    flat, unravel, pure, consts = _flatten(f, z0, args)
    tolerances = (jnp.asarray(rtol, flat.dtype), jnp.asarray(atol, flat.dtype))

    def run(f, z0, args, tolerances) -> Solution:
        return loop.run(solver, f, z0, args, tolerances[0], tolerances[1], max_steps, trace)

    def unroll(f, z0, args, tolerances) -> Solution:
        return loop.unroll(solver, lambda z: f(z, *args), z0, tolerances[0], tolerances[1], max_steps, trace)

    solution = adjoint.attach(run, unroll, pure, flat, consts, tolerances)
    return solution._replace(value=unravel(solution.value))


def pullback(f: Callable, z0: Any, *args: Any, adjoint: Implicit = DEFAULT_ADJOINT,
             **knobs) -> tuple[Solution, Callable[[Any], tuple[tuple, LinearInfo]]]:
    """(solution, pull): pull(w) -> (w^T dz*/da for each of args, how the backward solve went).

    What reverse mode does inside `fixed_point`, with its residual as a value: u = w + J^T u, then u^T df/da. Knobs as
    there. A failed solve gives NaN cotangents and `converged` False.
    """
    if not isinstance(adjoint, Implicit):
        raise InputError(f"pullback is the implicit derivative's, got {adjoint}: pass an Implicit, or use jax.vjp")
    solution = jax.lax.stop_gradient(fixed_point(f, z0, *args, adjoint=adjoint, **knobs))
    z, unravel = ravel_pytree(solution.value)
    _, by_z = jax.vjp(lambda z: ravel_pytree(f(unravel(z), *args))[0], z)
    _, by_args = jax.vjp(lambda *a: ravel_pytree(f(solution.value, *a))[0], *args)

    def pull(cotangent: Any) -> tuple[tuple, LinearInfo]:
        u, info = solve_linear(adjoint, lambda u: u - by_z(u)[0], ravel_pytree(cotangent)[0])
        return by_args(u), info

    return solution, pull


def require(solution: Solution) -> Any:
    """solution.value, or ArithmeticError with the status' message unless all problems converged. Not for use in jit."""
    for code in jnp.unique(jnp.ravel(solution.status)).tolist():
        if code != Status.CONVERGED:
            raise ArithmeticError(f"no fixed point: {Status.of(code)} (residual {jnp.max(solution.residual):.3g})")
    return solution.value


def _flatten(f: Callable, z0: Any, args: tuple) -> tuple[Array, Callable, Callable, tuple]:
    """(z0 [n], unravel, pure(z [n], *consts) -> [n], consts): f on vectors, all that it closes over handed in."""
    leaves = jax.tree.leaves(z0)
    dtypes = {jnp.result_type(x) for x in leaves}
    if dtypes not in ({jnp.dtype("float32")}, {jnp.dtype("float64")}):
        raise InputError(f"z0 has leaves of dtypes {sorted(map(str, dtypes))}: give floating arrays of one dtype, "
                         "float32 or float64; cast inside f to compute in less")
    out = jax.eval_shape(f, z0, *args)
    want = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), z0)
    got = jax.tree.map(lambda x: (x.shape, x.dtype), out)
    if got != want:
        raise InputError(f"f maps {want} to {got}: a fixed point needs the same structure, shapes and dtype")
    flat, unravel = ravel_pytree(z0)

    moving, tree = jax.tree.flatten(args)
    pure, hoisted = loop.hoist(lambda z, *a: ravel_pytree(f(unravel(z), *jax.tree.unflatten(tree, a)))[0],
                               flat, *moving)
    return flat, unravel, pure, (*moving, *hoisted)
