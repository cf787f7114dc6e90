"""The tables of asked.py: what complete training pairs ask and have.

    python -m eqdiff_jax.data.standing --data shippable --data_dir runs/data
"""

import argparse
import sys

import jax
import numpy as np

from eqdiff_jax.asked import HEARD, LEVELS, SLOTS, spread
from eqdiff_jax.data.source import arrays, prepare
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import VOCABULARY, descriptors


def tables(conditioning: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ASKED, HAS and SPREADS: quantiles [5, 13], [5, 13], [13] of pairs [N, 104], int [N, 12, 32] that are complete."""
    has = np.array([descriptors(grid) for grid in tokens])[:, HEARD]
    wide = np.concatenate([spread(jax.nn.one_hot(part, len(VOCABULARY)))
                           for part in np.array_split(tokens, len(tokens) // 256 + 1)])
    return (np.quantile(conditioning[:, SLOTS], LEVELS, axis=0).T, np.quantile(has, LEVELS, axis=0).T,
            np.quantile(wide, LEVELS))


def main(argv: list[str] | None = None) -> int:
    """Print the tables of a dataset."""
    parser = argparse.ArgumentParser(prog="standing", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="shippable", help="data config")
    parser.add_argument("--data_dir", default="runs/data", help="where the pairs are, or are built")
    args = parser.parse_args(argv)
    try:
        train = arrays(prepare(args.data, args.data_dir), "train")
    except InputError as error:
        print(f"standing: {error}", file=sys.stderr)
        return 2
    complete = train["observed"].all(1) if "observed" in train else np.ones(len(train["tokens"]), bool)
    complete &= train.get("paired", True)
    with np.printoptions(precision=3, suppress=True, floatmode="fixed", linewidth=120):
        for name, table in zip(("ASKED", "HAS", "SPREADS"), tables(train["conditioning"][complete],
                                                                    train["tokens"][complete]), strict=True):
            print(f"{name}\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
