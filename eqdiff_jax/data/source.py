"""Prepared pairs as arrays, and the order in which training sees them: a function of (seed, step) alone."""

from pathlib import Path

import numpy as np

from eqdiff_jax.data.pairs import CONFIGS, ConductorPairs
from eqdiff_jax.errors import InputError


def prepare(name: str, data_dir: str | Path) -> ConductorPairs:
    """Build the dataset `conductor_pairs/<name>` under data_dir unless it is there already.

    Raises InputError for an unknown name.
    """
    if name not in CONFIGS:
        raise InputError(f"unknown data config {name!r}: choose one of {', '.join(CONFIGS)}")
    builder = ConductorPairs(config=name, data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return builder


def arrays(builder: ConductorPairs, split: str) -> dict[str, np.ndarray]:
    """A whole split in memory: tokens int32 [N, 12, 32], conditioning float32 [N, 104], clip [N] bytes."""
    source = builder.as_data_source(split=split)
    rows = source.__getitems__(list(range(len(source))))
    columns = {name: np.stack([row[name] for row in rows]) for name in ("tokens", "conditioning")}
    columns["tokens"] = columns["tokens"].astype(np.int32)
    return columns | {"clip": np.array([row["clip"] for row in rows])}


def batch_rows(seed: int, step: int, batch: int, size: int) -> np.ndarray:
    """Row numbers of the batch at `step`: a fresh permutation of the `size` rows every epoch. int [batch]

    Nothing is carried from step to step, so a run that resumes at `step` sees what it would have seen.
    """
    position = np.arange(step * batch, (step + 1) * batch)
    order = {e: np.random.default_rng([seed, int(e)]).permutation(size) for e in np.unique(position // size)}
    return np.array([order[p // size][p % size] for p in position])
