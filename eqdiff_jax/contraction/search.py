"""Searches for the worst local Lipschitz constant: evidence against a bound that is too small, never a certificate.

Every number here is a LOWER estimate of the true constant (Kind.ESTIMATED): a maximum over the points that were tried
of a value that is itself approached from below. Beside a proved bound it shows the slack; alone it proves only that
the constant is at least that large. All in the float type of the arguments, whose rounding it includes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from eqdiff_jax.contraction.jacobian import local_lipschitz
from eqdiff_jax.types import Array

Project = Callable[[Any], Any]
_BETA = (0.9, 0.99)  # Adam's decay rates; the second is short since the rate falls to 0 within `steps`


class Worst(NamedTuple):
    """The largest local constant a search met."""

    ratio: Array  # [] lower estimate of sup |J(x)|
    x: Any  # the point, pytree like one start


class Pair(NamedTuple):
    """The largest observed |f(x) - f(y)| / |x - y|."""

    ratio: Array  # []
    x: Any
    y: Any


def ascend(objective: Callable[[Any], Array], starts: Any, *, steps: int, rate: float,
           project: Project | None = None) -> Worst:
    """Largest value of `objective` (pytree -> scalar) met by gradient ascent from each of `starts` (leading axis B).

    Adam, each start on its own, with a rate that falls linearly to 0; `rate` is in units of x per step and entry.
    `project` maps a point back to the domain after every step (and the starts before the first). Jitted and vmapped.
    NaN and infinity never win.
    """
    return _ascend(jax.tree.map(jnp.asarray, starts), rate, objective=objective, steps=steps, project=project)


@partial(jax.jit, static_argnames=("objective", "steps", "project"))
def _ascend(starts: Any, rate: Any, *, objective: Callable[[Any], Array], steps: int, project: Project | None) -> Worst:
    inside: Project = (lambda x: x) if project is None else project
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], starts))[1]

    def climb(x: Any) -> tuple[Array, Array]:
        x = ravel_pytree(inside(x))[0]

        def value(v: Array) -> Array:
            return objective(unravel(v))

        def step(carry: Any, i: Array) -> tuple[Any, None]:
            x, mean, square, best, best_x = carry
            now, gradient = jax.value_and_grad(value)(x)
            gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
            gradient = gradient / jnp.maximum(jnp.max(jnp.abs(gradient)), jnp.finfo(x.dtype).tiny)
            better = now > best
            best, best_x = jnp.where(better, now, best), jnp.where(better, x, best_x)
            mean = _BETA[0] * mean + (1 - _BETA[0]) * gradient
            square = _BETA[1] * square + (1 - _BETA[1]) * gradient**2
            corrected = (mean / (1 - _BETA[0] ** (i + 1))) / (jnp.sqrt(square / (1 - _BETA[1] ** (i + 1))) + 1e-8)
            x = x + rate * (1 - i / max(steps, 1)) * corrected
            return (ravel_pytree(inside(unravel(x)))[0], mean, square, best, best_x), None

        zero = jnp.zeros_like(x)
        start = (x, zero, zero, jnp.asarray(-jnp.inf, x.dtype), x)
        # One round more than steps: it looks at the last point, at a rate of 0.
        (_, _, _, best, best_x), _ = jax.lax.scan(step, start, jnp.arange(steps + 1, dtype=x.dtype))
        return best, best_x

    values, points = jax.vmap(climb)(starts)
    top = jnp.argmax(values)
    return Worst(values[top], unravel(points[top]))


def worst_lipschitz(f: Callable[[Any], Any], starts: Any, *, steps: int = 100, rate: float = 0.05,
                    project: Project | None = None, inner: int = 8) -> Worst:
    """Worst local constant sup |J_f(x)|_2 found by gradient ascent on x from many starts: a LOWER estimate.

    f maps a pytree (or an array) to another; starts have a leading axis B; `inner` Lanczos steps per evaluation
    (local_lipschitz), `steps` ascent steps of `rate` (ascend). Returns (ratio, x) with ratio = |J_f(x) v|, |v| = 1, up
    to rounding; power and Lanczos iterations only under-estimate.
    """
    return ascend(lambda x: local_lipschitz(f, x, steps=inner), starts, steps=steps, rate=rate, project=project)


def worst_ratio(f: Callable[[Any], Any], key: Array, sample: Callable[[Array], Any], count: int, *,
                near: float = 1e-2) -> Pair:
    """Largest |f(x) - f(y)| / |x - y| over `count` random far pairs and as many close ones: a LOWER estimate.

    sample(key) draws a point (pytree); far pairs are two draws x, x', close ones x and x + near (x' - x). In float32 a
    smaller `near` shows the rounding of f, not its constant. The key is consumed.
    """
    return _worst_ratio(key, near, f=f, sample=sample, count=count)


@partial(jax.jit, static_argnames=("f", "sample", "count"))
def _worst_ratio(key: Array, near: Any, *, f: Callable[[Any], Any], sample: Callable[[Array], Any], count: int) -> Pair:
    unravel = ravel_pytree(sample(key))[1]

    def point(key: Array) -> Array:
        return ravel_pytree(sample(key))[0]

    def ratio(x: Array, y: Array) -> Array:
        out = jax.tree.map(jnp.subtract, f(unravel(x)), f(unravel(y)))
        distance = jnp.linalg.norm(x - y)
        return jnp.where(distance > 0, jnp.linalg.norm(ravel_pytree(out)[0]) / jnp.where(distance > 0, distance, 1), 0)

    key_x, key_y = jax.random.split(key)
    x, y = (jax.vmap(point)(jax.random.split(k, count)) for k in (key_x, key_y))
    x, y = jnp.concatenate([x, x]), jnp.concatenate([y, x + near * (y - x)])
    ratios = jax.vmap(ratio)(x, y)
    top = jnp.argmax(jnp.where(jnp.isnan(ratios), -jnp.inf, ratios))
    return Pair(ratios[top], unravel(x[top]), unravel(y[top]))
