"""Tilting: the law nearest to the network's under which cells add up, in the mean, to what is asked.

    q(v) ~ p(v) e^{lambda s(v)},    sum over cells of w E_q[s] = goal,    |lambda| <= most

Of all laws of independent cells with that sum, q has the least divergence, sum w KL(q, p) (Csiszar's I-projection).
Where the goal is out of reach, lambda ends at its limit: odds of u against v move by at most e^{most |s(u) - s(v)|}.
Reference: Csiszar, I-divergence geometry, Annals of Probability 3, 1975.
"""

import jax
import jax.numpy as jnp

from eqdiff_jax.types import Array

HALVINGS = 10  # bracket lambda to most / 512; two Newton steps inside do the rest


def tilt(log_posterior: Array, statistic: Array, weight: Array, goal: Array, most: Array) -> Array:
    """log q of every cell, with the one lambda per example that its cells ask for. [B, ..., V]

    log_posterior [B, ..., V], -inf for what cannot be; statistic s [V], or with dimensions before it that broadcast to
    [B, ..., V]; weight w [B, ...], 0 or more, how much a cell counts: nothing if it stands already; goal, most [B].
    The sum rises with lambda, its slope is the weighted sum of the variances. lambda is 0 where nothing counts, and has
    its implicit derivative in law, statistic, weight and goal.
    """
    axes = tuple(range(1, log_posterior.ndim - 1))

    def lean(log: Array, values: Array, strength: Array) -> Array:
        return jax.nn.log_softmax(log + strength.reshape(-1, *(1,) * (log.ndim - 1)) * values)

    def moments(log: Array, values: Array, weight: Array, strength: Array) -> tuple[Array, Array]:
        """Weighted sums of the means and of the variances, [B] each."""
        q = jnp.exp(lean(log, values, strength))
        mean = jnp.sum(q * values, axis=-1)
        variance = jnp.sum(q * (values - mean[..., None]) ** 2, axis=-1)
        counts = weight > 0  # what stands may say NaN
        return jnp.sum(weight * mean, axes, where=counts), jnp.sum(weight * variance, axes, where=counts)

    def halve(_, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        above = moments(log, values, counted, middle)[0] > held
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    def newton(log: Array, values: Array, weight: Array, goal: Array, near: Array) -> Array:
        total, slope = moments(log, values, weight, near)
        step = (goal - total) / jax.lax.stop_gradient(jnp.where(slope > 0, slope, jnp.inf))
        return jnp.clip(near + step, low, high)

    # The derivative is the last step's: lambda' = -(d sum / d argument) / (d sum / d lambda).
    log, values, counted = jax.lax.stop_gradient((log_posterior, statistic, weight))
    held, most = jax.lax.stop_gradient((goal, jnp.where(jnp.any(weight > 0, axes), most, 0.0)))
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (-most, most))
    near = newton(log, values, counted, held, 0.5 * (low + high))
    return lean(log_posterior, statistic, newton(log_posterior, statistic, weight, goal, near))
