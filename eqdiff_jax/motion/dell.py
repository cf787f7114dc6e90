"""DELL: two coupled equilibria, one per frame and one per 0.4 s, that turn limbs into a latent.

    fast   h <- tanh(W_in l + W_rec h + b + 0.3 P y)          h [128], l [216], x_fast = W_out h
    slow   y <- tanh(0.5 W xbar + U y + b_y)                  y [32], xbar = mean x_fast, 24 frames
    blend  z_raw = 0.7 x_fast + 0.3 y

Every matrix is a fixed gain times a matrix of spectral norm 1 (contraction/lipschitz.py), so the
gains of `gains()` bound the Jacobian blocks for every parameter value (tanh is 1-Lipschitz), and
both row sums stay at 0.9: the coupled map contracts in the max norm of the product space.
The statement is about a frozen limb frame; a moving one is tracked (certify.py says how far).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.contraction.gains import max_norm
from eqdiff_jax.contraction.lipschitz import cayley
from eqdiff_jax.contraction.norms import spectral_norm
from eqdiff_jax.contraction.rounding import gamma, roundoff
from eqdiff_jax.equilibrium import SOLVERS, coupled_fixed_point
from eqdiff_jax.equilibrium.picard import iterate
from eqdiff_jax.motion.skeleton import REST
from eqdiff_jax.types import Array, Certificate, Kind, Solution, Solver

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
# Gains are multiplied in this much short of themselves. Rounding gain and products to float32 adds at most
# u (1 + | |Q| |) <= u (1 + sqrt(128)) < 13 u to the norm, u = 2^-24, and this takes 16 u away.
SHORT = 1.0 - 2.0**-20

# Largest believable value per feature: position 3 body heights, velocity 30 body heights/s,
# angular speed 60 rad/s, confidence 1. Beyond it a value is clipped.
LIMITS = np.array([3, 3, 3, 30, 30, 30, 60, 1], np.float32)
# One unit of network input: 0.5 body heights, 2 body heights/s, 10 rad/s, confidence 4.
SCALES = np.array([0.5, 0.5, 0.5, 2, 2, 2, 10, 4], np.float32)
_REST = np.concatenate([REST, np.zeros((LIMBS, FEATURES - 3))], axis=1).astype(np.float32)
# |l| never exceeds this, [216]: bounded limbs less the rest pose, over SCALES; the confidence slot has no rest value.
FEATURE_LIMITS = ((np.append(LIMITS[:7], 1.0) + np.abs(_REST)) / SCALES).astype(np.float64).reshape(-1)


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
    """Constrained matrices of `params`, within their gains in float32 too; costs two 128 x 128 solves, so keep it
    out of loops."""
    return DellWeights(
        w_in=SHORT * INPUT_GAIN * cayley(params.w_in).T,
        w_rec=SHORT * RECURRENT_GAIN * cayley(params.w_rec),
        w_out=cayley(params.w_out).T,
        lift=SHORT * SLOW_TO_FAST * cayley(params.lift),
        w_slow=SHORT * FAST_TO_SLOW * cayley(params.w_slow),
        u_slow=SHORT * SLOW_GAIN * cayley(params.u_slow),
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


def fast_map(weights: DellWeights, h: Array, y: Array, inputs: Array) -> Array:
    """F1: tanh(W_in l + W_rec h + b + 0.3 P y), h [128], y [32], l [216]."""
    w = weights
    return jnp.tanh(w.w_rec @ h + (w.w_in @ inputs + w.lift @ y + w.bias))


def slow_map(weights: DellWeights, y: Array, x_mean: Array) -> Array:
    """F2: tanh(0.5 W xbar + U y + b_y), y [32], xbar [32]."""
    return jnp.tanh(weights.u_slow @ y + (weights.w_slow @ x_mean + weights.bias_slow))


def joint_map(weights: DellWeights, h: Array, y: Array, inputs: Array) -> tuple[Array, Array]:
    """(F1(h, y), F2(y, W_out h)): both equations of a frozen frame, each block from the old values."""
    return fast_map(weights, h, y, inputs), slow_map(weights, y, weights.w_out @ h)


def equilibrium(weights: DellWeights, inputs: Array, *, solver: Solver = SOLVERS["picard"], **options) -> Solution:
    """The joint equilibrium (h*, y*) of a frame that is held for ever: h* = F1(h*, y*), y* = F2(y*, W_out h*).

    Swept block by block (Gauss-Seidel) from zero; both row sums of the gains are 0.9, so it exists, is the only one and
    is reached at that rate for every parameter value.

    Args:
      weights: from `weights`.
      inputs: [216] network input of the frame, `features(limbs)`.
      solver: a record of `equilibrium.SOLVERS`.
      options: `fixed_point`'s: adjoint, rtol, atol, max_steps, trace.
    Returns:
      Solution, value (h [128], y [32]); differentiable in weights and inputs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> w = weights(init_params(jax.random.key(0)))
      >>> solution = equilibrium(w, jnp.ones(LIMBS * FEATURES))
      >>> bool(jnp.abs(fast_map(w, *solution.value, jnp.ones(LIMBS * FEATURES)) - solution.value[0]).max() < 1e-5)
      True
    """
    maps = (lambda z, w, x: fast_map(w, z[0], z[1], x), lambda z, w, x: slow_map(w, z[1], w.w_out @ z[0]))
    start = (jnp.zeros_like(weights.bias), jnp.zeros_like(weights.bias_slow))
    return coupled_fixed_point(maps, start, weights, inputs, sweep="gauss_seidel", solver=solver, **options)


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


class Gains(NamedTuple):
    """Lipschitz constants from the input l to h, x_fast, y and z_raw; inf where nothing is certified."""

    h: float
    x: float
    y: float
    z_raw: float


class Rounding(NamedTuple):
    """What float32 may add to one evaluation, Euclidean norms: |computed - exact| for the same arguments."""

    features: float  # l
    fast: float  # F1
    frozen: float  # F1 beside the exact map with the computed drive W_in l + 0.3 P y + b
    slow: float  # F2, the mean of 24 frames included
    glide: float  # y_slow
    output: float  # W_out h
    blend: float  # z_raw


NOMINAL = {"w_in": INPUT_GAIN, "w_rec": RECURRENT_GAIN, "w_out": 1.0, "lift": SLOW_TO_FAST, "w_slow": FAST_TO_SLOW,
           "u_slow": SLOW_GAIN}  # matrix -> the norm that `weights` never exceeds
TANH_ULPS = 8  # XLA's tanh is taken to err by no more units in the last place
ASSUMPTIONS = ("products in full float32, in any order of summation (no TF32, no bfloat16)",
               f"tanh errs by at most {TANH_ULPS} units in the last place")


def norms(weights: DellWeights) -> dict[str, float]:
    """Spectral norms of the six matrices, from above (float64 SVD)."""
    return {name: spectral_norm(getattr(weights, name)) for name in NOMINAL}


def violations(weights: DellWeights) -> tuple[str, ...]:
    """The matrices whose norm exceeds their gain, one phrase each; () for whatever `weights` made."""
    return tuple(f"{name} has norm {value:.6g}, above its gain {NOMINAL[name]:g}"
                 for name, value in norms(weights).items() if value > NOMINAL[name])


def small_gain(weights: DellWeights, input_norm: float | None = None) -> Gains:
    """Bounds |dh|, |dx|, |dy|, |dz_raw| per |dl|, by the small-gain theorem.

        |dh| <= |W_rec| |dh| + |W_in| |dl| + |0.3 P| |dy|      |dx| <= |W_out| |dh|
        |dy| <= |U| |dy| + |0.5 W| |dx|                        |dz_raw| <= 0.7 |dx| + 0.3 |dy|

    Two readings, one system: at the joint equilibrium of a frozen frame (all of one frame), and along two runs of
    `step` from one state, with |d.| the largest value over time: each of the 4 (or 6) warm-started iterations keeps
    |dh| below the solution if it was below before, y_slow is a convex combination of slow iterates, xbar a mean.
    `input_norm` takes the place of |W_in|, for inputs l = D m seen as a function of m.
    """
    w = norms(weights)
    rec, slow = 1.0 - w["w_rec"], 1.0 - w["u_slow"]
    if violations(weights) or rec <= 0 or slow <= 0:
        return Gains(*[float("inf")] * 4)
    to_y = w["w_slow"] * w["w_out"] / slow
    room = rec - w["lift"] * to_y
    h = (w["w_in"] if input_norm is None else input_norm) / room if room > 0 else float("inf")
    return Gains(h, w["w_out"] * h, to_y * h, (BLEND[0] * w["w_out"] + BLEND[1] * to_y) * h)


def rounding(weights: DellWeights) -> Rounding:
    """Float32 errors of one evaluation anywhere within FEATURE_LIMITS, |h|, |y| <= 1 elementwise.

    Standard model: a sum of n products errs by gamma_n |W| |x|, and tanh does not enlarge what it is given.
    """
    w: Any = DellWeights(*(np.abs(np.asarray(m, np.float64)) for m in weights))  # type: ignore[arg-type]  # NumPy
    norm = np.linalg.norm

    def g(k: int) -> float:
        return gamma(k, np.float32)

    recurrent = w.w_rec.sum(axis=1)
    drive = w.w_in @ FEATURE_LIMITS + w.lift.sum(axis=1) + w.bias
    x = np.minimum(w.w_out.sum(axis=1), norm(w.w_out, axis=1) * FAST**0.5)
    squash = 2 * TANH_ULPS * roundoff(np.float32)  # one unit in the last place of values up to 1 is 2 u
    slow = g(SLOW + 3) * (w.w_slow @ x + w.u_slow.sum(axis=1) + w.bias_slow)
    return Rounding(
        features=float(norm(g(4) * FEATURE_LIMITS)),
        fast=float(norm(g(LIMBS * FEATURES + 4) * (recurrent + drive) + squash)),
        frozen=float(norm(g(FAST + 2) * recurrent + g(2) * drive + squash)),
        slow=float(norm(slow + squash) + norm(w.w_slow, 2) * norm(g(SLOW_PERIOD + 2) * x)),
        glide=g(5) * 2 * SLOW**0.5,
        output=float(norm(g(FAST) * x)),
        blend=float(norm(g(4) * (BLEND[0] * x + BLEND[1]))),
    )


def certificates(weights: DellWeights) -> dict[str, Certificate]:
    """Certificates of the maps inside DELL, for these weights, on limbs within LIMITS.

    `fast` h -> F1 and `slow` y -> F2 at frozen other arguments, `fast_from_slow` y -> F1, `slow_from_fast` h -> F2,
    `coupled` (h, y) -> (F1, F2) in the max norm of the product space, `input` l -> z_raw at the joint equilibrium.
    An iterate moves its equilibrium by no more than rounding / (1 - bound). Matrices beyond their gain (never made by
    `weights`) leave only the range of tanh: bound inf, and the method names them.
    """
    w, e, broken = norms(weights), rounding(weights), violations(weights)
    to_slow = w["w_slow"] * w["w_out"]
    rows = [[w["w_rec"], w["lift"]], [to_slow, w["u_slow"]]]
    bounds = {
        "fast": (w["w_rec"], 2 * e.frozen, "|W_rec|, tanh is 1-Lipschitz"),
        "slow": (w["u_slow"], 2 * e.slow, "|U|, tanh is 1-Lipschitz"),
        "fast_from_slow": (w["lift"], 2 * e.fast, "|0.3 P|"),
        "slow_from_fast": (to_slow, 2 * (e.slow + w["w_slow"] * e.output), "|0.5 W| |W_out|"),
        "coupled": (max_norm(rows), 2 * max(e.fast, e.slow + w["w_slow"] * e.output), "largest row sum of the gains"),
        "input": (small_gain(weights).z_raw, 2 * accumulated(weights).z_raw, "small gain at the joint equilibrium"),
    }
    if broken:
        why = "not certified: " + "; ".join(broken)
        return {name: Certificate(float("inf"), Kind.RANGE, why, ASSUMPTIONS) for name in bounds}
    return {name: Certificate(bound, Kind.PROVED, method, ASSUMPTIONS, error)
            for name, (bound, error, method) in bounds.items()}


def accumulated(weights: DellWeights) -> Gains:
    """Distance between `step` in float32 and in exact arithmetic, from one state on the same limbs, at any time.

    The errors of `rounding` are sources in the system of `small_gain`; field names say where they are read.
    """
    w, e = norms(weights), rounding(weights)
    if violations(weights):
        return Gains(*[float("inf")] * 4)
    slow = (e.slow + w["w_slow"] * e.output) / (1.0 - w["u_slow"])
    to_y = w["w_slow"] * w["w_out"] / (1.0 - w["u_slow"])
    source = e.fast + w["w_in"] * e.features + w["lift"] * (slow + e.glide)
    h = source / (1.0 - w["w_rec"] - w["lift"] * to_y)
    x, y = w["w_out"] * h + e.output, slow + to_y * h + e.glide
    return Gains(h, x, y, BLEND[0] * x + BLEND[1] * y + e.blend)
