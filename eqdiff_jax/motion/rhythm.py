"""Rhythm of a speed signal: periodicity, tempo and beat phase from a leaky autocorrelation.

With u the speed less its running mean and E_w the mean over an exponential window of 2 s (which
weighs the last 4 s or so), the normalised autocorrelation is
    rho(l) = E_w[u_t u_{t-l}] / (sqrt(E_w[u_t^2] E_w[u_{t-l}^2]) + floor^2),
in [-1, 1] by Cauchy-Schwarz. A lag counts by min(rho(l), rho(l) - min_{l' <= l} rho(l')): its
height, but no more than its rise from the deepest trough before it, so slow drift has no period
and the best height, the periodicity, is continuous in the motion. The lag of the peak is not: it
jumps between rivals, whose choice prefers short lags (T over 2 T) and the present tempo.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.motion.lim_rps import RATE, smoothing
from eqdiff_jax.types import Array

MIN_LAG, MAX_LAG = 15, 120  # frames: 0.25 s and 2 s, that is 240 and 30 beats per minute
REST_TEMPO = 120.0  # beats per minute before anything periodic was seen
WINDOW_SECONDS = 2.0  # time constant of the autocorrelation
MEAN_SECONDS = 2.0  # time constant of the running mean that is subtracted
TEMPO_SECONDS = 0.5  # time constant of the tempo's approach to a fully periodic peak
SPEED_FLOOR = 0.02  # body heights/s; rhythm in slower movement fades out
SHORTER = 0.4  # among rival peaks a lag counts by its power -0.4, so that T wins over 2 T
STAY, STAY_OCTAVES = 0.15, 0.1  # bonus and width of the preference for the present tempo
LOCK_HERTZ = 0.4  # how fast the phase is pulled to the speed's peaks; below 0.5 it never runs back


class RhythmState(NamedTuple):
    """Carried from frame to frame; L = 122 lags, 0 to 121 frames."""

    mean: Array  # [] running mean of the speed, body heights/s
    past: Array  # [L] latest values of u, newest first
    product: Array  # [L] E_w[u_t u_{t-l}]
    power: Array  # [L] E_w[u_{t-l}^2]
    tempo: Array  # [] beats per minute
    phase: Array  # [] beats, [0, 1)
    in_phase: Array  # [] E_w[u cos 2 pi phase]
    quadrature: Array  # [] -E_w[u sin 2 pi phase]; positive when the speed's peaks come early


class Rhythm(NamedTuple):
    """One frame's rhythm."""

    periodicity: Array  # [] [0, 1]
    tempo: Array  # [] [30, 240] beats per minute
    phase: Array  # [] [0, 1)


def init_state() -> RhythmState:
    """State before the first frame."""
    zero, lags = jnp.float32(0), jnp.zeros(MAX_LAG + 2, jnp.float32)
    return RhythmState(zero, lags, lags, lags, jnp.float32(REST_TEMPO), zero, zero, zero)


def autocorrelation(product: Array, power: Array) -> Array:
    """rho(l) [L] from the two running means [L]."""
    return product / (jnp.sqrt(power[0] * power + 1e-20) + SPEED_FLOOR**2)


def peak(rho: Array, tempo: Array) -> tuple[Array, Array, Array]:
    """Best height, and the chosen peak's own height and lag.

    Args: rho float32 [L]; tempo: the present one, beats per minute.
    Returns: height over all lags [0, 1]; height of the chosen local maximum, 0 if there is none;
      its lag in frames, to a fraction by a parabola, within 15 to 120.
    """
    lags = np.arange(MIN_LAG, MAX_LAG + 1)
    rise = rho - jax.lax.cummin(rho)
    height = jnp.clip(jnp.minimum(rho, rise), 0.0, 1.0)[MIN_LAG : MAX_LAG + 1]
    before, here, after = (rho[MIN_LAG + i : MAX_LAG + 1 + i] for i in (-1, 0, 1))
    top = jnp.where((here >= before) & (here >= after), height, 0.0)
    shorter = ((lags / MIN_LAG) ** -SHORTER).astype(np.float32)
    stay = jnp.exp(-0.5 * (jnp.log2(lags * tempo / (60 * RATE)) / STAY_OCTAVES) ** 2)
    best = jnp.argmax(top * shorter * (1.0 + STAY * stay))
    bend = jnp.minimum(before[best] - 2.0 * here[best] + after[best], -1e-6)
    shift = jnp.clip(0.5 * (before[best] - after[best]) / bend, -0.5, 0.5)
    return jnp.max(height), top[best], jnp.clip(MIN_LAG + best + shift, MIN_LAG, MAX_LAG)


def step(state: RhythmState, speed: Array, first: Array) -> tuple[RhythmState, Rhythm]:
    """One frame.

    The tempo follows the peak in log scale, faster the more periodic; the phase advances with it
    and is pulled towards 0 at the peaks of speed; a still body stops both.

    Args: state; speed float32 [], body heights/s; first: bool [], True takes speed as the mean.
    """
    mean = jnp.where(first, speed, state.mean + smoothing(MEAN_SECONDS) * (speed - state.mean))
    swing = speed - mean
    past = jnp.concatenate([swing[None], state.past[:-1]])
    window = smoothing(WINDOW_SECONDS)
    product = state.product + window * (swing * past - state.product)
    power = state.power + window * (past * past - state.power)

    height, chosen, lag = peak(autocorrelation(product, power), state.tempo)
    pace = smoothing(TEMPO_SECONDS) * chosen
    tempo = state.tempo * (60.0 * RATE / lag / state.tempo) ** pace
    tempo = jnp.clip(tempo, 60.0 * RATE / MAX_LAG, 60.0 * RATE / MIN_LAG)

    angle = 2.0 * np.pi * state.phase
    in_phase = state.in_phase + window * (swing * jnp.cos(angle) - state.in_phase)
    quadrature = state.quadrature + window * (-swing * jnp.sin(angle) - state.quadrature)
    size = jnp.sqrt(in_phase**2 + quadrature**2 + SPEED_FLOOR**2)
    pull = LOCK_HERTZ * quadrature / size  # sine of the angle by which the speed's peaks lead
    presence = power[0] / (power[0] + SPEED_FLOOR**2)
    phase = jnp.mod(state.phase + presence * (tempo / 60.0 + pull) / RATE, 1.0)

    new = RhythmState(mean, past, product, power, tempo, phase, in_phase, quadrature)
    return new, Rhythm(height, tempo, phase)
