"""Live code against the real Strudel: exact, and moved by its parameters as promised."""

import re
from fractions import Fraction

import numpy as np
import pytest
from grids import grid_of

from eqdiff_jax.errors import InputError
from eqdiff_jax.live.code import HELPERS, MODES, ORBITS, live_code
from eqdiff_jax.music import TRACKS, events
from eqdiff_jax.music.conductor import conduct, initial_state
from eqdiff_jax.music.descriptors import of_events
from eqdiff_jax.music.grid import Event
from eqdiff_jax.music.modulation import PARAMETERS
from eqdiff_jax.music.strudel import EFFECTS, SYNTHS
from eqdiff_jax.types import Dynamics

EVENT_PARAMETERS = [name for name, row in PARAMETERS.items() if row.kind == "event"]
# Stands for the page: a parameter is a signal over a table.
PRELUDE = "const param = (name, d) => signal(() => ({{{table}}})[name] ?? d)\n"


def program(code: str, **table: float) -> str:
    return PRELUDE.format(table=", ".join(f"{name}: {value}" for name, value in table.items())) + code


def midi(note: str | float) -> float:
    if not isinstance(note, str):
        return note
    letter, octave = re.fullmatch(r"(\D+)(\d+)", note).groups()
    return 12 + 12 * int(octave) + ["c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b"].index(letter)


def heard(answer: dict) -> list[tuple]:
    """(orbit, onset, pitch or drum, length, gain, other controls) of each event, in sixteenths."""
    assert "error" not in answer, answer["error"]
    rows = []
    for onset, length, value in answer["events"]:
        gain, orbit = value.pop("gain"), value.pop("orbit")
        if value.get("clip") == 1:
            del value["clip"]  # as long as written
        sound = midi(value.pop("note")) if "note" in value else value.pop("s")
        rows.append((orbit, 16 * Fraction(onset), sound, 16 * Fraction(length), gain, value))
    return sorted(rows, key=lambda row: (row[:2], str(row[2])))


def expected(grid: np.ndarray) -> list[tuple]:
    rows = []
    for e in events(grid):
        controls = {EFFECTS[name][1]: float(EFFECTS[name][2]) for name in e.effects}
        if not isinstance(e.sound, str):
            controls["s"] = SYNTHS[TRACKS[e.track]]
        rows.append((e.track + 1, e.onset, e.sound, e.length, e.gain, controls))
    return rows


def assert_same(answer: dict, grid: np.ndarray, code: str) -> None:
    found, rows = heard(answer), expected(grid)
    assert [(*f[:4], f[5]) for f in found] == [(*r[:4], r[5]) for r in rows], code
    np.testing.assert_allclose([f[4] for f in found], [r[4] for r in rows], atol=1e-3, err_msg=code)


@pytest.fixture(scope="module")
def grids(random_grid) -> list[np.ndarray]:
    """Random legal grids, arbitrary arrays, and grids of the Conductor."""
    rng, state, played = np.random.default_rng(0), initial_state(3), []
    for _ in range(40):
        state, grid, _ = conduct(state, Dynamics(*rng.random(15)))
        played.append(grid)
    return [*(random_grid(rng) for _ in range(100)), *rng.integers(-3, 90, (20, 12, 32)), *played]


@pytest.mark.parametrize("mode", ["modulate", "diffusion"])  # threshold prints what diffusion does
def test_the_real_strudel_plays_exactly_the_grid(mode, grids, query_strudel):
    codes = [live_code(grid, mode) for grid in grids]
    for grid, code, answer in zip(grids, codes, query_strudel([program(code) for code in codes]), strict=True):
        assert_same(answer, grid, code)


def test_parameters_stand_in_modulate_only_and_the_tempo_nowhere(grids):
    for grid in grids[:50]:
        plain, moved = live_code(grid), live_code(grid, "modulate")
        assert plain == live_code(grid, "threshold")
        assert "param" not in plain and "setcpm" not in plain + moved and "setcps" not in plain + moved
        assert set(re.findall(r"param\('(\w+)', ([\d.]+)\)", moved)) <= {
            (name, f"{PARAMETERS[name].default:g}") for name in EVENT_PARAMETERS}
        assert len(re.findall("param", moved)) == len(re.findall(r"param\('", moved))  # " would be mini-notation
        labels = re.findall(r"^(\w+):.*\.orbit\((\d+)\)$", moved, re.MULTILINE)
        assert labels == [(name.lower(), str(ORBITS[name])) for name in TRACKS
                          if any(TRACKS[e.track] == name for e in events(grid))]
    helped = re.findall(r"param\('(\w+)'", HELPERS)
    assert {*helped, "length"} == set(EVENT_PARAMETERS)


