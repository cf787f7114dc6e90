"""From a plan to rows: each track's pattern, its pitches, and the tokens that shape them.

    voice     : the notes a track plays under a plan
    write_row : notes -> 32 cells, with lengths and articulations in the cells that notes leave free

Every random choice is a number of the plan's fixed noise tables, so a small change of the movement changes
few choices, and a track's choices do not depend on which other tracks play.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from eqdiff_jax.music import patterns
from eqdiff_jax.music.grid import BAR, HALF_BAR, LEGAL, REST, STEPS, TRACKS
from eqdiff_jax.music.vocabulary import LENGTHS, VOCABULARY

_IDS = VOCABULARY.ids
_ROW = {name: i for i, name in enumerate(TRACKS)}
_LENGTH_TOKENS = sorted(((n, _IDS[name]) for name, n in LENGTHS.items() if n > 1), reverse=True)
_DRUM_OF = {"KICK": "bd", "SNARE": "sd", "HH": "hh", "CLAP": "cp", "FX": "perc"}
_SYMBOL = {"o": "oh", "r": "rim", "t": "tom", "p": "perc"}
_ARTICULATION = {"X": "accent", "g": "ghost"}
_RANGE = {  # lowest and highest pitch of each pitched track, from its table of legal tokens
    t: (min(p), max(p)) for t in TRACKS
    if (p := [VOCABULARY.pitch(i) for i in VOCABULARY.ranges["pitch"] if LEGAL[_ROW[t], i]])}
_CHORD = (0, 2, 4)  # degrees above the root: the triad
_COLOURS = (6, 1, 3, 5)  # seventh, ninth, eleventh, thirteenth
_SHARP_COLOURS = (1, 6, 11, 8)  # semitones above the root: flat ninth, tritone, major seventh, flat sixth

# Melodic lines: (centre, semitones of span at curvature 0, added at curvature 1).
_LINES: dict[str, tuple[float, int, int]] = {
    "LEAD": (72, 3, 21), "STAB": (66, 2, 20), "VOX": (60, 2, 16), "PAD": (60, 2, 12), "AMB": (52, 0, 12),
    "ARP": (66, 7, 25)}
_CLIMBS = {"LEAD": 6, "ARP": 6, "STAB": 5, "VOX": 3}  # semitones up at height 1, down at -1
_RHYTHMS = {"LEAD": patterns.LEADS, "STAB": patterns.STABS, "ARP": patterns.ARPS}
_SHARED_RHYTHMS = {"VOX": patterns.VOICES, "PAD": patterns.PADS, "AMB": patterns.AMBIENCES}


class Note(NamedTuple):
    """One note of a row before it is written."""

    onset: int  # 0..31
    token: int
    length: int  # in sixteenths, as the pattern holds it
    articulation: str | None


class Plan(NamedTuple):
    """What all tracks of one window share; numbers in [0, 1] unless said otherwise."""

    genre: str
    scale: tuple[int, ...]  # semitones above the tonic
    tonic: int  # pitch class 0..11
    chords: tuple[int, ...]  # scale degree 1..7 of each half-bar, [4]
    density: float
    hats: int  # levels added to the hi-hats: 0 or 1
    curvature: float
    rising: bool  # contours as written, or upside down
    tension: float
    grounding: float
    confidence: float
    height: float  # -1..1: register of the melodic lines
    speed: float
    accents: float
    rotation: float  # of contours, arpeggios and percussion, in turns
    steady: np.ndarray  # [12, 8] uniforms, the same for a whole section
    fresh: np.ndarray  # [12, 8] uniforms, new in each window
    cells: np.ndarray  # [12, 32] uniforms, new in each window


def voice(track: str, plan: Plan) -> list[Note]:
    """The notes of one track, by onset."""
    if track in _DRUM_OF:
        return _drums(track, plan)
    if track == "BASS":
        return _bass(plan)
    return _line(track, plan)


def write_row(notes: list[Note]) -> list[int]:
    """32 cells: each note, then its length and articulation in the free cells behind it.

    A ghost note that has no free cell behind it is left out; other notes lose what does not fit.
    """
    row = [REST] * STEPS
    ends = [*(n.onset for n in notes[1:]), STEPS]
    for note, end in zip(notes, ends, strict=True):
        free = end - note.onset - 1
        if note.articulation == "ghost" and not free:
            continue
        row[note.onset] = note.token
        length = min(note.length, end - note.onset)
        held = length > HALF_BAR and length == end - note.onset  # longer than a duration token can say
        articulation = note.articulation or ("legato" if held else None)
        shaping = [_IDS[articulation]] if articulation else []
        if articulation not in ("legato", "stac") and length > 1:
            shaping.insert(0, next((t for n, t in _LENGTH_TOKENS if n <= length), REST))
        for i, token in enumerate(shaping[:free]):
            row[note.onset + 1 + i] = token
    return row


def _two_bars(track: str, levels: patterns.Levels, plan: Plan, density: float, extra: int = 0) -> str:
    """32 characters: a bar at the asked level, then the same again or, when confidence is low, another."""
    t = _ROW[track]
    steady, fresh = plan.steady[t], plan.fresh[t]
    top = len(levels) - 1
    level = min(max(int(density * 4.0 + 0.8 * (steady[0] - 0.5)), 0), 3) + extra
    first = _pick(levels[min(level, top)], steady[1])
    if fresh[0] <= plan.confidence:
        return first + first
    other = min(max(level + (1 if fresh[1] < 0.5 else -1), 0), top)
    second = _pick(levels[other], fresh[2])
    keep = 0.75 + 0.25 * plan.confidence  # off the beat, uncertain notes may drop out
    cells = plan.cells[t]
    return first + "".join(
        "." if s % 4 and c not in ".-" and cells[BAR + s] > keep else c for s, c in enumerate(second))


def _pick(variants: tuple[str, ...], u: float) -> str:
    return variants[int(u * len(variants))]


def _drums(track: str, plan: Plan) -> list[Note]:
    weight = plan.grounding if track == "KICK" else plan.density
    text = _two_bars(track, patterns.DRUMS[plan.genre][track], plan, 0.65 * plan.density + 0.35 * weight,
                     plan.hats if track == "HH" else 0)
    if track == "FX":
        turn = round(plan.rotation * 4)
        text = text[turn:] + text[:turn]
    notes = []
    for step, symbol in enumerate(text):
        if symbol in ".-":
            continue
        articulation = _ARTICULATION.get(symbol)
        if symbol == "x" and step % 8 == 4 and plan.accents > 0.6:
            articulation = "accent"
        name = _SYMBOL.get(symbol, _DRUM_OF[track])
        notes.append(Note(step, _IDS[name], 1, articulation))
    return notes


def _hits(text: str) -> list[tuple[int, str, int]]:
    """(onset, symbol, length) of each note of a pattern."""
    hits, step = [], 0
    while step < len(text):
        symbol, start = text[step], step
        step += 1
        if symbol in ".-":
            continue
        while step < len(text) and text[step] == "-":
            step += 1
        hits.append((start, symbol, step - start))
    return hits


def _degree(plan: Plan, degree: int) -> int:
    """Semitones above the tonic of a scale degree counted from 0, beyond the octave too."""
    return plan.scale[degree % 7] + 12 * (degree // 7)


def _bass(plan: Plan) -> list[Note]:
    """Low octave when grounded, an octave up when not; octave leaps only in curved movement."""
    density = 0.7 * plan.density + 0.3 * plan.grounding
    text = _two_bars("BASS", patterns.BASS[plan.genre], plan, density)
    u = plan.steady[_ROW["BASS"]]
    floor = 36 if plan.grounding + 0.2 * (u[2] - 0.5) > 0.4 else 48
    notes = []
    for onset, symbol, length in _hits(text):
        chord = plan.chords[onset // HALF_BAR] - 1
        root = floor + (plan.tonic + _degree(plan, chord)) % 12
        above = {"3": 2, "5": 4, "7": 6}.get(symbol, 0)
        pitch = root + _degree(plan, chord + above) - _degree(plan, chord)
        if symbol == "8":
            pitch = root + (12 if plan.curvature > 0.45 else 0)
        elif symbol == "n":
            target = plan.chords[(onset // HALF_BAR + 1) % 4] - 1
            pitch = floor + (plan.tonic + _degree(plan, target)) % 12 + (1 if plan.tension > 0.6 else -2)
            pitch = max(pitch, floor)
        elif symbol in "357" and plan.curvature < 0.2:
            pitch = root
        pitch = pitch - 12 if pitch > 60 else pitch
        short = plan.grounding < 0.3 or plan.speed > 0.8
        notes.append(Note(onset, VOCABULARY.pitch_token(pitch), 1 if short else length, None))
    return notes


@cache
def _nearest(classes: frozenset[int]) -> tuple[int, ...]:
    """Nearest pitch of the given pitch classes to each MIDI pitch, the lower one of two, [128]."""
    ladder = [p for p in range(128) if p % 12 in classes]
    return tuple(min(ladder, key=lambda q: abs(q - p)) for p in range(128))


@cache
def _classes(scale: tuple[int, ...], tonic: int, chord: int, tones: tuple[int, ...]) -> frozenset[int]:
    return frozenset((tonic + scale[(chord + k) % 7]) % 12 for k in tones)


def _harmony(track: str, plan: Plan) -> list[frozenset[int]]:
    """Pitch classes the track may rest on in each half-bar: the triad, or colours as tension rises. [4]"""
    u = plan.steady[_ROW[track]]
    sets = []
    for degree in plan.chords:
        chord = degree - 1
        if u[3] >= plan.tension:
            tones = (0, 4) if track == "AMB" else _CHORD
            sets.append(_classes(plan.scale, plan.tonic, chord, tones))
        elif u[3] >= 1.2 * (plan.tension - 0.45):
            colour = _COLOURS[int(u[4] * len(_COLOURS))]
            sets.append(_classes(plan.scale, plan.tonic, chord, (0, 2, colour)))
        else:
            root = plan.tonic + plan.scale[chord % 7]
            sharp = _SHARP_COLOURS[int(u[4] * len(_SHARP_COLOURS))]
            sets.append(frozenset({(root + sharp) % 12, (root + 12 - sharp) % 12}))
    return sets


def _line(track: str, plan: Plan) -> list[Note]:
    """A contour stretched to the span that curvature asks for, set on chord and scale."""
    t = _ROW[track]
    u, fresh = plan.steady[t], plan.fresh[t]
    rhythms = _SHARED_RHYTHMS.get(track) or _RHYTHMS[track][patterns.FEELS[plan.genre]]
    text = _two_bars(track, rhythms, plan, plan.density)
    centre, least, more = _LINES[track]
    span = least + more * plan.curvature
    low, high = _RANGE[track]
    centre += _CLIMBS.get(track, 0) * plan.height - (10 * plan.grounding if track == "AMB" else 0)
    centre = min(max(centre, low + span / 2), high - span / 2)
    contours = patterns.ARPEGGIOS if track == "ARP" else patterns.CONTOURS
    contour = contours[int(u[5] * len(contours))]
    second = contours[int(fresh[5] * len(contours))] if fresh[3] > plan.confidence else contour
    harmony = _harmony(track, plan)
    scale = _classes(plan.scale, plan.tonic, 0, tuple(range(7)))
    turn = round(plan.rotation * 8)
    notes, count = [], 0
    for onset, _, length in _hits(text):
        shape = contour if onset < BAR else second
        classes = harmony[onset // HALF_BAR]
        if track == "ARP":
            pitch = _rung(classes, centre, span, int(shape[(count + turn) % len(shape)]))
        else:
            place = onset if track == "LEAD" else onset // 2
            digit = int(shape[(place // 2 + turn) % len(shape)])
            height = (digit if plan.rising else 9 - digit) / 9.0 - 0.5
            passing = track == "LEAD" and length == 1 and onset % 4
            pitch = _nearest(scale if passing else classes)[round(centre + height * span)]
            if passing and plan.cells[t, onset] < 0.6 * plan.tension ** 2:
                pitch += 1
        pitch = pitch + 12 if pitch < low else pitch - 12 if pitch > high else pitch
        notes.append(Note(onset, VOCABULARY.pitch_token(pitch), length, _touch(track, plan, onset, length)))
        count = (count + 1) if (onset + length) % BAR else 0
    return notes


def _rung(classes: frozenset[int], centre: float, span: float, index: int) -> int:
    """A pitch of the ladder of chord tones within the span: rung `index`, going round at its top."""
    ladder = [p for p in range(round(centre - span / 2), round(centre + span / 2) + 1) if p % 12 in classes]
    return ladder[index % len(ladder)] if ladder else _nearest(classes)[round(centre)]


def _touch(track: str, plan: Plan, onset: int, length: int) -> str | None:
    """Articulation: short stabs, legato leads and voices in slow movement, accents in jerky movement."""
    if track == "STAB" and length == 1:
        return "accent" if plan.accents > 0.7 and onset % 8 == 0 else "stac"
    if track in ("LEAD", "VOX") and length > 2 and plan.speed < 0.6:
        return "legato"
    if track == "ARP" and plan.speed > 0.65:
        return "stac"
    if track in ("LEAD", "ARP") and plan.accents > 0.55 and onset % 8 == 0:
        return "accent"
    return None
