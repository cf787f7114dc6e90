"""Grids written by hand."""

import numpy as np

from eqdiff_jax.music.grid import REST, SHAPE, TRACKS
from eqdiff_jax.music.vocabulary import VOCABULARY


def grid_of(**rows: str) -> np.ndarray:
    """A grid from one line of space-separated tokens per track; short lines end in rests."""
    grid = np.full(SHAPE, REST, np.int32)
    for track, row in rows.items():
        tokens = [VOCABULARY.ids[name] for name in row.split()]
        grid[TRACKS.index(track), :len(tokens)] = tokens
    return grid
