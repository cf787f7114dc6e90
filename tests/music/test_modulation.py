"""Mappings from movement to parameters: bounded, finite, exact in time, and editable by hand."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.music import modulation
from eqdiff_jax.music.grid import TRACKS
from eqdiff_jax.music.modulation import (
    CURVES,
    DEFAULT_MAPPINGS,
    PARAMETERS,
    Mapping,
    format_mappings,
    initial_state,
    lipschitz,
    mapping_table,
    parse_mappings,
    place,
    step,
    value,
)
from eqdiff_jax.types import Dynamics

WEB = Path(__file__).parents[2] / "web"
REST = Dynamics(*(row.rest for row in TABLE))
anything = st.floats(allow_nan=True, allow_infinity=True)
inside = st.builds(Dynamics, *(st.floats(row.low, row.high) for row in TABLE))


@st.composite
def mappings(draw):
    """Any mapping that a file may say."""
    parameter = draw(st.sampled_from(sorted(PARAMETERS)))
    row = PARAMETERS[parameter]
    ends = st.floats(row.low, row.high)
    return Mapping(draw(st.sampled_from(Dynamics._fields)), parameter, draw(ends), draw(ends),
                   draw(st.sampled_from(sorted(CURVES))), draw(st.floats(0.0, modulation.MAX_SMOOTHING)))


tables = st.lists(mappings(), max_size=16, unique_by=lambda m: m.parameter).map(tuple)


def test_sixteen_mappings_use_all_fifteen_scalars_and_every_parameter():
    assert len(DEFAULT_MAPPINGS) == 16
    assert {m.source for m in DEFAULT_MAPPINGS} == set(Dynamics._fields)
    assert sorted(m.parameter for m in DEFAULT_MAPPINGS) == sorted(PARAMETERS)
    said = {(m.source, m.parameter) for m in DEFAULT_MAPPINGS}
    assert {("periodicity", "density"), ("curvature", "range"), ("tension", "dissonance"), ("grounding", "bass_gain"),
            ("prediction_confidence", "stability")} <= said


def test_parameters_are_consistent():
    moved = []
    for name, row in PARAMETERS.items():
        assert row.low <= row.default <= row.high and row.low < row.high and row.text, name
        assert row.kind in ("event", "bus") and set(row.tracks) <= set(TRACKS)
        assert row.control in (("",) if row.kind == "event" else ("gain", "pan", "lpf", "hpf", "room"))
        assert row.kind == "bus" or row.tracks
        moved += [(track, row.control) for track in row.tracks or ("master",) if row.kind == "bus"]
    assert len(moved) == len(set(moved))  # one parameter per control of a bus


@settings(deadline=None)
@given(st.lists(st.tuples(st.builds(Dynamics, *[anything] * 15), anything), min_size=1, max_size=8), tables)
def test_parameters_are_finite_and_in_range_whatever_comes(steps, table):
    state = initial_state(table)
    for dynamics, dt in steps:
        state, values = step(state, dynamics, dt, table)
        assert list(values) == [m.parameter for m in table]
        assert all(PARAMETERS[name].low <= x <= PARAMETERS[name].high for name, x in values.items())
        assert all(u is None or 0.0 <= u <= 1.0 for u in state.places)


@settings(deadline=None)
@given(mappings(), st.data())
def test_a_mapping_is_monotone_within_its_ends_and_lipschitz(mapping, data):
    row = getattr(TABLE, mapping.source)
    a, b = (data.draw(st.floats(row.low, row.high)) for _ in range(2))
    x, y = (value(mapping, place(mapping.source, s)) for s in (a, b))
    low, high = sorted((mapping.low, mapping.high))
    slack = 1e-9 * max(1.0, abs(high), abs(low))
    assert low - slack <= x <= high + slack
    assert abs(x - y) <= lipschitz(mapping) * abs(a - b) * (1 + 1e-9) + slack
    if mapping.source != "phase":
        assert (x - y) * (a - b) * (mapping.high - mapping.low) >= -slack * abs(a - b) * abs(mapping.high - mapping.low)


@pytest.mark.parametrize("name", sorted(CURVES))
def test_curves_go_from_0_to_1_and_their_slope_is_the_largest(name):
    u = np.linspace(0.0, 1.0, 100_001)
    y = np.array([CURVES[name].at(x) for x in u])
    assert y[0] == 0.0 and y[-1] == pytest.approx(1.0, abs=1e-12) and (np.diff(y) > 0).all()
    assert np.max(np.diff(y) / np.diff(u)) == pytest.approx(CURVES[name].slope, rel=2e-3)
    assert np.max(np.diff(y) / np.diff(u)) <= CURVES[name].slope * (1 + 1e-6)


def test_the_constants_of_the_defaults_are_reached():
    """No constant is idly large: the steepest place of each mapping comes within 1 % of it."""
    for mapping in DEFAULT_MAPPINGS:
        row = getattr(TABLE, mapping.source)
        s = np.linspace(row.low, row.high, 20_001)
        values = np.array([value(mapping, place(mapping.source, x)) for x in s])
        assert np.max(np.abs(np.diff(values)) / np.diff(s)) == pytest.approx(lipschitz(mapping), rel=0.01), mapping


@settings(deadline=None)
@given(inside, inside, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_two_steps_are_one_of_both_times(start, now, first, second):
    state, _ = step(initial_state(), start, 0.0)
    half, _ = step(state, now, first)
    twice, _ = step(half, now, second)
    once, _ = step(state, now, first + second)
    np.testing.assert_allclose(twice.places, once.places, atol=1e-12)


def test_smoothing_is_a_one_pole_of_its_time_constant():
    mapping = (Mapping("energy", "room", 0.0, 0.8, "linear", 2.0),)
    state, values = step(initial_state(mapping), REST, 1.0, mapping)
    assert values == {"room": 0.0}  # the first step is where the movement is
    for _ in range(120):
        state, values = step(state, REST._replace(energy=1.0), 1 / 60, mapping)
    assert values["room"] == pytest.approx(0.8 * (1 - math.exp(-1.0)), rel=1e-9)
    quick = (mapping[0]._replace(smoothing=0.0),)
    state, _ = step(initial_state(quick), REST, 0.1, quick)
    assert step(state, REST._replace(energy=1.0), 0.0, quick)[1] == {"room": 0.8}


def test_what_is_not_finite_counts_as_unchanged():
    mapping = (Mapping("energy", "room", 0.0, 0.8, "linear", 0.0), Mapping("speed", "pan", -0.5, 0.5, "linear", 0.0))
    lost = REST._replace(energy=math.nan, speed=1.0)
    state, values = step(initial_state(mapping), lost, 0.1, mapping)
    assert values == {"room": PARAMETERS["room"].default, "pan": -0.25}
    state, _ = step(state, REST._replace(energy=0.5), 0.1, mapping)
    assert step(state, lost, 0.1, mapping)[1] == {"room": 0.4, "pan": -0.25}
    assert step(state, REST._replace(energy=0.5), math.nan, mapping)[1]["room"] == 0.4


def test_the_phase_has_no_jump_at_its_wrap():
    for mapping in DEFAULT_MAPPINGS:
        if mapping.source == "phase":
            ends = [value(mapping, place("phase", p)) for p in (0.0, 1e-9, 1 - 1e-9, 1.0, 0.5)]
            assert ends[:4] == pytest.approx([mapping.low] * 4) and ends[4] == mapping.high


def test_a_body_at_rest_asks_for_a_quiet_and_tidy_music():
    _, values = step(initial_state(), REST, 0.0)
    assert values["stability"] == 1.0 and values["dissonance"] == 0.0 and values["room"] == 0.0 and values["pan"] == 0.0
    assert values["density"] == 0.5 and values["master_gain"] < 0.7 and values["bass_gain"] == 1.25


@pytest.mark.parametrize("mapping", [m for m in DEFAULT_MAPPINGS if PARAMETERS[m.parameter].control in ("gain", "lpf")],
                         ids=lambda m: m.parameter)
@pytest.mark.parametrize("rises", [True, False])
def test_loudness_and_brightness_answer_a_step_within_three_tenths_of_a_second(mapping, rises):
    row = getattr(TABLE, mapping.source)
    ends = (0.0, 0.5) if mapping.source == "phase" else (row.low, row.high)
    before, after = ends if rises else ends[::-1]
    state, values = step(initial_state(), REST._replace(**{mapping.source: before}), 0.0)
    begun = values[mapping.parameter]
    for _ in range(18):  # at 60 a second
        state, values = step(state, REST._replace(**{mapping.source: after}), 1 / 60)
    _, settled = step(state, REST._replace(**{mapping.source: after}), 60.0)
    whole = settled[mapping.parameter] - begun
    assert abs(whole) == pytest.approx(abs(mapping.high - mapping.low))
    assert (values[mapping.parameter] - begun) / whole >= 0.9


def passed(cutoff, power, frequencies, rate):
    """Share of a power spectrum that Web Audio's lowpass lets through; its Q is in dB, as web/mixer.js sets it."""
    w0 = 2 * np.pi * cutoff / rate
    alpha, z = np.sin(w0) / (2 * 10 ** (math.sqrt(0.5) / 20)), np.exp(-2j * np.pi * frequencies / rate)
    gain = (1 - np.cos(w0)) / 2 * (1 + z) ** 2 / (1 + alpha - 2 * np.cos(w0) * z + (1 - alpha) * z**2)
    return float((power * np.abs(gain) ** 2).sum() / power.sum())


