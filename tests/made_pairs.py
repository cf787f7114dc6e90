"""Pairs of made grids and short dances, in place of recordings."""

import jax
import numpy as np

from eqdiff_jax import motion
from eqdiff_jax.data.movement import MotionSource, Recording
from eqdiff_jax.data.paired_music import MASK, of_observed
from eqdiff_jax.music import TRACKS

DRUMS = np.array([name in ("KICK", "SNARE", "HH", "CLAP", "FX") for name in TRACKS])
COUNTS = {"train": 90, "validation": 20, "test": 20}
KEYS = {"train": 0, "validation": 50, "test": 90}


def _recordings(split):
    for i, style in enumerate(("groove", "flow", "show")):
        yield Recording(f"{split}-{style}", motion.demo(style, 17.0, jax.random.key(KEYS[split] + i)))


TINY = MotionSource("tiny", _recordings, shippable=True, augmented=False)


def made_grids(random_grid):
    """split -> rows of the shape that RealGrids has, a third of them drums only."""
    table = {}
    for split, count in COUNTS.items():
        rng, table[split] = np.random.default_rng(KEYS[split]), []
        for i in range(count):
            observed = DRUMS if i % 3 == 0 else np.ones(12, bool)
            tokens = np.where(observed[:, None], random_grid(rng), MASK).astype(np.uint8)
            table[split].append({
                "tokens": tokens, "observed": observed, "activations": rng.random(12).astype(np.float32),
                "descriptors": of_observed(tokens), "bpm": np.float32(rng.uniform(60, 180)),
                "genre": b"techno" if i % 2 else b"", "piece": f"{split}-{i // 4}".encode(), "source": b"made"})
    return table.__getitem__
