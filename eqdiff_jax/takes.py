"""Takes: several grids for one window, of which the one nearest to what the movement asks is played.

    cost(g, c) = sum_k (F_k(descriptor_k(g)) - G_k(asked_k(c)))^2

F_k and G_k say where a value stands among its like (asked.py). What plays follows the network's law, moved towards
small costs. Every take keeps to bounded change's budget, so the chosen one does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.asked import ASKED, HAS, HEARD, SLOTS, standing
from eqdiff_jax.composer import compose
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import descriptors
from eqdiff_jax.types import Array, Change, Params

TAKES = 4  # docs/training.md: what they gain
MOST = 64


def check(takes: int) -> None:
    """Raise InputError for a number of takes that cannot be used."""
    if not 1 <= takes <= MOST:
        raise InputError(f"--takes is {takes}: use 1 .. {MOST}")


def cost(tokens: np.ndarray, conditioning: np.ndarray) -> np.ndarray:
    """How far grids int [N, 12, 32] are from what conditionings [N, 104] ask: the module's sum, [N]."""
    has = standing(np.array([descriptors(grid) for grid in tokens])[:, HEARD], HAS)
    return np.sum((has - standing(np.asarray(conditioning)[:, SLOTS], ASKED)) ** 2, axis=1)


def compose_takes(key: Array, params: Params, conditioning: Array, previous: Array, *, takes: int = TAKES,
                  previous_conditioning: Array | None = None, **knobs) -> Change:
    """`compose`, `takes` times from the same grid; for each example the take of least `cost`, ties to the first.

    Arguments and result as there, and batch elements as independent of each other: example i of B has the keys
    fold_in(key, i takes), ... One take is `compose` itself. Not to be traced: grids are measured on the host.
    """
    if takes == 1:
        return compose(key, params, conditioning, previous, previous_conditioning=previous_conditioning, **knobs)
    single = jnp.ndim(conditioning) == 1
    before = conditioning if previous_conditioning is None else previous_conditioning

    def repeated(x: Array) -> Array:
        return jnp.repeat(x[None] if single else x, takes, axis=0)

    knobs = {name: repeated(jnp.asarray(value)) if np.ndim(value) else value for name, value in knobs.items()}
    rows = repeated(jnp.asarray(conditioning))
    change = compose(key, params, rows, repeated(jnp.asarray(previous)),
                     previous_conditioning=repeated(jnp.asarray(before)), **knobs)
    costs = cost(np.asarray(change.tokens), np.asarray(rows)).reshape(-1, takes)
    best = np.arange(len(costs)) * takes + costs.argmin(1)
    chosen = jax.tree.map(lambda x: x[best] if x.ndim else x, change)
    return jax.tree.map(lambda x: x[0] if x.ndim else x, chosen) if single else chosen