def test_a_body_at_rest_still_lets_the_hats_be_heard(need):
    """What the buses leave of a hi-hat, of the page's own, is within 20 dB of all of it."""
    node = shutil.which("node")
    need(node, "no node: install Node.js 20 or newer")
    show = ("import('./drums.js').then(({ DRUMS }) => { const hat = DRUMS.hh(); console.log(JSON.stringify("
            "Array.from({ length: 8192 }, (_, i) => hat(i / 44100)))) })")
    run = subprocess.run([node, "-e", show], cwd=WEB, capture_output=True, text=True, check=True)
    power = np.abs(np.fft.rfft(json.loads(run.stdout))) ** 2
    frequencies = np.fft.rfftfreq(8192, 1 / 44100)
    _, values = step(initial_state(), REST, 0.0)
    moved = {name: values[name] for name, row in PARAMETERS.items()
             if row.kind == "bus" and "HH" in (row.tracks or ("HH",)) and row.control in ("gain", "lpf", "hpf")}
    assert set(moved) == {"drums_gain", "master_gain", "master_lpf"}
    gain = moved["drums_gain"] * moved["master_gain"]
    assert gain > 0.3
    through = passed(moved["master_lpf"], power, frequencies, 44100)
    assert passed(700.0, power, frequencies, 44100) < 0.001  # as it once was at rest: no hat at all
    assert gain**2 * through > 0.01


