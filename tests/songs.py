"""Tiny MIDI files, made here: a part is (name, channel, program, notes), a note (onset, length, pitch, velocity).

Onsets and lengths are in sixteenths.
"""

import io
from collections.abc import Sequence

import mido
import numpy as np

TICKS = 480  # a quarter
DRUM = 9


def midi(parts: Sequence[tuple], meters: Sequence[tuple[float, int, int]] = ((0, 4, 4),),
         tempi: Sequence[tuple[float, float]] = ((0, 120.0),)) -> bytes:
    """A MIDI file of parts; meters (from here on, numerator, denominator), tempi (from here on, bpm)."""
    file = mido.MidiFile(ticks_per_beat=TICKS)
    conductor = [(at, mido.MetaMessage("time_signature", numerator=n, denominator=d)) for at, n, d in meters]
    conductor += [(at, mido.MetaMessage("set_tempo", tempo=round(6e7 / bpm))) for at, bpm in tempi]
    file.tracks.append(_track("", conductor))
    for name, channel, program, notes in parts:
        messages = [(0, mido.Message("program_change", channel=channel, program=program))]
        for onset, length, pitch, velocity in notes:
            messages.append((onset, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            messages.append((onset + length, mido.Message("note_off", channel=channel, note=pitch)))
        file.tracks.append(_track(name, messages))
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def _track(name: str, messages: list) -> mido.MidiTrack:
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
    now = 0
    for at, message in sorted(messages, key=lambda m: (m[0], m[1].type == "note_on")):
        ticks = round(at * TICKS / 4)
        track.append(message.copy(time=ticks - now))
        now = ticks
    track.append(mido.MetaMessage("end_of_track"))
    return track


def band(seed: int = 0, bars: int = 4, up: int = 0, late: float = 0.0) -> list[tuple]:
    """Drums, bass, chords and a melody, bars of 4/4 that all differ; `up` transposes, `late` delays everything."""
    rng = np.random.default_rng(seed)
    steps = range(16 * bars)
    drums = [(s, 1, 36, 100) for s in steps if s % 4 == 0] + [(s, 1, 38, 100) for s in steps if s % 8 == 4]
    drums += [(s, 1, 42, int(rng.integers(60, 110))) for s in steps if rng.random() < .6]
    roots = 36 + rng.integers(0, 8, bars)
    bass = [(s, 2, int(roots[s // 16]), 90) for s in steps if s % 16 == 0 or rng.random() < .2]
    chords = [(16 * b, 12, int(roots[b]) + 12 + third, 70) for b in range(bars) for third in (0, 3, 7)]
    melody = [(s, 1, int(72 + rng.integers(-5, 8)), 96) for s in steps if rng.random() < .3]

    def moved(notes: list, by: int) -> list:
        return [(onset + late, length, pitch + by, velocity) for onset, length, pitch, velocity in notes]
    return [("Drums", DRUM, 0, moved(drums, 0)), ("Finger bass", 0, 33, moved(bass, up)),
            ("Strings", 1, 48, moved(chords, up)), ("Flute", 2, 73, moved(melody, up))]
