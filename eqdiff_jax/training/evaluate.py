"""How well a checkpoint predicts held-out grids, beside three baselines, in bits per cell.

    python -m eqdiff_jax.training.evaluate --checkpoint checkpoints/default --data demo

The model's figure is a bound (negative ELBO, Monte-Carlo, with its standard error over examples); the baselines'
figures are exact code lengths. Baselines: the per-cell unigram; the nearest training example by conditioning, mixed
with the unigram (weight fitted on the validation split); the same network without its conditioning.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np

from eqdiff_jax import data
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.training import checkpoint
from eqdiff_jax.training.loop import evaluate_nelbo
from eqdiff_jax.types import Array

WEIGHTS = np.linspace(0.0, 0.98, 50)  # candidates for the neighbour's share
PSEUDO_COUNT = 0.1  # per legal token and cell, so that nothing legal is impossible


def unigram(tokens: np.ndarray) -> np.ndarray:
    """p(token | cell), smoothed over the track's legal tokens. tokens [N, 12, 32] -> [12, 32, 81]"""
    counts = np.stack([(tokens == v).sum(0) for v in range(len(VOCABULARY))], axis=-1).astype(np.float64)
    counts += PSEUDO_COUNT * LEGAL[:, None, :]
    return counts / counts.sum(-1, keepdims=True)


def code_length(law: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Bits per cell of each grid under independent cells. law [12, 32, 81], tokens [N, 12, 32] -> [N, 12, 32]"""
    return -np.log2(np.take_along_axis(law[None], tokens[..., None], axis=-1)[..., 0])


def nearest(train: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Index of the training row at the smallest Euclidean distance, per query. [M]"""
    square = (train**2).sum(1)
    return np.array([np.argmin(square - 2.0 * train @ q) for q in queries])


def mixture_bits(weight: float, law: np.ndarray, neighbour: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Bits per cell of each grid under w [neighbour's token] + (1 - w) unigram. [N]"""
    p = weight * (neighbour == tokens) + (1.0 - weight) * 2.0 ** -code_length(law, tokens)
    return -np.log2(p).reshape(len(tokens), -1).mean(1)


def evaluate(params, builder, *, seed: int = 0, draws: int = 16, limit: int | None = None) -> list[dict]:
    """Rows {name, bits, stderr, kind} for the held-out split `test`; limit: only so many examples, evenly spaced."""
    train, validation, test = (data.arrays(builder, split) for split in ("train", "validation", "test"))
    if limit is not None and limit < len(test["tokens"]):
        kept = np.linspace(0, len(test["tokens"]) - 1, limit).astype(int)
        test = {name: column[kept] for name, column in test.items()}
    key, columns = jax.random.key(seed), {name: test[name] for name in ("tokens", "conditioning")}
    rows: list[dict] = []

    def add(name: str, bits: Array | np.ndarray, kind: str) -> None:
        rows.append({"name": name, "bits": float(np.mean(bits)), "kind": kind,
                     "stderr": float(np.std(bits, ddof=1) / np.sqrt(len(bits)))})

    add("this checkpoint", evaluate_nelbo(key, params, columns, draws=draws).per_example / np.log(2), "bound")
    add("the same network, unconditioned",
        evaluate_nelbo(key, params, columns, draws=draws, given=False).per_example / np.log(2), "bound")
    law = unigram(train["tokens"])
    neighbours = {name: train["tokens"][nearest(train["conditioning"], split["conditioning"])]
                  for name, split in (("validation", validation), ("test", test))}
    fit = [mixture_bits(w, law, neighbours["validation"], validation["tokens"]).mean() for w in WEIGHTS]
    weight = float(WEIGHTS[int(np.argmin(fit))])
    add(f"nearest neighbour x {weight:.2f} + unigram", mixture_bits(weight, law, neighbours["test"], test["tokens"]),
        "exact")
    add("per-cell unigram", code_length(law, test["tokens"]).reshape(len(test["tokens"]), -1).mean(1), "exact")
    return rows


def table(rows: list[dict], examples: int) -> str:
    """The rows as Markdown."""
    lines = [f"Held-out pairs: {examples} grids of {SHAPE[0] * SHAPE[1]} cells.", "",
             "| model | bits per cell | standard error | kind |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {r['name']} | {r['bits']:.4f} | {r['stderr']:.4f} | {r['kind']} |" for r in rows])


def main(argv: list[str] | None = None) -> int:
    """Print the table, and write it as JSON where --out says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/default", help="weights folder or training workdir")
    parser.add_argument("--data", default="demo", help=f"data config: {', '.join(data.CONFIGS)}")
    parser.add_argument("--data_dir", default="runs/data", help="where the pairs are, or are built")
    parser.add_argument("--draws", type=int, default=16, help="network calls per example")
    parser.add_argument("--limit", type=int, help="score only so many held-out grids")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args(argv)
    try:
        params = checkpoint.load(args.checkpoint)
        builder = data.prepare(args.data, args.data_dir)
        rows = evaluate(params, builder, draws=args.draws, limit=args.limit)
    except InputError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    size = len(builder.as_data_source(split="test"))
    print(table(rows, size if args.limit is None else min(args.limit, size)))
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