# The file.

@settings(deadline=None)
@given(tables)
def test_a_printed_file_is_read_back(table):
    assert parse_mappings(format_mappings(table)) == table


def test_the_module_prints_the_defaults(tmp_path):
    run = subprocess.run([sys.executable, "-m", "eqdiff_jax.music.modulation"], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr
    (tmp_path / "mappings.toml").write_text(run.stdout)
    assert modulation.load(tmp_path / "mappings.toml") == DEFAULT_MAPPINGS
    assert all(name in run.stdout for name in (*Dynamics._fields, *CURVES, *PARAMETERS))


def test_what_a_line_leaves_out_has_a_default():
    assert parse_mappings('pan = { source = "lr_pan" }') == (Mapping("lr_pan", "pan", -0.8, 0.8, "linear", 0.2),)
    assert parse_mappings('pan = { source = "lr_pan", low = 0, high = -0.5, curve = "s" }') == (
        Mapping("lr_pan", "pan", 0.0, -0.5, "s", 0.2),)
    assert parse_mappings("# nothing moves\n") == ()


@pytest.mark.parametrize(("text", "words"), [
    ('pann = { source = "lr_pan" }', "parameter 'pann' is unknown; did you mean pan?"),
    ('xyz = { source = "lr_pan" }', "parameter 'xyz' is unknown; choose one of density, range"),
    ('pan = { source = "energie" }', "mine.toml, pan: source 'energie' is unknown; did you mean energy?"),
    ('pan = { source = "lr_pan", curve = "cubic" }', "curve 'cubic' is unknown; choose one of linear, exp, log, s"),
    ('pan = { source = "lr_pan", curve = 3 }', "curve 3 is unknown"),
    ('pan = { source = "lr_pan", smooth = 3 }', "key 'smooth' is unknown; did you mean smoothing?"),
    ('pan = { low = 0.1 }', "pan: says no source"),
    ('pan = 0.3', "pan: 0.3 is no mapping"),
    ('pan = { source = "lr_pan", low = -2 }', "pan: low is -2; write a number from -0.8 to 0.8"),
    ('pan = { source = "lr_pan", high = nan }', "pan: high is nan; write a number from -0.8 to 0.8"),
    ('pan = { source = "lr_pan", high = true }', "pan: high is True; write a number"),
    ('pan = { source = "lr_pan", high = "loud" }', "pan: high is 'loud'; write a number"),
    ('pan = { source = "lr_pan", smoothing = -1 }', "pan: smoothing is -1; write a number from 0 to 60"),
    ('pan = { source = "lr_pan" }\npan = { source = "energy" }', "Cannot overwrite a value .*line 2"),
    ('\n\npan = { source = lr_pan }', r"mine.toml: not TOML, .*line 3"),
    ("[[pan]]", r"pan: \[\{\}\] is no mapping"),
])
def test_a_slip_is_named_with_its_place_and_the_fix(text, words):
    with pytest.raises(InputError, match=words.replace("?", r"\?")) as error:
        parse_mappings(text, "mine.toml")
    assert "mine.toml" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    for name, words in (("none.toml", "cannot be read"), (".", "cannot be read"), ("odd.toml", "not UTF-8")):
        with pytest.raises(InputError, match=words):
            modulation.load(tmp_path / name)


def test_the_page_moves_the_same_controls_of_the_same_tracks(need):
    node = shutil.which("node")
    need(node, "no node: install Node.js 20 or newer")
    show = "import('./mixer.js').then(({ ROUTES }) => console.log(JSON.stringify(ROUTES)))"
    run = subprocess.run([node, "-e", show], cwd=WEB, capture_output=True, text=True, check=True)
    routes = {name: (control, set(tracks)) for name, (control, tracks) in json.loads(run.stdout).items()}
    assert routes == {name: (row.control, set(row.tracks)) for name, row in PARAMETERS.items() if row.kind == "bus"}


def test_the_table_has_a_line_per_mapping():
    lines = mapping_table().splitlines()
    assert len(lines) == 2 + len(DEFAULT_MAPPINGS)
    assert all(f"| {m.source} | `{m.parameter}` |" in line for m, line in zip(DEFAULT_MAPPINGS, lines[2:], strict=True))
