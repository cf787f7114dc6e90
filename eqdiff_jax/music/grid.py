"""The grid `int32 [12, 32]` and its reading rule, total on every array of that shape.

Reading happens in three passes, each a function below:

    legalise : a token outside its track's table (or outside the vocabulary) reads as rest
    expand   : repeat, fill and break are macros on cells; what is left has no structure tokens
    events   : notes with length, gain and effects

`events(grid) == events(expand(grid))` for every grid. That identity needs one decision: a break may cut
a held note after 5, 6, 7 or more than 8 sixteenths, lengths that no duration token says. Such a note keeps
the longest length a token can say that ends no later than the break.
"""

from typing import NamedTuple

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.vocabulary import (
    DEFAULT_DYNAMICS,
    LENGTHS,
    VELOCITIES,
    VOCABULARY,
    pitch_name,
)

TRACKS = ("KICK", "SNARE", "HH", "CLAP", "BASS", "PAD", "LEAD", "STAB", "ARP", "FX", "VOX", "AMB")
STEPS, BAR, HALF_BAR = 32, 16, 8
SHAPE = (len(TRACKS), STEPS)

_IDS = VOCABULARY.ids
REST = _IDS["~"]
_DRUM_COMMON = ("~", *VELOCITIES, "accent", "ghost", *LENGTHS, *(
    "lpf", "hpf", "delay", "reverb", "dist"), "repeat", "fill", "break")
_PITCHED_COMMON = (*_DRUM_COMMON, "stac", "legato")


def _pitches(low: int, high: int) -> tuple[str, ...]:
    return tuple(pitch_name(p) for p in range(low, high + 1))


# What may stand in each track: its sounds, and the tokens that shape them.
_TABLES: dict[str, tuple[str, ...]] = {
    "KICK": ("bd", *_DRUM_COMMON),
    "SNARE": ("sd", "rim", *_DRUM_COMMON),
    "HH": ("hh", "oh", *_DRUM_COMMON),
    "CLAP": ("cp", *_DRUM_COMMON),
    "BASS": (*_pitches(36, 60), *_PITCHED_COMMON),
    "PAD": (*_pitches(48, 72), *_PITCHED_COMMON),
    "LEAD": (*_pitches(60, 84), *_PITCHED_COMMON),
    "STAB": (*_pitches(48, 84), *_PITCHED_COMMON),
    "ARP": (*_pitches(48, 84), *_PITCHED_COMMON),
    "FX": ("tom", "perc", *_DRUM_COMMON),
    "VOX": (*_pitches(48, 72), *_PITCHED_COMMON),
    "AMB": (*_pitches(36, 72), *_PITCHED_COMMON),
}
# What `fill` plays in each track: 8 cells, aligned with the half-bar.
_FILLS: dict[str, str] = {
    "KICK": "bd ~ ~ bd ~ ~ bd ~",
    "SNARE": "sd ghost sd ~ sd sd sd accent",
    "HH": "hh hh hh hh oh ~ hh oh",
    "CLAP": "cp ~ ~ cp ~ ~ cp cp",
    "BASS": "C2 ~ C2 ~ C3 ~ G2 ~",
    "PAD": "C4 quarter ~ ~ G4 quarter ~ ~",
    "LEAD": "C5 D#5 G5 A#5 C6 ~ G5 ~",
    "STAB": "C4 ~ ~ D#4 ~ ~ G4 ~",
    "ARP": "C4 D#4 G4 C5 D#5 C5 G4 D#4",
    "FX": "perc ~ perc tom ~ tom tom accent",
    "VOX": "C4 8th D#4 8th G4 8th C4 8th",
    "AMB": "C3 half ~ ~ ~ ~ ~ ~",
}

LEGAL = np.zeros((len(TRACKS), len(VOCABULARY)), bool)  # [12, 81]
for _row, _track in enumerate(TRACKS):
    LEGAL[_row, [_IDS[name] for name in _TABLES[_track]]] = True
FILLS = np.array([[_IDS[n] for n in _FILLS[t].split()] for t in TRACKS], np.int32)  # [12, 8]
for _table in (LEGAL, FILLS):
    _table.setflags(write=False)

SOUNDS = np.zeros(len(VOCABULARY), bool)  # tokens that start a note
SOUNDS[list(VOCABULARY.ranges["pitch"]) + list(VOCABULARY.ranges["drum"])] = True
_REPEAT, _FILL, _BREAK = VOCABULARY.ranges["structure"]
_LENGTH_OF = {_IDS[name]: length for name, length in LENGTHS.items()}
_TOKEN_OF_LENGTH = {length: token for token, length in _LENGTH_OF.items()}
_VELOCITY_OF = {_IDS[name]: velocity for name, velocity in VELOCITIES.items()}


class Event(NamedTuple):
    """One note of a grid."""

    track: int  # 0..11, index into TRACKS
    onset: int  # 0..31, in sixteenths
    length: float  # in sixteenths, a multiple of 1/2; onset + length <= 32
    sound: int | str  # MIDI pitch 36..84, or a drum name
    gain: float  # velocity / 127
    effects: tuple[str, ...]  # names, in the vocabulary's order

    @property
    def pitch(self) -> int:
        """MIDI pitch of a note that is no drum."""
        assert not isinstance(self.sound, str)
        return self.sound


