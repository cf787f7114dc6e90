"""The Conductor: legal grids, its four rules, its section machine, and the trends it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.errors import InputError
from eqdiff_jax.music import patterns
from eqdiff_jax.music.conductor import (
    GENRES,
    SECTIONS,
    conduct,
    initial_state,
    instrument_activations,
)
from eqdiff_jax.music.descriptors import DESCRIPTORS, descriptors
from eqdiff_jax.music.grid import LEGAL, SHAPE, TRACKS, events
from eqdiff_jax.music.sections import CLIMAX, GROOVE, INTRO, OUTRO, SHORTEST, SUCCESSORS
from eqdiff_jax.music.vocabulary import VOCABULARY
from eqdiff_jax.types import Dynamics

MIDDLE = Dynamics(
    curvature=0.5, curvature_rate=0.0, periodicity=0.6, internal_tempo=120.0, phase=0.5, tension=0.4,
    grounding=0.6, verticality=0.0, coherence=0.5, lr_pan=0.0, prediction_confidence=0.6, energy=0.5,
    transition_intensity=0.3, speed=0.6, acceleration=4.0)
LOW = np.array([0, -1, 0, 30, 0, 0, 0, -1, -1, -1, 0, 0, 0, 0, 0], float)
HIGH = np.array([1, 1, 1, 240, 0.999, 1, 1, 1, 1, 1, 1, 1, 1, 4, 40], float)


def random_dynamics(rng) -> Dynamics:
    return Dynamics(*(LOW + (HIGH - LOW) * rng.random(15)).tolist())


def in_section(section: int, seed: int):
    """A state that plays the section and must stay in it for this window."""
    return initial_state(seed)._replace(section=section, total=16, energy=0.5, tension=0.4, transition=0.3)


def is_legal(grid) -> bool:
    return bool(LEGAL[np.arange(12)[:, None], grid].all())


def test_patterns_are_whole_bars_of_known_symbols():
    drums = {"KICK": "x", "SNARE": "xr", "HH": "xo", "CLAP": "x", "FX": "xtp"}
    assert tuple(patterns.DRUMS) == GENRES == tuple(patterns.BASS)
    for kit in patterns.DRUMS.values():
        for track, symbols in drums.items():
            assert len(kit[track]) == (5 if track == "HH" else 4)
            assert set("".join(b for level in kit[track] for b in level)) <= {*symbols, "X", "g", "."}
    shared = [patterns.VOICES, patterns.PADS, patterns.AMBIENCES]
    for block in [*(k[t] for k in patterns.DRUMS.values() for t in drums), *patterns.BASS.values(),
                  *patterns.LEADS.values(), *patterns.STABS.values(), *patterns.ARPS.values(), *shared]:
        assert all(len(bar) == 16 for level in block for bar in level)
    assert all(len(c) == 4 for family in patterns.PROGRESSIONS.values() for level in family for c in level)


@pytest.mark.parametrize("genre", [None, *GENRES])
def test_every_grid_is_legal(genre):
    rng = np.random.default_rng(1)
    for section in range(len(SECTIONS)):
        for seed in range(12):
            corner = Dynamics(*np.where(rng.random(15) < 0.5, LOW, HIGH).tolist())
            for dynamics in (random_dynamics(rng), corner):
                state = in_section(section, seed)._replace(tonic=seed, bars=2 * int(rng.integers(6)))
                _, grid, probabilities = conduct(state, dynamics, genre)
                assert grid.shape == SHAPE
                assert grid.dtype == np.int32
                assert is_legal(grid)
                assert probabilities.shape == (6,)
                assert probabilities.dtype == np.float32
                assert probabilities.sum() == pytest.approx(1, abs=1e-5)
                assert (probabilities > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=15, max_size=15), st.integers(0, 2**31 - 1))
def test_any_finite_dynamics_are_bounded(values, seed):
    _, grid, _ = conduct(initial_state(seed), Dynamics(*values))
    assert is_legal(grid)


def test_same_inputs_same_grid_and_other_seeds_other_grids():
    first = conduct(initial_state(3), MIDDLE, "house")
    again = conduct(initial_state(3), MIDDLE, "house")
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    many = {conduct(in_section(GROOVE, seed), MIDDLE, "house")[1].tobytes() for seed in range(50)}
    assert len(many) == 50


def test_genres_differ():
    grids = {g: conduct(in_section(GROOVE, 0), MIDDLE._replace(energy=0.9), g)[1] for g in GENRES}
    assert len({g.tobytes() for g in grids.values()}) == len(GENRES)
    kick, on_beats = TRACKS.index("KICK"), {0, 4, 8, 12, 16, 20, 24, 28}
    house = {n.onset for n in events(grids["house"]) if n.track == kick}
    hiphop = {n.onset for n in events(grids["hiphop"]) if n.track == kick}
    assert on_beats <= house
    assert not on_beats <= hiphop


def test_an_unspecified_genre_stays_within_a_section():
    state, rng = initial_state(5), np.random.default_rng(0)
    styles = {}
    for _ in range(60):
        state, _, _ = conduct(state, random_dynamics(rng))
        styles.setdefault(state.visits, set()).add(state.style)
    assert all(len(s) == 1 for s in styles.values())
    drawn = {conduct(initial_state(seed), MIDDLE)[0].style for seed in range(80)}
    assert len(drawn) >= 6


def average(measure, dynamics: Dynamics, section: int = GROOVE, count: int = 40) -> float:
    return float(np.mean([measure(conduct(in_section(section, seed), dynamics, GENRES[seed % 8])[1])
                          for seed in range(count)]))


def track_events(grid, track: str):
    return [n for n in events(grid) if n.track == TRACKS.index(track)]


def loudness(track: str):
    """Mean gain of a track's ordinary notes (0 if it rests)."""
    return lambda grid: float(np.mean([n.gain for n in track_events(grid, track)] or [0.0]))


