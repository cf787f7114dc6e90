"""Our default fixed-point solver beside jaxopt, optimistix and torchdeq: python benchmarks/solvers.py

Needs `pip install -e '.[bench]'`.

    z* = tanh(W z* + x),  |W| = 0.99 Gaussian, symmetric or orthogonal, n = 32, 128, 1024, x = 0.1 N(0, I), float32

One solve of a batch of 1 or 256 (W shared), alone and with the gradient of a scalar of z* in W and x. Everyone stops at
the same absolute residual, 1e-5 (1 + |z*|), and uses its own defaults otherwise: ours safeguarded Anderson with the
same on the adjoint; jaxopt Anderson with implicit differentiation by conjugate gradients on the normal equations;
optimistix FixedPointIteration with its implicit adjoint; torchdeq Anderson forward and backward. Each round times every
candidate once, after one call that is not timed (threads of the peer before may still spin), in an order that turns
from round to round; short solves are repeated until 20 ms have passed. Printed: ratio of medians theirs/ours (above 1
means ours is faster), quartiles over rounds, and in [] the largest true residual over the tolerance where it is above
1.5 (it stopped early or gave up). The column `our picard` is SOLVERS["picard"] of this package against its default.
"""

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's idle threads must not spin into the next candidate
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
warnings.filterwarnings("ignore", message="JAXopt")

import jaxopt  # noqa: E402
import zoo  # noqa: E402

from eqdiff_jax.equilibrium import SOLVERS, fixed_point  # noqa: E402

PEERS = ("jaxopt", "optimistix", "torchdeq", "our picard")
MAX_STEPS = 1000


def candidates(w: np.ndarray, x: np.ndarray, c: np.ndarray, tolerance: float) -> dict[str, dict]:
    """name -> {"forward": () -> z, "gradient": () -> (dW, dx)}; x, c [B, n]."""
    import optimistix as optx
    w_, x_, c_ = map(jnp.asarray, (w, x, c))
    z0 = jnp.zeros(x.shape[1], jnp.float32)

    def ours(w, x):
        return fixed_point(zoo.layer, z0, w, x, rtol=0.0, atol=tolerance, max_steps=MAX_STEPS).value

    def by_picard(w, x):
        return fixed_point(zoo.layer, z0, w, x, solver=SOLVERS["picard"], rtol=0.0, atol=tolerance,
                           max_steps=MAX_STEPS).value

    def by_jaxopt(w, x):
        return jaxopt.AndersonAcceleration(zoo.layer, tol=tolerance, maxiter=MAX_STEPS).run(z0, w, x).params

    def by_optimistix(w, x):
        solver = optx.FixedPointIteration(rtol=0.0, atol=tolerance, norm=optx.two_norm)
        return optx.fixed_point(lambda z, a: zoo.layer(z, *a), solver, z0, (w, x), max_steps=MAX_STEPS,
                                throw=False).value

    table = {}
    for name, one in (("ours", ours), ("jaxopt", by_jaxopt), ("optimistix", by_optimistix),
                      ("our picard", by_picard)):
        solve = one if len(x) == 1 else jax.vmap(one, (None, 0))

        def forward(w, x, solve=solve):
            return solve(w, x[0])[None] if len(x) == 1 else solve(w, x)

        run = jax.jit(forward)
        grad = jax.jit(jax.grad(lambda w, x, forward=forward: jnp.sum(forward(w, x) * c_), (0, 1)))
        table[name] = {"forward": lambda run=run: jax.block_until_ready(run(w_, x_)),
                       "gradient": lambda grad=grad: jax.block_until_ready(grad(w_, x_))}
    if importlib.util.find_spec("torchdeq"):
        table["torchdeq"] = by_torchdeq(w, x, c, tolerance)
    return table


def by_torchdeq(w: np.ndarray, x: np.ndarray, c: np.ndarray, tolerance: float) -> dict:
    """The same in PyTorch, eager, as torchdeq runs."""
    import torch
    from torchdeq import get_deq
    torch.set_num_threads(2)
    deq = get_deq(f_solver="anderson", b_solver="anderson", f_max_iter=MAX_STEPS, b_max_iter=MAX_STEPS, ift=True,
                  f_stop_mode="abs", b_stop_mode="abs", f_tol=tolerance, b_tol=tolerance)
    w_, x_, c_ = (torch.tensor(a, dtype=torch.float32) for a in (w, x, c))
    z0 = torch.zeros_like(x_)

    def forward():
        with torch.no_grad():
            return deq(lambda z: torch.tanh(z @ w_.T + x_), z0)[0][-1].numpy()

    def gradient():
        a, b = w_.clone().requires_grad_(), x_.clone().requires_grad_()
        deq.train()
        z = deq(lambda z: torch.tanh(z @ a.T + b), z0)[0][-1]
        (z * c_).sum().backward()
        return a.grad.numpy(), b.grad.numpy()

    return {"forward": forward, "gradient": gradient}


