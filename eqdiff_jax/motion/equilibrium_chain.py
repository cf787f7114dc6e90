"""The motion chain at its equilibria, differentiable through them: what training sees of it.

`chain.trajectory` stops after 4, 6 and 2 warm-started iterations, as a stage at 60 Hz must. Here its equations are
solved, with derivatives by the implicit function theorem, so that no gradient runs through iterations:

    h* = F_1(h*, y) for every frame,    y* = F_2(y*, xbar) for every slow block,    s* = prox(s* - gamma B s*)

Equilibria do not remember: the 24 frames of a slow block are solved at once, and only y* and the filtered rates are
carried in time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.equilibrium import SOLVERS, Implicit, fixed_point
from eqdiff_jax.motion import dell, lim_rps
from eqdiff_jax.motion.chain import MotionParams, prepare
from eqdiff_jax.types import Array, Solver

PERIOD = dell.SLOW_PERIOD
# Gains of 0.6 and 0.4: plain iterations gain a digit in five cheap steps, forward and backward.
DEFAULT_SOLVER, ADJOINT = SOLVERS["picard"], Implicit("fixed_point", solver=SOLVERS["picard"])


class AtEquilibrium(NamedTuple):
    """T frames at equilibrium, in the units of MotionFrame."""

    z: Array  # [T, 32]
    velocity: Array  # [T, 32] per second


def equilibrium_chain(params: MotionParams, limbs: Array, *, solver: Solver = DEFAULT_SOLVER) -> AtEquilibrium:
    """z* and its rate for limbs [T, 27, 8] at 60 Hz, T a multiple of 24, from rest.

    solver: a record of `equilibrium.SOLVERS` for h* and y*; their derivatives are implicit whatever it is. The proximal
    equilibrium is linear in the measurement, s* = (tau I + gamma B)^-1 tau a, and is solved as such; its
    derivative is the implicit one. Differentiable in params and limbs; batches by vmap.
    """
    weights = prepare(params)
    inputs = jax.vmap(dell.features)(limbs).reshape(-1, PERIOD, dell.LIMBS * dell.FEATURES)
    rest = jnp.zeros_like(weights.dell.bias_slow)
    solve = partial(fixed_point, solver=solver, adjoint=ADJOINT)
    _, z_raw = jax.lax.scan(lambda carry, block: _block(solve, weights.dell, carry, block), (rest, rest), inputs)
    measured = _measured(z_raw.reshape(-1, dell.SLOW))
    system = lim_rps.TAU * jnp.eye(lim_rps.STATE) + lim_rps.GAMMA * weights.cross
    z, velocity, _ = jnp.split(jnp.linalg.solve(system, lim_rps.TAU * measured.T).T, 3, axis=1)
    return AtEquilibrium(z, velocity / lim_rps.BLOCK_SECONDS)


def _block(solve: Callable[..., Any], w: dell.DellWeights, carry: tuple[Array, Array], inputs: Array
           ) -> tuple[tuple[Array, Array], Array]:
    """24 frames: y glides from the slow equilibrium before last to the last one, then the next is solved."""
    before, y = carry
    share = jnp.arange(1, PERIOD + 1)[:, None] / PERIOD
    y_slow = before + share * (y - before)
    drive = inputs @ w.w_in.T + y_slow @ w.lift.T + w.bias
    h = solve(lambda h, drive, w_rec: jnp.tanh(h @ w_rec.T + drive), jnp.zeros_like(drive), drive, w.w_rec).value
    x_fast = h @ w.w_out.T
    following = solve(lambda y, mean, w: dell.slow_map(w, y, mean), jnp.zeros_like(y), x_fast.mean(0), w).value
    return (y, following), dell.BLEND[0] * x_fast + dell.BLEND[1] * y_slow


def _measured(z_raw: Array) -> Array:
    """a [T, 96]: z_raw and its filtered rates, in the units of LIM-RPS's state."""
    def rates(state: lim_rps.LimState, z: Array):
        rate, rate2 = lim_rps.measure(state, z)
        frame = jnp.minimum(state.frame + 1, lim_rps.SETTLE_FRAMES)
        measured = jnp.concatenate([z, lim_rps.BLOCK_SECONDS * rate, lim_rps.BLOCK_SECONDS**2 * rate2])
        return lim_rps.LimState(state.s, z, rate, rate2, frame), measured

    start = jax.tree.map(lambda x: x.astype(z_raw.dtype) if x.ndim else x, lim_rps.init_state())
    return jax.lax.scan(rates, start, z_raw)[1]
