"""Coupled equilibria: z_i = f_i(z_1, ..., z_m), solved block by block or all at once.

    Jacobi        every block from the old values          z <- (f_1(z), ..., f_m(z))
    Gauss-Seidel  every block from the newest values       z_1 <- f_1(z), z_2 <- f_2(z_1 new, z_2, ...), ...

Either sweep is one map of the product space, so a solver can accelerate it: with `Picard` it is the plain sweep, with
`Anderson` the blocks are accelerated jointly. Where the joint map contracts in a max norm of blocks (row sums of the
gain matrix below 1, `contraction.coupled_report`), both plain sweeps converge from anywhere and neither errs after a
sweep by more than the largest row sum times the error before (Gauss-Seidel by induction over the blocks). Which of the
two is faster depends on the maps; for non-negative linear ones it is Gauss-Seidel (Stein and Rosenberg 1948).
"""

from collections.abc import Callable, Sequence
from typing import Any

from eqdiff_jax.equilibrium.solve import fixed_point
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Solution

SWEEPS = ("jacobi", "gauss_seidel")


def sweep_map(maps: Sequence[Callable], kind: str = "jacobi") -> Callable:
    """(z_1, ..., z_m), *args -> the tuple after one sweep; maps[i](zs, *args) -> z_i, zs the tuple.

    Raises: InputError for an unknown kind.
    """
    if kind not in SWEEPS:
        raise InputError(f"unknown sweep {kind!r}: choose one of {', '.join(SWEEPS)}")

    def sweep(blocks: tuple, *args: Any) -> tuple:
        new = list(blocks)
        for i, f in enumerate(maps):
            new[i] = f(tuple(new) if kind == "gauss_seidel" else blocks, *args)
        return tuple(new)

    return sweep


def coupled_fixed_point(maps: Sequence[Callable], blocks: Sequence[Any], *args: Any, sweep: str = "jacobi",
                        **knobs) -> Solution:
    """The tuple of blocks with z_i = maps[i]((z_1, ..., z_m), *args), from the start `blocks`.

    knobs are fixed_point's: solver, adjoint, tolerances. `steps` counts sweeps, each of which evaluates every map
    once. Differentiable in args like fixed_point; the implicit derivative does not depend on the sweep.

    Raises: InputError for an unknown sweep, or another number of maps than blocks.
    """
    if len(maps) != len(blocks):
        raise InputError(f"{len(maps)} maps and {len(blocks)} blocks: give one map per block")
    return fixed_point(sweep_map(maps, sweep), tuple(blocks), *args, **knobs)
