"""The conditioning encoder: 104 -> 256 -> 512 -> 768, 553 984 parameters."""

import flax.linen as nn

from eqdiff_jax.types import Array

WIDTHS = (256, 512, 768)


class Encoder(nn.Module):
    """e = W3 g(W2 g(W1 c)), g = GELU o LayerNorm. [..., 104] -> [..., 768], float32."""

    @nn.compact
    def __call__(self, conditioning: Array) -> Array:
        x = conditioning
        for i, width in enumerate(WIDTHS[:-1]):
            x = nn.Dense(width, name=f"dense_{i}")(x)
            x = nn.gelu(nn.LayerNorm(name=f"norm_{i}")(x))
        return nn.Dense(WIDTHS[-1], name=f"dense_{len(WIDTHS) - 1}")(x)
