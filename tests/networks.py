"""Random networks in the shape of a checkpoint, whose opinions are nonsense, and movements that ask for something.

STORED, STATISTICS: those of the shipped checkpoint, which random networks borrow.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.conditioning import LAYOUT, encoder
from eqdiff_jax.denoiser import Roformer
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.statistics import parse

STORED = json.loads((Path(__file__).parents[1] / "checkpoints" / "default" / "model.json").read_text())["statistics"]
STATISTICS = parse(STORED)
KAPPA, SLACK, CAP = float(STATISTICS.kappa), int(STATISTICS.slack), int(STATISTICS.cap)


def random_params(scale):
    """`encoder`, `denoiser` and `statistics`; one layer, fresh weights plus normal noise of this deviation."""
    net = Roformer(width=64, depth=1, patch=4)
    tree = {"encoder": encoder.init(jax.random.key(0), jnp.zeros((1, 104)))["params"],
            "denoiser": net.init(jax.random.key(1), jnp.zeros((1, *SHAPE), jnp.int32), jnp.zeros((1, 768)))["params"]}
    keys = jax.random.split(jax.random.key(2), len(jax.tree.leaves(tree)))
    noisy = jax.tree.unflatten(jax.tree.structure(tree), [
        x + scale * jax.random.normal(k, x.shape) for x, k in zip(jax.tree.leaves(tree), keys, strict=True)])
    return noisy | {"statistics": STATISTICS}


def asking(*rows):
    """Conditionings float32 [N, 104], zero but for the named slots of each row."""
    c = np.zeros((len(rows), 104), np.float32)
    for i, row in enumerate(rows):
        for name, value in row.items():
            c[i, LAYOUT[name]] = value
    return jnp.asarray(c)