def test_code_of_what_is_played_stays_below_four_kilobytes(grids):
    sizes = [len(live_code(grid, "modulate").encode()) for grid in grids[-40:]]
    assert max(sizes) < 4096
    assert np.median([len(live_code(grid, "diffusion").encode()) for grid in grids[-40:]]) < 1024


def test_silence_another_mode_and_another_shape():
    for mode in MODES:
        assert live_code(np.zeros((12, 32), int), mode) == "silence\n"
    with pytest.raises(InputError, match="unknown mode 'joint': choose one of threshold, modulate, diffusion"):
        live_code(np.zeros((12, 32), int), "joint")
    with pytest.raises(InputError):
        live_code(np.zeros((32, 12), int))


@pytest.fixture(scope="module")
def moved(grids, query_strudel):
    """moved(parameter, values, cycles) -> for each grid, what is heard at each value."""
    def ask(name: str, values, cycles: int = 2) -> list[list[list[tuple]]]:
        chosen = [*grids[:16], *grids[-16:]]
        programs = [{"code": program(live_code(grid, "modulate"), **{name: value}), "cycles": cycles}
                    for grid in chosen for value in values]
        rows = [heard(answer) for answer in query_strudel(programs)]
        return [rows[i:i + len(values)] for i in range(0, len(rows), len(values))]
    return ask


def of(rows: list[tuple], name: str) -> list[tuple]:
    """The rows of the tracks that a parameter acts on."""
    return [row for row in rows if TRACKS[row[0] - 1] in PARAMETERS[name].tracks]


def others(rows: list[tuple], name: str) -> list[tuple]:
    return [row for row in rows if TRACKS[row[0] - 1] not in PARAMETERS[name].tracks]


def as_events(rows: list[tuple]) -> list[Event]:
    return [Event(row[0] - 1, int(row[1]) % 32, float(row[3]), row[2], row[4], ()) for row in rows]


@pytest.mark.parametrize("name", EVENT_PARAMETERS)
def test_a_parameter_moves_its_own_tracks_only(name, moved):
    row = PARAMETERS[name]
    changed = 0
    for low, high in moved(name, (row.low, row.high)):
        assert others(low, name) == others(high, name)
        changed += of(low, name) != of(high, name)
    assert changed > 16  # of 32 grids


def test_density_adds_onsets_and_takes_none_away(moved):
    counts = []
    for rows in moved("density", (0.25, 0.5, 0.75, 1.0)):
        for thin, full in zip(rows, rows[1:], strict=False):
            kept = [row for row in full if row in thin]
            assert kept == thin
        # The first beat of each bar stays.
        assert of(rows[0], "density") == [r for r in of(rows[-1], "density") if r[1] % 16 == 0]
        counts.append([len(of(at, "density")) for at in rows])
    assert (np.diff(np.sum(counts, 0)) > 0).all()


def test_range_widens_every_line(moved):
    measured = []
    for rows in moved("range", (0.0, 0.4, 0.7, 1.0)):
        spans = []
        for at in rows:
            lines = {}
            for row in of(at, "range"):
                lines.setdefault(row[0], []).append(row[2])
            spans.append({orbit: max(line) - min(line) for orbit, line in lines.items()})
            assert [(*r[:2], r[3:]) for r in at] == [(*r[:2], r[3:]) for r in rows[0]]  # pitches only
        for narrow, wide in zip(spans, spans[1:], strict=False):
            assert all(wide[orbit] >= narrow[orbit] for orbit in narrow)
        counts = {row[0]: 0 for row in of(rows[0], "range")}
        for row in of(rows[0], "range"):
            counts[row[0]] += 1
        assert all(spans[-1][o] == spans[0][o] + 12 for o, count in counts.items() if count > 1)
        assert all(24 <= row[2] <= 84 for row in of(rows[-1], "range"))
        measured.append([of_events(as_events(at)).range for at in rows])
    assert (np.diff(np.mean(measured, 0)) > 0.01).all()


