"""Certificates: maps whose Lipschitz constants are known, and reports about those that are not."""

from eqdiff_jax.contraction.certificate import (
    SLOPES,
    activation,
    check,
    compose,
    dense,
    equilibrium,
    monotone_equilibrium,
)
from eqdiff_jax.contraction.gains import CouplingLimits, max_norm, perron, perron_root
from eqdiff_jax.contraction.jacobian import (
    Radius,
    arnoldi,
    jacobian,
    jvp,
    linear_map,
    local_lipschitz,
    spectral_radius,
    transpose_map,
    vjp,
)
from eqdiff_jax.contraction.lipschitz import aol, cayley, monotone, sll, spectral
from eqdiff_jax.contraction.lmi import implicit_lipschitz, lmi_bound
from eqdiff_jax.contraction.mixed_monotone import MixedMonotone, mixed_monotone
from eqdiff_jax.contraction.norms import (
    block_norms,
    gram_bound,
    isometry_bound,
    power_iteration,
    schatten,
    spectral_norm,
)
from eqdiff_jax.contraction.search import Pair, Worst, ascend, worst_lipschitz, worst_ratio
from eqdiff_jax.contraction.small_gain import (
    Condition,
    CoupledReport,
    coupled_report,
    describe,
)

__all__ = [
    "SLOPES",
    "Condition",
    "CoupledReport",
    "CouplingLimits",
    "MixedMonotone",
    "Pair",
    "Radius",
    "Worst",
    "activation",
    "aol",
    "arnoldi",
    "ascend",
    "block_norms",
    "cayley",
    "check",
    "compose",
    "coupled_report",
    "dense",
    "describe",
    "equilibrium",
    "gram_bound",
    "implicit_lipschitz",
    "isometry_bound",
    "jacobian",
    "jvp",
    "linear_map",
    "lmi_bound",
    "local_lipschitz",
    "max_norm",
    "mixed_monotone",
    "monotone",
    "monotone_equilibrium",
    "perron",
    "perron_root",
    "power_iteration",
    "schatten",
    "sll",
    "spectral",
    "spectral_norm",
    "spectral_radius",
    "transpose_map",
    "vjp",
    "worst_lipschitz",
    "worst_ratio",
]
