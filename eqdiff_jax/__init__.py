"""Movement to music through equilibria and discrete diffusion, with bounds."""

from typing import TYPE_CHECKING

from eqdiff_jax import lazy

if TYPE_CHECKING:
    from eqdiff_jax.cascade import lipschitz_cascade
    from eqdiff_jax.composer import compose

__version__ = "0.2.0.dev0"

__all__ = ["compose", "lipschitz_cascade"]

# When asked for, so that `python -m eqdiff_jax.targets` is not run a second time under its own name.
__getattr__ = lazy.attributes(__name__, compose="eqdiff_jax.composer", lipschitz_cascade="eqdiff_jax.cascade")
