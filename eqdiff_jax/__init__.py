"""Movement to music through equilibria and discrete diffusion, with bounds."""

from eqdiff_jax.cascade import lipschitz_cascade
from eqdiff_jax.composer import compose

__version__ = "0.1.0"

__all__ = ["compose", "lipschitz_cascade"]
