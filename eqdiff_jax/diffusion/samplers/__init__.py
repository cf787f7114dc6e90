"""Samplers by their config names. A sampler is one reverse step of one example:

(key, tokens [...], logits [..., V], alpha_t [], alpha_s []) -> tokens [...]
"""

from eqdiff_jax.diffusion.samplers.analytic import analytic, analytic_probabilities

SAMPLERS = {"analytic": analytic}

__all__ = ["SAMPLERS", "analytic", "analytic_probabilities"]
