"""The figures of training/response.py on made-up performances whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import STATISTICS, random_params
from scipy.stats import pearsonr, spearmanr

from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.music.attributes import Attributes, of_sums
from eqdiff_jax.music.grid import SOUNDS, TRACKS
from eqdiff_jax.targets import DEFAULT_RULES, NAMES, achieved, targets
from eqdiff_jax.training import response
from eqdiff_jax.training.response import HEARD, Played, bits, grid_sums, longest, markdown, measure, turns

SIZES = (9, 7, 8)  # windows of the made-up performances
FIRST = np.array([np.flatnonzero(LEGAL[t] & SOUNDS)[0] for t in range(12)])  # a sound for each track
WALKING = ("followed", "partial", "energy", "windows", "rough", "notes", "layers", "cells", "allowed")


def grid(notes, tracks=1):
    """`tracks` tracks with `notes` notes each."""
    made = np.zeros((12, 32), np.int32)
    made[:tracks, :notes] = FIRST[:tracks, None]
    return made


def played(notes, tracks=1, sizes=SIZES, speed=None, **slots):
    """A Played whose grids have so many notes in so many tracks, with slots of the conditioning [W]."""
    count = sum(sizes)
    notes, tracks = np.broadcast_to(notes, count), np.broadcast_to(tracks, count)
    conditioning = np.zeros((count, 104), np.float32)
    for name, value in slots.items():
        conditioning[:, LAYOUT[name].start] = value
    member = np.repeat(np.arange(len(sizes)), sizes)
    return Played(np.array([grid(n, t) for n, t in zip(notes, tracks, strict=True)]), conditioning,
                  np.arange(count, dtype=float) if speed is None else np.asarray(speed, float), member,
                  np.diff(member, prepend=-1) > 0, np.arange(count), 2 * np.arange(count))


def anything(seed=0, sizes=SIZES):
    """Everything by chance, but for what slots and notes have in common."""
    rng, count = np.random.default_rng(seed), sum(sizes)
    energy = rng.random(count)
    return played(rng.integers(1, 30, count), rng.integers(1, 13, count), sizes, rng.random(count), energy=energy,
                  periodicity=0.5 * energy + 0.5 * rng.random(count), curvature=rng.uniform(0.2, 0.7, count),
                  tension=rng.random(count), grounding=rng.random(count), prediction_confidence=rng.random(count))


@pytest.fixture
def figures(monkeypatch):
    """measure without the network's bits, its errors from few draws."""
    monkeypatch.setattr(response, "bits", lambda *_: 0.0)
    monkeypatch.setattr(response, "RESAMPLES", 12)
    return lambda made, **options: measure(jax.random.key(0), {"statistics": STATISTICS}, made, **options)


def first(pairs):
    return np.array([value for value, _ in pairs])


def ranks(made):
    """Targets and achieved ranks [W, 7] of each window."""
    has = of_sums(jax.tree.map(np.asarray, grid_sums(made.tokens)))
    return (np.asarray(targets(jnp.asarray(made.conditioning), STATISTICS)),
            np.asarray(achieved(Attributes(*map(jnp.asarray, has)), STATISTICS)))


def spearman(a, b):
    return np.array([spearmanr(x, y).statistic if np.ptp(x) and np.ptp(y) else np.nan
                     for x, y in zip(a.T, b.T, strict=True)])


def test_speed_is_followed_within_each_performance(figures):
    """Notes rise by 2 for each unit of speed in every performance, wherever its speeds lie."""
    inside = np.concatenate([np.arange(size) for size in SIZES])
    offset = np.repeat([0.0, 900.0, -900.0], SIZES)
    notes = 1 + 2 * inside
    found = figures(played(notes, speed=inside + offset))
    np.testing.assert_allclose(first(found.energy[:2]), 1.0)
    assert first(figures(played(notes, speed=offset - inside)).energy)[0] == pytest.approx(-1.0)
    assert np.isnan(first(found.energy)[HEARD.index("tracks")])  # one track throughout
    np.testing.assert_allclose(first(found.energy_changes[:2]), np.nan)  # each change is as large as the others


def test_correlations_are_those_of_scipy(figures):
    made = anything()
    found, kept = figures(made), ~made.fresh
    asked, has = ranks(made)
    np.testing.assert_allclose(first(found.followed), spearman(asked[kept], has[kept]), atol=1e-6)
    notes = (made.tokens > 0).sum((1, 2))[kept].astype(float)
    tracks = (made.tokens > 0).any(2).sum(1)[kept].astype(float)

    def centred(x):
        return np.concatenate([x[made.member[kept] == m] - x[made.member[kept] == m].mean() for m in range(3)])

    expected = [pearsonr(centred(made.speed[kept]), centred(x)).statistic for x in (notes, tracks)]
    np.testing.assert_allclose(first(found.energy)[[0, 2]], expected, atol=1e-6)
    assert found.windows == sum(SIZES) - 3
    np.testing.assert_allclose((found.notes, found.layers), (notes.mean(), tracks.mean()), rtol=1e-6)
    assert found.cells == made.changed[kept].mean() and found.allowed == made.budget[kept].mean()