def test_rule_tension_raises_hat_density():
    def hats(tension: float) -> float:
        dynamics = MIDDLE._replace(tension=tension, energy=0.7)
        return average(lambda grid: len(track_events(grid, "HH")), dynamics)

    assert hats(0.71) > 1.2 * hats(0.69)
    assert hats(0.69) == pytest.approx(hats(0.65), rel=0.05)


def test_rule_high_energy_raises_bass_gain():
    assert (average(loudness("BASS"), MIDDLE._replace(energy=0.81), CLIMAX)
            > average(loudness("BASS"), MIDDLE._replace(energy=0.79), CLIMAX) + 0.08)


def test_rule_low_energy_raises_pad_gain():
    assert (average(loudness("PAD"), MIDDLE._replace(energy=0.29))
            > average(loudness("PAD"), MIDDLE._replace(energy=0.31)) + 0.08)


def test_rule_transition_raises_reverb():
    def wet(transition: float) -> float:
        dynamics = MIDDLE._replace(transition_intensity=transition)
        return average(lambda grid: float(np.mean(["reverb" in n.effects for n in events(grid)])), dynamics)

    levels = [wet(t) for t in (0.2, 0.5, 0.55, 0.8, 1.0)]
    assert levels[0] == levels[1] == 0
    assert levels[1] < levels[2] < levels[3] < levels[4]


@pytest.fixture(scope="module")
def sampled():
    """600 independent windows: dynamics [600, 15] and descriptors [600, 5]."""
    rng = np.random.default_rng(7)
    dynamics, measured = [], []
    for seed in range(600):
        now = random_dynamics(rng)
        state = in_section(int(rng.integers(6)), seed)
        _, grid, _ = conduct(state, now, GENRES[rng.integers(8)])
        dynamics.append(now)
        measured.append(descriptors(grid))
    return np.array(dynamics), np.array(measured)


def rank_correlation(a, b) -> float:
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize(("source", "descriptor"), [
    ("periodicity", "density"), ("curvature", "range"), ("tension", "dissonance"), ("grounding", "bass_weight"),
    ("prediction_confidence", "stability"), ("energy", "density")])
def test_each_scalar_moves_its_descriptor(sampled, source, descriptor):
    dynamics, measured = sampled
    a = dynamics[:, Dynamics._fields.index(source)]
    assert rank_correlation(a, measured[:, DESCRIPTORS.index(descriptor)]) > 0.4


