"""Discrete diffusion over tokens. Knows no network and no music."""

from eqdiff_jax.diffusion.absorbing import absorbing, absorbing_score
from eqdiff_jax.diffusion.bounded_change import budget, cell_log_likelihood, remask_least_likely
from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.diffusion.guidance import classifier_free, legal_log_posterior
from eqdiff_jax.diffusion.losses import antithetic_times, masked_cross_entropy, nelbo, score_entropy
from eqdiff_jax.diffusion.samplers import SAMPLERS
from eqdiff_jax.diffusion.sampling import sample
from eqdiff_jax.diffusion.schedule import commitment

PROCESSES = {"absorbing": absorbing}

__all__ = [
    "PROCESSES", "SAMPLERS", "absorbing", "absorbing_score", "antithetic_times", "budget", "categorical",
    "cell_log_likelihood", "classifier_free", "commitment", "legal_log_posterior", "masked_cross_entropy",
    "nelbo", "remask_least_likely", "sample", "score_entropy",
]
