"""Events to a grid: the inverse of `events`, for every event list that some grid means.

Between an onset and the next one a track has few cells, and all that is said about the note stands there:
its length, its articulation, a change of dynamics, effects that switch on. Cells before the first onset
may carry dynamics and effects as well. Which tokens say a gain depends on the dynamics carried over from
the note before, so each track is a short dynamic programme over (note, dynamics) for the fewest tokens.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import LEGAL, REST, SHAPE, STEPS, TRACKS, Event
from eqdiff_jax.music.vocabulary import DEFAULT_DYNAMICS, LENGTHS, VELOCITIES, VOCABULARY

_FACTORS = {"": 1.0, "accent": 1.25, "ghost": 0.5}
# The 17 gains a grid can say, each with the (dynamics, articulation) pairs that say it.
GAINS: dict[float, tuple[tuple[str, str], ...]] = {}
for _name, _velocity in VELOCITIES.items():
    for _mark, _factor in _FACTORS.items():
        _gain = min(_velocity * _factor, 127.0) / 127.0
        GAINS[_gain] = (*GAINS.get(_gain, ()), (_name, _mark))


class _Saying(NamedTuple):
    """One way to say a note's length and articulation, and how far it is off."""

    mark: str  # "", "accent" or "ghost"
    tokens: tuple[str, ...]  # to stand after the onset, mark included
    error: float  # in sixteenths


def from_events(events: Iterable[Event]) -> np.ndarray:
    """A structure-free legal grid, int32 [12, 32], whose events are exactly the given ones.

    Succeeds for every list that is `events(g)` of some g, in any order. Raises InputError naming the track,
    the step and what cannot be said.
    """
    return _encode(events, exact=True)


def fit_events(events: Iterable[Event]) -> np.ndarray:
    """Like `from_events`, but tracks that cannot be said exactly get near lengths and gains, for few tokens.

    Onsets and sounds must still be such as a grid has; there, effects that find no free cell come a note later.
    """
    return _encode(events, exact=False)


def nearest_gain(gain: float) -> float:
    """The one of the 17 gains a grid can say that is nearest to the given one."""
    return min(GAINS, key=lambda known: abs(known - gain))


def _encode(events: Iterable[Event], exact: bool) -> np.ndarray:
    by_track: dict[int, list[Event]] = {}
    for event in events:
        by_track.setdefault(event.track, []).append(event)
    grid = np.full(SHAPE, REST, np.int32)
    for track, notes in by_track.items():
        if track not in range(len(TRACKS)):
            raise InputError(f"track {track}: tracks are 0 to {len(TRACKS) - 1}")
        notes.sort(key=lambda e: e.onset)
        try:
            grid[track] = _encode_row(track, notes, exact=True)
        except InputError:
            if exact:
                raise
            grid[track] = _encode_row(track, notes, exact=False)
    return grid


def _encode_row(track: int, notes: list[Event], exact: bool) -> np.ndarray:
    sounds = [_sound_token(track, note) for note in notes]
    ends = [*(note.onset for note in notes[1:]), STEPS]
    for note, end in zip(notes, ends, strict=True):
        if end <= note.onset:
            _refuse(note, "two notes start there: a track plays one at a time")
    switches = _effect_switches(notes, ends, exact)
    row = np.full(STEPS, REST, np.int32)
    chosen = _choose(notes, ends, switches, exact)
    velocity_before = DEFAULT_DYNAMICS
    for i, (note, (dynamics, saying)) in enumerate(zip(notes, chosen, strict=True)):
        row[note.onset] = sounds[i]
        state = [*([dynamics] if dynamics != velocity_before else []), *switches[i]]
        lead_in = min(len(state), note.onset) if i == 0 else 0
        row[note.onset - lead_in:note.onset] = [VOCABULARY.ids[t] for t in state[:lead_in]]
        after = [VOCABULARY.ids[t] for t in (*saying.tokens, *state[lead_in:])]
        row[note.onset + 1:note.onset + 1 + len(after)] = after
        velocity_before = dynamics
    return row


def _sound_token(track: int, note: Event) -> int:
    """Token of a note's sound, after checking that a grid can hold the note at all."""
    if note.onset not in range(STEPS):
        _refuse(note, f"onsets are whole steps 0 to {STEPS - 1}")
    if not note.length > 0:
        _refuse(note, f"a length of {note.length} sixteenths")
    if isinstance(note.sound, str):
        token = VOCABULARY.ids.get(note.sound, -1)
        known = token in VOCABULARY.ranges["drum"]
    else:
        known = note.sound == int(note.sound) and 36 <= note.sound <= 84
        token = VOCABULARY.pitch_token(int(note.sound)) if known else -1
    if not known or not LEGAL[track, token]:
        _refuse(note, f"{TRACKS[track]} has no sound {note.sound!r}")
    return token


