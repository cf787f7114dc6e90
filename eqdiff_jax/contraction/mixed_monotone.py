"""A sampled check of the mixed monotone property of two coupled maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from eqdiff_jax.types import Array, Kind


class MixedMonotone(NamedTuple):
    """Sampled evidence for or against the mixed monotone property."""

    violations: tuple[float, float]  # share of ordered pairs on which F1, F2 break the order
    kind: Kind
    method: str

    @property
    def plausible(self) -> bool:
        """No sampled pair broke the order; not a proof."""
        return max(self.violations) == 0.0


def mixed_monotone(f1: Callable[[Any, Any], Any], f2: Callable[[Any, Any], Any], key: Array,
                   sample: Callable[[Array], tuple[Any, Any]], *, count: int = 256,
                   slack: float = 1e-6) -> MixedMonotone:
    """Share of sampled ordered pairs that break F(z, y) nondecreasing in z and nonincreasing in y, entry by entry.

    The hypothesis of Bhaskar and Lakshmikantham 2006 (Nonlinear Analysis 65, 1379) on coupled fixed points in ordered
    spaces, related to (a) but not needed for it. sample(key) -> (z1, z2) pytrees; two draws give z <= z', y >= y' by
    entrywise minimum and maximum, tested jointly, in z alone and in y alone (3 count pairs); differences below
    `slack` (rounding) do not count. One violation refutes; none is evidence only. The key is consumed.
    """

    def violated(f: Callable[[Any, Any], Any], own: tuple[Any, Any], other: tuple[Any, Any]) -> Array:
        (low, high), (small, large) = own, other

        def breaks(below: Any, above: Any) -> Array:
            fall = jax.tree.map(lambda p, q: jnp.max(p - q - slack * (1 + jnp.abs(q))), below, above)
            return ~(jnp.max(ravel_pytree(fall)[0]) <= 0)  # NaN breaks it, too

        return jnp.stack([breaks(f(low, large), f(high, small)), breaks(f(low, small), f(high, small)),
                          breaks(f(low, large), f(low, small))])

    def trial(key: Array) -> tuple[Array, Array]:
        (z1, z2), (y1, y2) = (sample(k) for k in jax.random.split(key))
        first, second = ((jax.tree.map(jnp.minimum, p, q), jax.tree.map(jnp.maximum, p, q))
                         for p, q in ((z1, y1), (z2, y2)))
        return violated(f1, first, second), violated(f2, second, first)

    shares = [float(jnp.mean(v)) for v in jax.jit(jax.vmap(trial))(jax.random.split(key, count))]
    return MixedMonotone((shares[0], shares[1]), Kind.ESTIMATED, f"sampled evidence, {3 * count} ordered pairs each")
