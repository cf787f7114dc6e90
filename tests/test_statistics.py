"""Statistics: tables of quantile ranks, what cannot be used, and two checkpoints that are steered by their own."""

import copy

import numpy as np
import pytest
from networks import STATISTICS, STORED

from eqdiff_jax.errors import InputError
from eqdiff_jax.statistics import ACHIEVED, LEVELS, POINTS, SOURCES, parse
from eqdiff_jax.targets import NAMES


def test_tables_ascend_and_end_at_rank_one():
    assert set(STORED["sources"]) == set(SOURCES) and {*ACHIEVED, "layers"} == set(NAMES)
    assert STATISTICS.sources.shape == (len(SOURCES), len(LEVELS)) and STATISTICS.values.shape == (7, POINTS)
    for values, ranks in zip(STATISTICS.values, STATISTICS.ranks, strict=True):
        points = len(np.unique(values))
        assert (np.diff(values[:points]) > 0).all() and (values[points:] == values[-1]).all()
        # Less than any recorded grid has is a rank of 0, as nothing is.
        assert (np.diff(ranks[:points])[1:] > 0).all() and ranks[0] == 0 and (ranks[points - 1:] == 1).all()
        np.testing.assert_array_equal(ranks * 2.0**20, np.round(ranks * 2.0**20))  # sums of them are exact


def test_values_that_many_grids_share_have_the_middle_of_their_ranks():
    stored = STORED | {"achieved": STORED["achieved"] | {"range": [0.0] * 3 + [0.5] * 4 + list(np.linspace(0.6, 1, 6))}}
    found, row = parse(stored), NAMES.index("range")
    np.testing.assert_allclose(found.values[row, :3], [0.0, 0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found.ranks[row, :3], [0.0, np.mean(LEVELS[3:7]), LEVELS[7]], atol=1e-6)


def broken(*path, value=None):
    stored = copy.deepcopy(STORED)
    inner = stored
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return stored


@pytest.mark.parametrize("stored", [
    {}, broken("sources"), broken("sources", "energy"), broken("achieved", "density"), broken("kappa"),
    broken("sources", "energy", value=[0.0] * 12), broken("sources", "energy", value=[1.0, 0.0] + [2.0] * 11),
    broken("notes", value=[1.0]), broken("harsh", value=float("nan")), broken("spreads", value="many"),
    broken("slack", value=-1), broken("achieved", value=[1, 2]), broken("guidance", value="three"), None, [], "text"])
def test_statistics_that_cannot_be_used_are_refused_in_one_line(stored):
    with pytest.raises(InputError, match="^model.json: .*copy the checkpoint") as error:
        parse(stored, "model.json")
    assert "\n" not in str(error.value)