def _effect_switches(notes: Sequence[Event], ends: Sequence[int], exact: bool) -> list[list[str]]:
    """Effects that each note switches on; inexact: those that find no cell wait for the next note."""
    on: set[str] = set()
    switches: list[list[str]] = []
    for i, (note, end) in enumerate(zip(notes, ends, strict=True)):
        unknown = set(note.effects) - set(VOCABULARY.groups["effect"])
        if unknown:
            _refuse(note, f"no effect is called {sorted(unknown)[0]!r}")
        if exact and on - set(note.effects):
            _refuse(note, f"{sorted(on - set(note.effects))[0]} is off again: effects stay on to the end")
        new = [e for e in VOCABULARY.groups["effect"] if e in note.effects and e not in on]
        room = end - note.onset - 1 + (note.onset if i == 0 else 0)
        switches.append(new if exact else new[:room])
        on |= set(switches[-1])
    return switches


def _choose(notes: Sequence[Event], ends: Sequence[int], switches: Sequence[Sequence[str]],
            exact: bool) -> list[tuple[str, _Saying]]:
    """The cheapest (dynamics, saying) per note: fewest tokens; inexact: weighed against the deviation."""
    paths: dict[str, tuple[float, tuple]] = {DEFAULT_DYNAMICS: (0.0, ())}
    for i, (note, end) in enumerate(zip(notes, ends, strict=True)):
        gap, before = end - note.onset, note.onset if i == 0 else 0
        reached: dict[str, tuple[float, tuple]] = {}
        for dynamics, saying, deviation in _options(note, gap, exact):
            for previous, (cost, path) in paths.items():
                state = (dynamics != previous) + len(switches[i])
                overflow = max(state - before, 0)
                if len(saying.tokens) + overflow > gap - 1:
                    continue
                total = cost + len(saying.tokens) + state + deviation
                if dynamics not in reached or total < reached[dynamics][0]:
                    reached[dynamics] = (total, (path, (dynamics, saying)))
        if not reached:
            _refuse(note, f"length {note.length:g}, gain {note.gain:.3f} and effects {list(note.effects)} "
                          f"do not fit into the {gap - 1} cells to the next onset")
        paths = reached
    _, path = min(paths.values(), key=lambda p: p[0])
    chosen = []
    while path:
        path, last = path
        chosen.append(last)
    return chosen[::-1]


def _options(note: Event, gap: int, exact: bool) -> list[tuple[str, _Saying, float]]:
    """Ways to say gain and length of one note: (dynamics, saying, deviation)."""
    pitched = not isinstance(note.sound, str)
    sayings = _sayings(float(note.length), gap, pitched)
    if exact:
        gain = nearest_gain(note.gain)
        if abs(gain - note.gain) > 1e-4:
            _refuse(note, f"gain {note.gain:.4f} is none of a grid's 17; the nearest is {gain:.4f}")
        sayings = [s for s in sayings if s.error == 0]
        if not sayings:
            _refuse(note, f"a length of {note.length:g} sixteenths, with {gap} to the next onset, "
                          "has no token")
        marks = GAINS[gain]
        return [(d, s, 0.0) for d, m in marks for s in sayings if s.mark == m]
    return [(d, s, 3 * s.error + 30 * abs(gain - note.gain))  # in tokens it is worth
            for gain, pairs in GAINS.items() for d, m in pairs for s in sayings if s.mark == m]


@lru_cache(maxsize=4096)
def _sayings(wanted: float, gap: int, pitched: bool) -> list[_Saying]:
    """For each mark and number of tokens, the saying nearest to the wanted length."""
    best: dict[tuple[str, int], _Saying] = {}
    for mark in ("", "accent", "ghost", *(("stac", "legato") if pitched else ())):
        for name, length in {"": 1, **LENGTHS}.items():
            said = {"stac": length / 2, "legato": gap}.get(mark, length)
            tokens = tuple(t for t in (name, mark) if t)
            saying = _Saying(mark if mark in _FACTORS else "", tokens, abs(min(said, gap) - wanted))
            key = (saying.mark, len(tokens))
            if len(tokens) < gap and (key not in best or saying.error < best[key].error):
                best[key] = saying
    return list(best.values())


def _refuse(note: Event, reason: str) -> None:
    name = TRACKS[note.track] if note.track in range(len(TRACKS)) else f"track {note.track}"
    raise InputError(f"{name}, step {note.onset}: {reason}")
