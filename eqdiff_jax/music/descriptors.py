"""Five quantities measured on a grid: what its music asks of a movement, and what a movement gets.

They pair real music with real motion and measure how faithfully a grid follows its conditioning.
"""

from typing import NamedTuple

import numpy as np

from eqdiff_jax.music.grid import BAR, HALF_BAR, STEPS, TRACKS, Event, events

BASS_BELOW = 48  # MIDI C3: what sounds below it, and the kick, is bass
ONSETS_PER_UNIT = 96.0  # onsets at which density reaches 1 - 1/e
WIDEST = 24.0  # semitones at which the mean span of the lines counts as 1
_LONGEST_WEIGHT = 4.0  # sixteenths after which a longer note weighs no more
NEIGHBOURS = 0.3  # weight of a melodic interval; pitches together weigh by the sixteenths they share
_KICK = TRACKS.index("KICK")
_HALF_STEPS = 2 * STEPS  # event times are multiples of half a sixteenth

# Roughness of the interval classes 0..6: unison, semitone, tone, minor third, major third, fourth, tritone.
ROUGHNESS = (0.0, 1.0, 0.55, 0.15, 0.1, 0.05, 0.8)
ROUGH = np.array([[ROUGHNESS[min((i - j) % 12, (j - i) % 12)] for j in range(12)] for i in range(12)])


class Descriptors(NamedTuple):
    """The five quantities, each a float in [0, 1]."""

    density: float  # how many notes start
    range: float  # how wide the lines move
    dissonance: float  # how rough the intervals are
    bass_weight: float  # how much of the sound is low
    stability: float  # how alike the two bars, and their halves, are


DESCRIPTORS = Descriptors._fields


def descriptors(grid) -> Descriptors:
    """Density, range, dissonance, bass weight and stability of a grid int32 [12, 32].

    With E the events of the grid (its notes, after macros):

    - density = 1 - exp(-|E| / 96);
    - range = mean over the pitched tracks with two notes or more of min(span, 24) / 24, span the
      semitones between the track's highest and lowest pitch;
    - dissonance = mean roughness of pairs of pitches: all that sound together, weighted by the product of
      their gains and by the sixteenths shared, and neighbours in one track, weighted by 0.3 of the smaller gain;
    - bass_weight = share of sum(gain * min(length, 4)) that is kick or pitched below C3 (MIDI 48);
    - stability = mean of three overlaps |A and B| / |A or B|: between the bars' (track, step, sound) and
      (track, step), and between the half-bars' (track, step), averaged over the three neighbouring pairs.

    Silence measures 0, 0, 0, 0, 1. Raises InputError unless the grid is an integer array [12, 32].
    """
    return of_events(events(grid))


def of_events(notes: list[Event]) -> Descriptors:
    """The five quantities of the notes of one grid; see `descriptors`."""
    return Descriptors(
        density=float(1.0 - np.exp(-len(notes) / ONSETS_PER_UNIT)),
        range=_range(notes),
        dissonance=_dissonance(notes),
        bass_weight=_bass_weight(notes),
        stability=_stability(notes))


def _lines(notes: list[Event]) -> list[list[Event]]:
    """The pitched notes by track, in order of onset; only tracks that have some."""
    lines: dict[int, list[Event]] = {}
    for note in notes:
        if not isinstance(note.sound, str):
            lines.setdefault(note.track, []).append(note)
    return list(lines.values())


def _range(notes: list[Event]) -> float:
    pitches = [[n.pitch for n in line] for line in _lines(notes) if len(line) > 1]
    if not pitches:
        return 0.0
    return float(sum(min(max(p) - min(p), WIDEST) for p in pitches) / (WIDEST * len(pitches)))


def _dissonance(notes: list[Event]) -> float:
    loudness = np.zeros((_HALF_STEPS, 12))  # summed gain of each pitch class in each half sixteenth
    squares = np.zeros(_HALF_STEPS)  # pairs of a note with itself, to leave out
    rough = weight = 0.0
    for line in _lines(notes):
        for a, b in zip(line, line[1:], strict=False):
            neighbours = NEIGHBOURS * min(a.gain, b.gain)
            rough += neighbours * ROUGH[a.pitch % 12, b.pitch % 12]
            weight += neighbours
        for n in line:
            start = 2 * n.onset
            end = start + int(2 * n.length)
            loudness[start:end, n.pitch % 12] += n.gain
            squares[start:end] += n.gain ** 2
    # Half of the double sum over ordered pairs, times half a sixteenth per row.
    rough += 0.25 * float(np.einsum("ti,ij,tj->", loudness, ROUGH, loudness, optimize=False))
    weight += 0.25 * float(np.sum(loudness.sum(1) ** 2 - squares))
    return float(np.clip(rough / weight, 0.0, 1.0)) if weight > 1e-9 else 0.0


def _bass_weight(notes: list[Event]) -> float:
    low = total = 0.0
    for n in notes:
        weight = n.gain * min(n.length, _LONGEST_WEIGHT)
        total += weight
        if n.track == _KICK or (not isinstance(n.sound, str) and n.sound < BASS_BELOW):
            low += weight
    return low / total if total else 0.0


def _overlap(a: set, b: set) -> float:
    """|a and b| / |a or b|; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def _stability(notes: list[Event]) -> float:
    sounds: list[set] = [set(), set()]
    bars: list[set] = [set(), set()]
    halves: list[set] = [set() for _ in range(STEPS // HALF_BAR)]
    for n in notes:
        bar, step = divmod(n.onset, BAR)
        sounds[bar].add((n.track, step, n.sound))
        bars[bar].add((n.track, step))
        halves[n.onset // HALF_BAR].add((n.track, n.onset % HALF_BAR))
    neighbours = [_overlap(a, b) for a, b in zip(halves, halves[1:], strict=False)]
    return (_overlap(*sounds) + _overlap(*bars) + sum(neighbours) / len(neighbours)) / 3.0
