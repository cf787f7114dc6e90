"""Movement to music through equilibria and discrete diffusion, with bounds."""

__version__ = "0.1.0"
