"""Statistics of the training data that steer a checkpoint's grids: what quantile ranks are ranks among.

    quantiles at LEVELS : of slots that a target may follow, of what recorded grids achieve, of the spread of melodies
    scales              : of a grid of the network's, its sounding tracks, notes, harsh time
    defaults            : guidance scale and edit budget

They belong to the model: `data/quantiles.py` computes them from training rows, `model.json` keeps them beside the
weights, `checkpoint.load` gives them as params["statistics"].
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.attributes import Attributes
from eqdiff_jax.types import Array

LEVELS = np.linspace(0.0, 1.0, 13)  # of the quantiles
SOURCES = ("curvature", "curvature_rate", "periodicity", "tension", "grounding", "verticality", "coherence", "lr_pan",
           "energy", "transition_intensity", "prediction_confidence")  # slots of the conditioning
ACHIEVED = tuple(name for name in Attributes._fields if name != "layers")  # layers are their own rank
# Defaults of a config: the guidance scale whose grids come closest to the descriptors of the pairs (of 1, 1.5, 2, 3),
# and the edit budget of docs/theory.md.
SAMPLING = {"guidance": 3.0, "kappa": 0.12, "slack": 8, "cap": 192}
POINTS = len(LEVELS) + 2  # of a table below


class Statistics(NamedTuple):
    """Arrays, so that another checkpoint's need no new compilation."""

    sources: Array | np.ndarray  # float32 [11, 13] quantiles of the slots SOURCES
    values: Array | np.ndarray  # float32 [7, 15] each attribute's table: increasing values, the last one repeated
    ranks: Array | np.ndarray  # float32 [7, 15] and their quantile ranks
    spreads: Array | np.ndarray  # float32 [13] quantiles of the spread of melodies, in semitones
    sounding: Array | np.ndarray  # [] tracks that sound in a grid of the network's: the median
    notes: Array | np.ndarray  # [2] of such a grid: 1/12 and 11/12 have fewer
    harsh: Array | np.ndarray  # [] share of harsh time, the median
    guidance: Array | np.ndarray  # [] scale of classifier-free guidance
    kappa: Array | np.ndarray  # [] cells per |W dc| and cell of the edit budget
    slack: Array | np.ndarray  # [] int32 cells for nothing
    cap: Array | np.ndarray  # [] int32 most cells in one grid


def parse(stored: Mapping[str, Any], name: str = "statistics") -> Statistics:
    """The statistics that `model.json` holds under that key. Raises InputError, one line that starts with `name`."""
    try:
        sources = np.stack([_row(stored["sources"][source]) for source in SOURCES])
        tables = [_table(attribute, stored["achieved"].get(attribute)) for attribute in Attributes._fields]
        values, ranks = np.stack([v for v, _ in tables]), np.stack([r for _, r in tables])
        numbers = {key: np.array(stored[key], np.float32) for key in ("sounding", "harsh", "guidance", "kappa")}
        cells = {key: np.array(stored[key], np.int32) for key in ("slack", "cap")}
        notes = np.array(stored["notes"], np.float32).reshape(2)
        found = Statistics(sources, values, ranks, _row(stored["spreads"]), notes=notes, **numbers, **cells)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{name}: no statistics of training data that can be used ({what}): copy the checkpoint "
                         "again, or make them with python -m eqdiff_jax.data.quantiles --checkpoint") from error
    if not all(np.isfinite(x).all() for x in found) or found.kappa < 0 or found.slack < 0 or found.cap < 0:
        raise InputError(f"{name}: the statistics hold NaN, infinity or a negative budget: copy the checkpoint again")
    return found


def _row(quantiles: Sequence[float] | np.ndarray) -> np.ndarray:
    row = np.array(quantiles, np.float32)
    if row.shape != LEVELS.shape or (np.diff(row) < 0).any():
        raise ValueError(f"{len(LEVELS)} quantiles have to ascend")
    return row


def _table(name: str, quantiles: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and ranks [15] of an attribute. Values that many grids share have the middle of their ranks.

    Nothing has the rank 0. Ranks are rounded to 2^-20, so that float32 adds them up without error and the highest
    value has the rank 1.
    """
    if name == "layers":  # the number of tracks itself: no number is rarer than another among the grids
        values, levels = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    else:
        empty = name != "stability"  # a grid that holds nothing has 0 of everything, but is stable
        row = np.array(quantiles, np.float64)
        _row(row)
        values = np.append(0.0, row) if empty else row
        levels = np.append(0.0, LEVELS) if empty else LEVELS
    distinct = np.unique(values)
    middle = np.array([levels[values == v].mean() if v > 0 else 0.0 for v in distinct])
    padding = (0, POINTS - len(distinct))
    return (np.pad(distinct, padding, mode="edge").astype(np.float32),
            np.pad(np.round(middle * 2.0**20) / 2.0**20, padding, mode="edge").astype(np.float32))