def timed(run, least: float = 0.0) -> float:
    """Seconds a call, of as many calls as take `least` seconds together."""
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < least:
        run()
        calls += 1
    return (time.perf_counter() - start) / calls


def measure(kind: str, n: int, batch: int, rounds: int) -> list[dict]:
    """One row per (peer, pass)."""
    w = zoo.matrix(kind, 0.99, n).astype(np.float32)
    rng = np.random.default_rng(n)
    x, c = (0.1 * rng.normal(size=(batch, n))).astype(np.float32), rng.normal(size=(batch, n)).astype(np.float32)
    z = np.zeros((batch, n))
    for _ in range(3000):
        z = np.tanh(z @ w.T.astype(np.float64) + x)
    tolerance = float(1e-5 * (1 + np.linalg.norm(z, axis=1).mean()))
    table = candidates(w, x, c, tolerance)
    compile_s = {name: {key: timed(run) for key, run in runs.items()} for name, runs in table.items()}
    missed = {}
    for name, runs in table.items():
        found = np.asarray(runs["forward"](), np.float64)
        step = np.tanh(found @ w.T.astype(np.float64) + x)
        missed[name] = float(np.linalg.norm(step - found, axis=1).max() / tolerance)
    seconds = {name: {key: [] for key in runs} for name, runs in table.items()}
    names = list(table)
    for i in range(rounds):
        for key in ("forward", "gradient"):
            for name in names[i % len(names):] + names[:i % len(names)]:
                table[name][key]()
                seconds[name][key].append(timed(table[name][key], 0.02))
    rows = []
    for peer in PEERS:
        if peer in table:
            for key in ("forward", "gradient"):
                a, b = np.array(seconds[peer][key]), np.array(seconds["ours"][key])
                low, high = np.percentile(a / b, [25, 75])
                rows.append({"kind": kind, "n": n, "batch": batch, "peer": peer, "pass": key,
                             "ratio": float(np.median(a) / np.median(b)), "low": float(low), "high": float(high),
                             "ours_first": compile_s["ours"][key], "peer_first": compile_s[peer][key],
                             "missed": missed[peer], "ours_missed": missed["ours"]})
    return rows


def cell(rows: list[dict]) -> str:
    row = rows[0]
    note = f" [{row['missed']:.0f}x]" if row["missed"] > 1.5 else ""
    return f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}){note}"


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of batch 1; a batch of 256 gets a third")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(zoo.SIZES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 256])
    args = parser.parse_args()
    for name in ("optimistix", "torchdeq"):
        if not importlib.util.find_spec(name):
            sys.exit(f"benchmarks/solvers.py: {name} is not installed; pip install -e '.[bench]'")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    versions = ", ".join(f"{p} {version(p)}" for p in ("jax", "jaxopt", "optimistix", "torchdeq", "torch"))
    print(f"{platform.machine()}, {jax.devices()[0].device_kind}, Python {platform.python_version()}, {versions}. "
          f"Commit {commit.stdout.strip() or 'unknown'}. {args.rounds} rounds; theirs / ours, quartiles.\n")
    print("| problem | batch | pass | " + " | ".join(PEERS) + " |\n|---|---|---|" + "---|" * len(PEERS), flush=True)
    rows = []
    for batch in args.batches:
        for kind in zoo.KINDS:
            for n in args.sizes:
                new = measure(kind, n, batch, args.rounds if batch == 1 else max(3, args.rounds // 3))
                rows += new
                for key in ("forward", "gradient"):
                    cells = [cell([r for r in new if r["peer"] == p and r["pass"] == key]) for p in PEERS]
                    print(f"| {kind} {n} | {batch} | {key} | " + " | ".join(cells) + " |", flush=True)

    def mean(**want) -> str:
        values = [r["ratio"] for r in rows if all(r[k] == v for k, v in want.items())]
        return f"{np.exp(np.mean(np.log(values))):.2f}" if values else "-"

    for batch in args.batches:
        for key in ("forward", "gradient"):
            print(f"| **geometric mean** | {batch} | {key} | "
                  + " | ".join(mean(peer=p, batch=batch, **{"pass": key}) for p in PEERS) + " |")
    print("| **geometric mean** | all | both | " + " | ".join(mean(peer=p) for p in PEERS) + " |\n")
    first = {k: np.median([r[f"{k}_first"] for r in rows]) for k in ("ours", "peer")}
    print(f"Compilation, median of first calls: ours {first['ours']:.2f} s, theirs {first['peer']:.2f} s. Largest "
          f"residual over the tolerance: ours {max(r['ours_missed'] for r in rows):.2f}; others in [] where above 1.5.")


if __name__ == "__main__":
    main()
