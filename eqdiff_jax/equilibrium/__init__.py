"""Deep equilibria: z* = f(z*, x), solved, differentiated, coupled."""

from eqdiff_jax.equilibrium.anderson import Anderson
from eqdiff_jax.equilibrium.broyden import Broyden
from eqdiff_jax.equilibrium.implicit import Implicit, Phantom, Unrolled
from eqdiff_jax.equilibrium.picard import Picard
from eqdiff_jax.equilibrium.solve import SOLVERS, fixed_point, pullback, require
from eqdiff_jax.types import Solution, Status

__all__ = ["SOLVERS", "Anderson", "Broyden", "Implicit", "Phantom", "Picard", "Solution", "Status", "Unrolled",
           "fixed_point", "pullback", "require"]
