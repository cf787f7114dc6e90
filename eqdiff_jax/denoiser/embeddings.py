"""Where a cell stands: rotary embedding over (track, time)."""

import jax.numpy as jnp

from eqdiff_jax.types import Array

BASE = 100.0  # positions run to 12 and 32 only, so the wavelengths span 2 pi .. 200 pi


def axial_rotary(tracks: int, steps: int, head_dim: int) -> tuple[Array, Array]:
    """cos and sin of the rotation angles, each [tracks * steps, head_dim / 2].

    The first half of the planes turns with the track, the second with the sixteenth:
    angle = position * BASE^(-j / planes), planes = head_dim / 4 per axis.
    Reference: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding".
    """
    planes = head_dim // 4
    frequency = BASE ** (-jnp.arange(planes) / planes)
    track, step = jnp.divmod(jnp.arange(tracks * steps), steps)
    angle = jnp.concatenate([track[:, None] * frequency, step[:, None] * frequency], axis=-1)
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the pairs (x_j, x_{j + d/2}) of [B, L, heads, d] by the angles [L, d/2]; norms are kept."""
    a, b = jnp.split(x, 2, axis=-1)
    cos, sin = cos[:, None].astype(x.dtype), sin[:, None].astype(x.dtype)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
