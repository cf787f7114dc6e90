"""DELL: two coupled equilibria, one per frame and one per 0.4 s, that turn limbs into a latent.

    fast   h <- tanh(W_in l + W_rec h + b + 0.3 P y)          h [128], l [216], x_fast = W_out h
    slow   y <- tanh(0.5 W xbar + U y + b_y)                  y [32], xbar = mean x_fast, 24 frames
    blend  z_raw = 0.7 x_fast + 0.3 y

Every matrix is a fixed gain times a matrix of spectral norm 1 (contraction/lipschitz.py), so the
gains of `gains()` bound the Jacobian blocks for every parameter value (tanh is 1-Lipschitz), and
both row sums stay at 0.9: the coupled map contracts in the max norm of the product space.
The statement is about a frozen limb frame; a moving one is tracked.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.contraction.lipschitz import cayley
from eqdiff_jax.motion.skeleton import REST
from eqdiff_jax.types import Array

LIMBS, FEATURES = 27, 8
FAST, SLOW = 128, 32
FAST_STEPS, SLOW_STEPS = 4, 6  # iterations per frame, per slow update
SLOW_PERIOD = 24  # frames per slow update
RATE = 60.0  # frames per second

INPUT_GAIN = 2.0  # |W_in|
RECURRENT_GAIN = 0.6  # |W_rec|
SLOW_TO_FAST = 0.3  # |0.3 P|
SLOW_GAIN = 0.4  # |U|
FAST_TO_SLOW = 0.5  # |0.5 W W_out|
BLEND = (0.7, 0.3)

# Largest believable value per feature: position 3 body heights, velocity 30 body heights/s,
# angular speed 60 rad/s, confidence 1. Beyond it a value is clipped.
LIMITS = np.array([3, 3, 3, 30, 30, 30, 60, 1], np.float32)
# One unit of network input: 0.5 body heights, 2 body heights/s, 10 rad/s, confidence 4.
SCALES = np.array([0.5, 0.5, 0.5, 2, 2, 2, 10, 4], np.float32)
_REST = np.concatenate([REST, np.zeros((LIMBS, FEATURES - 3))], axis=1).astype(np.float32)


class DellParams(NamedTuple):
    """Unconstrained real matrices and biases; `weights` maps them to the constrained ones."""

    w_in: Array  # [216, 128]
    w_rec: Array  # [128, 128]
    w_out: Array  # [128, 32]
    lift: Array  # [128, 32]
    w_slow: Array  # [32, 32]
    u_slow: Array  # [32, 32]
    bias: Array  # [128]
    bias_slow: Array  # [32]


class DellWeights(NamedTuple):
    """Constrained matrices with their gains multiplied in."""

    w_in: Array  # [128, 216], norm 2
    w_rec: Array  # [128, 128], norm 0.6
    w_out: Array  # [32, 128], norm 1
    lift: Array  # [128, 32] = 0.3 P, norm 0.3
    w_slow: Array  # [32, 32] = 0.5 W, norm 0.5
    u_slow: Array  # [32, 32], norm 0.4
    bias: Array  # [128]
    bias_slow: Array  # [32]


class DellState(NamedTuple):
    """Carried from frame to frame."""

    h: Array  # [128] last fast iterate
    y: Array  # [32] last slow iterate
    y_from: Array  # [32] the slow iterate before it
    x_sum: Array  # [32] sum of x_fast since the last slow update
    frames: Array  # [] int32, frames since the last slow update, 0..23
    error_slow: Array  # [] bound left by the last slow update


class DellFrame(NamedTuple):
    """What one frame yields."""

    z_raw: Array  # [32]
    x_fast: Array  # [32]
    y_slow: Array  # [32]
    error_fast: Array  # [] bound on |h - h*| for this frame's limbs and y_slow
    error_slow: Array  # [] bound on |y - y*| for the xbar of the last slow update


def gains() -> np.ndarray:
    """Proved bounds [[|dF1/dh|, |dF1/dy|], [|dF2/dh|, |dF2/dy|]], float64 [2, 2], row sums 0.9."""
    return np.array([[RECURRENT_GAIN, SLOW_TO_FAST], [FAST_TO_SLOW, SLOW_GAIN]])


def init_params(key: Array) -> DellParams:
    """Random fast network, slow one near W = U = I so that y follows xbar; the key is consumed."""
    key_in, key_rec, key_out, key_lift, key_w, key_u = jax.random.split(key, 6)

    def normal(key: Array, rows: int, columns: int, scale: float = 1.0) -> Array:
        return scale * columns**-0.5 * jax.random.normal(key, (rows, columns), jnp.float32)

    return DellParams(
        w_in=normal(key_in, LIMBS * FEATURES, FAST),
        w_rec=normal(key_rec, FAST, FAST),
        w_out=normal(key_out, FAST, SLOW),
        lift=normal(key_lift, FAST, SLOW),
        w_slow=normal(key_w, SLOW, SLOW, 0.1),
        u_slow=normal(key_u, SLOW, SLOW, 0.1),
        bias=jnp.zeros(FAST, jnp.float32),
        bias_slow=jnp.zeros(SLOW, jnp.float32),
    )


def weights(params: DellParams) -> DellWeights:
    """Constrained matrices of `params`; costs two 128 x 128 solves, so keep it out of loops."""
    return DellWeights(
        w_in=INPUT_GAIN * cayley(params.w_in).T,
        w_rec=RECURRENT_GAIN * cayley(params.w_rec),
        w_out=cayley(params.w_out).T,
        lift=SLOW_TO_FAST * cayley(params.lift),
        w_slow=FAST_TO_SLOW * cayley(params.w_slow),
        u_slow=SLOW_GAIN * cayley(params.u_slow),
        bias=params.bias,
        bias_slow=params.bias_slow,
    )


def init_state() -> DellState:
    """State before the first frame: all zero."""
    zeros = jnp.zeros(SLOW, jnp.float32)
    return DellState(
        h=jnp.zeros(FAST, jnp.float32), y=zeros, y_from=zeros, x_sum=zeros,
        frames=jnp.int32(0), error_slow=jnp.float32(0),
    )  # fmt: skip


def bounded(limbs: Array) -> Array:
    """Limb frame [27, 8] clipped to LIMITS, confidence to [0, 1]: finite in, moderate out."""
    low = np.where(np.arange(FEATURES) == FEATURES - 1, 0.0, -LIMITS).astype(np.float32)
    return jnp.clip(jnp.asarray(limbs, jnp.float32), low, LIMITS)


def features(limbs: Array) -> Array:
    """Network input l [216]: bounded features less those of the rest pose, over SCALES.

    Each limb's are multiplied by its confidence, so one that is not tracked contributes 0.
    """
    limbs = bounded(limbs)
    confidence = limbs[:, 7:]
    values = jnp.concatenate([limbs[:, :7], jnp.ones_like(confidence)], axis=1)
    return (confidence * (values - _REST) / SCALES).reshape(-1)


def norm(x: Array) -> Array:
    """Euclidean norm with a finite gradient at 0 (there it returns 1e-12)."""
    return jnp.sqrt(jnp.sum(x * x) + 1e-24)


def fast_map(weights: DellWeights, h: Array, y: Array, inputs: Array) -> Array:
    """F1: tanh(W_in l + W_rec h + b + 0.3 P y), h [128], y [32], l [216]."""
    w = weights
    return jnp.tanh(w.w_rec @ h + (w.w_in @ inputs + w.lift @ y + w.bias))


def slow_map(weights: DellWeights, y: Array, x_mean: Array) -> Array:
    """F2: tanh(0.5 W xbar + U y + b_y), y [32], xbar [32]."""
    return jnp.tanh(weights.u_slow @ y + (weights.w_slow @ x_mean + weights.bias_slow))


def iterate(f: Callable[[Array], Array], z: Array, steps: int, rate: float) -> tuple[Array, Array]:
    """z_k after k = `steps` Picard steps, and L/(1-L) |z_k - z_{k-1}| with L = `rate` < 1."""
    for _ in range(steps):
        z, last = f(z), z
    return z, rate / (1.0 - rate) * norm(z - last)


def step(weights: DellWeights, state: DellState, limbs: Array) -> tuple[DellState, DellFrame]:
    """One frame: 4 fast iterations and, on each 24th frame, 6 slow ones, both warm-started.

    y_slow glides linearly from one slow solution to the next over the 24 frames until the next
    update, so z_raw has no 2.5 Hz steps; for a still body it arrives at the slow equilibrium.

    Args: weights; state; limbs float32 [27, 8]. Values of x_fast lie in |x| <= sqrt(128).
    """
    w, inputs = weights, features(limbs)
    fraction = (state.frames + 1) / jnp.float32(SLOW_PERIOD)
    y_slow = state.y_from + fraction * (state.y - state.y_from)

    drive = w.w_in @ inputs + w.lift @ y_slow + w.bias  # the part of fast_map that stays fixed
    h, error_fast = iterate(
        lambda h: jnp.tanh(w.w_rec @ h + drive), state.h, FAST_STEPS, RECURRENT_GAIN
    )
    x_fast = w.w_out @ h
    state = state._replace(h=h, x_sum=state.x_sum + x_fast, frames=state.frames + 1)
    state = jax.lax.cond(state.frames == SLOW_PERIOD, _slow_update, lambda _, s: s, w, state)
    z_raw = BLEND[0] * x_fast + BLEND[1] * y_slow
    return state, DellFrame(z_raw, x_fast, y_slow, error_fast, state.error_slow)


def _slow_update(weights: DellWeights, state: DellState) -> DellState:
    """Solve the slow equilibrium for the mean of the 24 frames just seen, and start anew."""
    x_mean = state.x_sum / SLOW_PERIOD
    y, error = iterate(lambda y: slow_map(weights, y, x_mean), state.y, SLOW_STEPS, SLOW_GAIN)
    return state._replace(
        y=y, y_from=state.y, error_slow=error,
        x_sum=jnp.zeros_like(state.x_sum), frames=jnp.zeros_like(state.frames),
    )  # fmt: skip
