"""Evaluations of f that each solver needs over the zoo: python benchmarks/evaluations.py  (about a minute on two cores)

float64, stop at |f - z| <= 1e-6 (1 + |f|), at most 3000. `excess` is the default's count over Picard's: at most 1 on
contractions with n >= 32 and on cos; tiny and saturated problems, below the line, are printed, not promised. A count
in brackets did not converge (why: its status).
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
warnings.filterwarnings("ignore", message="JAXopt")
jax.config.update("jax_enable_x64", True)

import zoo  # noqa: E402

from eqdiff_jax.equilibrium import SOLVERS, Status, fixed_point  # noqa: E402

RIDGES = (1e-5, 1e-8, 1e-12)
COLUMNS = {"picard": SOLVERS["picard"], "anderson": SOLVERS["anderson"], "broyden": SOLVERS["broyden"],
           **{f"jaxopt anderson {r:g}": SOLVERS["jaxopt_anderson"]._replace(ridge=r) for r in RIDGES},
           "jaxopt broyden": SOLVERS["jaxopt_broyden"]}
_compiled: dict = {}


def count(problem: zoo.Problem, name: str):
    """Solution of one problem by one solver; one compilation per map, size and solver."""
    key = (problem.f, problem.z0.shape, name)
    if key not in _compiled:
        _compiled[key] = jax.jit(lambda z, *a: fixed_point(problem.f, z, *a, solver=COLUMNS[name], rtol=zoo.TOLERANCE,
                                                           atol=zoo.TOLERANCE, max_steps=3000)._replace(value=None))
    return _compiled[key](jnp.asarray(problem.z0), *map(jnp.asarray, problem.args))


def promised() -> Iterator[tuple[str, zoo.Problem]]:
    for kind in zoo.KINDS:
        for rate in zoo.RATES:
            for n in zoo.SIZES:
                yield f"{kind} {rate} n={n}", zoo.tanh_problem(kind, rate, n)
    for rate in zoo.RATES:
        yield f"affine {rate} n=64", zoo.affine(rate)
    yield "cos", zoo.cosine()


def elsewhere() -> Iterator[tuple[str, zoo.Problem]]:
    yield "attention 16 x 8", zoo.attention()
    yield "rotation by 1.05", zoo.rotation()
    yield "runaway", zoo.runaway()
    for n in (1, 2, 4, 8):
        yield f"gaussian 0.99 n={n}", zoo.tanh_problem("gaussian", 0.99, n)
    for n in (8, 128):
        small = zoo.tanh_problem("gaussian", 0.99, n)
        yield f"gaussian 0.99 n={n}, x times 30", small._replace(args=(small.args[0], 30 * small.args[1]))


def main() -> None:
    """Print the tables in Markdown."""
    print("| problem | " + " | ".join(COLUMNS) + " | excess |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    rows: dict[str, dict[str, int]] = {}
    for name, problem in (*promised(), *elsewhere()):
        found = {solver: count(problem, solver) for solver in COLUMNS}
        rows[name] = {solver: int(s.steps) for solver, s in found.items()}
        cells = [f"{s.steps}" if s.status == Status.CONVERGED else f"({s.steps}, {Status.of(s.status).name.lower()})"
                 for s in found.values()]
        excess = rows[name]["anderson"] - rows[name]["picard"]
        print(f"| {name} | " + " | ".join(cells) + f" | {excess:+d} |", flush=True)

    def mean(over: str, start: str | tuple[str, ...]) -> float:
        picked = [r for n, r in rows.items() if n.startswith(start) and "n=" in n and "x times" not in n
                  and int(n.split("n=")[1]) >= 32]
        best = [min(r[f"jaxopt anderson {g:g}"] for g in RIDGES) if over == "best" else r[over] for r in picked]
        return float(np.exp(np.mean(np.log([b / r["anderson"] for b, r in zip(best, picked, strict=True)]))))

    print("\nGeometric means over the default's count, n >= 32: "
          f"Picard on symmetric 0.99 {mean('picard', 'symmetric 0.99'):.2f}, on orthogonal 0.99 "
          f"{mean('picard', 'orthogonal 0.99'):.2f}; jaxopt's Anderson at its default ridge, all tanh problems "
          f"{mean('jaxopt anderson 1e-05', ('gaussian', 'symmetric', 'orthogonal')):.2f}, at its best ridge "
          f"{mean('best', ('gaussian', 'symmetric', 'orthogonal')):.2f}.")


if __name__ == "__main__":
    main()