def test_tracks_that_rise_with_energy_follow_it_wholly(figures):
    count = sum(SIZES)
    energy = np.linspace(0.05, 0.9, count)
    found = figures(played(4, 1 + np.arange(count) // 2, energy=energy))
    assert first(found.followed)[NAMES.index("layers")] > 0.98  # two windows share a number of tracks
    falling = figures(played(4, 1 + np.arange(count) // 2, energy=energy[::-1]))
    assert first(falling.followed)[NAMES.index("layers")] < -0.98


def test_what_stands_still_has_no_figure_and_no_warning(figures):
    found = figures(played(5, 3, speed=np.full(sum(SIZES), 0.1), energy=0.3))
    for name in ("followed", "changes", "partial", "energy", "energy_changes", "shuffled"):
        assert np.isnan(getattr(found, name)).all()
    one_side = figures(played(np.arange(24) + 1, speed=np.full(sum(SIZES), 0.1)))
    assert np.isnan(one_side.energy).all() and np.isnan(one_side.energy_changes).all()


def test_fresh_windows_are_in_no_figure_of_bounded_ones(figures):
    made = anything()
    rows = np.flatnonzero(made.fresh)
    junk = made._replace(**{name: getattr(made, name).copy() for name in made._fields})
    junk.tokens[rows], junk.conditioning[rows], junk.speed[rows] = grid(32, 12), 9.0, 1e3
    junk.changed[rows], junk.budget[rows] = 384, 384
    a, b = figures(made), figures(junk)
    for name in WALKING:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.changes != b.changes  # of the second window, which is bounded, since the first
    everything = figures(junk, fresh=True)
    assert everything.windows == sum(SIZES) and everything.cells == junk.changed.mean()
    assert everything.followed != b.followed and everything.notes > b.notes


def test_changes_are_within_performances(figures):
    made = anything()
    asked, has = ranks(made)
    pairs = made.member[1:] == made.member[:-1]
    found = figures(made)
    np.testing.assert_allclose(first(found.changes), spearman(np.diff(asked, axis=0)[pairs],
                                                              np.diff(has, axis=0)[pairs]), atol=1e-6)
    notes = np.diff((made.tokens > 0).sum((1, 2)))[pairs]
    assert first(found.energy_changes)[0] == pytest.approx(pearsonr(np.diff(made.speed)[pairs], notes).statistic)
    moved = figures(made._replace(speed=made.speed + 100.0 * made.member))
    np.testing.assert_allclose(moved.energy_changes, found.energy_changes, atol=1e-6)
    np.testing.assert_allclose(moved.energy, found.energy, atol=1e-6)


def test_partial_correlation_is_the_textbook_one(figures):
    made = anything()
    kept, found = ~made.fresh, figures(made)
    free = [i for i, name in enumerate(NAMES) if DEFAULT_RULES[name].source != "energy"]
    asked, has = (x[kept][:, free] for x in ranks(made))
    energy = made.conditioning[kept][:, LAYOUT["energy"]].repeat(len(free), axis=1)
    ab, ae, be = spearman(asked, has), spearman(asked, energy), spearman(has, energy)
    expected = (ab - ae * be) / np.sqrt((1 - ae**2) * (1 - be**2))
    np.testing.assert_allclose(first(found.partial)[free], expected, atol=1e-6)


def test_a_target_made_of_energy_only_has_nothing_left(figures):
    """density is asked in steps of energy, intensity by a curve of it; what is heard is energy and noise."""
    rng, sizes = np.random.default_rng(1), (16,) * 24
    energy = rng.uniform(0.05, 0.9, sum(sizes))
    notes = np.clip(np.round(30 * energy + rng.normal(0, 1.5, len(energy))), 1, 32).astype(int)
    found = figures(played(notes, sizes=sizes, energy=energy, periodicity=np.floor(8 * energy) / 8))
    density, intensity = NAMES.index("density"), NAMES.index("intensity")
    assert first(found.followed)[density] > 0.9 and abs(first(found.partial)[density]) < 0.15
    assert first(found.followed)[intensity] > 0.9 and np.isnan(found.partial[intensity]).all()  # exactly nothing


def test_the_shuffled_null_is_centred_and_as_wide_as_chance(figures, monkeypatch):
    monkeypatch.setattr(response, "RESAMPLES", 100)
    made = anything(sizes=(16,) * 24)
    found = figures(made)
    spread = 1.0 / np.sqrt(15 * 24 - 24)  # of a correlation of so many windows about the means of 24 performances
    for mean, deviation in found.shuffled:
        assert abs(mean) < 4.0 * deviation / np.sqrt(100) and 0.7 * spread < deviation < 1.4 * spread


def test_errors_are_over_performances(figures):
    """However the windows vary: performances that are alike say the same whichever are drawn."""
    copies = Played(*(np.concatenate([x[:8]] * 3) for x in anything()))._replace(member=np.repeat(np.arange(3), 8))
    found = figures(copies)
    for name in ("followed", "changes", "energy", "energy_changes"):
        values = np.array(getattr(found, name))
        assert np.isfinite(values[:, 0]).any() and np.nanmax(values[:, 1]) < 1e-6
    assert np.isnan(np.array(figures(anything(sizes=(24,))).energy)[:, 1]).all()  # of one there is none
    apart = np.array(figures(anything()).energy)[:, 1]
    assert (apart > 0.02).all()


UNIFORM = jax.tree.map(jnp.zeros_like, random_params(0.0))


def test_bits_of_a_uniform_network_are_the_logarithm_of_what_is_legal(random_grid, monkeypatch):
    rng = np.random.default_rng(0)
    tokens = np.stack([random_grid(rng) for _ in range(5)])
    monkeypatch.setattr(response, "BATCH", 2)  # unequal parts
    assert bits(jax.random.key(0), UNIFORM, tokens) == pytest.approx(np.log2(LEGAL.sum(1)).mean(), rel=1e-5)


def test_bits_are_of_the_unconditional_network_and_of_each_grid(random_grid):
    rng, params = np.random.default_rng(0), random_params(0.3)
    tokens = np.stack([random_grid(rng) for _ in range(2)])
    found = bits(jax.random.key(0), params, tokens)
    altered = params | {"encoder": jax.tree.map(lambda x: x + 1.0, params["encoder"])}
    assert bits(jax.random.key(0), altered, tokens) == found  # no conditioning is read
    assert bits(jax.random.key(0), params, np.zeros_like(tokens)) != found


def chords(*pairs):
    """LEAD and PAD: each pair of pitches sounds for a sixteenth, None rests."""
    made = np.zeros((12, 32), np.int32)
    for step, pair in enumerate(pairs):
        for track, pitch in zip(("LEAD", "PAD"), pair, strict=True):
            made[TRACKS.index(track), step] = VOCABULARY.ids[pitch] if pitch else 0
    return made


@pytest.mark.parametrize(("grids", "share"), [
    ([chords(("C4", "C#4"), ("C4", "E4"), ("C4", "F#4"), ("C4", "G4"))], 0.5),
    ([chords(("B4", "C4"), ("C5", "C4"), ("C5", None), (None, "C#4"))], 0.5),  # of the time with two pitches
    ([chords(("C4", None), (None, "C#4")), chords(("C4", "C#4"))], 0.5),  # one after the other is no clash
    ([chords(("C4", "D4"), ("C4", "D#4"))], 0.0), ([np.zeros((12, 32), np.int32)], 0.0)])
def test_roughness_is_a_share_of_the_time_with_two_pitches(figures, grids, share):
    made = played(1)._replace(tokens=np.resize(grids, (sum(SIZES), 12, 32)))
    assert figures(made, fresh=True).rough == pytest.approx(share)


def test_the_tables_have_a_row_for_each_way(figures):
    rows = {"one way": figures(anything(0)), "another": figures(anything(1)), "still": figures(played(4, 2))}
    text = markdown(rows)
    followed, energy, music = text.strip().split("\n\n")
    assert [line.split(" | ")[0].strip("| ") for line in energy.splitlines()[2:]] == list(rows)
    assert [line.split(" | ")[0].strip("| ") for line in music.splitlines()[2:]] == list(rows)
    assert [tuple(line.strip("| ").split(" | ")[:2]) for line in followed.splitlines()[2:]] == [
        (name, figure) for name in rows for figure in ("followed", "changes", "partial")]
    for table in (followed, energy, music):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert " nan" not in text and "| –" in text


@pytest.mark.parametrize(("tracks", "wanted"), [
    ([5] * 9, 0), ([2, 5, 2], 1), ([5, 2, 5], 1), ([2, 4, 2, 4, 2], 0), ([2, 3, 4, 5, 4, 3, 2, 3, 4, 5], 2),
    ([1, 9, 7, 9, 5, 8, 1], 3), ([4, 5, 6, 7, 8, 9], 0), ([9, 7, 8, 6, 7, 5], 0)])
def test_turns_are_falls_after_rises_and_rises_after_falls(tracks, wanted):
    assert turns(np.array(tracks)) == turns(12 - np.array(tracks)) == wanted


def test_longest_is_of_one_track():
    sounding = np.zeros((9, 12), bool)
    sounding[2:6, 4] = sounding[5:, 7] = sounding[:3, 11] = True
    assert longest(sounding) == 4 and longest(sounding[:, :7]) == 4 and longest(sounding[:, :4]) == 0
