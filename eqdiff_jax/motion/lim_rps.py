"""LIM-RPS: a proximal fixed point that keeps the latent and its rates near what was measured.

    s* = prox_tau(s* - gamma B s*),   prox_tau(v) = (v + tau a) / (1 + tau)

s [96] has three blocks of 32: z, T z', T^2 z'' with T = 0.1 s, so that all are of order 1; a is
the measured state in the same units. B is linear with |B| <= 1 for every parameter, hence the map
contracts with factor (1 + gamma)/(1 + tau), and tau > gamma certifies it; if B is also mu-strongly
monotone, with sqrt(1 - 2 gamma mu + gamma^2)/(1 + tau). The step s - gamma B s alone is *not* a
contraction in general: B = -I makes it an expansion by 1 + gamma.

The equilibrium is linear in what was measured, s* = (tau I + gamma B)^-1 tau a, so its Lipschitz
constant is a singular value, at most tau/(tau - gamma).

B is block upper triangular: velocity and acceleration depend on measured rates alone, so a still
body has zero rates whatever was learnt. At init B is a shift (z takes from the velocity, velocity
from the acceleration): the fixed point then leads a little, which offsets the delay that the two
warm-started iterations per frame leave behind; it is this truncation that smooths.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from eqdiff_jax.contraction.lipschitz import aol
from eqdiff_jax.contraction.norms import spectral_norm
from eqdiff_jax.contraction.rounding import gamma as gamma_k
from eqdiff_jax.contraction.rounding import length
from eqdiff_jax.equilibrium.picard import iterate
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.dell import RATE, SLOW
from eqdiff_jax.types import Array, Certificate, Kind

LATENT, STATE = SLOW, 3 * SLOW
GAMMA, TAU = 0.1, 0.25
STEPS = 2  # iterations per frame, warm-started
BLOCK_SECONDS = 0.1  # T
FILTER_SECONDS = 0.05  # one-pole low-pass of each measured rate
SETTLE_FRAMES = 8  # frames after the start in which rates read 0 while DELL finds its equilibrium
HORIZON = 0.1  # s, how far ahead `predict` looks

_UPPER = np.kron(np.triu(np.ones((3, 3))), np.ones((LATENT, LATENT))).astype(np.float32)


class LimParams(NamedTuple):
    """Unconstrained cross-modal matrix."""

    cross: Array  # [96, 96]; its lower blocks are not used


class LimState(NamedTuple):
    """Carried from frame to frame."""

    s: Array  # [96] last iterate
    z_raw: Array  # [32] last measured latent
    rate: Array  # [32] filtered rate of z_raw, 1/s
    rate2: Array  # [32] filtered rate of that, 1/s^2
    frame: Array  # [] int32, frames seen, saturating


class LimFrame(NamedTuple):
    """What one frame yields."""

    z: Array  # [32]
    velocity: Array  # [32] per second
    acceleration: Array  # [32] per second squared
    error: Array  # [] a posteriori bound on |s - s*|


def contraction_factor(gamma: float = GAMMA, tau: float = TAU, monotone: float = -1.0) -> float:
    """sqrt(1 - 2 gamma mu + gamma^2)/(1 + tau), the Lipschitz constant of the proximal step for 1-Lipschitz B.

    mu = `monotone` is a lower bound on <B s - B t, s - t>/|s - t|^2; -1 holds for every 1-Lipschitz B and gives
    (1 + gamma)/(1 + tau). Proof: |d - gamma dB|^2 = |d|^2 - 2 gamma <d, dB> + gamma^2 |dB|^2.
    Raises: InputError unless 0 <= gamma, -1 <= mu <= 1, and the factor is below 1.
    """
    if not -1 <= monotone <= 1:
        raise InputError(f"a 1-Lipschitz B has a monotonicity modulus in [-1, 1], got {monotone}: check its sign")
    factor = (1 - 2 * gamma * monotone + gamma**2) ** 0.5 / (1 + tau)
    if not (gamma >= 0 and tau >= 0 and factor < 1):
        raise InputError(
            f"LIM-RPS needs 0 <= gamma < tau to contract, got gamma {gamma}, tau {tau}: raise tau"
        )
    return factor


def init_params() -> LimParams:
    """The shift: B [z, v] = B [v, a] = -I / sqrt(2), all else 0."""
    shift = np.kron(np.eye(3, k=1), -np.eye(LATENT))
    return LimParams(cross=jnp.asarray(shift, jnp.float32))


def weights(params: LimParams) -> Array:
    """B [96, 96], block upper triangular, spectral norm < 1."""
    return aol(params.cross * _UPPER)


def init_state() -> LimState:
    """State before the first frame: all zero."""
    zeros = jnp.zeros(LATENT, jnp.float32)
    return LimState(jnp.zeros(STATE, jnp.float32), zeros, zeros, zeros, jnp.int32(0))


def smoothing(seconds: float) -> float:
    """Weight of the newest frame in a one-pole low-pass with this time constant, at 60 Hz."""
    return 1.0 - float(np.exp(-1.0 / (RATE * seconds)))


def proximal_step(
    operator: Array, s: Array, measured: Array, gamma: float = GAMMA, tau: float = TAU
) -> Array:
    """prox_tau(s - gamma B s) towards `measured` [96]."""
    return (s - gamma * (operator @ s) + tau * measured) / (1.0 + tau)


def measure(state: LimState, z_raw: Array) -> tuple[Array, Array]:
    """Filtered first and second rate of z_raw [32], both 0 until SETTLE_FRAMES are over."""
    settled = (state.frame >= SETTLE_FRAMES).astype(jnp.float32)
    alpha = smoothing(FILTER_SECONDS)
    rate = settled * (state.rate + alpha * (RATE * (z_raw - state.z_raw) - state.rate))
    rate2 = settled * (state.rate2 + alpha * (RATE * (rate - state.rate) - state.rate2))
    return rate, rate2


def step(operator: Array, state: LimState, z_raw: Array) -> tuple[LimState, LimFrame]:
    """One frame: measure, then two proximal iterations from the last state.

    Args: operator B [96, 96]; state; z_raw float32 [32]. At the start s = (z_raw, 0, 0).
    """
    rate, rate2 = measure(state, z_raw)
    measured = jnp.concatenate([z_raw, BLOCK_SECONDS * rate, BLOCK_SECONDS**2 * rate2])
    start = jnp.where(state.frame < SETTLE_FRAMES, measured, state.s)
    s, _ = iterate(lambda s: proximal_step(operator, s, measured), start, STEPS, contraction_factor())
    error = error_bound(operator, s, measured)
    frame = jnp.minimum(state.frame + 1, SETTLE_FRAMES)
    z, velocity, acceleration = jnp.split(s, 3)
    return LimState(s, z_raw, rate, rate2, frame), LimFrame(
        z, velocity / BLOCK_SECONDS, acceleration / BLOCK_SECONDS**2, error
    )


def error_bound(
    operator: Array, s: Array, measured: Array, gamma: float = GAMMA, tau: float = TAU
) -> Array:
    """A posteriori bound on |s - s*| that is sharp: at most 1.30 times the distance when |B| <= 1.

    With r = T(s) - s, T the proximal step, and b = gamma/tau < 1:
        s* - s = ((1 + tau)/tau) (I + b B)^-1 r,
        |(I + b B)^-1 r| <= |r - b B r + b^2 B^2 r| + b^3/(1 - b) |r|,
    for the first three terms of the Neumann series leave (-b B)^3 (I + b B)^-1 r. The Banach bound
    L/(1 - L) |s_k - s_(k-1)| uses the worst factor L = 0.88 instead. Args as in `proximal_step`.
    """
    ratio = gamma / tau
    residual = proximal_step(operator, s, measured, gamma, tau) - s
    first = ratio * (operator @ residual)
    second = ratio * (operator @ first)
    near = length(residual - first + second)
    return (1.0 + tau) / tau * (near + ratio**3 / (1.0 - ratio) * length(residual))


def predict(z: Array, velocity: Array, horizon: float = HORIZON) -> Array:
    """Linear extrapolation z + horizon * velocity, horizon in seconds."""
    return z + horizon * velocity


def certificates(operator: Array, gamma: float = GAMMA, tau: float = TAU, radius: float = 10.0
                 ) -> dict[str, Certificate]:
    """Certificates for the linear B [96, 96]: `step` s -> T(s), `solution` a -> s*, `latent` z_raw -> z* at rest.

    Each is the singular value of a float64 matrix; `step` is at most (1 + gamma)/(1 + tau), `solution` at most
    tau/(tau - gamma). `latent`: the measured rates are 0, so z* = tau (tau I + gamma B_11)^-1 z_raw, B being block
    upper triangular. Float32 errors hold for |s|, |a| <= radius, and an iterate's is at most rounding / (1 - bound) of
    `step`. A |B| > 1 (never made by `weights`) is not certified: bound inf, and the method gives the norm.
    """
    b, size = np.asarray(operator, np.float64), spectral_norm(operator)
    eye = np.eye(len(b))
    absolute = spectral_norm(np.abs(b))
    local = gamma_k(STATE + 5, np.float32) * radius * (1 + gamma * absolute + tau) / (1 + tau)
    step_norm = spectral_norm(eye - gamma * b) / (1 + tau)
    assumptions = (f"|s|, |a| <= {radius:g}", "products in full float32, in any order of summation")
    if size > 1 or not 0 <= gamma < tau:
        why = f"not certified: B has norm {size:.6g}, needs <= 1 and 0 <= gamma < tau"
        return {name: Certificate(float("inf"), Kind.RANGE, why) for name in ("step", "solution", "latent")}
    solution = tau * np.linalg.inv(tau * eye + gamma * b)
    settled = 2 * local / (1 - step_norm)
    found = {
        "step": (step_norm, 2 * local, "|I - gamma B| / (1 + tau), exact for the linear B"),
        "solution": (spectral_norm(solution), settled, "|tau (tau I + gamma B)^-1|, exact for the linear B"),
        "latent": (spectral_norm(solution[:LATENT, :LATENT]), settled, "tau (tau I + gamma B)^-1, first block"),
    }
    return {name: Certificate(bound, Kind.PROVED, method, assumptions, error)
            for name, (bound, error, method) in found.items()}
