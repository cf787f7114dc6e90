"""The network that says what a masked cell may have been."""

from eqdiff_jax.denoiser.roformer import Roformer, roformer_of

__all__ = ["Roformer", "roformer_of"]
