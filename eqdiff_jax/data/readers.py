"""Files of music as pieces: parts with their notes in sixteenths, stretches of 4/4, tempo.

Three readers: General MIDI; MIDI that follows a recording, with the times of its beats beside it (POP909); and
flat JSON of LMMS songs. Nothing is quantised here.
"""

import io
import json
import re
from typing import NamedTuple

import mido
import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import BAR
from eqdiff_jax.music.midi_tables import DRUM_CHANNEL, DRUM_NOTES

_MOST_STEPS = 1 << 18  # about nine hours at 120 bpm: longer is a broken file
_KEY_SIGNATURE = re.compile(rb"\xff\x59\x02..", re.DOTALL)  # mido refuses files with an odd one
_BROKEN = (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
ROLAND = {22: 42, 26: 46, 58: 43}  # edges of hi-hats and the third tom's rim on the kit of the groove recordings
# Words in the names of LMMS instruments and samples; the first that is found says the drum.
_DRUM_WORDS = tuple((drum, re.compile(words)) for drum, words in (
    ("cp", r"clap|clp"),
    ("rim", r"rim|side ?stick"),
    ("oh", r"open|[-_ ]o-?hat|hat_o|o-?hi-?hat|\boh\b|crash|ride|cym"),
    ("hh", r"hat|\bhh\b"),
    ("sd", r"snare|\bsd\b|snr"),
    ("tom", r"tom_|\btom\d*\b|syntom"),
    ("bd", r"kick|kik|bass ?drum|\bbd\b|[-_ ]bd[-_.\d]|_bd\b"),
    ("perc", r"shaker|cowbell|conga|bongo|tamb|wood|perc|click|drum|noise_clip|linn"),
))
_NOT_DRUMS = re.compile(r"instrument/|drumsynth/misc_bass/low|effects/|stringsnpads|basses/")
_LMMS_TICKS = 12  # a sixteenth
_DRUM_KEYS = 4  # a drum is played on so few keys


class Part(NamedTuple):
    """What sounds alike: one track, channel and program."""

    name: str
    program: int  # General MIDI, from 0; -1 unknown
    drums: bool  # pitches are General MIDI drum notes
    notes: np.ndarray  # float64 [N, 4]: onset and length in sixteenths, pitch, velocity 1..127; by onset, pitch


class Piece(NamedTuple):
    """One song or performance."""

    parts: tuple[Part, ...]
    regions: tuple[tuple[float, float], ...]  # stretches of 4/4, in sixteenths, from a bar line on
    tempi: tuple[tuple[float, float], ...]  # (from here on in sixteenths, beats per minute), the first at 0
    length: float  # in sixteenths


def read_midi(data: bytes, drums: dict[int, int] | None = None) -> Piece:
    """A General MIDI file; `drums` renames drum notes. Raises InputError for what is no MIDI file."""
    midi = _parsed(data)
    unit = midi.ticks_per_beat / 4
    length = max([sum(m.time for m in track) for track in midi.tracks], default=0) / unit
    _check_length(length)
    parts = [part for track in midi.tracks for part in _track_parts(track, drums or {})]
    parts = [part._replace(notes=part.notes / [unit, unit, 1, 1]) for part in parts]
    tempi, meters = [(0, 500_000)], [(0, 4, 4)]
    for track in midi.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "set_tempo" and message.tempo > 0:
                tempi.append((now, message.tempo))
            elif message.type == "time_signature":
                meters.append((now, message.numerator, message.denominator))
    tempi.sort(key=lambda t: t[0])
    meters.sort(key=lambda m: m[0])
    return Piece(tuple(parts), _regions([(t / unit, n, d) for t, n, d in meters], length),
                 tuple((t / unit, 6e7 / tempo) for t, tempo in tempi), length)


def read_beats(data: bytes, beats: bytes) -> Piece:
    """MIDI that follows a recording; `beats` has a line per beat: seconds, a flag, 1 on downbeats.

    Between two beats lie four sixteenths, whatever they last. A stretch of bars with four beats each is 4/4.
    """
    try:
        table = np.array([line.split() for line in beats.decode().splitlines() if line.strip()], float)
        seconds, downs = table[:, 0], np.flatnonzero(table[:, 2] > 0.5)
    except (ValueError, IndexError) as error:
        raise InputError("the list of beats has no lines of three numbers: give its own beat_midi.txt") from error
    if len(seconds) < 8 or not (np.diff(seconds) > 0).all():
        raise InputError("the list of beats has fewer than eight, or they do not ascend: give its own beat_midi.txt")
    plain = read_midi(data)
    starts = np.array([start for start, _ in plain.tempi])
    bpm = np.array([bpm for _, bpm in plain.tempi])
    clock = np.concatenate([[0.0], np.cumsum(np.diff(starts) * 15 / bpm[:-1])])  # seconds at each tempo

    def steps(at: np.ndarray) -> np.ndarray:
        i = np.searchsorted(starts, at, side="right") - 1
        now = clock[i] + (at - starts[i]) * 15 / bpm[i]
        beat = np.clip(np.searchsorted(seconds, now, side="right") - 1, 0, len(seconds) - 2)
        return 4 * (beat + (now - seconds[beat]) / (seconds[beat + 1] - seconds[beat]))

    parts = []
    for part in plain.parts:
        onset, end = steps(part.notes[:, 0]), steps(part.notes[:, 0] + part.notes[:, 1])
        parts.append(part._replace(notes=np.column_stack([onset, end - onset, part.notes[:, 2:]])))
    regions: list[tuple[float, float]] = []
    for a, b in zip(downs, downs[1:], strict=False):
        if b - a == 4:
            joined = regions and regions[-1][1] == 4 * a
            regions.append((regions.pop()[0] if joined else 4.0 * a, 4.0 * b))
    tempi = tuple((4.0 * i, 60 / s) for i, s in enumerate(np.diff(seconds)))
    return Piece(tuple(parts), tuple(regions), tempi, 4.0 * (len(seconds) - 1))


def read_lmms(data: bytes) -> Piece:
    """A flat JSON song made from an LMMS project: 12 ticks a sixteenth, muted tracks left out.

    Files since format 22 number keys as MIDI does, older ones twelve lower; `basenote` is the key that sounds A4.
    """
    try:
        song = json.loads(data)
        parts = [_lmms_part(track) for track in song["tracks"] if not track["muted"] and track["notes"]]
        bpm, numerator, denominator = float(song["bpm"]), int(song["timesig"][0]), int(song["timesig"][1])
    except (ValueError, LookupError, TypeError) as error:
        raise InputError("the file is no flat JSON of an LMMS song: it needs bpm, timesig and tracks") from error
    length = max([float((p.notes[:, 0] + p.notes[:, 1]).max()) for p in parts], default=0.0)
    _check_length(length)
    return Piece(tuple(parts), _regions([(0, numerator, denominator)], length), ((0.0, bpm),), length)


def _parsed(data: bytes) -> mido.MidiFile:
    try:
        midi = mido.MidiFile(file=io.BytesIO(_KEY_SIGNATURE.sub(b"\xff\x59\x02\x00\x00", data)), clip=True)
    except _BROKEN as error:
        raise InputError(f"the file is no MIDI file: {error or 'it ends too early'}") from error
    if midi.ticks_per_beat <= 0:
        raise InputError("the MIDI file counts time in film frames: only files in ticks per beat are read")
    return midi


def _check_length(length: float) -> None:
    if length > _MOST_STEPS:
        raise InputError(f"the file claims to last {length / BAR:.0f} bars: it is broken")


def _track_parts(track: mido.MidiTrack, drums: dict[int, int]) -> list[Part]:
    """The parts of one track, notes in ticks."""
    program = [-1] * 16
    waiting: dict[tuple[int, int], list[list]] = {}
    notes: dict[tuple[int, int], list[list]] = {}
    now = 0
    for message in track:
        now += message.time
        kind = message.type
        if kind == "note_on" and message.velocity > 0:
            channel = message.channel
            pitch = drums.get(message.note, message.note) if channel == DRUM_CHANNEL else message.note
            note = [now, None, pitch, message.velocity]
            notes.setdefault((channel, program[channel]), []).append(note)
            waiting.setdefault((channel, message.note), []).append(note)
        elif kind in ("note_on", "note_off"):
            if waiting.get((message.channel, message.note)):
                note = waiting[message.channel, message.note].pop(0)
                note[1] = now - note[0]
        elif kind == "program_change":
            program[message.channel] = message.program
    for note in (note for left in waiting.values() for note in left):
        note[1] = now - note[0]
    return [Part(track.name.strip(), number, channel == DRUM_CHANNEL, _sorted(found))
            for (channel, number), found in notes.items()]


def _sorted(notes: list | np.ndarray) -> np.ndarray:
    array = np.array(notes, float).reshape(-1, 4)
    return array[np.lexsort((array[:, 2], array[:, 0]))]


def _regions(meters: list[tuple[float, int, int]], length: float) -> tuple[tuple[float, float], ...]:
    """Stretches whose bars are whole notes (4/4, 2/2, 8/4), joined; the last one ends with its bar."""
    ends = [*(start for start, _, _ in meters[1:]), length]
    found: list[tuple[float, float]] = []
    for (start, numerator, denominator), end in zip(meters, ends, strict=True):
        if numerator % denominator or not numerator or end <= start:
            continue
        joined = found and found[-1][1] == start
        found.append((found.pop()[0] if joined else start, end))
    if found and found[-1][1] == length:
        start = found.pop()[0]
        found.append((start, start + BAR * np.ceil((length - start) / BAR - 1e-6)))
    return tuple((float(a), float(b)) for a, b in found)


def _lmms_part(track: dict) -> Part:
    notes = np.array(track["notes"], float).reshape(-1, 4)
    name, sample = track["name"] or "", track["sample"] or ""
    drum = _lmms_drum(name, sample) if len(set(notes[:, 2])) <= _DRUM_KEYS else None
    # Older files: A4 is key 57 with basenote 57; newer ones: 69 with 69. Either way the basenote sounds A4.
    pitch = np.full(len(notes), DRUM_NOTES[drum]) if drum else 69 + notes[:, 2] - float(track["basenote"])
    length = np.where(notes[:, 1] > 0, notes[:, 1] / _LMMS_TICKS, 1.0)
    velocity = np.clip(notes[:, 3], 1, 127)
    return Part(f"{name} {sample.rsplit('/', 1)[-1]}".strip(), -1, drum is not None,
                _sorted(np.column_stack([notes[:, 0] / _LMMS_TICKS, length, pitch, velocity])))


def _lmms_drum(name: str, sample: str) -> str | None:
    """The drum that an LMMS instrument's sample, or else its name, speaks of; None for none."""
    for text in (sample.lower(), name.lower()):
        if text and not _NOT_DRUMS.search(text):
            found = next((drum for drum, words in _DRUM_WORDS if words.search(text.rsplit("/", 1)[-1])), None)
            if found:
                return found
    return None
