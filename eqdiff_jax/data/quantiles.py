"""The tables of targets.py: where movements and grids lie among the complete training pairs of a dataset.

    python -m eqdiff_jax.data.quantiles --data shippable --data_dir runs/data
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.control import spread
from eqdiff_jax.data.source import arrays, prepare
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import VOCABULARY
from eqdiff_jax.music.attributes import Attributes, Sums, harsh, of_sums, sums
from eqdiff_jax.targets import DEFAULT, LEVELS, NAMES, SOURCES, TargetMap, targets

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


def achieved_quantiles(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Quantiles at LEVELS of each attribute of thinned grids int [N, 12, 32]."""
    measured: Attributes = _attributes(thinned(track_sums(tokens)))
    return {name: np.quantile(np.asarray(value), LEVELS) for name, value in zip(NAMES, measured, strict=True)}


def source_quantiles(conditioning: np.ndarray) -> dict[str, np.ndarray]:
    """Quantiles at LEVELS of each slot that a target may follow, [N, 104]."""
    return {name: np.quantile(conditioning[:, LAYOUT[name].start], LEVELS) for name in SOURCES}


def spread_quantiles(tokens: np.ndarray) -> np.ndarray:
    """Quantiles at LEVELS of the spread of melodies of grids int [N, 12, 32]."""
    parts = np.array_split(tokens, len(tokens) // BATCH + 1)
    return np.quantile(np.concatenate([_spread(part) for part in parts]), LEVELS)


def correlations(conditioning: np.ndarray, target_map: TargetMap = DEFAULT) -> np.ndarray:
    """Spearman's correlations of the targets with each other over movements [N, 104]. [7, 7]"""
    return np.corrcoef(rankdata(np.asarray(targets(jnp.asarray(conditioning), target_map)), axis=0).T)


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
    """Print the tables of a dataset."""
    parser = argparse.ArgumentParser(prog="quantiles", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="shippable", help="data config")
    parser.add_argument("--data_dir", default="runs/data", help="where the pairs are, or are built")
    args = parser.parse_args(argv)
    try:
        train = arrays(prepare(args.data, args.data_dir), "train")
    except InputError as error:
        print(f"quantiles: {error}", file=sys.stderr)
        return 2
    complete = train["observed"].all(1) if "observed" in train else np.ones(len(train["tokens"]), bool)
    complete &= np.asarray(train.get("paired", True), bool)
    conditioning, tokens = train["conditioning"][complete], train["tokens"][complete]
    for title, table in (("SOURCES", source_quantiles(conditioning)), ("ACHIEVED", achieved_quantiles(tokens)),
                         ("", {"SPREADS": spread_quantiles(tokens), "ROUGH_BY_NOTES": rough_by_notes(tokens)[0]})):
        print(f"{title}\n" + "\n".join(f'"{name}": ({", ".join(f"{x:.3f}" for x in row)}),' for name, row in
                                       table.items()))
    print("\n| rank correlation |" + " | ".join(NAMES) + " |\n|" + "---|" * (len(NAMES) + 1))
    for name, row in zip(NAMES, correlations(conditioning), strict=True):
        print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in row) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
