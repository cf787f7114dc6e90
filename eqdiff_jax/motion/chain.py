"""The 60 Hz chain as one pure function: limb frame -> DELL -> LIM-RPS -> dynamics and prediction.

`step` serves the stage frame by frame, `trajectory` scans the same body over a recording. Both
are differentiable in params and limbs, and batch by `jax.vmap`. For a live loop, prepare the
constrained matrices once: `weights = prepare(params)`, then `step_weights(weights, state, limbs)`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import dell, dynamics, lim_rps
from eqdiff_jax.types import Array, MotionFrame


class MotionParams(NamedTuple):
    """Trainable parameters, unconstrained."""

    dell: dell.DellParams
    lim_rps: lim_rps.LimParams


class MotionWeights(NamedTuple):
    """Constrained matrices made of them."""

    dell: dell.DellWeights
    cross: Array  # [96, 96] cross-modal operator B


class MotionState(NamedTuple):
    """All that is carried from one frame to the next."""

    dell: dell.DellState
    lim_rps: lim_rps.LimState
    dynamics: dynamics.DynamicsState


def init_params(key: Array) -> MotionParams:
    """Fresh parameters; the key is consumed."""
    return MotionParams(dell.init_params(key), lim_rps.init_params())


def init_state(params: MotionParams | None = None) -> MotionState:
    """State before the first frame; it is the same for all parameters."""
    del params
    return MotionState(dell.init_state(), lim_rps.init_state(), dynamics.init_state())


def prepare(params: MotionParams) -> MotionWeights:
    """Constrained matrices; a few milliseconds, once per set of parameters."""
    return MotionWeights(dell.weights(params.dell), lim_rps.weights(params.lim_rps))


def step_weights(
    weights: MotionWeights, state: MotionState, limbs: Array
) -> tuple[MotionState, MotionFrame]:
    """One frame with prepared weights; limbs float32 [27, 8], see `step`."""
    if jnp.shape(limbs) != (dell.LIMBS, dell.FEATURES):
        raise InputError(
            f"a limb frame has shape {jnp.shape(limbs)}; give [27, 8], or use vmap for a batch"
        )
    dell_state, d = dell.step(weights.dell, state.dell, limbs)
    lim_state, s = lim_rps.step(weights.cross, state.lim_rps, d.z_raw)
    dynamics_state, scalars = dynamics.step(
        state.dynamics, limbs, s.z, s.velocity, s.acceleration, d.x_fast, d.y_slow
    )
    frame = MotionFrame(
        z=s.z,
        velocity=s.velocity,
        acceleration=s.acceleration,
        dynamics=scalars,
        prediction=lim_rps.predict(s.z, s.velocity),
        x_fast=d.x_fast,
        y_slow=d.y_slow,
        error_fast=d.error_fast,
        error_slow=d.error_slow,
        error_lim_rps=s.error,
    )
    return MotionState(dell_state, lim_state, dynamics_state), frame


def step(params: MotionParams, state: MotionState, limbs: Array) -> tuple[MotionState, MotionFrame]:
    """One 60 Hz frame; finite for every finite input.

    Args: params; state; limbs float32 [27, 8] (position 3, velocity 3, angular speed, confidence).
    Raises: InputError if limbs has another shape.
    """
    return step_weights(prepare(params), state, limbs)


def trajectory(params: MotionParams, limbs: Array) -> MotionFrame:
    """All frames of a recording, as stepping from `init_state` gives them; leading axis T.

    Args: params; limbs float32 [T, 27, 8] at 60 Hz.
    Raises: InputError if limbs has another shape.
    """
    if jnp.ndim(limbs) != 3:
        raise InputError(f"limbs have shape {jnp.shape(limbs)}; give [T, 27, 8]")
    weights = prepare(params)
    limbs = jnp.asarray(limbs, jnp.float32)
    return jax.lax.scan(lambda s, x: step_weights(weights, s, x), init_state(params), limbs)[1]
