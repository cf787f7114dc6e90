"""The one loop around every solver: residuals, tolerance, best iterate, status, trace, and batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from eqdiff_jax.contraction.rounding import length
from eqdiff_jax.types import Array, Map, Solution, Solver, Status

RUNNING = -1
DIVERGED = 1e6  # residual over the first one, beyond which a run is given up


class Carry(NamedTuple):
    """Loop state of one problem."""

    z: Array  # [n] next point to evaluate
    memory: Any  # the solver's
    steps: Array  # [] int32
    status: Array  # [] int32, RUNNING or a Status
    best: Array  # [n] iterate of least residual
    residual: Array  # [] its residual
    scale: Array  # [] |f| there
    first: Array  # [] residual of the first evaluation, inf before it
    trace: Array | None  # [max_steps]


def start(solver: Solver, f: Map, z0: Array, max_steps: int, trace: bool) -> Carry:
    """State before the first evaluation."""
    z, memory = solver.init(f, z0)
    inf = jnp.asarray(jnp.inf, z0.dtype)
    return Carry(z, memory, jnp.int32(0), jnp.int32(RUNNING), z0, inf, jnp.ones_like(inf), inf,
                 jnp.full(max_steps, jnp.nan, z0.dtype) if trace else None)


def advance(solver: Solver, f: Map, carry: Carry, k: Array, rtol: Array, atol: Array, max_steps: int) -> Carry:
    """One solver step, judged. A carry that has stopped keeps everything but the solver's memory, which is spent."""
    running = carry.status == RUNNING
    s = solver.step(f, carry.z, carry.memory, k)
    residual, scale = length(s.value - s.at), length(s.value)
    steps = carry.steps + s.evaluations
    first = jnp.where(jnp.isinf(carry.first), residual, carry.first)
    status = jnp.where(
        ~jnp.isfinite(residual), Status.NOT_FINITE, jnp.where(
            residual <= atol + rtol * scale, Status.CONVERGED, jnp.where(
                residual > DIVERGED * first, Status.DIVERGED, jnp.where(
                    steps >= max_steps, Status.STEP_LIMIT, RUNNING)))).astype(jnp.int32)
    better = running & (residual < carry.residual)

    def keep(new, old):
        return jnp.where(running, new, old)

    trace = carry.trace
    if trace is not None:
        slot = jnp.clip(steps - 1, 0, max_steps - 1)
        trace = trace.at[slot].set(keep(residual, trace[slot]))
    return Carry(keep(s.next, carry.z), s.memory, keep(steps, carry.steps), keep(status, carry.status),
                 jnp.where(better, s.at, carry.best), jnp.where(better, residual, carry.residual),
                 jnp.where(better, scale, carry.scale), keep(first, carry.first), trace)


def finish(carry: Carry) -> Solution:
    """The record of a stopped carry."""
    relative = jnp.where(carry.residual == 0, 0.0, carry.residual / jnp.where(carry.scale == 0, 1.0, carry.scale))
    relative = jnp.where((carry.scale == 0) & (carry.residual > 0), jnp.inf, relative)
    return Solution(carry.best, carry.status, carry.steps, carry.residual, relative, carry.trace)


def run(solver: Solver, f: Callable, z0: Array, args: tuple, rtol: Array, atol: Array, max_steps: int,
        trace: bool = False) -> Solution:
    """Iterate f(z, *args) from z0 [n] until it stops; f closes over no tracer (see `hoist`).

    Batched by vmap, all problems advance together until the last has stopped, each with its own status, count and
    best iterate, and none of the memories is copied to hold back the ones that are done.
    """
    def body(args, rtol, atol, k, carry: Carry) -> Carry:
        return advance(solver, lambda z: f(z, *args), carry, k, rtol, atol, max_steps)

    def begin(z0, args) -> Carry:
        return start(solver, lambda z: f(z, *args), z0, max_steps, trace)

    def loop(advance_all, carry: Carry) -> Carry:
        # The step count stays outside the carry: it is one number for the whole batch, and rows of memories that are
        # addressed by it are written in place.
        return jax.lax.while_loop(lambda c: jnp.any(c[1].status == RUNNING),
                                  lambda c: (c[0] + 1, advance_all(*c)), (jnp.int32(0), carry))[1]

    @custom_vmap
    def solve(z0, args, rtol, atol) -> Solution:
        return finish(loop(lambda k, c: body(args, rtol, atol, k, c), begin(z0, args)))

    @solve.def_vmap
    def _(axis_size, batched, z0, args, rtol, atol):
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        if not batched[0]:
            z0 = jnp.broadcast_to(z0, (axis_size, *z0.shape))
        each = jax.vmap(body, in_axes=(*axes[1:], None, 0))
        carry = jax.vmap(begin, in_axes=(0, axes[1]), axis_size=axis_size)(z0, args)
        solution = jax.vmap(finish)(loop(lambda k, c: each(args, rtol, atol, k, c), carry))
        return solution, jax.tree.map(lambda _: True, solution)

    return solve(z0, args, rtol, atol)


def hoist(f: Callable, *example: Any) -> tuple[Callable, tuple]:
    """(pure, consts) with pure(*inputs, *consts) = f(*inputs): every traced value that f closes over becomes an input.

    jax.closure_convert hoists only what is being differentiated; a custom_vmap may close over no tracer at all.
    Inputs and outputs are flat: arrays in, one array out.
    """
    closed = jax.make_jaxpr(f)(*example)
    count = len(example)

    def pure(*values):
        return jax.core.eval_jaxpr(closed.jaxpr, values[count:], *values[:count])[0]

    return pure, tuple(closed.consts)


def unroll(solver: Solver, f: Map, z0: Array, rtol: Array, atol: Array, max_steps: int, trace: bool) -> Solution:
    """`run` as a scan of `max_steps` steps through which derivatives flow; those after the stop change nothing.

    After the stop the first step is made again and thrown away: at a fixed point a solver may divide by a residual
    of 0, and NaN comes through a choice backwards even where it was not chosen.
    """
    fresh = start(solver, f, z0, max_steps, trace)

    def body(carry: Carry, k: Array):
        stopped = carry.status != RUNNING

        def choose(a: Any, b: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(stopped, a, b), a, b)

        new = advance(solver, f, choose(fresh, carry), jnp.where(stopped, 0, k), rtol, atol, max_steps)
        return choose(carry, new), None

    return finish(jax.lax.scan(body, fresh, jnp.arange(max_steps))[0])
