"""Which of the twelve tracks a part of a piece plays in, and which note of a chord goes where.

Each part has a score for every pitched track, from its name, its program, and what it plays: register, chords,
lengths, how busy it is. A piece's parts choose one after the other, the busiest first, and avoid tracks of parts
that sound at the same time. Grid tracks play one note at a time: within a window, chords spread over pitched tracks
that are free there, so that harmony survives; octave doublings go first where there is no room.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from eqdiff_jax.data.readers import Part
from eqdiff_jax.music.grid import LEGAL, TRACKS
from eqdiff_jax.music.midi_tables import DRUM_OF_NOTE, DRUM_ROWS, DRUM_TRACKS, LOW, ROLES
from eqdiff_jax.music.vocabulary import LOWEST_PITCH, VOCABULARY

PITCHED = tuple(i for i, name in enumerate(TRACKS) if name not in DRUM_TRACKS)  # rows
BASS = TRACKS.index("BASS")
_NAMES = tuple((re.compile(words), track) for words, track in (
    (r"bass(?!oon)|\bsub\b", "BASS"),
    (r"ambien|atmos|drone|sweep|texture", "AMB"),
    (r"\barp|sequen|\bharp\b", "ARP"),
    (r"vox|voice|voc|choir|bridge|whistle", "VOX"),
    (r"lead|melod|solo", "LEAD"),
    (r"pad|string|organ|sustain", "PAD"),
    (r"stab|chord|brass|pluck|rhythm|\bcomp\b|guitar|piano", "STAB"),
))
_RANGES = {row: (LOWEST_PITCH + int(tokens[0]), LOWEST_PITCH + int(tokens[-1])) for row in PITCHED
           for tokens in [np.flatnonzero(LEGAL[row, list(VOCABULARY.ranges["pitch"])])]}
_NAMED, _PROGRAM, _SHAPE, _REGISTER, _CROWDED = 5.0, 1.5, 1.5, 1.0, 6.0  # weights of a score


class Placed(NamedTuple):
    """A note in its grid track."""

    row: int
    step: int  # 0..31
    sound: int | str
    length: float  # in sixteenths, at least 1/2
    velocity: float


class Note(NamedTuple):
    """A note of a window."""

    pitch: int
    length: float
    velocity: float


Chords = dict[int, list[Note]]  # step -> the notes of one part that start there


def scores(part: Part) -> dict[int, float]:
    """How well each pitched track (row) suits a pitched part; higher is better."""
    onset, length, pitch, _ = part.notes.T
    middle = float(np.median(pitch))
    starts = np.unique(np.round(onset)).size
    chordal = min(len(pitch) / starts - 1, 2) / 2  # 0 one note at a time .. 1 three and more
    long = min(float(np.median(length)) / 8, 1.0)  # 1: half notes and longer
    low = float(middle <= LOW)
    busy = min(starts / max(float(np.ptp(onset)), 1.0) / 0.5, 1.0)  # 1: eighths throughout
    shape = {
        "BASS": 3 * low - chordal - 1, "PAD": chordal * long + long, "LEAD": (1 - chordal) * (0.5 + 0.5 * busy),
        "STAB": (1 - long) * (0.4 + chordal), "ARP": (1 - chordal) * (1 - long) * busy,
        "VOX": 0.5 * (1 - chordal) + 0.3 * long, "AMB": 0.8 * long * (1 - busy) + 0.3 * long}
    family = next(rows for below, rows in ROLES if part.program < below) if part.program >= 0 else ()
    name = part.name.lower()
    named = next((track for words, track in _NAMES if words.search(name)), None)
    found = {}
    for row in PITCHED:
        track = TRACKS[row]
        low_end, high_end = _RANGES[row]
        score = _SHAPE * shape[track] + _REGISTER * float(np.mean((pitch >= low_end) & (pitch <= high_end)))
        score += _NAMED * (track == named) + 100.0 * (track == part.name.strip().upper())
        if track in family:
            score += _PROGRAM * (2 if family == ("BASS",) else 1 - 0.15 * family.index(track))
        found[row] = score
    return found


def assign(parts: Sequence[Part], sounding: Sequence[set[int]]) -> list[int]:
    """The main track (row) of each pitched part; -1 for drums. `sounding[i]`: the windows in which part i plays."""
    rows, taken = [-1] * len(parts), {row: set[int]() for row in PITCHED}
    for i in by_weight(parts):
        score = scores(parts[i])
        worth = [score[row] - _CROWDED * len(sounding[i] & taken[row]) / max(len(sounding[i]), 1) for row in PITCHED]
        rows[i] = PITCHED[int(np.argmax(worth))]
        taken[rows[i]] |= sounding[i]
    return rows


def wishes(part: Part, main: int) -> list[int]:
    """Pitched tracks (rows) in the order in which the part would take them, its main one first."""
    score = scores(part)
    return sorted(PITCHED, key=lambda row: (row != main, -score[row]))


def by_weight(parts: Sequence[Part]) -> list[int]:
    """Numbers of the pitched parts: those called like a track first, then the ones with most notes."""
    pitched = [i for i, part in enumerate(parts) if not part.drums and len(part.notes)]
    return sorted(pitched, key=lambda i: (parts[i].name.strip().upper() not in TRACKS, -len(parts[i].notes), i))


def place_drums(hits: Chords) -> tuple[list[Placed], int]:
    """Drum hits in their tracks, and how many other sounds of a track had to go."""
    placed, lost = [], 0
    for step, notes in hits.items():
        best: dict[int, tuple[float, str]] = {}
        for note in notes:
            drum = DRUM_OF_NOTE.get(note.pitch, "perc")
            row = TRACKS.index(DRUM_ROWS[drum])
            best[row] = max(best.get(row, (0.0, "")), (note.velocity, drum))
        lost += len({DRUM_OF_NOTE.get(n.pitch, "perc") for n in notes}) - len(best)
        placed += [Placed(row, step, drum, 1.0, velocity) for row, (velocity, drum) in best.items()]
    return placed, lost


def place(parts: Sequence[Chords], wished: Sequence[Sequence[int]]) -> tuple[list[Placed], int]:
    """Notes of one window in the pitched tracks, and how many were lost.

    `wished[i]`: the tracks that part i would take, its main one first; parts come in order of weight. Each takes the
    first that is free, or shares its main one. The tracks left over go, one by one, to the part with most notes
    beyond its tracks; BASS takes no voices of chords. A note is lost if no other of its pitch class starts there.
    """
    rows: list[list[int]] = []
    free = set(PITCHED)
    for chords, mine in zip(parts, wished, strict=True):
        candidates = [row for row in mine if row in free and (row != BASS or row == mine[0])]
        rows.append([candidates[0] if candidates else mine[0]] if chords else [])
        free -= set(rows[-1])
    sizes = [[len({n.pitch for n in notes}) for notes in chords.values()] for chords in parts]
    while True:
        needs = [sum(max(size - len(own), 0) for size in chord) if own and own[0] != BASS else 0
                 for chord, own in zip(sizes, rows, strict=True)]
        i = int(np.argmax(needs)) if needs else 0
        extra = next((row for row in (wished[i] if needs and needs[i] else ()) if row in free and row != BASS), None)
        if extra is None:
            break
        rows[i].append(extra)
        free.discard(extra)
    cells: dict[tuple[int, int], Placed] = {}
    wanted: dict[int, list[int]] = {}
    for chords, own in zip(parts, rows, strict=True):
        fold = _folder(chords, own)
        for step, notes in chords.items():
            by_pitch = {note.pitch: note for note in sorted(notes, key=lambda n: n.length)}
            wanted.setdefault(step, []).extend(p % 12 for p in by_pitch)
            for pitch, row in _voices(tuple(sorted(by_pitch)), tuple(own)):
                if (row, step) not in cells:
                    note = by_pitch[pitch]
                    cells[row, step] = Placed(row, step, fold(pitch, row), note.length, note.velocity)
    kept: dict[int, set[int]] = {}
    for cell in cells.values():
        kept.setdefault(cell.step, set()).add(int(cell.sound) % 12)
    return list(cells.values()), sum(c not in kept[step] for step, classes in wanted.items() for c in classes)


def _folder(chords: Chords, own: list[int]):
    """(pitch, row) -> the pitch in the row's range; a part in one track moves by octaves as a whole first."""
    shift = 0
    if len(own) == 1:
        low, high = _RANGES[own[0]]
        pitches = np.array([n.pitch for notes in chords.values() for n in notes])
        shift = max((0, 12, -12, 24, -24, 36, -36), key=lambda s: int(
            np.sum((pitches + s >= low) & (pitches + s <= high))))

    def fold(pitch: int, row: int) -> int:
        low, high = _RANGES[row]
        pitch += shift
        if pitch < low:
            pitch += -(-(low - pitch) // 12) * 12
        elif pitch > high:
            pitch -= -(-(pitch - high) // 12) * 12
        return pitch
    return fold


@lru_cache(maxsize=1 << 16)
def _voices(pitches: tuple[int, ...], rows: tuple[int, ...]) -> list[tuple[int, int]]:
    """(pitch, row) for a chord, pitches ascending: order kept, registers met, the first row preferred.

    More pitches than rows: BASS keeps the lowest; others the highest, the lowest, then new pitch classes from above.
    """
    if rows == (BASS,):
        return [(pitches[0], BASS)]
    order = [pitches[-1], pitches[0], *reversed(pitches[1:-1])][:max(len(pitches), 1)]
    new = [p for i, p in enumerate(order) if p % 12 not in {q % 12 for q in order[:i]}]
    chosen = sorted(dict.fromkeys([*new, *order]), key=[*new, *order].index)[:len(rows)]
    chosen.sort()

    def cost(subset: tuple[int, ...]) -> float:
        outside = [max(_RANGES[row][0] - p, p - _RANGES[row][1], 0) + 0.1 * abs(p - sum(_RANGES[row]) / 2)
                   for p, row in zip(chosen, subset, strict=True)]
        return sum(outside) - 2.0 * (rows[0] in subset)

    ascending = sorted(rows, key=lambda row: (sum(_RANGES[row]), row))
    best = min(combinations(ascending, len(chosen)), key=cost)
    return list(zip(chosen, best, strict=True))
