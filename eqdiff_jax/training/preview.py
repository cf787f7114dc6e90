"""What a run sounds and looks like so far: a few grids made from held-out movement."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from eqdiff_jax.composer import PROCESS, compose
from eqdiff_jax.music import draw, to_midi
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.types import Array, Params

COUNT = 8


def preview(key: Array, params: Params, conditioning: np.ndarray, folder: str | Path, step: int) -> None:
    """Write folder/STEP.png and STEP.mid: grids of COUNT of the conditionings [N, 104], evenly spaced, each made anew.

    The key is the same at every call, so that only the weights differ. Steps and temperature: the commitment rule.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = conditioning[np.linspace(0, len(conditioning) - 1, COUNT).astype(int)]
    change = compose(key, params, jnp.asarray(chosen), jnp.full((COUNT, *SHAPE), PROCESS.mask))
    draw(change.tokens, folder / f"{step:07d}.png")
    to_midi(change.tokens, path=folder / f"{step:07d}.mid")
