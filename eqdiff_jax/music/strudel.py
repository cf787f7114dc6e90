"""A grid as Strudel code: what a person would write and edit, with exactly the grid's events.

One cycle is one bar, a grid two cycles. Each track that sounds gets one labelled line, in lower case (a label
with a capital S would mean solo). Pitched tracks each have one built-in synth, drums go by their own names; a song
brings its drums along (`drums.DRUMS`), so nothing has to be downloaded.
"""

from collections.abc import Iterable, Sequence
from math import isfinite

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.drums import DRUMS
from eqdiff_jax.music.grid import SHAPE, TRACKS, Event, as_grid, events
from eqdiff_jax.music.mini_print import GRID, Segment, sampled, two_bars
from eqdiff_jax.music.vocabulary import VOCABULARY, pitch_name

SYNTHS = {"BASS": "sawtooth", "PAD": "triangle", "LEAD": "square", "STAB": "sawtooth", "ARP": "triangle",
          "VOX": "sine", "AMB": "sine"}
# What an effect token sets: Strudel's function, the control it arrives as, the value.
EFFECTS = {
    "lpf": ("lpf", "cutoff", "800"),  # Hz
    "hpf": ("hpf", "hcutoff", "300"),  # Hz
    "delay": ("delay", "delay", ".4"),  # level of the echo
    "reverb": ("room", "room", ".5"),  # level of the room
    "dist": ("dist", "distort", "1"),  # amount
}


def to_strudel(grid, bpm: float = 120) -> str:
    """Strudel code of one grid, int [12, 32]; `bpm` in beats per minute.

    Evaluated over cycles 0 and 1 it gives `events(grid)`: onset, length, sound, gain (to 1e-3) and effects.
    """
    return _code([events(as_grid(grid))], bpm)


def song_to_strudel(grids, bpm: float = 120) -> str:
    """Strudel code of grids played one after the other, int [N, 12, 32]; 2 N cycles, then from the start.

    It starts with JavaScript that synthesises the drums.
    """
    array = np.asarray(grids)
    if array.ndim != 3 or array.shape[1:] != SHAPE or not len(array):
        raise InputError(f"a song is an integer array [N, 12, 32], N at least 1, got {list(array.shape)}")
    return notes_to_strudel([events(grid) for grid in array], bpm)


def notes_to_strudel(sections: Sequence[Sequence[Event]], bpm: float = 120) -> str:
    """`song_to_strudel` of the notes of each two bars."""
    return DRUMS + _code(sections, bpm)


def _code(sections: Sequence[Sequence[Event]], bpm: float) -> str:
    lines = [f"setcpm({_bpm_text(bpm)}/4)"]
    for track, name in enumerate(TRACKS):
        parts = [_track_code([e for e in section if e.track == track]) for section in sections]
        if any(parts):
            synth = f'.s("{SYNTHS[name]}")' if name in SYNTHS else ""
            lines.append(f"{name.lower()}: {_arranged(parts, synth)}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "silence"]) + "\n"


def _bpm_text(bpm: float) -> str:
    if not (isfinite(bpm) and bpm > 0):
        raise InputError(f"bpm {bpm}: the tempo is a positive number of beats per minute")
    return str(int(bpm)) if bpm == int(bpm) else repr(float(bpm))


def _arranged(parts: Sequence[tuple[str, str] | None], synth: str) -> str:
    """The sections of one track; equal neighbours are played as one."""
    runs: list[list] = []
    for part in parts:
        if runs and runs[-1][1] == part:
            runs[-1][0] += 2
        else:
            runs.append([2, part])
    if len(runs) == 1:
        source, rest = runs[0][1]
        return source + synth + rest
    rows = [f"  [{cycles}, {''.join(part) if part else 'silence'}]," for cycles, part in runs]
    return "\n".join(["arrange(", *rows, f"){synth}"])


def _track_code(notes: Sequence[Event]) -> tuple[str, str] | None:
    """Source pattern and the calls that follow it, or None for a track at rest."""
    if not notes:
        return None
    text, slow = two_bars(_segments(notes))
    source = f'{"s" if isinstance(notes[0].sound, str) else "note"}("{text}"){".slow(2)" * slow}'
    gains = {int(2 * n.onset): gain_text(n.gain) for n in notes}
    return source, f".gain({_argument(sampled(gains))}){''.join(_effect_calls(notes))}"


def gain_text(gain: float) -> str:
    """A gain to three decimals, as short as it goes: 0.63 -> '.63'."""
    text = f"{gain:.3f}".rstrip("0").rstrip(".")
    return text.removeprefix("0") if gain < 1 else text


def _argument(text: str) -> str:
    return text if text.replace(".", "", 1).isdigit() else f'"{text}"'


def _segments(notes: Iterable[Event]) -> tuple[Segment, ...]:
    """The track's two bars as notes and rests, in half sixteenths."""
    out, at = [], 0
    for note in notes:
        onset, length = 2 * note.onset, int(2 * note.length)
        if onset > at:
            out.append(Segment(onset - at, "~", True))
        text = note.sound if isinstance(note.sound, str) else pitch_name(note.sound).lower()
        out.append(Segment(length, text, False))
        at = onset + length
    if at < GRID:
        out.append(Segment(GRID - at, "~", True))
    return tuple(out)


def _effect_calls(notes: Sequence[Event]) -> list[str]:
    """One call per set of effects that the same notes have; a condition where others lack them.

    In a grid an effect stays on to the end; notes put together of two grids may lose it at the bar line.
    """
    chains: dict[tuple[bool, ...], str] = {}
    for name in VOCABULARY.groups["effect"]:
        having = tuple(name in note.effects for note in notes)
        if any(having):
            chains[having] = f"{chains.get(having, '')}.{EFFECTS[name][0]}({EFFECTS[name][2]})"
    calls = []
    for having, chain in sorted(chains.items(), key=lambda pair: pair[0].index(True)):
        switch = sampled({2 * n.onset: str(int(on)) for n, on in zip(notes, having, strict=True)}, fold=False)
        calls.append(chain if all(having) else f'.when("{switch}", x => x{chain})')
    return calls
