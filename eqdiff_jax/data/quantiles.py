"""Statistics of a dataset: where movements and grids lie among its complete training pairs (statistics.py).

    python -m eqdiff_jax.data.quantiles --data shippable --data_dir runs/data [--checkpoint DIR]

Training computes them for itself. --checkpoint writes them into the model.json of weights that have none.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.control import spread
from eqdiff_jax.data.source import arrays, prepare
from eqdiff_jax.music import VOCABULARY
from eqdiff_jax.music.attributes import Attributes, Sums, harsh, of_sums, sums
from eqdiff_jax.shell import guarded
from eqdiff_jax.statistics import ACHIEVED, LEVELS, SAMPLING, SOURCES, Statistics, parse
from eqdiff_jax.targets import DEFAULT, NAMES, TargetMap, targets

BATCH = 512  # grids that are measured at once
NOTE_EDGES = (0, 20, 40, 60, 80, 100, 120, 1000)  # bins of the number of notes, for `rough_by_notes`


def track_sums(tokens: np.ndarray) -> Sums:
    """Sums of each track, int [N, 12, 32] -> fields [N, 12, ...]."""
    found = [jax.tree.map(np.asarray, _sums(part)) for part in np.array_split(tokens, len(tokens) // BATCH + 1)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def thinned(parts: Sums, seed: int = 0) -> Sums:
    """Grids of which 1 to all sounding tracks play, as many and which ones as chance says. Fields [N, ...]"""
    rng = np.random.default_rng(seed)
    keep = np.zeros(parts.sounding.shape, np.float32)
    for row, sounding in zip(keep, parts.sounding, strict=True):
        tracks = rng.permutation(np.flatnonzero(sounding))
        row[tracks[:rng.integers(1, len(tracks) + 1)] if len(tracks) else tracks] = 1.0
    return jax.tree.map(lambda x: (x * keep.reshape(*keep.shape, *(1,) * (x.ndim - 2))).sum(1), parts)


def achieved_quantiles(parts: Sums) -> dict[str, np.ndarray]:
    """Quantiles at LEVELS of each attribute of thinned grids, from their tracks' sums."""
    measured: Attributes = _attributes(thinned(parts))
    return {name: np.quantile(np.asarray(getattr(measured, name)), LEVELS) for name in ACHIEVED}


def source_quantiles(conditioning: np.ndarray) -> dict[str, np.ndarray]:
    """Quantiles at LEVELS of each slot that a target may follow, [N, 104]."""
    return {name: np.quantile(conditioning[:, LAYOUT[name].start], LEVELS) for name in SOURCES}


def spread_quantiles(tokens: np.ndarray) -> np.ndarray:
    """Quantiles at LEVELS of the spread of melodies of grids int [N, 12, 32]."""
    parts = np.array_split(tokens, len(tokens) // BATCH + 1)
    return np.quantile(np.concatenate([_spread(part) for part in parts]), LEVELS)


def statistics(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `statistics.parse` reads, but for the guidance scale and the budget, of the rows of a training split.

    Complete and paired rows count; where there are none, all do.
    """
    conditioning, tokens = complete(columns)
    parts = track_sums(tokens)
    whole = jax.tree.map(lambda x: x.sum(1), parts)
    quantiles = {"sources": source_quantiles(conditioning), "achieved": achieved_quantiles(parts)}
    stored: dict[str, Any] = {title: {name: _ascending(row) for name, row in table.items()}
                              for title, table in quantiles.items()}
    return stored | {
        "spreads": _ascending(spread_quantiles(tokens)), "sounding": float(np.median(whole.sounding)),
        "notes": [float(x) for x in np.quantile(whole.onsets, LEVELS[[1, -2]])],
        "harsh": round(float(np.median(np.asarray(_harsh(whole)))), 6)}


def complete(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Conditioning [N, 104] and tokens [N, 12, 32] of the rows that are observed in all tracks and paired."""
    count = len(columns["tokens"])
    rows = np.ones(count, bool) if "observed" not in columns else columns["observed"].all(1)
    rows = rows & np.asarray(columns.get("paired", True), bool)
    if not rows.any():
        print("no row is observed in all tracks and paired with movement: the statistics are those of all rows, and "
              "targets will be rough", file=sys.stderr)
        rows = np.ones(count, bool)
    return columns["conditioning"][rows], columns["tokens"][rows]


def _ascending(quantiles: np.ndarray) -> list[float]:
    """Rounded, each a little above the one before, so that every value has one rank."""
    return [round(float(x), 6) for x in np.maximum.accumulate(quantiles + 1e-6 * np.arange(len(quantiles)))]


def correlations(conditioning: np.ndarray, found: Statistics, target_map: TargetMap = DEFAULT) -> np.ndarray:
    """Spearman's correlations of the targets with each other over movements [N, 104]. [7, 7]"""
    return np.corrcoef(rankdata(np.asarray(targets(jnp.asarray(conditioning), found, target_map)), axis=0).T)


def rough_by_notes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean share of harsh time, and its error, of grids int [N, 12, 32] by their number of notes (NOTE_EDGES)."""
    whole = jax.tree.map(lambda x: x.sum(1), track_sums(tokens))
    share, which = np.asarray(_harsh(whole)), np.digitize(whole.onsets, NOTE_EDGES) - 1
    rows = [share[which == i] for i in range(len(NOTE_EDGES) - 1)]
    return (np.array([row.mean() if len(row) else np.nan for row in rows]),
            np.array([row.std() / np.sqrt(len(row)) if len(row) else np.nan for row in rows]))


_sums, _attributes, _harsh = jax.jit(sums), jax.jit(of_sums), jax.jit(harsh)
_spread = jax.jit(lambda tokens: spread(jax.nn.one_hot(jnp.asarray(tokens), len(VOCABULARY))))


def main(argv: list[str] | None = None) -> int:
    """Print the statistics of a dataset and how its targets correlate, or write them into a checkpoint."""
    parser = argparse.ArgumentParser(prog="quantiles", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="shippable", help="data config")
    parser.add_argument("--data_dir", default="runs/data", help="where the pairs are, or are built")
    parser.add_argument("--checkpoint", help="weights folder whose model.json is to hold them")
    for name, value in SAMPLING.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help="kept with them, as in configs/")
    args = parser.parse_args(argv)

    def run() -> int:
        model = Path(args.checkpoint) / "model.json" if args.checkpoint else None
        kept = json.loads(model.read_text()) if model else {}
        train = arrays(prepare(args.data, args.data_dir), "train")
        stored = statistics(train) | {name: getattr(args, name) for name in SAMPLING}
        found = parse(stored)
        if model:
            scratch = model.with_suffix(".tmp")
            scratch.write_text(json.dumps(kept | {"statistics": stored}, indent=1))
            os.replace(scratch, model)
        conditioning, tokens = complete(train)
        harsh_time = ", ".join(f"{x:.3f}" for x in rough_by_notes(tokens)[0])
        print(f"{json.dumps(stored, indent=1)}\n\nharsh time by number of notes, {NOTE_EDGES}: {harsh_time}\n")
        print("| rank correlation |" + " | ".join(NAMES) + " |\n|" + "---|" * (len(NAMES) + 1))
        for name, row in zip(NAMES, correlations(conditioning, found), strict=True):
            print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in row) + " |")
        return 0

    return guarded("quantiles", run)


if __name__ == "__main__":
    sys.exit(main())