def as_grid(grid) -> np.ndarray:
    """The grid as int32 [12, 32]; raises InputError for another shape or a non-integer type."""
    array = np.asarray(grid)
    if array.shape != SHAPE or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"a grid is an integer array of shape {list(SHAPE)}, got {array.dtype} "
            f"{list(array.shape)}: pass one grid at a time")
    fits = (array >= -(2**31)) & (array < 2**31)
    return np.where(fits, array, REST).astype(np.int32)  # what int32 cannot hold is no token either


def legalise(grid) -> np.ndarray:
    """The grid with every token outside its track's table replaced by rest. int32 [12, 32]."""
    grid = as_grid(grid)
    known = (grid >= 0) & (grid < len(VOCABULARY))
    inside = np.where(known, grid, REST)
    return np.where(LEGAL[np.arange(len(TRACKS))[:, None], inside], inside, REST).astype(np.int32)


def expand(grid) -> np.ndarray:
    """The structure-free grid with the same events: macros applied left to right. int32 [12, 32].

    From step s to the end of its half-bar, `repeat` puts the already expanded cell 8 steps earlier
    (rest in the first half-bar) and `fill` the track's own row; `break` puts rests to the bar line and
    shortens the note it cuts.
    """
    return np.stack([_expand_row(row, FILLS[t]) for t, row in enumerate(legalise(grid))])


def _expand_row(row: np.ndarray, fill: np.ndarray) -> np.ndarray:
    row, breaks, step = row.copy(), [], 0
    while step < STEPS:
        half_bar_end = (step // HALF_BAR + 1) * HALF_BAR
        end = step + 1
        if row[step] == _REPEAT:
            end = half_bar_end
            row[step:end] = row[step - HALF_BAR:end - HALF_BAR] if step >= HALF_BAR else REST
        elif row[step] == _FILL:
            end = half_bar_end
            row[step:end] = fill[step % HALF_BAR:]
        elif row[step] == _BREAK:
            end = (step // BAR + 1) * BAR
            row[step:end] = REST
            breaks.append(step)
        step = end
    for onset, next_onset in _spans(row):
        cut = next((b for b in breaks if onset < b < next_onset), None)
        if cut is not None:
            _shorten(row, onset, next_onset, cut - onset)
    return row


def _spans(row: np.ndarray) -> list[tuple[int, int]]:
    """Each onset with the step of the next one (or 32)."""
    onsets = [int(s) for s in np.flatnonzero(SOUNDS[row])]
    return list(zip(onsets, [*onsets, STEPS][1:], strict=True))


def _length(row: np.ndarray, onset: int, next_onset: int) -> tuple[float, str | None]:
    """Length of the note in sixteenths and its articulation."""
    between = row[onset + 1:next_onset].tolist()
    lengths = [_LENGTH_OF[t] for t in between if t in _LENGTH_OF]
    articulations = [t for t in between if t in VOCABULARY.ranges["articulation"]]
    articulation = VOCABULARY.names[articulations[-1]] if articulations else None
    length = float(lengths[-1]) if lengths else 1.0
    if articulation == "stac":
        length /= 2
    elif articulation == "legato":
        length = float(next_onset - onset)
    return min(length, float(next_onset - onset)), articulation


def _shorten(row: np.ndarray, onset: int, next_onset: int, limit: int) -> None:
    """Rewrite the length tokens of one note, in place, so that it ends at most `limit` steps on."""
    length, articulation = _length(row, onset, next_onset)
    if length <= limit:
        return
    drop = set(_LENGTH_OF)
    if articulation in ("stac", "legato"):
        drop |= set(VOCABULARY.ranges["articulation"])
    cells = [s for s in range(onset + 1, next_onset) if int(row[s]) in drop]
    row[cells] = REST
    said = max(n for n in _TOKEN_OF_LENGTH if n <= limit)
    if said > 1:
        row[cells[-1]] = _TOKEN_OF_LENGTH[said]


def events(grid) -> list[Event]:
    """The notes of a grid, by track and onset.

    Length: one sixteenth, or the last duration token between the onset and the next one; stac halves it,
    legato runs it to the next onset; it ends at the next onset or step 32 at the latest. Velocity: the latest
    dynamics token, which also reaches back to the latest onset on its left; accent x 1.25 (at most 127),
    ghost x 0.5. Effects switch on, for the latest onset to their left, until the grid ends.
    """
    return [event for track, row in enumerate(expand(grid)) for event in _row_events(track, row)]


def _row_events(track: int, row: np.ndarray) -> list[Event]:
    velocity, on, notes = float(VELOCITIES[DEFAULT_DYNAMICS]), set(), []
    spans = _spans(row)
    lead_in = row[:spans[0][0]] if spans else row
    for onset, next_onset, cells in [(None, 0, lead_in), *((a, b, row[a + 1:b]) for a, b in spans)]:
        for token in cells.tolist():
            velocity = float(_VELOCITY_OF.get(token, velocity))
            if token in VOCABULARY.ranges["effect"]:
                on.add(token)
        if onset is None:
            continue
        length, articulation = _length(row, onset, next_onset)
        factor = {"accent": 1.25, "ghost": 0.5}.get(articulation or "", 1.0)
        token = int(row[onset])
        drum = token in VOCABULARY.ranges["drum"]
        notes.append(Event(
            track, onset, length, VOCABULARY.names[token] if drum else VOCABULARY.pitch(token),
            min(velocity * factor, 127.0) / 127.0, tuple(VOCABULARY.names[e] for e in sorted(on))))
    return notes
