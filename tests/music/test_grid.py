"""The reading rule by hand-written cases and by properties; encoding as its inverse."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.encode import GAINS, fit_events, from_events
from eqdiff_jax.music.grid import FILLS, LEGAL, TRACKS, Event, as_grid, events, expand, legalise
from eqdiff_jax.music.vocabulary import VOCABULARY

IDS = VOCABULARY.ids
STRUCTURE = list(VOCABULARY.ranges["structure"])
MF = 80 / 127


def row_of(text: str) -> list[int]:
    """32 tokens from names; `x*3` is three times x; rests to the end."""
    tokens = []
    for word in text.split():
        name, _, times = word.partition("*")
        tokens += [IDS[name]] * int(times or 1)
    return tokens + [0] * (32 - len(tokens))


def grid_of(**rows: str) -> np.ndarray:
    grid = np.zeros((12, 32), np.int32)
    for track, text in rows.items():
        grid[TRACKS.index(track)] = row_of(text)
    return grid


def notes(**rows: str) -> list[tuple]:
    """(onset, length, sound) of a grid's events."""
    return [(e.onset, e.length, e.sound) for e in events(grid_of(**rows))]


def gains(**rows: str) -> list[float]:
    """Velocities of a grid's events."""
    return [round(e.gain * 127, 6) for e in events(grid_of(**rows))]


def effects(**rows: str) -> list[tuple]:
    return [e.effects for e in events(grid_of(**rows))]


@pytest.mark.parametrize(("row", "expected"), [
    ("C3", [(0, 1, 48)]),
    ("C3 8th", [(0, 2, 48)]),
    ("C3 ~*5 half", [(0, 8, 48)]),  # a duration may stand anywhere before the next onset
    ("C3 half quarter", [(0, 4, 48)]),  # the last one counts
    ("C3 half ~ D3", [(0, 3, 48), (3, 1, 50)]),  # the next onset cuts
    ("~*14 C3 half", [(14, 8, 48)]),  # over the bar line
    ("~*30 C3 half", [(30, 2, 48)]),  # the grid's end cuts
    ("quarter ~ C3", [(2, 1, 48)]),  # a duration before any onset says nothing
    ("C3 stac", [(0, 0.5, 48)]),
    ("C3 dotted-8th stac", [(0, 1.5, 48)]),
    ("C3 stac dotted-8th", [(0, 1.5, 48)]),  # in either order
    ("C3 half stac D3", [(0, 3, 48), (3, 1, 50)]),
    ("C3 legato ~*10 D3", [(0, 12, 48), (12, 1, 50)]),
    ("C3 legato", [(0, 32, 48)]),
    ("C3 legato 8th", [(0, 32, 48)]),
    ("C3 legato stac", [(0, 0.5, 48)]),  # the last articulation counts
    ("C3 stac legato ~ D3 stac", [(0, 4, 48), (4, 0.5, 50)]),
    ("C3 legato accent", [(0, 1, 48)]),  # and it is the only one
])
def test_lengths(row, expected):
    assert notes(BASS=row) == expected


@pytest.mark.parametrize(("row", "expected"), [
    ("C3", [80]),
    ("C3 pp", [33]),  # reaches back to the latest onset
    ("C3 D3 pp E3", [80, 33, 33]),  # and no further
    ("ff C3 D3", [112, 112]),
    ("C3 p ~ f D3", [96, 96]),
    ("C3 accent D3", [100, 80]),
    ("ff C3 accent", [127]),  # at most 127
    ("pp C3 ghost D3", [16.5, 33]),
    ("C3 accent ghost", [40]),
    ("C3 ghost accent mp", [80]),
    ("accent C3", [80]),  # before any onset an articulation applies to nothing
])
def test_velocities(row, expected):
    assert gains(BASS=row) == expected


@pytest.mark.parametrize(("row", "expected"), [
    ("C3 D3 lpf E3", [(), ("lpf",), ("lpf",)]),
    ("lpf C3", [("lpf",)]),
    ("C3 dist ~ reverb D3 hpf", [("reverb", "dist"), ("hpf", "reverb", "dist")]),
    ("C3 lpf lpf", [("lpf",)]),
])
def test_effects_reach_back_to_the_latest_onset_and_stay(row, expected):
    assert effects(BASS=row) == expected


