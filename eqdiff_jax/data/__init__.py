"""Where pairs of movement and music come from."""

from eqdiff_jax.data.pairs import CONFIGS, ConductorPairs, salsa_archive
from eqdiff_jax.data.source import arrays, batch_rows, prepare

__all__ = ["CONFIGS", "ConductorPairs", "arrays", "batch_rows", "prepare", "salsa_archive"]
