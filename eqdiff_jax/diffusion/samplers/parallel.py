"""Parallel in time: all steps of a chain at once, swept until nothing changes (a discrete DEQ-DDIM).

With its noise drawn beforehand a chain is x_{k+1} = f_k(x_k), so the trajectory X = (x_1, ..., x_T) is a fixed point,

    x_{k+1} = x_0 + the changes that f_0, ..., f_k make at x_0, ..., x_k,

the integral form of Picard's iteration, whose right-hand side F(X) is strictly lower triangular: after j sweeps the
first j states are exact. So it ends after at most T sweeps, and as a rule much earlier, in exactly the tokens of the
sequential sampler with the same key. The loop is in parallel_in_time.py; a sweep costs as many network rows as the
window has steps.
References: Shih et al. 2023 (ParaDiGMS), arXiv:2305.16317; Pokle et al. 2022 (DEQ-DDIM), arXiv:2210.12867.
"""

from dataclasses import dataclass

from eqdiff_jax.diffusion.samplers.analytic import Analytic
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Sampler


@dataclass(frozen=True)
class Parallel:
    """inner: the sampler whose chain is solved. window: steps that are swept at once; a longer chain is solved window
    after window."""

    inner: Sampler = Analytic()
    window: int = 64

    def __post_init__(self) -> None:
        if not getattr(self.inner, "steady", False):
            raise InputError(f"{self.inner} cannot run parallel in time, since what it remembers changes along the "
                             "chain: take analytic, ancestral, euler or confidence")
        if self.window < 1:
            raise InputError(f"window is {self.window}: sweep at least one step at a time")
