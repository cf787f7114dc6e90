"""Broyden's good method with limited memory, for roots of g(z) = f(z) - z."""

from typing import NamedTuple

import jax.numpy as jnp

from eqdiff_jax.types import Array, Map, Step


class BroydenMemory(NamedTuple):
    """The inverse Jacobian estimate is -I + sum_i left_i right_i^T; the rows are a ring."""

    left: Array  # [m, n]
    right: Array  # [m, n]
    last: Array  # [n] the point before
    residual: Array  # [n] g there


class Broyden(NamedTuple):
    """z <- z - B g(z), B <- B + (s - B y) s^T B / (s^T B y), s and y the changes of z and g.

    B starts as -I, which makes the first step Picard's; beyond `window` updates the oldest is overwritten. When
    s^T B y vanishes, or when the residual exceeds `growth` times the one before, the estimate starts anew from -I.
    Reference: Broyden 1965, doi:10.1090/S0025-5718-1965-0198670-6, equation (4.5).
    """

    window: int = 32
    growth: float = 10.0

    def init(self, f: Map, z: Array) -> tuple[Array, BroydenMemory]:
        """The first point to evaluate, and B = -I."""
        del f
        rows = jnp.zeros((self.window, z.size), z.dtype)
        return z, BroydenMemory(rows, rows, z, jnp.zeros_like(z))

    def step(self, f: Map, z: Array, memory: BroydenMemory, k: Array) -> Step:
        """One evaluation."""
        m = memory
        fz = f(z)
        g = fz - z
        s, y = z - m.last, g - m.residual
        by = m.left.T @ (m.right @ y) - y  # B y; unused rows are zero
        sb = m.right.T @ (m.left @ s) - s  # s^T B
        curvature = s @ by
        size = jnp.sqrt((s @ s) * (by @ by))
        sound = (k > 0) & (jnp.abs(curvature) > 1e-8 * size) & (size > 0)
        grown = jnp.linalg.norm(g) > self.growth * jnp.linalg.norm(m.residual)
        keep = sound & ~grown
        slot = k % self.window
        left = m.left.at[slot].set((s - by) / jnp.where(sound, curvature, 1.0)) * keep
        right = m.right.at[slot].set(sb) * keep
        after = z + g - left.T @ (right @ g)
        return Step(z, fz, after, BroydenMemory(left, right, z, g), jnp.int32(1))
