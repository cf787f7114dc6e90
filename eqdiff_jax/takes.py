"""Takes: several grids for one window, of which the one nearest to what the movement asks is played.

    cost(g, c) = sum_k w_k (F_k(descriptor_k(g)) - G_k(asked_k(c)))^2

F_k and G_k are the distribution functions of the five descriptors and of the five asked dynamics over the pairs of
training (data/pairing.py matched their ranks): where a value stands among its like, 0 to 1. What plays follows the
network's law, tilted towards small costs. Every take keeps to bounded change's budget, so the chosen one does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.composer import compose
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.descriptors import DESCRIPTORS, descriptors
from eqdiff_jax.music.metrics import FIDELITY
from eqdiff_jax.types import Array, Change, Params

TAKES = 4  # docs/training.md: what more of them gain
MOST = 64

# Quantiles 0, 1/12, .. 1 over complete training pairs of the dataset `shippable`, in the order of FIDELITY.
_ASKED = np.array([
    (0.000, 0.035, 0.122, 0.236, 0.342, 0.415, 0.511, 0.655, 0.891, 0.921, 0.947, 0.973, 0.996),
    (0.000, 0.245, 0.271, 0.289, 0.308, 0.322, 0.342, 0.368, 0.408, 0.458, 0.516, 0.584, 0.778),
    (0.000, 0.074, 0.165, 0.222, 0.285, 0.365, 0.458, 0.555, 0.623, 0.703, 0.761, 0.813, 0.931),
    (0.040, 0.174, 0.280, 0.341, 0.391, 0.445, 0.504, 0.584, 0.703, 0.794, 0.939, 0.977, 1.000),
    (0.122, 0.198, 0.228, 0.270, 0.307, 0.351, 0.422, 0.512, 0.647, 0.769, 0.866, 0.966, 1.000),
])
_HAS = np.array([
    (0.080, 0.303, 0.379, 0.436, 0.488, 0.526, 0.561, 0.590, 0.630, 0.662, 0.707, 0.762, 0.895),
    (0.000, 0.089, 0.171, 0.214, 0.243, 0.270, 0.292, 0.322, 0.349, 0.382, 0.421, 0.487, 0.875),
    (0.000, 0.039, 0.081, 0.102, 0.118, 0.138, 0.157, 0.173, 0.191, 0.208, 0.230, 0.273, 1.000),
    (0.000, 0.056, 0.092, 0.120, 0.142, 0.161, 0.178, 0.198, 0.222, 0.249, 0.276, 0.321, 1.000),
    (0.000, 0.306, 0.406, 0.449, 0.484, 0.515, 0.542, 0.566, 0.595, 0.622, 0.657, 0.729, 1.000),
])
_WEIGHTS = np.array((8.0, 1.0, 1.0, 1.0, 1.0))  # density gives way least under bounded change, so it weighs most
SLOTS = [LAYOUT[name].start for name in FIDELITY]  # of the conditioning: what is asked
HEARD = [DESCRIPTORS.index(name) for name in FIDELITY.values()]  # of the descriptors: what a grid has of it


def check(takes: int) -> None:
    """Raise InputError for a number of takes that cannot be used."""
    if not 1 <= takes <= MOST:
        raise InputError(f"--takes is {takes}: use 1 .. {MOST}")


def standing(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Where each value stands among its like: [N, K], increasing quantiles [K, Q] -> [N, K] in [0, 1]."""
    levels = np.linspace(0.0, 1.0, quantiles.shape[1])
    return np.stack([np.interp(column, row, levels) for column, row in zip(values.T, quantiles, strict=True)], axis=-1)


def cost(tokens: np.ndarray, conditioning: np.ndarray) -> np.ndarray:
    """How far grids int [N, 12, 32] are from what conditionings [N, 104] ask: the module's sum, [N]."""
    has = standing(np.array([descriptors(grid) for grid in tokens])[:, HEARD], _HAS)
    asked = standing(np.asarray(conditioning)[:, SLOTS], _ASKED)
    return ((has - asked) ** 2) @ _WEIGHTS


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
