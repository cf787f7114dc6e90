"""The conditioning encoder 104 -> 256 -> 512 -> 768, and the variant whose Lipschitz constant is proved.

LayerNorm has no useful constant (it divides by a spread that may vanish), so `Encoder` can only be measured.
`CertifiedEncoder` has the same widths without it: isometries, GELU and a fixed gain.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.contraction.lipschitz import cayley
from eqdiff_jax.contraction.norms import spectral_norm
from eqdiff_jax.contraction.rounding import gamma, roundoff
from eqdiff_jax.types import Array, Certificate, Kind, Params

WIDTHS = (256, 512, 768)
# sup |GELU'|: GELU'' = phi(x) (2 - x^2) vanishes at +-sqrt 2 only, where GELU' = Phi(x) + x phi(x) is 1.1289 and
# -0.1289; at the ends it tends to 0 and 1.
GELU_SLOPE = 0.5 * (1.0 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)
GELU_ERROR = 32.0  # XLA's GELU is taken to err by no more, in units of u |x|


class Encoder(nn.Module):
    """e = W3 g(W2 g(W1 c)), g = GELU o LayerNorm. [..., 104] -> [..., 768], float32."""

    @nn.compact
    def __call__(self, conditioning: Array) -> Array:
        x = conditioning
        for i, width in enumerate(WIDTHS[:-1]):
            x = nn.Dense(width, name=f"dense_{i}")(x)
            x = nn.gelu(nn.LayerNorm(name=f"norm_{i}")(x))
        return nn.Dense(WIDTHS[-1], name=f"dense_{len(WIDTHS) - 1}")(x)


class CertifiedEncoder(nn.Module):
    """e = gain (Q3 g(Q2 g(Q1 c + b1) + b2) + b3), g = GELU, Q_i orthonormal columns. [..., 104] -> [..., 768], float32.

    |e(c) - e(c')| <= gain 1.1289^2 |c - c'| for every parameter value; `certificate` gives it for given ones.
    """

    gain: float = 16.0  # entries of the embedding are then of order 1, as the denoiser expects

    @nn.compact
    def __call__(self, conditioning: Array) -> Array:
        columns, layers = conditioning.shape[-1], []
        for i, width in enumerate(WIDTHS):
            raw = self.param(f"raw_{i}", nn.initializers.normal(columns**-0.5), (width, columns))
            layers.append((cayley(raw), self.param(f"bias_{i}", nn.initializers.zeros, (width,))))
            columns = width
        return self.gain * forward(layers, conditioning)


Layers = Sequence[tuple[Array, Array]]  # (Q [m, n], b [m]) of each layer


def forward(layers: Layers, conditioning: Array) -> Array:
    """Q3 g(Q2 g(Q1 c + b1) + b2) + b3 with the exact GELU, whose slope is GELU_SLOPE. [..., 104] -> [..., 768]"""
    x = conditioning
    for i, (matrix, bias) in enumerate(layers):
        x = x if i == 0 else nn.gelu(x, approximate=False)
        x = x @ matrix.T + bias
    return x


@jax.jit
def layers_of(params: Params) -> Layers:
    """The constrained matrices and biases of a `CertifiedEncoder`; three solves, so once per set of parameters."""
    return [(cayley(params[f"raw_{i}"]), params[f"bias_{i}"]) for i in range(len(WIDTHS))]


def certificate(params: Params, gain: float = CertifiedEncoder.gain, radius: float = 32.0) -> Certificate:
    """Proved Lipschitz constant of a `CertifiedEncoder`: gain |Q1| |Q2| |Q3| GELU_SLOPE^2, norms by float64 SVD.

    Args: params of the module; its gain; |c| <= radius, the domain on which the float32 error is bounded.
    """
    layers = [(np.asarray(q, np.float64), float(np.linalg.norm(b))) for q, b in layers_of(params)]
    bound, size, error = 1.0, radius, 0.0
    for i, (matrix, bias) in enumerate(layers):
        if i > 0:
            bound, error = bound * GELU_SLOPE, GELU_SLOPE * error + GELU_ERROR * roundoff(np.float32) * size
        norm = spectral_norm(matrix)
        error = norm * error + gamma(matrix.shape[1] + 2, np.float32) * (spectral_norm(np.abs(matrix)) * size + bias)
        bound, size = bound * norm, norm * size + bias  # |GELU(x)| <= |x|
    error = gain * (error + 2 * roundoff(np.float32) * size)
    return Certificate(gain * bound, Kind.PROVED, "product of layer norms and GELU slopes 1.1289", (
        f"|c| <= {radius:g}", "products in full float32, in any order of summation",
        f"GELU errs by at most {GELU_ERROR:g} u |x|"), float(2 * error))


def local_constant(module: nn.Module, params: Params, conditioning: Array) -> Array:
    """sigma_max of the encoder's Jacobian at each conditioning [N, 104]: measured, a lower estimate. float32 [N]"""
    jacobian = jax.vmap(jax.jacfwd(lambda c: module.apply({"params": params}, c)))(conditioning)
    return jnp.linalg.norm(jacobian, ord=2, axis=(-2, -1))
