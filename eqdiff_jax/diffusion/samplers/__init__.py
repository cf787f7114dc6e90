"""Samplers by their config names: records of knobs, all with one signature (types.Sampler)."""

from eqdiff_jax.diffusion.samplers.analytic import Analytic
from eqdiff_jax.diffusion.samplers.ancestral import Ancestral
from eqdiff_jax.diffusion.samplers.confidence import Confidence
from eqdiff_jax.diffusion.samplers.euler import Euler
from eqdiff_jax.diffusion.samplers.first_hitting import FirstHitting
from eqdiff_jax.diffusion.samplers.parallel import Parallel
from eqdiff_jax.diffusion.samplers.remdm import ReMDM
from eqdiff_jax.types import Sampler

SAMPLERS: dict[str, Sampler | Parallel] = {
    "analytic": Analytic(), "ancestral": Ancestral(), "euler": Euler(), "first_hitting": FirstHitting(),
    "confidence": Confidence(), "remdm": ReMDM(), "remdm_rescale": ReMDM("rescale", 0.05), "remdm_conf": ReMDM("conf"),
    "remdm_loop": ReMDM("cap", 0.02, (0.55, 0.05, 0.9)), "parallel": Parallel(),
}

__all__ = ["SAMPLERS", "Analytic", "Ancestral", "Confidence", "Euler", "FirstHitting", "Parallel", "ReMDM"]
