"""Every metric on grids whose figures can be worked out by hand, its range on all others, what leaves it unchanged."""

import numpy as np
import pytest
from grids import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from eqdiff_jax.music import metrics
from eqdiff_jax.music.grid import LEGAL, SHAPE, events
from eqdiff_jax.music.vocabulary import VOCABULARY

SEEDS = st.integers(0, 2**20)


def test_silence_has_no_pitches_and_says_so():
    got = metrics.measure(grid_of())
    assert (got.density, got.empty_tracks, got.legality) == (0.0, 1.0, 1.0)
    assert np.isnan([got.pitch_class_entropy, got.scale_consistency, got.groove_consistency, got.polyphony]).all()


def test_drums_alone_have_a_groove_and_no_pitches():
    got = metrics.measure(grid_of(KICK="bd ~ ~ ~ " * 8, HH="~ ~ hh ~ " * 8))
    assert (got.density, got.empty_tracks, got.groove_consistency) == (16.0, 10 / 12, 1.0)
    assert np.isnan([got.pitch_class_entropy, got.scale_consistency, got.polyphony]).all()


@pytest.mark.parametrize(("row", "bits"), [
    ("C4 C5 C6", 0.0), ("C5 D5", 1.0), ("C5 D5 E5 F5", 2.0), ("C5 C5 C5 D5", 0.75 * np.log2(4 / 3) + 0.5)])
def test_pitch_class_entropy(row, bits):
    assert metrics.measure(grid_of(LEAD=row)).pitch_class_entropy == pytest.approx(bits)


@pytest.mark.parametrize(("row", "share"), [
    ("C5 D5 E5 F5 G5 A5 B5 C6", 1.0),  # C major
    ("A4 B4 C5 D5 E5 F5 G5 A5", 1.0),  # A minor
    ("C4 C#4 D4 D#4 E4 F4 F#4 G4 G#4 A4 A#4 B4", 7 / 12),
    ("C5 C#5 D5", 2 / 3)])
def test_scale_consistency(row, share):
    assert metrics.measure(grid_of(LEAD=row)).scale_consistency == pytest.approx(share)


def test_groove_consistency_is_one_less_the_share_of_sixteenths_that_differ():
    bar = "hh " + "~ " * 15
    assert metrics.measure(grid_of(HH=bar + bar)).groove_consistency == 1.0
    assert metrics.measure(grid_of(HH=bar)).groove_consistency == pytest.approx(15 / 16)
    assert metrics.measure(grid_of(HH="hh " * 16)).groove_consistency == 0.0
    assert metrics.measure(grid_of(HH=bar, CLAP="~ " * 16 + "cp")).groove_consistency == 1.0  # any track counts


def test_polyphony_is_the_mean_over_sounding_time():
    assert metrics.measure(grid_of(PAD="C4 half")).polyphony == 1.0
    assert metrics.measure(grid_of(PAD="C4 half", VOX="E4 half")).polyphony == 2.0
    assert metrics.measure(grid_of(PAD="C4 half", VOX="E4 quarter", KICK="bd half")).polyphony == pytest.approx(1.5)
    assert metrics.measure(grid_of(PAD="C4 half", VOX="C4 half")).polyphony == 1.0  # one pitch, twice
    assert metrics.measure(grid_of(PAD="C4 stac", VOX="E4")).polyphony == pytest.approx(1.5)  # half a sixteenth


def test_legality_counts_observed_cells():
    grid = grid_of(KICK="bd")
    grid[0, 1:5] = [VOCABULARY.ids["sd"], 81, -1, 1000]
    grid[3] = 81  # not observed
    assert metrics.measure(grid).legality == pytest.approx(1 - 36 / 384)
    observed = np.arange(12) != 3
    assert metrics.measure(grid, observed).legality == pytest.approx(1 - 4 / 352)
    assert np.isnan(metrics.measure(grid, np.zeros(12, bool)).legality)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_ranges_and_invariances(random_grid, seed):
    """Ranges hold for any array; a transposition, or the choice of tracks of one reach, changes no figure."""
    rng = np.random.default_rng(seed)
    wild = metrics.measure(rng.integers(-3, 90, SHAPE))
    for got in (wild, metrics.measure(random_grid(rng))):
        bounds = {"density": 384, "pitch_class_entropy": np.log2(12) + 1e-9, "polyphony": 12}
        for name, value in got._asdict().items():
            assert np.isnan(value) or 0.0 <= value <= bounds.get(name, 1.0)
    row = " ".join(rng.choice(["C4", "E4", "G4", "A4", "~", "8th"], 28))
    up = row.replace("A4", "B4").replace("G4", "A4").replace("E4", "F#4").replace("C4", "D4")
    low, high = (metrics.measure(grid_of(PAD=x, KICK="bd ~ bd")) for x in (row, up))
    np.testing.assert_allclose(np.array(low), np.array(high))
    swapped = metrics.measure(grid_of(VOX=row, SNARE="sd ~ sd"))  # other tracks with the same reach
    np.testing.assert_allclose(np.array(low), np.array(swapped))


