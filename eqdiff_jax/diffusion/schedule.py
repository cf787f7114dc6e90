"""Noise schedules, and the commitment rule that turns confidence into steps and temperature.

One convention: alpha(t) is the probability that a token has survived until t in [0, 1], sigma = -log alpha.
"""

import jax.numpy as jnp

from eqdiff_jax.types import Array

LOGLINEAR_EPS = 1e-3
STEPS_MIN, STEPS_MAX = 4, 50


def loglinear_alpha(t: Array) -> Array:
    """Survival of the loglinear schedule: alpha(t) = 1 - (1 - eps) t, eps = 1e-3. Any shape."""
    return 1.0 - (1.0 - LOGLINEAR_EPS) * t


def loglinear_rate(t: Array) -> Array:
    """Total noise rate d sigma/dt = (1 - eps) / alpha(t) of the loglinear schedule. Any shape."""
    return (1.0 - LOGLINEAR_EPS) / loglinear_alpha(t)


def commitment(confidence: Array) -> tuple[Array, Array]:
    """Steps and temperature of a confidence c in [0, 1]: T = round(50 - 46 c), temperature 1.2 - 0.5 c.

    Elementwise; c is clipped to [0, 1], NaN counts as 0. A sure performer gets 4 decisive steps, a searching one 50
    loose ones.
    """
    c = jnp.clip(jnp.nan_to_num(confidence), 0.0, 1.0)
    return jnp.round(STEPS_MAX - (STEPS_MAX - STEPS_MIN) * c).astype(jnp.int32), 1.2 - 0.5 * c