def test_energy_brings_tracks_in():
    def playing(energy: float) -> float:
        return average(lambda g: len({n.track for n in events(g)}), MIDDLE._replace(energy=energy))

    counts = [playing(e) for e in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.all(np.diff(counts) > 0)


def run(dynamics, seed: int = 0) -> list[int]:
    state, sections = initial_state(seed), []
    for now in dynamics:
        state, _, _ = conduct(state, now, "house")
        sections.append(state.section)
    return sections


def changes(sections: list[int]) -> list[int]:
    return [i for i in range(1, len(sections)) if sections[i] != sections[i - 1]]


def motion(energy: float, tension: float, transition: float) -> Dynamics:
    return MIDDLE._replace(energy=energy, tension=tension, transition_intensity=transition)


def test_a_performance_goes_through_all_sections_in_order():
    arc = ([(0.1, 0.1, 0.1)] * 3 + [(0.45, 0.25, 0.2)] * 4 + [(0.7, 0.6, 0.65)] * 4 + [(0.95, 0.6, 0.4)] * 4
           + [(0.25, 0.35, 0.25)] * 4 + [(0.0, 0.0, 0.0)] * 5)
    sections = run([motion(*p) for p in arc])
    order = [s for i, s in enumerate(sections) if i == 0 or s != sections[i - 1]]
    assert order == list(range(6))


def test_only_allowed_transitions_and_no_short_sections():
    rng = np.random.default_rng(0)
    phrases = [random_dynamics(rng) if i % 4 else motion(0.0, 0.0, 0.0) for i in range(80)]
    sections = run([now for now in phrases for _ in range(6)])
    assert set(sections) == set(range(6))
    moved = changes(sections)
    assert all(sections[i] in SUCCESSORS[sections[i - 1]] for i in moved)
    assert min(np.diff(moved)) * 2 >= SHORTEST


def test_no_flapping_around_a_threshold():
    # A still tension and an energy that trembles about the point where Groove gives way to Build.
    rng = np.random.default_rng(0)
    for energy in np.linspace(0.4, 0.8, 9):
        trembling = [motion(energy + rng.uniform(-0.04, 0.04), 0.4, 0.4) for _ in range(12)]
        assert len(changes(run(trembling))) <= 3  # Intro, Groove, Build, Climax at most, never back


def test_stillness_does_not_start_the_music():
    assert set(run([motion(0.0, 0.0, 0.0)] * 30)) == {INTRO}
    ended = in_section(OUTRO, 0)._replace(energy=0.0, tension=0.0, transition=0.0, bars=30)
    assert conduct(ended, motion(0.0, 0.0, 0.0))[0].section == OUTRO


def test_two_short_windows_are_heard_as_one_long_one():
    """What is smoothed and counted goes by bars, whatever a window's length."""
    start, now = in_section(GROOVE, 0), motion(0.9, 0.7, 0.2)
    long, *_ = conduct(start, now, "house")
    half, *_ = conduct(start, now, "house", bars=1)
    short, *_ = conduct(half, now, "house", bars=1)
    for name in ("energy", "tension", "transition"):
        assert getattr(short, name) == pytest.approx(getattr(long, name))
        assert getattr(half, name) != pytest.approx(getattr(long, name))
    assert short.total == long.total == start.total + 2 and half.total == start.total + 1


def test_no_section_is_shorter_for_windows_of_one_bar():
    rng, state, sections = np.random.default_rng(0), initial_state(0), []
    for i in range(240):
        now = random_dynamics(rng) if i % 4 else motion(0.0, 0.0, 0.0)
        for _ in range(6):
            state, grid, _ = conduct(state, now, "house", bars=1)
            assert is_legal(grid) and grid.shape == SHAPE
            sections.append(state.section)
    moved = changes(sections)
    assert len(set(sections)) == 6 and all(sections[i] in SUCCESSORS[sections[i - 1]] for i in moved)
    assert min(np.diff(moved)) >= SHORTEST


def test_sections_use_structure_tokens():
    rng = np.random.default_rng(2)
    seen = np.zeros(len(VOCABULARY), int)
    state = initial_state(1)
    for i in range(500):
        state, grid, _ = conduct(state, random_dynamics(rng), GENRES[i // 20 % 8])
        seen += np.bincount(grid.ravel(), minlength=len(VOCABULARY))
    unused = {VOCABULARY.names[i] for i in np.flatnonzero(seen == 0)}
    assert unused <= {"16th"}  # the length a note has anyway


def test_instrument_activations():
    assert np.array_equal(instrument_activations(np.zeros(SHAPE, np.int32)), np.zeros(12, np.float32))
    grid = np.zeros(SHAPE, np.int32)
    grid[5, :3] = [VOCABULARY.ids[n] for n in ("C4", "legato", "ff")]
    grid[0, ::4] = VOCABULARY.ids["bd"]
    held = instrument_activations(grid)
    assert held.dtype == np.float32
    assert held[5] == pytest.approx(112 / 127)
    assert 0.1 < held[0] < 0.25
    assert held[[1, 2, 3, 4, 6, 7, 8, 9, 10, 11]].sum() == 0


def test_bad_input_is_named():
    with pytest.raises(InputError, match="unknown genre 'polka'"):
        conduct(initial_state(), MIDDLE, "polka")
    with pytest.raises(InputError, match=r"dynamics\.energy is nan"):
        conduct(initial_state(), MIDDLE._replace(energy=float("nan")))
    with pytest.raises(InputError, match="tonic"):
        initial_state(0, tonic=12)
