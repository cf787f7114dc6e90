"""Each descriptor moves the way its definition says, on grids built for it."""

import numpy as np
import pytest
from grids import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.descriptors import DESCRIPTORS, descriptors
from eqdiff_jax.music.grid import REST, SHAPE


def test_silence_is_defined():
    assert descriptors(grid_of()) == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert DESCRIPTORS == ("density", "range", "dissonance", "bass_weight", "stability")


def test_density_counts_onsets():
    values = [descriptors(grid_of(HH="hh ~ " * n)).density for n in range(17)]
    assert np.all(np.diff(values) > 0)
    assert values[16] == pytest.approx(1 - np.exp(-16 / 96))


def test_range_is_the_span_in_two_octaves():
    values = [descriptors(grid_of(LEAD=f"C4 {top}")).range for top in ("C4", "E4", "G4", "C5", "C6")]
    assert values == pytest.approx([0, 4 / 24, 7 / 24, 0.5, 1.0])
    assert descriptors(grid_of(LEAD="C4 ~ C6", PAD="C4")).range == 1.0  # one note has no span


def test_dissonance_of_intervals():
    def together(other: str) -> float:
        return descriptors(grid_of(PAD="C4 half", VOX=f"{other} half")).dissonance

    assert together("C4") == together("C5") == 0.0
    assert together("C#4") == pytest.approx(1.0)
    assert together("G4") < together("E4") < together("D#4") < together("D4") < together("F#4") < together("C#4")


def test_dissonance_of_neighbours_and_of_time_shared():
    assert descriptors(grid_of(LEAD="C4 C#4")).dissonance == pytest.approx(1.0)
    brief = grid_of(PAD="C4 half", VOX="E4 half", AMB="C#4")
    lasting = grid_of(PAD="C4 half", VOX="E4 half", AMB="C#4 half")
    assert descriptors(brief).dissonance < descriptors(lasting).dissonance


def test_bass_weight_follows_register_gain_and_kick():
    high, low = "C4 quarter", "C2 quarter"
    assert descriptors(grid_of(PAD=high)).bass_weight == 0.0
    assert descriptors(grid_of(BASS=low)).bass_weight == 1.0
    assert descriptors(grid_of(BASS=low, PAD=high)).bass_weight == pytest.approx(0.5)
    loud = descriptors(grid_of(BASS=low + " ff", PAD=high)).bass_weight
    assert loud == pytest.approx(112 / (112 + 80))
    assert descriptors(grid_of(BASS=low, PAD=high, KICK="bd ~ ~ ~ bd")).bass_weight > 0.5
    assert descriptors(grid_of(BASS=low, PAD="C4 half")).bass_weight == pytest.approx(0.5)  # capped at a quarter


def test_stability_compares_the_bars():
    bar = "bd ~ ~ ~ bd ~ ~ ~ bd ~ ~ ~ bd ~ ~ ~ "
    other = "~ ~ bd ~ ~ ~ bd ~ ~ ~ bd ~ ~ ~ bd ~ "
    near = "bd ~ ~ ~ bd ~ ~ ~ bd ~ ~ ~ ~ ~ ~ ~ "
    values = [descriptors(grid_of(KICK=bar + second)).stability for second in (other, near, bar)]
    assert np.all(np.diff(values) > 0)
    assert values[2] == 1.0
    moved = descriptors(grid_of(BASS="C2" + " ~" * 15 + " D2")).stability
    assert moved < descriptors(grid_of(BASS="C2" + " ~" * 15 + " C2")).stability


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_every_grid_measures_inside_the_unit_interval(seed, rests):
    rng = np.random.default_rng(seed)
    grid = np.where(rng.random(SHAPE) < rests, REST, rng.integers(-2, 90, SHAPE))
    values = np.array(descriptors(grid))
    assert np.all(np.isfinite(values))
    assert np.all((values >= 0) & (values <= 1))


def test_another_shape_is_refused():
    with pytest.raises(InputError, match="integer array of shape"):
        descriptors(np.zeros((2, 12, 32), np.int32))
