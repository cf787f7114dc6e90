"""Printed code against the real Strudel, and read back."""

import re
from fractions import Fraction

import numpy as np
import pytest

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import TRACKS, events
from eqdiff_jax.music.mini_parse import parse_mini
from eqdiff_jax.music.strudel import EFFECTS, SYNTHS, song_to_strudel, to_strudel
from eqdiff_jax.music.strudel_parse import from_strudel, song_from_strudel
from eqdiff_jax.music.vocabulary import VOCABULARY, pitch_name

IDS = VOCABULARY.ids


def grid_of(**rows: str) -> np.ndarray:
    """A grid from rows of tokens by track, with rests to the end."""
    grid = np.zeros((12, 32), np.int32)
    for track, row in rows.items():
        tokens = [IDS[t] for t in row.split()]
        grid[TRACKS.index(track), :len(tokens)] = tokens
    return grid


def expected(grid: np.ndarray, cycle: int = 0) -> list[tuple]:
    """What Strudel has to say of a grid that starts at a cycle: rows of (onset, length, value, gain)."""
    rows = []
    for e in events(grid):
        drum = isinstance(e.sound, str)
        value = {"s": e.sound} if drum else {
            "s": SYNTHS[TRACKS[e.track]], "note": pitch_name(e.sound).lower()}
        value |= {EFFECTS[name][1]: float(EFFECTS[name][2]) for name in e.effects}
        rows.append((Fraction(e.onset, 16) + cycle, Fraction(e.length) / 16, sorted(value.items()), e.gain))
    return sorted(rows)


def heard(answer: dict) -> list[tuple]:
    """The rows of an answer of the real Strudel, in the same form."""
    assert "error" not in answer, answer["error"]
    return sorted((Fraction(onset), Fraction(length), sorted((k, v) for k, v in value.items() if k != "gain"),
                   value["gain"]) for onset, length, value in answer["events"])


def assert_same(answer: dict, rows: list[tuple], code: str) -> None:
    found = heard(answer)
    assert [row[:3] for row in found] == [row[:3] for row in rows], code
    np.testing.assert_allclose([row[3] for row in found], [row[3] for row in rows], atol=1e-3, err_msg=code)


@pytest.fixture(scope="module")
def grids(random_grid) -> list[np.ndarray]:
    """1,000 legal grids and 200 arbitrary arrays."""
    rng = np.random.default_rng(0)
    return [*(random_grid(rng) for _ in range(1000)), *rng.integers(-3, 90, (200, 12, 32))]


@pytest.fixture(scope="module")
def codes(grids) -> list[str]:
    return [to_strudel(grid) for grid in grids]


def test_the_real_strudel_plays_exactly_the_events(grids, codes, query_strudel):
    for grid, code, answer in zip(grids, codes, query_strudel(codes), strict=True):
        assert_same(answer, expected(grid), code)


def test_reading_back_gives_a_structure_free_grid_with_the_same_events(grids, codes):
    for grid, code in zip(grids, codes, strict=True):
        back = from_strudel(code)
        assert events(back) == events(grid)
        assert not np.isin(back, list(VOCABULARY.ranges["structure"])).any()