@pytest.mark.parametrize(("row", "same_as"), [
    ("bd ~*3 bd*4 repeat", "bd ~*3 bd*4 bd ~*3 bd*4"),
    ("bd ~*3 bd*4 ~*2 repeat", "bd ~*3 bd*4 ~*4 bd*4"),  # from s on: the cells 8 steps earlier
    ("repeat bd*7 bd", "~*8 bd"),  # rest in the first half-bar, and what it covers is gone
    ("~*3 repeat", "~"),
    ("bd ~*7 repeat ~*7 repeat", "bd ~*7 bd ~*7 bd"),  # of a repeat
    ("fill ~*7 repeat", "bd ~*2 bd ~*2 bd ~ bd ~*2 bd ~*2 bd ~"),
    ("~*3 fill", "~*3 bd ~*2 bd ~"),  # aligned with the half-bar
    ("~*4 bd break bd*10 bd", "~*4 bd ~*11 bd"),
    ("~*4 break repeat fill bd*9 repeat", "~"),
    ("bd ~*7 ~*8 repeat ~*7 repeat", "bd"),
])
def test_structure(row, same_as):
    expanded = expand(grid_of(KICK=row))
    assert expanded[0].tolist() == row_of(same_as)
    assert events(grid_of(KICK=row)) == events(expanded)


@pytest.mark.parametrize(("row", "expected"), [
    ("C3 half ~*2 break", [(0, 4, 48)]),
    ("C3 half ~ break", [(0, 3, 48)]),
    ("C3 legato ~*2 break", [(0, 4, 48)]),
    ("C3 legato break", [(0, 2, 48)]),
    ("C3 8th ~*4 break", [(0, 2, 48)]),  # it had ended already
    ("C3 half stac break", [(0, 3, 48)]),  # stac says 4: cut to 3
    ("C3 half ~*3 break", [(0, 4, 48)]),  # 5 has no token: the longest that has one and ends by the break
    ("C3 legato ~*10 break", [(0, 8, 48)]),
    ("C3 break D3", [(0, 1, 48)]),
    ("C3 legato ~*2 break ~*12 D3", [(0, 4, 48), (17, 1, 50)]),
    ("~*12 C3 legato ~ break", [(12, 3, 48)]),
])
def test_a_break_cuts_held_notes(row, expected):
    assert notes(BASS=row) == expected


def test_tokens_outside_the_table_read_as_rest():
    grid = np.full((12, 32), 81)
    grid[0, 0] = IDS["sd"]  # KICK
    grid[4, 0] = IDS["C6"]  # BASS ends at C4
    grid[1, :3] = [-1, 2**31 - 1, IDS["sd"]]
    grid[0, 1] = IDS["stac"]
    assert [(e.track, e.onset) for e in events(grid)] == [(1, 2)]
    assert not legalise(grid)[0].any()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_every_integer_type_is_read(dtype):
    grid = np.zeros((12, 32), dtype)
    grid[0, 0] = IDS["bd"]
    grid[1] = np.iinfo(dtype).max
    assert [(e.track, e.onset) for e in events(grid)] == [(0, 0)]
    if np.iinfo(dtype).bits == 64:
        grid[1] = 2**32 + IDS["sd"]  # must not wrap round to a token
        assert [(e.track, e.onset) for e in events(grid)] == [(0, 0)]


@pytest.mark.parametrize("bad", [np.zeros((11, 32), int), np.zeros((12, 32)), np.zeros((1, 12, 32), int), "grid"])
def test_what_is_no_grid_is_refused_in_one_line(bad):
    with pytest.raises(InputError) as error:
        as_grid(bad)
    assert "\n" not in str(error.value)


def test_every_fill_is_legal_and_plays():
    for row, fill in enumerate(FILLS):
        assert LEGAL[row, fill].all()
        assert np.isin(fill, [*VOCABULARY.ranges["pitch"], *VOCABULARY.ranges["drum"]]).any()


