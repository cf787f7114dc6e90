"""How good a grid is for the network calls it took: held-out overlap against steps, for every sampler, with a picture.

    python benchmarks/quality.py --data shippable --data_dir runs/data --out docs/quality.png     # half an hour

Grids are made anew from the conditioning of held-out pairs, unguided, at temperature 1. Their notes are compared with
those of real held-out grids: the mean over mgeval's nine features of the overlapping area (`music.metrics`), 1 when
the two sets differ as either differs from itself. The dashed line is what one half of real grids reaches against the
other. First hitting has no steps: it calls once per masked cell, and stands at the right end.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from eqdiff_jax import data
from eqdiff_jax.composer import PROCESS, posterior
from eqdiff_jax.diffusion import SAMPLERS, sample
from eqdiff_jax.music import metrics
from eqdiff_jax.music.grid import SHAPE, events
from eqdiff_jax.training import checkpoint

NAMES = ("analytic", "euler", "confidence", "remdm", "first_hitting")
STEPS = (4, 8, 16, 32, 64)


def drawn(params, conditioning: np.ndarray, name: str, batch: int = 32):
    """(key, steps) -> grids of all the conditionings [N, 104] and the network calls of one batch."""
    # One compilation serves all step counts.
    run = jax.jit(lambda params, c, key, steps: sample(
        key, posterior(params, c, jnp.ones(batch, bool)), PROCESS, (batch, *SHAPE), sampler=SAMPLERS[name], steps=steps,
        temperature=1.0))

    def make(key, steps: int) -> tuple[np.ndarray, int]:
        parts = [run(params, jnp.asarray(conditioning[i:i + batch]), jax.random.fold_in(key, i), jnp.int32(steps))
                 for i in range(0, len(conditioning), batch)]
        return np.concatenate([np.asarray(part.tokens) for part in parts]), int(parts[0].evaluations)

    return make


def overlap(grids: np.ndarray, real: list) -> float:
    """Mean overlapping area of grids [N, 12, 32] with the real ones' features."""
    made = [metrics.features(events(grid)) for grid in grids]
    return metrics.summary(list(metrics.overlapping_area(made, real).values())).mean


def main() -> None:
    """Print the table in Markdown and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="checkpoints/default")
    parser.add_argument("--data", default="shippable")
    parser.add_argument("--data_dir", default="runs/data")
    parser.add_argument("--grids", type=int, default=96, help="per point, a multiple of 32")
    parser.add_argument("--out", default="quality.png")
    args = parser.parse_args()
    params = checkpoint.load(args.checkpoint)
    music = {part: params[part] for part in ("encoder", "denoiser")}
    test = data.arrays(data.prepare(args.data, args.data_dir), "test")
    whole = np.flatnonzero(test["observed"].all(1))
    rows = whole[np.linspace(0, len(whole) - 1, 2 * args.grids).astype(int)]
    asked, rest = rows[::2], rows[1::2]
    real = [metrics.features(events(grid)) for grid in test["tokens"][rest]]
    found = {name: [] for name in NAMES}
    todo = [(name, steps) for name in NAMES for steps in STEPS if name != "first_hitting" or steps == STEPS[0]]
    makers = {name: drawn(music, test["conditioning"][asked], name) for name in NAMES}
    for name, steps in tqdm(todo, disable=None):
        grids, calls = makers[name](jax.random.key(0), steps)
        found[name].append((calls, overlap(grids, real)))
    halves = overlap(test["tokens"][asked], real)
    print("| sampler | " + " | ".join(f"{s} steps" for s in STEPS) + " |\n|---|" + "---|" * len(STEPS))
    for name, points in found.items():
        cells = [f"{score:.3f} ({calls} calls)" for calls, score in points]
        print(f"| {name} | " + " | ".join(cells + [""] * (len(STEPS) - len(cells))) + " |")
    print(f"\nReal grids against real grids: {halves:.3f}.")
    draw(found, halves, Path(args.out))


def draw(found: dict[str, list[tuple[int, float]]], halves: float, path: Path) -> None:
    """One line per sampler, calls on a logarithmic axis."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in found.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.axhline(halves, linestyle="--", color="gray", label="real against real")
    axes.set(xscale="log", xlabel="network calls", ylabel="overlap with held-out grids")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
