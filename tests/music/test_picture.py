"""Pictures: the same bytes for the same grids, other pixels for other grids, nothing half-written."""

import numpy as np
import pytest
from matplotlib.image import imread

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.conductor import GENRES, conduct, initial_state
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.music.picture import draw
from eqdiff_jax.types import Dynamics


def some_grids(count: int) -> np.ndarray:
    motion = Dynamics(*[0.6] * 15)
    return np.stack([conduct(initial_state(i), motion, GENRES[i % 8])[1] for i in range(count)])


def test_same_grids_same_bytes_and_no_leftovers(tmp_path):
    grids = some_grids(3)
    first = draw(grids, tmp_path / "a.png").read_bytes()
    assert first == draw(grids, tmp_path / "b.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_other_grids_other_pixels(tmp_path):
    one, other = some_grids(2)
    a, b, empty = (imread(draw(g, tmp_path / "x.png")) for g in (one, other, np.zeros(SHAPE, np.int32)))
    assert a.shape == b.shape == empty.shape
    assert (a != b).any()
    assert a.mean() > empty.mean()  # notes light the stage


@pytest.mark.parametrize("count", [1, 5, 13])
def test_every_layout_draws(tmp_path, count):
    image = imread(draw(some_grids(count), tmp_path / "x.png", titles=["$caption_"] * count))
    assert image.ndim == 3


@pytest.mark.parametrize(("grids", "titles"), [
    (np.zeros((0, 12, 32), np.int32), None),
    (np.zeros((12, 31), np.int32), None),
    (np.zeros((2, 12, 32), np.int32), ["one"]),
    (np.zeros((1, 12, 32)), None),
])
def test_bad_input_is_refused_and_writes_nothing(tmp_path, grids, titles):
    with pytest.raises(InputError):
        draw(grids, tmp_path / "x.png", titles=titles)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        draw(np.zeros(SHAPE, np.int32), tmp_path / "nowhere" / "x.png")