GRIDS = arrays.arrays(np.int32, (12, 32), elements=st.integers(-2, 83))


@given(GRIDS)
@settings(max_examples=100, deadline=None)
def test_expansion_is_legal_structure_free_idempotent_and_plays_the_same(grid):
    expanded = expand(grid)
    assert LEGAL[np.arange(12)[:, None], expanded].all()
    assert not np.isin(expanded, STRUCTURE).any()
    np.testing.assert_array_equal(expand(expanded), expanded)
    assert events(grid) == events(expanded) == events(legalise(grid))


@given(GRIDS)
@settings(max_examples=100, deadline=None)
def test_events_are_within_the_grid_and_one_at_a_time(grid):
    found = events(grid)
    assert found == sorted(found, key=lambda e: (e.track, e.onset))
    for event, after in zip(found, [*found, None][1:], strict=True):
        end = after.onset if after and after.track == event.track else 32
        assert 0 < event.length <= end - event.onset
        assert float(2 * event.length).is_integer()
        assert event.gain in GAINS
        if after and after.track == event.track:
            assert set(event.effects) <= set(after.effects)


@given(GRIDS)
@settings(max_examples=100, deadline=None)
def test_encoding_gives_a_legal_structure_free_grid_with_the_same_events(grid):
    encoded = from_events(events(grid))
    assert events(encoded) == events(grid)
    assert LEGAL[np.arange(12)[:, None], encoded].all()
    assert not np.isin(encoded, STRUCTURE).any()
    assert np.count_nonzero(encoded) <= np.count_nonzero(expand(grid))  # it never needs more tokens
    np.testing.assert_array_equal(encoded, fit_events(reversed(events(grid))))


def note(onset=0, length=1.0, sound=48, gain=MF, on=(), track=4) -> Event:
    return Event(track, onset, length, sound, gain, tuple(on))


@pytest.mark.parametrize(("given_events", "words"), [
    ([note(onset=3, length=5.0)], "BASS, step 3: a length of 5"),
    ([note(gain=0.7)], "BASS, step 0: gain 0.7"),
    ([note(onset=2, on=["lpf"]), note(onset=4)], "BASS, step 4: lpf is off"),
    ([note(), note()], "two notes"),
    ([note(), note(onset=1, on=["lpf"]), note(onset=2)], "BASS, step 2: lpf is off"),
    ([note(gain=64 / 127), note(onset=1)], "BASS, step 0: length 1"),  # no cell to say mp in
    ([note(sound=84)], "BASS has no sound 84"),
    ([note(sound="bd")], "BASS has no sound 'bd'"),
    ([note(sound="gong", track=0)], "KICK has no sound 'gong'"),
    ([note(onset=32)], "step 32"),
    ([note(length=0.0)], "length of 0"),
    ([note(on=["wah"])], "'wah'"),
    ([note(track=12)], "track 12"),
    ([note(sound="bd", track=0, length=0.5)], "KICK, step 0: a length of 0.5"),  # drums have no stac
])
def test_what_no_grid_can_say_is_refused_by_name(given_events, words):
    with pytest.raises(InputError) as error:
        from_events(given_events)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_encoding_is_natural():
    row = from_events([note(onset=4, length=4.0, gain=96 / 127), note(onset=8, gain=96 / 127),
                       note(onset=12, gain=120 / 127, on=["lpf"])])[4]
    names = [VOCABULARY.names[t] for t in row if t]
    assert names == ["f", "C3", "quarter", "C3", "C3", "accent", "lpf"]


def test_fitting_takes_what_is_near():
    fitted = events(fit_events([note(length=5.0, gain=0.62), note(onset=8, length=0.7, on=["lpf"]),
                                note(onset=9, on=["lpf"]), note(onset=11, on=["lpf"])]))
    assert [(e.onset, e.length) for e in fitted] == [(0, 4.0), (8, 1.0), (9, 1.0), (11, 1.0)]
    assert [e.effects for e in fitted] == [(), (), ("lpf",), ("lpf",)]  # no cell between steps 8 and 9
    assert {e.gain for e in fitted} == {MF}
