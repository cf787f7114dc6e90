"""A piece of music as two-bar grids: windows, quantisation, and why some are dropped.

    4/4 regions -> windows of two bars from each region's first bar -> onsets to the nearest sixteenth, with a
    confidence -> parts to tracks -> simple dynamics and lengths -> a legal grid without macros

All pure functions; nothing here knows files or splits.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from eqdiff_jax.data import roles
from eqdiff_jax.data.readers import Part, Piece
from eqdiff_jax.data.roles import Chords, Note, Placed
from eqdiff_jax.music.conductor import instrument_activations
from eqdiff_jax.music.descriptors import of_events
from eqdiff_jax.music.encode import fit_events
from eqdiff_jax.music.grid import STEPS, TRACKS, Event, events
from eqdiff_jax.music.midi_tables import DRUM_TRACKS
from eqdiff_jax.music.vocabulary import DEFAULT_DYNAMICS, LENGTHS, VELOCITIES, VOCABULARY

NEAR = 0.2  # an onset this near to a sixteenth, in sixteenths, is on the grid; chance gives 0.4 of them
LEAST_CONFIDENCE = 0.6
FEWEST_NOTES, FEWEST_ONSETS = 8, 3
MOST_LOST = 0.35  # share of a window's notes
BPM_RANGE = (60.0, 180.0)
# Why windows are dropped; the last two are found among windows, not in one. `unreadable` counts files.
REASONS = ("unreadable", "not 4/4", "empty", "too few notes", "off the grid", "too many notes lost",
           "duplicate", "duplicate across splits")
_LEVELS = tuple(VELOCITIES.values())
_DRUM_ROWS = tuple(TRACKS.index(name) for name in DRUM_TRACKS)


class Window(NamedTuple):
    """Two bars of a piece."""

    number: int  # in the piece, dropped ones counted
    tokens: np.ndarray  # uint8 [12, 32]; the mask id in tracks that are not observed
    observed: np.ndarray  # bool [12]
    activations: np.ndarray  # float32 [12], of the window before; zeros where it has no grid
    descriptors: np.ndarray  # float32 [5]; tracks that are not observed count as rests
    confidence: float  # share of onsets near a sixteenth
    lost: float  # share of notes that found no track
    bpm: float
    full: bool  # drums and bass and another pitched part sound
    fingerprint: str  # hex; equal for equal music in any transposition


def windows(piece: Piece, observed: Sequence[str] = TRACKS) -> tuple[list[Window], Counter]:
    """The windows worth keeping, and counts: `windows` in all, `notes`, `lost`, and dropped ones by reason.

    `observed`: the tracks that the piece can speak of.
    """
    seen = np.isin(TRACKS, list(observed))
    regions = [[a + STEPS * i for i in range(int((b - a) / STEPS + 1e-6))] for a, b in piece.regions]
    starts = np.array([start for region in regions for start in region])
    firsts = {0, *np.cumsum([len(region) for region in regions]).tolist()}  # windows with nothing before them
    elsewhere = max(round((piece.length - sum(b - a for a, b in piece.regions)) / STEPS), 0)
    counts = Counter({"windows": len(starts) + elsewhere, "not 4/4": elsewhere})
    cells, away = _cells(piece.parts, starts)
    arrange = _arranger(piece.parts, cells, seen)
    kept: list[Window] = []
    silence = before = np.zeros(len(TRACKS), np.float32)
    for number, start in enumerate(starts):
        previous, before = silence if number in firsts else before, silence
        near = np.array(away.get(number, [])) <= NEAR
        reason = _too_little(len(near), {step for part in cells for step in part.get(number, {})})
        if reason is None:
            placed, lost = arrange(number)
            grid = fit_events(simplified(placed))
            notes = events(grid)
            before = instrument_activations(grid)
            counts.update(notes=len(near), lost=lost)
            confidence, share = float(np.mean(near)), lost / len(near)
            reason = _too_bad(confidence, share, len(notes))
        if reason is not None:
            counts[reason] += 1
            continue
        tokens = np.where(seen[:, None], grid, VOCABULARY.mask).astype(np.uint8)
        kept.append(Window(number, tokens, seen, previous, np.array(of_events(notes), np.float32), confidence, share,
                           bpm_at(piece, start), full(notes), fingerprint(notes)))
    return kept, counts


def lead(onsets: np.ndarray) -> float:
    """How far all of a piece lies behind the grid, in sixteenths: players drag or rush by some constant amount.

    The shift within +-0.3 that has most onsets near it; triplets and swing do not move it.
    """
    if not len(onsets):
        return 0.0
    shifts = np.arange(-15, 16) * 0.02
    away = (onsets - shifts[:, None] + 0.5) % 1 - 0.5
    near = np.exp(-(away / 0.1) ** 2).mean(1)
    return float(shifts[np.argmax(near - 0.05 * np.abs(shifts))])


def bpm_at(piece: Piece, start: float) -> float:
    """Tempo of the two bars from a step on, averaged over time, by octaves into 60..180."""
    starts = np.array([t for t, _ in piece.tempi] + [np.inf])
    edges = np.clip(starts, start, start + STEPS)
    edges[0] = start
    minutes = sum((b - a) / 4 / bpm for (_, bpm), a, b in zip(piece.tempi, edges, edges[1:], strict=False))
    bpm = STEPS / 4 / minutes
    while bpm > BPM_RANGE[1]:
        bpm /= 2
    while bpm < BPM_RANGE[0]:
        bpm *= 2
    return round(float(bpm), 2)


def full(notes: Sequence[Event]) -> bool:
    """Whether drums, the bass and another pitched track sound."""
    rows = {note.track for note in notes}
    others = set(roles.PITCHED) - {roles.BASS}
    return bool(rows & set(_DRUM_ROWS)) and roles.BASS in rows and bool(rows & others)


def fingerprint(notes: Sequence[Event]) -> str:
    """What is played when, whatever the key: 16 hex digits of the notes of a grid.

    Per step the drums and the pitch classes that start there; of the twelve transpositions the first in order
    stands for all. Tracks, octaves, lengths and gains do not count.
    """
    drums, classes = [0] * STEPS, [0] * STEPS
    first = VOCABULARY.ranges["drum"].start
    for note in notes:
        if isinstance(note.sound, str):
            drums[note.onset] |= 1 << (VOCABULARY.ids[note.sound] - first)
        else:
            classes[note.onset] |= 1 << (note.sound % 12)
    key = min(tuple((c << n | c >> (12 - n)) & 0xFFF for c in classes) for n in range(12))
    return hashlib.blake2b(np.array([drums, key], "<u2").tobytes(), digest_size=8).hexdigest()


def simplified(placed: Sequence[Placed]) -> list[Event]:
    """The notes with dynamics and lengths that their tracks have cells for.

    A track has one dynamics level, that of its median velocity, and accents and ghosts; a note says, as far as
    there are cells before the next one, first the level, then its mark, then its length.
    """
    found = []
    for row in range(len(TRACKS)):
        notes = sorted((n for n in placed if n.row == row), key=lambda n: n.step)
        if not notes:
            continue
        median = float(np.median([n.velocity for n in notes]))
        level = min(_LEVELS, key=lambda v: abs(v - median))
        now = VELOCITIES[DEFAULT_DYNAMICS]
        for i, note in enumerate(notes):
            gap = (notes[i + 1].step if i + 1 < len(notes) else STEPS) - note.step
            cells = gap - 1
            if now != level and (cells or (i == 0 and note.step)):
                cells -= not (i == 0 and note.step)
                now = level
            factor = min((1.0, 1.25, 0.5), key=lambda f, v=note.velocity: abs(level * f - v))  # type: ignore[misc]
            if factor != 1.0 and (now != level or not cells):
                factor = 1.0
            cells -= factor != 1.0
            length = _sayable(note.length, gap, cells, isinstance(note.sound, str) or factor != 1.0)
            found.append(Event(row, note.step, length, note.sound, min(now * factor, 127.0) / 127.0, ()))
    return found


def _sayable(wanted: float, gap: int, cells: int, plain: bool) -> float:
    """The length nearest to the wanted one that so many cells can say; a cell less is worth a third of a step."""
    options = {1.0: 0}
    if cells:
        options |= {float(n): 1 for n in LENGTHS.values() if 1 < n <= gap}
        if not plain:
            options |= {float(gap): 1, 0.5: 1}
    if cells > 1 and not plain:
        options |= {1.5: 2}
    return min(options, key=lambda n: (abs(n - min(wanted, gap)) + options[n] / 3, n))


def _cells(parts: Sequence[Part], starts: np.ndarray) -> tuple[list[dict[int, Chords]], dict[int, list[float]]]:
    """For each part, window -> step -> notes; and for each window how far its onsets are from their steps."""
    cells: list[dict[int, Chords]] = [{} for _ in parts]
    away: dict[int, list[float]] = {}
    if not parts or not len(starts):
        return cells, away
    late = lead(np.concatenate([part.notes[:, 0] for part in parts]))
    for part, mine in zip(parts, cells, strict=True):
        onset = part.notes[:, 0] - late
        window = np.searchsorted(starts, onset + 0.5, side="right") - 1
        offset = onset - starts[np.maximum(window, 0)]
        step = np.floor(offset + 0.5).astype(int)
        inside = (window >= 0) & (step < STEPS)
        columns = (window, step, np.abs(offset - step), *part.notes[:, 1:].T)
        for w, s, d, length, pitch, velocity in zip(*(c[inside].tolist() for c in columns), strict=True):
            mine.setdefault(w, {}).setdefault(s, []).append(Note(int(pitch), max(length, 0.25), velocity))
            away.setdefault(w, []).append(d)
    return cells, away


def _arranger(parts: Sequence[Part], cells: Sequence[dict[int, Chords]],
              seen: np.ndarray) -> Callable[[int], tuple[list[Placed], int]]:
    """window -> its notes in the observed tracks, and how many were lost."""
    rows = roles.assign(parts, [set(by_window) for by_window in cells])
    order = roles.by_weight(parts)
    wishes = [[row for row in roles.wishes(parts[i], rows[i]) if seen[row]] for i in order]

    def arrange(number: int) -> tuple[list[Placed], int]:
        hits: Chords = {}
        for part, by_window in zip(parts, cells, strict=True):
            for step, notes in by_window.get(number, {}).items() if part.drums else ():
                hits.setdefault(step, []).extend(notes)
        struck, lost = roles.place_drums(hits)
        drums = [note for note in struck if seen[note.row]]
        lost += len(struck) - len(drums)
        chords = [cells[i].get(number, {}) for i in order]
        if not any(wishes):
            return drums, lost + sum(len(notes) for part in chords for notes in part.values())
        pitched, lost_pitched = roles.place(chords, wishes)
        return [*drums, *pitched], lost + lost_pitched
    return arrange


def _too_little(notes: int, onsets: set[int]) -> str | None:
    if not notes:
        return "empty"
    return "too few notes" if notes < FEWEST_NOTES or len(onsets) < FEWEST_ONSETS else None


def _too_bad(confidence: float, lost: float, notes: int) -> str | None:
    if confidence < LEAST_CONFIDENCE:
        return "off the grid"
    if lost > MOST_LOST:
        return "too many notes lost"
    return "too few notes" if notes < FEWEST_NOTES // 2 else None
