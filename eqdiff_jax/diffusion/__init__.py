"""Discrete diffusion over tokens. Knows no network and no music."""

from eqdiff_jax.diffusion.bounded_change import cell_log_likelihood
from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.guidance import classifier_free, legal_log_posterior
from eqdiff_jax.diffusion.likelihood import exact_nelbo, nelbo
from eqdiff_jax.diffusion.losses import (
    antithetic_times,
    auxiliary_cross_entropy,
    lambda_cross_entropy,
    masked_cross_entropy,
    score_entropy,
    variational_bound,
)
from eqdiff_jax.diffusion.parameterise import LeaveOneOut, Mean, Score, as_leave_one_out, as_mean, as_score
from eqdiff_jax.diffusion.process import PROCESSES, absorbing, hybrid, uniform
from eqdiff_jax.diffusion.samplers import (
    SAMPLERS,
    Analytic,
    Ancestral,
    Confidence,
    Euler,
    FirstHitting,
    Parallel,
    ReMDM,
)
from eqdiff_jax.diffusion.sampling import sample
from eqdiff_jax.diffusion.schedule import GRIDS, SCHEDULES, commitment, cosine_grid, uniform_grid
from eqdiff_jax.diffusion.tilting import tilt

__all__ = [
    "GRIDS", "PROCESSES", "SAMPLERS", "SCHEDULES", "Analytic", "Ancestral", "Confidence", "Euler", "FirstHitting",
    "LeaveOneOut", "Mean", "Parallel", "ReMDM", "Score", "absorbing", "antithetic_times", "as_leave_one_out", "as_mean",
    "as_score", "auxiliary_cross_entropy", "categorical", "cell_log_likelihood", "classifier_free",
    "commitment", "cosine_grid", "exact_nelbo", "hybrid", "lambda_cross_entropy", "legal_log_posterior",
    "masked_cross_entropy", "nelbo", "sample", "score_entropy", "tilt", "uniform",
    "uniform_grid", "variational_bound",
]
