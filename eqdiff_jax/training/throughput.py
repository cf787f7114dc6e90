"""How fast a run is: cells, floating-point operations, and the share of what the chip could do."""

import jax

from eqdiff_jax.denoiser import Roformer, multiply_adds
from eqdiff_jax.music.grid import SHAPE

# Dense bfloat16 operations per second of one device, by what its name contains; the makers' figures.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12,
         "TPU v5": 459e12, "TPU v6": 918e12}


def throughput(network: Roformer, grids_per_second: float) -> dict[str, float]:
    """tokens_per_second, model_flops_per_second and, where the chip is known, mfu.

    Model FLOP/s utilisation: 6 x multiply-adds per grid x grids per second / (devices x peak), rematerialisation and
    everything but matrix products left out. Reference: Chowdhery et al. 2022 (PaLM), appendix B.
    """
    work = 6.0 * multiply_adds(network) * grids_per_second
    row = {"tokens_per_second": SHAPE[0] * SHAPE[1] * grids_per_second, "model_flops_per_second": work}
    peak = next((peak for name, peak in PEAKS.items() if name in jax.devices()[0].device_kind), None)
    return row if peak is None else row | {"mfu": work / (peak * jax.device_count())}
