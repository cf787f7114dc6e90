"""Movement to music through equilibria and discrete diffusion, with bounds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqdiff_jax.cascade import lipschitz_cascade
    from eqdiff_jax.composer import compose

__version__ = "0.2.0.dev0"

__all__ = ["compose", "lipschitz_cascade"]


def __getattr__(name: str) -> Any:
    """Imported when asked for, so that `python -m eqdiff_jax.targets` is not run a second time under its own name."""
    if name == "compose":
        from eqdiff_jax.composer import compose
        return compose
    if name == "lipschitz_cascade":
        from eqdiff_jax.cascade import lipschitz_cascade
        return lipschitz_cascade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
