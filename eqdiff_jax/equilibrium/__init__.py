"""Deep equilibria: z* = f(z*, x), solved, differentiated, coupled."""

from eqdiff_jax.equilibrium.anderson import Anderson
from eqdiff_jax.equilibrium.broyden import Broyden
from eqdiff_jax.equilibrium.coupled import SWEEPS, coupled_fixed_point, sweep_map
from eqdiff_jax.equilibrium.implicit import Implicit, Phantom, Unrolled
from eqdiff_jax.equilibrium.layer import Equilibrium, jacobian_penalty
from eqdiff_jax.equilibrium.picard import Picard
from eqdiff_jax.equilibrium.solve import SOLVERS, fixed_point, pullback, require
from eqdiff_jax.types import Solution, Status

__all__ = ["SOLVERS", "SWEEPS", "Anderson", "Broyden", "Equilibrium", "Implicit", "Phantom", "Picard", "Solution",
           "Status", "Unrolled", "coupled_fixed_point", "fixed_point", "jacobian_penalty", "pullback", "require",
           "sweep_map"]