def test_summary_leaves_nan_out_and_counts():
    got = metrics.summary([1.0, np.nan, 3.0])
    assert got == (2.0, 1.0, 2)
    assert np.isnan(metrics.summary([np.nan]).mean) and metrics.summary([]).counted == 0
    assert metrics.summary([4.0]).mean == 4.0 and np.isnan(metrics.summary([4.0]).stderr)


def test_diversity_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 3, (5, *SHAPE))
    pairs = [np.mean(grids[i] != grids[j]) for i in range(5) for j in range(i)]
    assert metrics.diversity(grids) == (pytest.approx(np.mean(pairs)), 5)
    assert metrics.diversity(grids[[0, 0, 0]]) == (0.0, 1)
    assert np.isnan(metrics.diversity(grids[:1])[0])
    observed = np.ones((5, 12), bool)
    observed[0, :6] = False
    counted = [(grids[i] != grids[j])[observed[i] & observed[j]] for i in range(5) for j in range(i)]
    assert metrics.diversity(grids, observed)[0] == pytest.approx(np.concatenate(counted).mean())


@given(SEEDS, st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_nearest_distance_is_the_least_of_all_and_blocks_change_nothing(seed, rows):
    rng = np.random.default_rng(seed)
    train, grids = rng.integers(0, 3, (9, *SHAPE)), rng.integers(0, 3, (4, *SHAPE))
    grids[0] = train[rng.integers(9)]
    got = metrics.nearest_distance(grids, train, block=4 * 384 * rows)
    np.testing.assert_allclose(got, (grids[:, None] != train).mean((2, 3)).min(1))
    assert got[0] == 0.0
    order = rng.permutation(12)
    np.testing.assert_allclose(metrics.nearest_distance(grids[:, order], train[:, order]), got)
    seen, known = rng.random((4, 12)) < 0.9, rng.random((9, 12)) < 0.9
    both = (seen[:, None] & known)[..., None]
    differ = ((grids[:, None] != train) & both).sum((2, 3)) / np.maximum(32 * both.sum((2, 3)), 1)
    enough = both.sum((2, 3)) >= np.maximum(0.5 * seen.sum(1)[:, None], 1)
    np.testing.assert_allclose(metrics.nearest_distance(grids, train, seen, known, block=4 * 384 * rows),
                               np.where(enough, differ, np.inf).min(1))


def test_a_grid_without_a_comparable_neighbour_has_no_distance():
    grids = np.zeros((1, *SHAPE), int)
    known = np.zeros((1, 12), bool)
    known[0, :5] = True
    assert np.isnan(metrics.nearest_distance(grids, grids, None, known)).all()
    assert metrics.nearest_distance(grids, grids, None, known, common=0.3) == 0.0


def test_features_of_a_small_grid():
    got = metrics.features(events(grid_of(LEAD="C5 ~ E5 8th C5", KICK="bd")))
    assert (got["note_count"], got["pitch_count"], got["pitch_range"], got["pitch_interval"]) == (4, 2, 4, 4)
    np.testing.assert_allclose(got["pitch_class_histogram"][[0, 4]], [2 / 3, 1 / 3])
    np.testing.assert_allclose(got["pitch_class_transitions"].reshape(12, 12)[[0, 4], [4, 0]], 0.5)
    assert got["inter_onset"] == 2.0
    np.testing.assert_allclose(got["note_lengths"], [0, 0.75, 0, 0.25, 0, 0, 0])
    silent = metrics.features([])
    assert silent["note_count"] == 0 and np.isnan(silent["pitch_class_histogram"]).all()


def test_overlapping_area_tells_a_set_from_another(random_grid):
    rng = np.random.default_rng(0)
    sets = [[metrics.features(events(random_grid(rng))) for _ in range(40)] for _ in range(2)]
    one = [metrics.features(events(grid_of(LEAD="C5 " * n))) for n in range(1, 9)]
    same, other = metrics.overlapping_area(*sets), metrics.overlapping_area(one, sets[0])
    assert all(0.7 < v <= 1.0 for v in same.values()), same
    assert other["note_count"] < 0.5 and other["pitch_class_histogram"] == 0.0
    assert np.isnan(metrics.overlapping_area([metrics.features([])] * 3, sets[0])["pitch_range"])


def test_density_overlap_of_known_densities():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=4000), rng.normal(2.0, 1.0, 4000)
    assert metrics.density_overlap(a, b) == pytest.approx(0.3173, abs=0.03)  # 2 Phi(-1)
    assert metrics.density_overlap(a, a) > 0.99
    assert metrics.density_overlap(np.ones(5), np.ones(4)) == 1.0
    assert metrics.density_overlap(np.ones(5), np.zeros(4)) == 0.0


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_histogram_overlap_is_symmetric_and_bounded(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=30), rng.normal(rng.uniform(0, 3), 1.0, 20)
    got = metrics.histogram_overlap(a, b)
    assert 0.0 <= got <= 1.0 and got == pytest.approx(metrics.histogram_overlap(b, a))
    assert metrics.histogram_overlap(a, np.append(a, np.nan)) == pytest.approx(1.0)
    assert metrics.histogram_overlap(a, a + 100) == 0.0
    assert np.isnan(metrics.histogram_overlap(a, [np.nan]))


