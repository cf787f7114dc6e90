"""Report how a checkpoint predicts held-out grids and follows held-out movement; see training/evaluate.py."""

import sys

from eqdiff_jax.shell import cache_compilations
from eqdiff_jax.training.evaluate import main


def run() -> None:
    """The installed command eqdiff-evaluate."""
    cache_compilations()
    sys.exit(main(prog="eqdiff-evaluate"))
