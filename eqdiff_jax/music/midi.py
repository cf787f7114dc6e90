"""Grids as MIDI files and back.

Written files have one named track per instrument; what the numbers mean stands in the tables below and in
docs/music.md. Reading one back gives the same events: onsets and lengths are exact, the 17 velocities of a grid
stay distinct when rounded. Files from elsewhere are quantised to sixteenths and their parts given roles.
"""

import io
import os
import re
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import mido
import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import SHAPE, STEPS, TRACKS, Event, events
from eqdiff_jax.music.midi_read import grids_of_notes, read_notes
from eqdiff_jax.music.midi_tables import CHANNELS, DRUM_NOTES, EFFECT_CONTROLS, MAKER, PROGRAMS

TICKS_PER_STEP = 120  # 480 per quarter note
# Keys say nothing to us, and the library refuses whole files for an odd one.
_KEY_SIGNATURE = re.compile(rb"\xff\x59\x02..", re.DOTALL)


def to_midi(grids, bpm: float = 120, path: str | os.PathLike | None = None) -> mido.MidiFile:
    """One grid, int [12, 32], or grids one after the other, int [N, 12, 32], as a MIDI file.

    `bpm` in quarter notes per minute, 4 to 1000. With a path the file is written there too, under another
    name first. Raises InputError for another shape or tempo.
    """
    array = np.asarray(grids)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1:] != SHAPE:
        raise InputError(f"MIDI is made of grids [12, 32] or [N, 12, 32], got {list(array.shape)}")
    midi = notes_to_midi([events(grid) for grid in array], bpm)
    if path is not None:
        _save(midi, Path(path))
    return midi


def notes_to_midi(sections: Sequence[Sequence[Event]], bpm: float = 120) -> mido.MidiFile:
    """`to_midi` of the notes of each two bars. Raises InputError for another tempo."""
    if not (isfinite(bpm) and 4 <= bpm <= 1000):
        raise InputError(f"bpm {bpm}: a MIDI tempo is 4 to 1000 beats per minute")
    length = len(sections) * STEPS * TICKS_PER_STEP
    midi = mido.MidiFile(type=1, ticks_per_beat=4 * TICKS_PER_STEP)
    midi.tracks.append(_track(MAKER, [
        (0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))),
        (0, mido.MetaMessage("time_signature", numerator=4, denominator=4))], length))
    for row, name in enumerate(TRACKS):
        parts = [[e for e in section if e.track == row] for section in sections]
        midi.tracks.append(_track(name, _messages(name, parts), length))
    return midi


def from_midi(source: str | os.PathLike | bytes | mido.MidiFile, bar: int = 0) -> np.ndarray:
    """Two bars of a MIDI file from bar `bar` on (counted from 0, four quarters each), int32 [12, 32].

    Always a legal, structure-free grid. Raises InputError for what is no MIDI file or has no such bar.
    """
    grids = song_from_midi(source, bar)
    if not len(grids):
        raise InputError(f"bar {bar}: the MIDI file ends before it")
    return grids[0]


def song_from_midi(source: str | os.PathLike | bytes | mido.MidiFile, bar: int = 0) -> np.ndarray:
    """All of a MIDI file from bar `bar` on, two bars at a time, int32 [N, 12, 32]."""
    if bar != int(bar) or bar < 0:
        raise InputError(f"bar {bar}: bars are counted 0, 1, 2, ..")
    notes, length = read_notes(_opened(source))
    return grids_of_notes(notes, 16 * int(bar), length)


def _opened(source: str | os.PathLike | bytes | mido.MidiFile) -> mido.MidiFile:
    if isinstance(source, mido.MidiFile):
        return source
    name = "these bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        data = _KEY_SIGNATURE.sub(b"\xff\x59\x02\x00\x00", data)
        return mido.MidiFile(file=io.BytesIO(data), clip=True)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or 'no MIDI file'}") from None
    except Exception as error:  # the library reports broken files by many kinds of exception
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise InputError(f"{name}: no whole MIDI file ({reason})") from None


def _save(midi: mido.MidiFile, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        midi.save(str(part))
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _messages(name: str, parts: Sequence[Sequence[Event]]) -> list[tuple[int, mido.Message]]:
    """Messages of one instrument at their ticks: program, effects, notes."""
    channel = CHANNELS[name]
    messages = [(0, mido.Message("program_change", channel=channel, program=PROGRAMS[name]))
                ] if name in PROGRAMS else []

    def control(tick: int, effect: str, on: bool) -> None:
        number, off_value, on_value = EFFECT_CONTROLS[effect]
        value = on_value if on else off_value
        messages.append((tick, mido.Message("control_change", channel=channel, control=number, value=value)))

    used = [effect for effect in EFFECT_CONTROLS if any(effect in e.effects for part in parts for e in part)]
    on: set[str] = set(used)  # a player may still have them on
    for k, part in enumerate(parts):
        start = k * STEPS * TICKS_PER_STEP
        first = set(part[0].effects) if part and part[0].onset == 0 else set()
        for effect in used:
            if effect in on - first:
                control(start, effect, False)
                on.discard(effect)
            elif k == 0 and effect in first:
                on.discard(effect)
        for note in part:
            tick = start + note.onset * TICKS_PER_STEP
            for effect in used:
                if effect in set(note.effects) - on:
                    control(tick, effect, True)
                    on.add(effect)
                elif effect in on - set(note.effects):  # never within a grid, but where two of them meet
                    control(tick, effect, False)
                    on.discard(effect)
            pitch = DRUM_NOTES[note.sound] if isinstance(note.sound, str) else note.sound
            velocity = int(127 * note.gain + 0.5)
            end = tick + int(note.length * TICKS_PER_STEP)
            messages.append((tick, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            messages.append((end, mido.Message("note_off", channel=channel, note=pitch, velocity=0)))
    return messages


def _track(name: str, messages: Sequence[tuple[int, mido.Message]], length: int) -> mido.MidiTrack:
    """A track of messages at absolute ticks; at one tick notes end before effects change and notes start."""
    order = {"note_off": 0, "note_on": 2}
    track, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
    for tick, message in sorted(messages, key=lambda m: (m[0], order.get(m[1].type, 1))):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=length - now))
    return track
