"""Where music, movement, and pairs of them come from."""

from eqdiff_jax.data.limb_windows import limb_windows, recordings
from eqdiff_jax.data.paired_music import PAIRED_CONFIGS, PairedMusic
from eqdiff_jax.data.pairs import ConductorPairs, salsa_archive
from eqdiff_jax.data.real_grids import RealGrids, counts, counts_table, folder_config
from eqdiff_jax.data.source import (
    CONFIGS,
    FIELDS,
    Mixture,
    arrays,
    batch_rows,
    check,
    config_of,
    mixture,
    motion_seed,
    prepare,
)

__all__ = [
    "CONFIGS", "FIELDS", "PAIRED_CONFIGS", "ConductorPairs", "Mixture", "PairedMusic", "RealGrids", "arrays",
    "batch_rows", "check", "config_of", "counts", "counts_table", "folder_config", "limb_windows", "mixture",
    "motion_seed", "prepare", "recordings", "salsa_archive",
]
