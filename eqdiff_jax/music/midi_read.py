"""Notes of any MIDI file, given to the twelve tracks and quantised."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import mido
import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.encode import fit_events, nearest_gain
from eqdiff_jax.music.grid import LEGAL, SHAPE, STEPS, TRACKS, Event
from eqdiff_jax.music.midi_tables import (
    DRUM_CHANNEL,
    DRUM_OF_NOTE,
    DRUM_ROWS,
    DRUM_TRACKS,
    EFFECT_CONTROLS,
    LOW,
    MAKER,
    ROLES,
)
from eqdiff_jax.music.vocabulary import VOCABULARY

_MOST_STEPS = 1 << 20  # about two days at 120 bpm: longer is a broken file


class Note(NamedTuple):
    """A note of a MIDI file with the grid's track it belongs to."""

    row: int
    start: float  # in sixteenths from the file's start
    length: float  # in sixteenths
    pitch: int
    velocity: int
    effects: tuple[str, ...]


class _Part(NamedTuple):
    """What sounds alike: one track, channel and program."""

    track: int
    channel: int
    program: int


def read_notes(midi: mido.MidiFile) -> tuple[list[Note], float]:
    """All notes, and the file's length in sixteenths. Raises InputError for a file without musical time."""
    if midi.ticks_per_beat <= 0:
        raise InputError("the MIDI file counts time in film frames: only files in ticks per beat are read")
    unit = midi.ticks_per_beat / 4
    own = bool(midi.tracks) and midi.tracks[0].name == MAKER
    raw = [(part, note) for index, track in enumerate(midi.tracks)
           for part, note in _track_notes(index, track, unit, own)]
    length = max([sum(m.time for m in track) / unit for track in midi.tracks], default=0.0)
    if length > _MOST_STEPS:
        raise InputError(f"the MIDI file claims to last {length / 16:.0f} bars: it is broken")
    rows = _rows_of_parts(raw, [track.name for track in midi.tracks])
    notes = []
    for part, note in raw:
        if part.channel == DRUM_CHANNEL:
            drum = DRUM_OF_NOTE.get(note.pitch, "perc")
            note = note._replace(row=TRACKS.index(DRUM_ROWS[drum]), length=note.length if own else 1.0)
        else:
            note = note._replace(row=rows[part])
        notes.append(note)
    return notes, length


def _track_notes(index: int, track: Iterable, unit: float, own: bool) -> list[tuple[_Part, Note]]:
    """Notes of one track of the file, by part; only our own files speak of effects."""
    program: Counter[int] = Counter()  # by channel
    on: dict[int, set[str]] = defaultdict(set)
    open_notes: dict[tuple[int, int], list[tuple[_Part, Note]]] = defaultdict(list)
    done: list[tuple[_Part, Note]] = []
    effect_of = {control: (name, off) for name, (control, off, _) in EFFECT_CONTROLS.items()}
    now = 0

    def close(key: tuple[int, int]) -> None:
        if open_notes[key]:
            part, note = open_notes[key].pop(0)
            done.append((part, note._replace(length=now / unit - note.start)))

    for message in track:
        now += message.time
        if message.type == "program_change":
            program[message.channel] = message.program
        elif message.type == "control_change" and own and message.control in effect_of:
            name, off = effect_of[message.control]
            (on[message.channel].discard if message.value == off else on[message.channel].add)(name)
        elif message.type == "note_on" and message.velocity > 0:
            part = _Part(index, message.channel, program[message.channel])
            effects = tuple(e for e in VOCABULARY.groups["effect"] if e in on[message.channel])
            open_notes[message.channel, message.note].append(
                (part, Note(0, now / unit, 0.0, message.note, message.velocity, effects)))
        elif message.type in ("note_on", "note_off"):
            close((message.channel, message.note))
    for key, waiting in open_notes.items():
        for _ in list(waiting):
            close(key)
    return done


def _rows_of_parts(raw: Sequence[tuple[_Part, Note]], names: Sequence[str]) -> dict[_Part, int]:
    """The grid's track of each pitched part: by its name if that is one, else by program and register."""
    pitches: dict[_Part, list[int]] = defaultdict(list)
    for part, note in raw:
        if part.channel != DRUM_CHANNEL:
            pitches[part].append(note.pitch)
    rows: dict[_Part, int] = {}
    taken: set[str] = set()
    pitched = set(TRACKS) - set(DRUM_TRACKS)
    for part in sorted(pitches, key=lambda p: (names[p.track].strip().upper() not in pitched, -len(pitches[p]))):
        name = names[part.track].strip().upper()
        wishes = next(rows for below, rows in ROLES if part.program < below)
        if median(pitches[part]) <= LOW:
            wishes = ("BASS", *wishes)
        if name not in pitched:
            name = next((w for w in wishes if w not in taken), wishes[0])
        taken.add(name)
        rows[part] = TRACKS.index(name)
    return rows


def grids_of_notes(notes: Sequence[Note], first_step: int, length: float) -> np.ndarray:
    """Legal grids of two bars each from a step on, int32 [N, 12, 32]; N covers the file's length."""
    count = max(0, -int(-(length - first_step - 1e-6) // STEPS))
    windows: list[dict[tuple[int, int], list[Note]]] = [defaultdict(list) for _ in range(count)]
    for note in notes:
        step = int(note.start + 0.5) - first_step
        if 0 <= step < count * STEPS:
            windows[step // STEPS][note.row, step % STEPS].append(note)
    grids = [_grid_of_cells(cells) for cells in windows]
    return np.stack(grids) if grids else np.zeros((0, *SHAPE), np.int32)


def _grid_of_cells(cells: dict[tuple[int, int], list[Note]]) -> np.ndarray:
    """One grid from the notes that start at each (row, step): one is kept, the bass's lowest, else the highest."""
    found = []
    places = sorted(cells)
    for (row, step), after in zip(places, [*places, (-1, 0)][1:], strict=True):
        here = cells[row, step]
        if TRACKS[row] in DRUM_TRACKS:
            note = max(here, key=lambda n: n.velocity)
            sound: int | str = DRUM_OF_NOTE.get(note.pitch, "perc")
        else:
            note = (min if TRACKS[row] == "BASS" else max)(here, key=lambda n: n.pitch)
            sound = _folded(row, note.pitch)
        gap = (after[1] if after[0] == row else STEPS) - step
        length = min(_quantised(note.length), gap)
        found.append(Event(row, step, length, sound, nearest_gain(note.velocity / 127), note.effects))
    return fit_events(found)


def _quantised(length: float) -> float:
    """Whole sixteenths, but half ones where the length is just that, or shorter than three quarters of one."""
    halves = round(2 * length)
    if halves and abs(2 * length - halves) < 0.02:
        return halves / 2
    return 0.5 if length < 0.75 else float(int(length + 0.5))


def _folded(row: int, pitch: int) -> int:
    """The pitch moved by octaves into the track's range."""
    legal = [p for p in range(36, 85) if LEGAL[row, VOCABULARY.pitch_token(p)]]
    while pitch < legal[0]:
        pitch += 12
    while pitch > legal[-1]:
        pitch -= 12
    return pitch
