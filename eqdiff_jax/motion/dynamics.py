"""The 15 scalars of movement, one update per frame at 60 Hz.

Speed, acceleration, energy, tension, transition, grounding, verticality, balance and rhythm come
from the limbs (physical units, body heights); curvature and confidence from the latent's path;
coherence from DELL's outputs. Every scalar is bounded for every input; TABLE states how.
`x / (x + x0)` stands below for the compression of a non-negative x to [0, 1), 0.5 at x0.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from eqdiff_jax.motion import rhythm
from eqdiff_jax.motion.dell import RATE, bounded
from eqdiff_jax.motion.lim_rps import LATENT, smoothing
from eqdiff_jax.motion.skeleton import LIMB, LIMBS
from eqdiff_jax.types import Array, Dynamics


class Row(NamedTuple):
    """What one scalar is: `low <= value <= high` always, `rest` for a body that stays still."""

    low: float
    high: float
    unit: str
    seconds: float  # time constant of its slowest filter
    rest: float


SPEED_MAX, ACCELERATION_MAX = 4.0, 40.0

TABLE = Dynamics(
    curvature=Row(0.0, 1.0, "k L/(1 + k L), k = |v^a|/|v|^3, L = CURVE_LENGTH", 0.1, 0.0),
    curvature_rate=Row(-1.0, 1.0, "tanh of d curvature/dt over CURVE_RATE", 0.1, 0.0),
    periodicity=Row(0.0, 1.0, "height of the speed's autocorrelation peak", 2.0, 0.0),
    internal_tempo=Row(30.0, 240.0, "beats per minute; keeps its last value at rest", 2.0, 120.0),
    phase=Row(0.0, 1.0, "beats, [0, 1); stands still at rest", 2.0, 0.0),
    tension=Row(0.0, 1.0, "share of a full accumulator", 6.0, 0.0),
    grounding=Row(0.0, 1.0, "q0^2/(q0^2 + q^2), q vertical speed, hips and support", 0.5, 1.0),
    verticality=Row(-1.0, 1.0, "tanh of mean upward velocity over RISE", 0.3, 0.0),
    coherence=Row(-1.0, 1.0, "cosine of x_fast and y_slow, each less its 8 s mean", 8.0, 0.0),
    lr_pan=Row(-1.0, 1.0, "right over left limb speed, -1 left only, 1 right only", 0.3, 0.0),
    prediction_confidence=Row(0.0, 1.0, "u0^2/(u0^2 + u^2), u spread of latent velocity", 0.4, 1.0),
    energy=Row(0.0, 1.0, "e/(e + e0), e mean squared limb speed", 0.4, 0.0),
    transition_intensity=Row(0.0, 1.0, "n^2/(1 + n^2), n novelty of pose and energy", 4.0, 0.0),
    speed=Row(0.0, SPEED_MAX, "body heights/s, mean over limbs, compressed near the top", 0.1, 0.0),
    acceleration=Row(0.0, ACCELERATION_MAX, "body heights/s^2, likewise", 0.1, 0.0),
)
# Scalars that are not continuous in the motion: tempo jumps with the autocorrelation's peak, phase
# wraps. `phase_slot` is continuous across the wrap; the tempo has a range bound only.
DISCONTINUOUS = ("internal_tempo", "phase")

# Calibration, on salsa (CMU), dance and walks (Bandai Namco) and the demo dancer.
ENERGY_HALF = 0.2  # (body heights/s)^2, mean squared limb speed at which energy is 0.5
EFFORT_HALF = 3.5  # body heights/s^2, mean limb acceleration at which effort is 0.5
TENSION_UP, TENSION_DOWN = 2.5, 6.0  # s, to fill at full effort, to drain at none
GROUND_HALF = 0.15  # body heights/s, vertical speed at which grounding is 0.5
RISE = 0.1  # body heights/s, mean upward velocity at which verticality is tanh 1
PAN_FLOOR = 0.05  # body heights/s, limb speed below which the balance fades to the middle
PAN_GAIN = 3.0  # a balance b reads (1 + g) b/(1 + g |b|), for dancers seldom move one side alone
CURVE_LENGTH = 0.6  # latent units, radius of a path whose curvature reads 0.5
CURVE_SPEED = 0.3  # latent units/s, speed below which curvature fades to 0
CURVE_RATE = 2.0  # 1/s
UNSTEADY_HALF = 5.0  # latent units/s, spread of velocity at which confidence is 0.5
COHERENCE_FLOOR = 0.05  # latent units
ENERGY_FLOOR = 0.01  # (body heights/s)^2, energies below it look alike to transition_intensity
ENERGY_FOLD = 1.0  # natural log of the energy ratio that counts as novelty 1
POSE_NOVELTY = 0.7  # latent units between the 0.5 s and 4 s mean poses that count as novelty 1

_TORSO = [LIMB[f"torso_{i}"] for i in range(1, 8)]
_NECK = [LIMB["neck_1"], LIMB["neck_2"]]
_LEFT = np.array([name.startswith("l_") for name in LIMBS], np.float32)
_RIGHT = np.array([name.startswith("r_") for name in LIMBS], np.float32)
_FEET = [LIMB["l_foot"], LIMB["r_foot"]]


def _limb_weights() -> np.ndarray:
    """[27] 1 per limb, the torso's seven and the neck's two sharing 1 each."""
    weights = np.ones(len(LIMBS), np.float32)
    weights[_TORSO], weights[_NECK] = 1 / 7, 1 / 2
    return weights


LIMB_WEIGHTS = _limb_weights()


class DynamicsState(NamedTuple):
    """Carried from frame to frame; low-passed unless said otherwise."""

    started: Array  # [] bool, False before the first frame
    velocity: Array  # [27, 3] limb velocities times confidence, 0.05 s
    speed: Array  # [] 0.1 s
    acceleration: Array  # [] 0.1 s
    power: Array  # [3] mean squared limb speed over 0.4, 0.5 and 4 s
    tension: Array  # []
    bounce: Array  # [] squared vertical speed, 0.5 s
    rise: Array  # [] 0.3 s
    sides: Array  # [2] left and right limb speed, 0.3 s
    curvature: Array  # [2] compressed: 0.1 s, and 0.1 s again
    latent: Array  # [2, 32] mean z over 0.5 and 4 s
    x_fast: Array  # [32] mean over 8 s
    y_slow: Array  # [32] mean over 8 s
    drift: Array  # [32] mean latent velocity, 0.1 s
    jitter: Array  # [] squared distance from it, 0.4 s
    frames: Array  # [] float32, count for the 8 s means, up to 480
    rhythm: rhythm.RhythmState


def init_state() -> DynamicsState:
    """State before the first frame."""

    def zeros(*shape: int) -> Array:
        return jnp.zeros(shape, jnp.float32)

    return DynamicsState(
        started=jnp.asarray(False), velocity=zeros(27, 3), speed=zeros(), acceleration=zeros(),
        power=zeros(3), tension=zeros(), bounce=zeros(), rise=zeros(), sides=zeros(2),
        curvature=zeros(2), latent=zeros(2, LATENT), x_fast=zeros(LATENT), y_slow=zeros(LATENT),
        drift=zeros(LATENT), jitter=zeros(), frames=zeros(), rhythm=rhythm.init_state(),
    )  # fmt: skip


def lowpass(old: Array, new: Array, seconds: float) -> Array:
    """One-pole low-pass at 60 Hz: old + (1 - exp(-1/(60 seconds))) (new - old)."""
    return old + smoothing(seconds) * (new - old)


def half(x: Array, x0: float) -> Array:
    """x / (x + x0) for x >= 0: 0 at 0, 0.5 at x0, below 1."""
    return x / (x + x0)


def length(vectors: Array) -> Array:
    """Norm over the last axis, 0 at 0 with gradient 0 there."""
    square = jnp.sum(vectors * vectors, axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def soft_limit(x: Array, limit: float) -> Array:
    """x / sqrt(1 + (x/limit)^2): x when small, never beyond `limit`."""
    return x / jnp.sqrt(1.0 + (x / limit) ** 2)


def curvature(velocity: Array, acceleration: Array, floor: float = CURVE_SPEED) -> Array:
    """kappa = |v ^ a| / (|v|^2 + floor^2)^(3/2), per unit of length; 0 for v = 0.

    |v ^ a| = |v| |a - v (v.a)/|v|^2| equals sqrt(|v|^2 |a|^2 - (v.a)^2) without its cancellation.
    Args: velocity, acceleration [..., N]; floor: speed below which kappa fades to 0, > 0.
    """
    square = jnp.sum(velocity * velocity, axis=-1, keepdims=True)
    along = jnp.sum(velocity * acceleration, axis=-1, keepdims=True)
    across = acceleration - velocity * along / (square + 1e-12)
    return length(velocity) * length(across) / (square[..., 0] + floor**2) ** 1.5


def phase_slot(phase: Array) -> Array:
    """0.5 (1 - cos 2 pi phase): the beat phase as a number in [0, 1], continuous at the wrap."""
    return 0.5 * (1.0 - jnp.cos(2.0 * np.pi * phase))


def mean_over_limbs(values: Array, confidence: Array) -> Array:
    """Mean of per-limb values [27] weighted by LIMB_WEIGHTS and confidence; 0 when none is seen."""
    weights = LIMB_WEIGHTS * confidence
    return jnp.sum(weights * values) / (jnp.sum(weights) + 1e-6)


def transition(power_short: Array, power_long: Array, short: Array, long: Array) -> Array:
    """n^2/(1 + n^2), n^2 = (log energy ratio / ENERGY_FOLD)^2 + (|pose shift| / POSE_NOVELTY)^2."""
    ratio = jnp.log((power_short + ENERGY_FLOOR) / (power_long + ENERGY_FLOOR)) / ENERGY_FOLD
    shift = jnp.sum((short - long) ** 2) / POSE_NOVELTY**2
    return half(ratio**2 + shift, 1.0)


def cosine(x: Array, y: Array) -> Array:
    """x.y / sqrt((|x|^2 + e^2)(|y|^2 + e^2)), e = COHERENCE_FLOOR; 0 when either is 0."""
    floor = COHERENCE_FLOOR**2
    return jnp.sum(x * y) / jnp.sqrt((jnp.sum(x * x) + floor) * (jnp.sum(y * y) + floor))


def balance(left: Array, right: Array) -> Array:
    """Right over left in [-1, 1]: b = (r - l)/(r + l + PAN_FLOOR), spread out by PAN_GAIN."""
    share = (right - left) / (left + right + PAN_FLOOR)
    return (1.0 + PAN_GAIN) * share / (1.0 + PAN_GAIN * jnp.abs(share))


def step(
    state: DynamicsState,
    limbs: Array,
    z: Array,
    velocity: Array,
    acceleration: Array,
    x_fast: Array,
    y_slow: Array,
) -> tuple[DynamicsState, Dynamics[Array]]:
    """One frame: the 15 scalars, float32 [] each, within TABLE's ranges.

    Args:
      limbs: [27, 8]; limbs of confidence 0 do not count.
      z, velocity, acceleration: [32] of LIM-RPS, per second and per second squared.
      x_fast, y_slow: [32] of DELL.
    """
    old, first = state, ~state.started
    limbs = bounded(limbs)
    confidence, motion = limbs[:, 7], limbs[:, 3:6]
    tracked = confidence[:, None] * motion
    limb_speed = length(motion)

    # physical: speed, acceleration, energy, tension
    limb_velocity = jnp.where(first, tracked, lowpass(old.velocity, tracked, 0.05))
    pull = length(tracked - limb_velocity) / 0.05  # rate of the low-passed velocity
    pace = mean_over_limbs(limb_speed, confidence)
    speed = lowpass(old.speed, pace, 0.1)
    push = lowpass(old.acceleration, mean_over_limbs(pull, jnp.ones_like(confidence)), 0.1)
    square = mean_over_limbs(limb_speed**2, confidence)
    decay = np.array([smoothing(0.4), smoothing(0.5), smoothing(4.0)], np.float32)
    power = old.power + decay * (square - old.power)
    effort = half(push**2, EFFORT_HALF**2)
    filling = effort * (1.0 - old.tension) / TENSION_UP
    leaking = (1.0 - effort) * old.tension / TENSION_DOWN
    tension = old.tension + (filling - leaking) / RATE

    # physical: vertical and sideways
    fall = (confidence * motion[:, 1]) ** 2
    support = jnp.minimum(fall[_FEET[0]], fall[_FEET[1]])  # the foot that moves less bears the body
    bounce = lowpass(old.bounce, fall[0] + support, 0.5)
    rise = lowpass(old.rise, mean_over_limbs(motion[:, 1], confidence), 0.3)
    speeds = [mean_over_limbs(limb_speed, confidence * side) for side in (_LEFT, _RIGHT)]
    sides = lowpass(old.sides, jnp.stack(speeds), 0.3)

    # latent
    kappa = half(CURVE_LENGTH * curvature(velocity, acceleration), 1.0)
    bend = lowpass(old.curvature[0], kappa, 0.1)
    bend_slow = lowpass(old.curvature[1], bend, 0.1)
    both = jnp.stack([z, z])
    weights = np.array([[smoothing(0.5)], [smoothing(4.0)]], np.float32)
    slow = old.latent + weights * (both - old.latent)
    latent = jnp.where(first, both, slow)
    frames = jnp.minimum(old.frames + 1.0, 8.0 * RATE)
    x_mean = old.x_fast + (x_fast - old.x_fast) / frames
    y_mean = old.y_slow + (y_slow - old.y_slow) / frames
    drift = lowpass(old.drift, velocity, 0.1)
    jitter = lowpass(old.jitter, jnp.sum((velocity - drift) ** 2), 0.4)

    rhythm_state, beat = rhythm.step(old.rhythm, pace, first)
    values = Dynamics(
        curvature=bend,
        curvature_rate=jnp.tanh((bend - bend_slow) / 0.1 / CURVE_RATE),
        periodicity=beat.periodicity,
        internal_tempo=beat.tempo,
        phase=beat.phase,
        tension=tension,
        grounding=1.0 - half(bounce, GROUND_HALF**2),
        verticality=jnp.tanh(rise / RISE),
        coherence=cosine(x_fast - x_mean, y_slow - y_mean),
        lr_pan=balance(sides[0], sides[1]),
        prediction_confidence=1.0 - half(jitter, UNSTEADY_HALF**2),
        energy=half(power[0], ENERGY_HALF),
        transition_intensity=transition(power[1], power[2], latent[0], latent[1]),
        speed=soft_limit(speed, SPEED_MAX),
        acceleration=soft_limit(push, ACCELERATION_MAX),
    )
    values = Dynamics(*(jnp.clip(v, r.low, r.high) for v, r in zip(values, TABLE, strict=True)))
    state = DynamicsState(
        started=jnp.asarray(True), velocity=limb_velocity, speed=speed, acceleration=push,
        power=power, tension=tension, bounce=bounce, rise=rise, sides=sides,
        curvature=jnp.stack([bend, bend_slow]), latent=latent, x_fast=x_mean, y_slow=y_mean,
        drift=drift, jitter=jitter, frames=frames, rhythm=rhythm_state,
    )  # fmt: skip
    return state, values
