"""Tilting: the law nearest to the network's under which hidden cells add up, in the mean, to what is asked.

    q(v) ~ p(v) e^{lambda s(v)},    sum over hidden cells of E_q[s] = goal,    |lambda| <= most

Of all laws of independent cells with that sum, q has the least divergence KL(q, p) (Csiszar's I-projection). Where the
goal is out of reach, lambda ends at its limit: no odds of two tokens move by more than e^{most |s(v) - s(w)|}.
Reference: Csiszar, I-divergence geometry, Annals of Probability 3, 1975.
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.types import Array

HALVINGS = 10  # bracket lambda to most / 512; two Newton steps inside do the rest


def tilt(log_posterior: Array, statistic: Array, hidden: Array, goal: Array, most: Array) -> Array:
    """log q of every cell, with the one lambda per example that hidden cells ask for. [B, ..., V]

    log_posterior [B, ..., V], -inf for what cannot be; statistic s [V], or with dimensions before it that broadcast to
    [B, ..., V]; hidden bool [B, ...], the cells that are to be drawn; goal, most [B]. The sum rises with lambda, its
    slope is the sum of the variances. lambda has its implicit derivative in law, statistic and goal.
    """
    axes = tuple(range(1, log_posterior.ndim - 1))

    def lean(log: Array, values: Array, strength: Array) -> Array:
        return jax.nn.log_softmax(log + strength.reshape(-1, *(1,) * (log.ndim - 1)) * values)

    def moments(log: Array, values: Array, strength: Array) -> tuple[Array, Array]:
        """Sums of the means and of the variances over hidden cells, [B] each."""
        q = jnp.exp(lean(log, values, strength))
        mean = jnp.sum(q * values, axis=-1)
        variance = jnp.sum(q * (values - mean[..., None]) ** 2, axis=-1)
        return jnp.sum(mean, axes, where=hidden), jnp.sum(variance, axes, where=hidden)

    def halve(_, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        above = moments(log, values, middle)[0] > held
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    def newton(log: Array, values: Array, goal: Array, near: Array) -> Array:
        slope = jax.lax.stop_gradient(moments(log, values, near)[1])
        step = (goal - moments(log, values, near)[0]) / jnp.where(slope > 0, slope, jnp.inf)
        return jnp.clip(near + step, low, high)

    # The derivative is the last step's: lambda' = -(d sum / d argument) / (d sum / d lambda).
    log, values, held, most = jax.lax.stop_gradient((log_posterior, statistic, goal, most))
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (-most, most))
    near = newton(log, values, held, 0.5 * (low + high))
    return lean(log_posterior, statistic, newton(log_posterior, statistic, goal, near))