def test_motion_beats_are_where_the_body_is_slowest():
    frames = np.arange(360)
    limbs = np.zeros((360, 27, 8), np.float32)
    limbs[..., 3] = (1.5 - np.cos(2 * np.pi * (frames - 20) / 60))[:, None]  # slowest at frames 20, 80, ...
    np.testing.assert_allclose(metrics.motion_beats(limbs), [20, 80, 140, 200, 260, 320], atol=1)
    assert len(metrics.motion_beats(np.zeros((100, 27, 8)))) == 0


def test_beat_alignment():
    notes = events(grid_of(KICK="bd ~ ~ ~ " * 8))
    on, off = (metrics.beat_alignment(notes, np.arange(0, 29, 4) + shift) for shift in (0.0, 2.0))
    assert (on.score, on.hits) == (1.0, 1.0) and off.hits == 0.0
    assert off.score == pytest.approx(np.exp(-8)) and on.chance == off.chance
    assert metrics.beat_alignment(notes, [3.5]).hits == 1.0
    assert metrics.beat_alignment(notes, [3.5]).score == pytest.approx(np.exp(-0.5))
    full = events(grid_of(HH="hh " * 32))
    assert metrics.beat_alignment(full, [0.25]).chance > 0.8  # dense music meets everything
    assert np.isnan(metrics.beat_alignment(notes, [])).all() and np.isnan(metrics.beat_alignment([], [1.0])).all()


def test_chance_is_the_mean_score_of_random_moments(random_grid):
    rng = np.random.default_rng(1)
    notes = events(random_grid(rng))
    got = metrics.beat_alignment(notes, rng.uniform(0, 32, 20_000))
    assert got.score == pytest.approx(got.chance, abs=0.01)


def test_control_fidelity_is_spearmans_with_an_error_that_shrinks():
    rng = np.random.default_rng(0)

    def pairs(n: int):
        asked = rng.normal(size=(n, 2))
        return asked, np.stack([np.exp(asked[:, 0]), rng.normal(size=n)], axis=1)

    few, many = pairs(40), pairs(640)
    rho, error = metrics.control_fidelity(*few)
    assert rho[0] == pytest.approx(1.0) and error[0] < 0.05
    assert rho[1] == pytest.approx(spearmanr(few[0][:, 1], few[1][:, 1]).statistic)
    assert 0.1 < error[1] < 0.25  # 1/sqrt(39) = 0.16
    assert metrics.control_fidelity(*many)[1][1] < 0.5 * error[1]
    np.testing.assert_array_equal(metrics.control_fidelity(*few)[1], error)  # the same seed


def test_windows_of_one_performance_are_drawn_together():
    rng = np.random.default_rng(0)
    asked, heard = (np.repeat(rng.normal(size=(8, 1)), 20, axis=0) for _ in range(2))
    alone = metrics.control_fidelity(asked, heard)[1]
    assert metrics.control_fidelity(asked, heard, np.repeat(np.arange(8), 20))[1] > 2 * alone
    assert np.isnan(metrics.control_fidelity(asked, heard, np.zeros(160))[1]).all()


def test_a_control_that_does_not_vary_has_no_correlation():
    asked = np.stack([np.ones(10), np.arange(10.0)], axis=1)
    heard = np.stack([np.arange(10.0), np.full(10, np.nan)], axis=1)
    rho, error = metrics.control_fidelity(asked, heard)
    assert np.isnan(rho).all() and np.isnan(error).all()


def test_every_legal_grid_measures_as_legal(random_grid):
    grid = random_grid(np.random.default_rng(3))
    assert LEGAL[np.arange(12)[:, None], grid].all() and metrics.measure(grid).legality == 1.0
