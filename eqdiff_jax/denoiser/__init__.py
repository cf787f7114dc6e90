"""The network that says what a masked cell may have been."""

from eqdiff_jax.denoiser.roformer import Roformer, multiply_adds, roformer_of

__all__ = ["Roformer", "multiply_adds", "roformer_of"]