def test_dissonance_adds_rough_voices(moved):
    measured = []
    for rows in moved("dissonance", (0.0, 0.3, 0.6, 1.0)):
        assert all([row for row in rough if row in calm] == calm for calm, rough in zip(rows, rows[1:], strict=False))
        added = [row for row in rows[-1] if row not in rows[0]]
        written = {(row[0], row[1], row[2]) for row in of(rows[0], "dissonance")}
        assert all({(row[0], row[1], row[2] - 13), (row[0], row[1], row[2] + 11)} & written for row in added)
        assert len(added) >= 0.9 * len(written)  # at 1 almost every note has its neighbour
        measured.append([of_events(as_events(at)).dissonance for at in rows])
    assert (np.diff(np.mean(measured, 0)) > 0.01).all()


def test_stability_makes_bars_alike_and_variation_is_repeatable(moved):
    cycles = 6
    late, again = [], []
    for rows in moved("stability", (0.0, 0.5, 0.9, 1.0), cycles):
        for at in rows:
            assert abs(len(of(at, "stability")) - len(of(rows[-1], "stability"))) <= 12  # late over the last bar line
        written = {row[:3] for row in rows[-1]}
        late.append([sum(row[:3] not in written for row in of(at, "stability")) for at in rows])
        again.append(rows[1])
    assert (np.diff(np.sum(late, 0)) < 0).all()
    assert [at for at, in moved("stability", (0.5,), cycles)] == again
    pairs = [[{(r[0], r[1] % 32) for r in at if r[1] // 32 == k} for k in (1, 2)] for at in again]
    assert sum(a != b for a, b in pairs) > 16  # another variation each time


def test_unstable_bars_measure_less_stable(moved):
    measured = np.array([[of_events(as_events(at)).stability for at in rows]
                         for rows in moved("stability", (0.4, 0.7, 1.0))])
    assert (np.diff(measured[-16:].mean(0)) > 0.02).all()  # of the Conductor's grids; random ones have none to lose


def test_length_scales_pitched_notes(moved):
    for short, half, full in moved("length", (0.3, 0.5, 1.0)):
        for value, at in ((0.3, short), (0.5, half)):
            assert [row[:3] for row in at] == [row[:3] for row in full]
            for a, b in zip(of(at, "length"), of(full, "length"), strict=True):
                assert float(a[3]) == pytest.approx(value * float(b[3]))


def test_hats_are_struck_twice(moved):
    total = np.zeros(4)
    for rows in moved("hats", (0.0, 0.3, 0.7, 1.0)):
        assert all([r for r in more if r in few] == few for few, more in zip(rows, rows[1:], strict=False))
        written = of(rows[0], "hats")
        added = [row for row in rows[-1] if row not in rows[0]]
        assert [(row[0], row[1] - Fraction(1, 2), *row[2:]) for row in added] == written
        total += [len(of(at, "hats")) for at in rows]
    assert (np.diff(total) > 0).all()


def test_parameters_together_leave_a_playable_pattern(grids, query_strudel):
    rng = np.random.default_rng(5)
    codes = []
    for grid in grids[:60]:
        table = {name: round(rng.uniform(PARAMETERS[name].low, PARAMETERS[name].high), 3) for name in EVENT_PARAMETERS}
        codes.append(program(live_code(grid, "modulate"), **table))
    for answer in query_strudel(codes):
        for orbit, onset, sound, length, gain, _ in heard(answer):
            assert 0 <= onset < 32 and length > 0 and 0 < gain <= 1
            assert isinstance(sound, str) == (TRACKS[orbit - 1] not in SYNTHS)
            assert isinstance(sound, str) or 20 <= sound <= 100


def test_orbits_are_the_tracks_counted_from_one():
    assert list(ORBITS.values()) == list(range(1, 13))
    grid = grid_of(KICK="bd", AMB="C3 half")
    assert live_code(grid).splitlines() == [
        'kick: s("<[bd ~@15] ~>").gain(.63).orbit(1)', 'amb: note("<[c3 ~] ~>").s("sine").gain(.63).orbit(12)']
