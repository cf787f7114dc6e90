"""Measure how far the project is from its machine: python benchmarks/run.py  (a few minutes on two cores)

Everything is interleaved: each round times every candidate once, so that a noisy machine disturbs all alike; what is
printed are ratios of medians with their quartiles over rounds. Compilation is timed apart, before the rounds.
"""

import argparse
import importlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import motion
from eqdiff_jax.composer import PROCESS, predictor
from eqdiff_jax.denoiser import multiply_adds
from eqdiff_jax.diffusion import sample
from eqdiff_jax.parallel import data_parallel, replicate, shard
from eqdiff_jax.training.state import init_params, init_state, network
from eqdiff_jax.training.step import make_step

ROOT = Path(__file__).resolve().parents[1]
MATRIX = 1024  # side of the bare product


def config(name: str):
    """A config of configs/ by its name."""
    sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"configs.{name}").get_config()


def interleave(candidates: dict[str, Callable[[], object]],
               rounds: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Seconds per round of every candidate [rounds], and seconds of its first call."""
    first = {}
    for name, run in candidates.items():
        start = time.perf_counter()
        jax.block_until_ready(run())
        first[name] = time.perf_counter() - start
    seconds = {name: np.empty(rounds) for name in candidates}
    for i in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name][i] = time.perf_counter() - start
    return seconds, first


def ratio(a: np.ndarray, b: np.ndarray) -> str:
    """Median of a over median of b, with the quartiles of the round-by-round ratio."""
    low, high = np.percentile(a / b, [25, 75])
    return f"{np.median(a) / np.median(b):.2f} ({low:.2f} to {high:.2f})"


def denoiser(name: str, rounds: int) -> list[str]:
    """One denoiser call over the same multiply-adds in a bare product; a sample of T steps over T calls."""
    cfg = config(name)
    params = init_params(jax.random.key(0), cfg)
    net, tokens, embedding = network(cfg), jnp.full((2, 12, 32), PROCESS.mask), jnp.zeros((2, 768))
    call = jax.jit(lambda p: net.apply({"params": p}, tokens, embedding))
    work = 2 * multiply_adds(net)
    repeats = max(1, round(work / MATRIX**3))
    matrix = jax.random.normal(jax.random.key(1), (MATRIX, MATRIX), jnp.dtype(cfg.dtype))
    product = jax.jit(lambda m: jax.lax.fori_loop(0, repeats, lambda i, x: x @ m * 1e-2, m))
    steps, c = 16, jnp.zeros((1, 104))
    predict_once = jax.jit(lambda p, x: predictor(p, c)(x, jnp.zeros(1)))
    draw = jax.jit(lambda p, k: sample(k, predictor(p, c), PROCESS, (1, 12, 32), steps=steps).tokens)
    seconds, first = interleave({
        "call": lambda: call(params["denoiser"]), "product": lambda: product(matrix),
        "predict": lambda: predict_once(params, tokens[:1]), "sample": lambda: draw(params, jax.random.key(2)),
    }, rounds)
    bare = seconds["product"] * (work / (repeats * MATRIX**3))
    return [
        f"| {name}: one denoiser call (2 grids) / the same multiply-adds in a bare product | "
        f"{ratio(seconds['call'], bare)} |",
        f"| {name}: a {steps}-step sample / {steps} x one guided call | "
        f"{ratio(seconds['sample'], steps * seconds['predict'])} |",
        f"| {name}: compiling and running the sampler first / running it | "
        f"{first['sample'] / np.median(seconds['sample']):.0f} |",
    ]


def training(name: str, rounds: int, batch: int, pieces: int) -> list[str]:
    """One training step in float32, its batch worked off in pieces, over its multiply-adds in a bare product."""
    cfg = config(name)
    cfg.update({"batch": batch, "accumulate": pieces, "dtype": "float32", "remat": False})
    state = [replicate(init_state(jax.random.key(0), cfg))]
    step, rng = data_parallel(make_step(cfg)), np.random.default_rng(0)
    part = {"tokens": np.zeros((batch, 12, 32), np.int32), "observed": np.ones((batch, 12), bool),
            "conditioning": rng.normal(size=(batch, 104)).astype(np.float32), "paired": np.ones(batch, bool),
            "place": np.arange(batch, dtype=np.int32)}

    def once():
        state[0], metrics = step(state[0], replicate(jax.random.key(1)), shard(part))
        return metrics["loss"]

    work = 3 * batch * multiply_adds(network(cfg))
    repeats = max(1, round(work / MATRIX**3))
    matrix = jax.random.normal(jax.random.key(1), (MATRIX, MATRIX))
    product = jax.jit(lambda m: jax.lax.fori_loop(0, repeats, lambda i, x: x @ m * 1e-2, m))
    seconds, _ = interleave({"step": once, "product": lambda: product(matrix)}, rounds)
    bare = seconds["product"] * (work / (repeats * MATRIX**3))
    return [f"| {name}: multiply-adds of a training step (batch {batch} in {pieces}, float32) in a bare product / the "
            f"step | {ratio(bare, seconds['step'])} |"]


def chain(rounds: int) -> list[str]:
    """The 60 Hz motion chain, scanned over 16 s and stepped frame by frame, as multiples of real time."""
    limbs = motion.demo("show", 16.0, 0)
    params = motion.init_params(jax.random.key(0))
    scan, weights = jax.jit(motion.trajectory), jax.jit(motion.prepare)(params)
    one = jax.jit(motion.step_weights)

    def stepped():
        state = motion.init_state(params)
        for frame in limbs[:240]:
            state, out = one(weights, state, frame)
            jax.block_until_ready(out)  # as a live loop would
        return out

    seconds, first = interleave({"scan": lambda: scan(params, limbs), "step": stepped}, rounds)
    rows = []
    for name, frames in (("scan", len(limbs)), ("step", 240)):
        low, mid, high = np.percentile(frames / seconds[name] / 60.0, [25, 50, 75])
        rows.append(f"| motion chain, {name}: frames per second / 60 | {mid:.0f} ({low:.0f} to {high:.0f}) |")
    return rows


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only-training", action="store_true", help="leave out everything but the training step")
    parser.add_argument("--configs", nargs="+", default=["default", "roformer_86m"])
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    print(f"Machine: {platform.machine()}, {jax.local_device_count()} x {jax.devices()[0].device_kind}. "
          f"Python {platform.python_version()}, JAX {jax.__version__}. Commit {commit.stdout.strip() or 'unknown'}. "
          f"{args.rounds} rounds, interleaved; medians with quartiles.\n")
    print("| what | ratio |\n|---|---|", flush=True)
    for name in args.configs:
        if not args.only_training:
            print("\n".join(denoiser(name, args.rounds)), flush=True)
        for batch, pieces in ((8, 1), (32, 4)):  # the optimiser's share falls with the batch; configs have 32 and 256
            print("\n".join(training(name, max(2, args.rounds // 3), batch, pieces)), flush=True)
    if not args.only_training:
        print("\n".join(chain(args.rounds)))


if __name__ == "__main__":
    sys.exit(main())
