"""Session logs: what was played at each bar line and why; to replay, to export, to train on.

    SessionLog : one JSON line per bar line (BAR_SCHEMA), on disk before the call returns; data/sessions.py reads it
    replay     : the jobs of a log, from which live/worker.make makes the same grids again
    export     : a log as MIDI and as Strudel

    python -m eqdiff_jax.live.log SESSION.jsonl --out DIR

A line holds what its grid was made from: the window's means, the activations of the grid before, genre, section and
tempo are those of the conditioning. A grid lasts until the next one, one bar or more, and stands in
the line of each. What it was made from is the grid of the line before, unless the line says another one.
"""

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mode
from typing import Any, NamedTuple

import mido
import numpy as np

from eqdiff_jax.composer import PROCESS
from eqdiff_jax.conditioning import SIZE, assemble
from eqdiff_jax.data.sessions import FIELDS, snapshots
from eqdiff_jax.errors import InputError
from eqdiff_jax.live.budget import GRID_BARS
from eqdiff_jax.live.code import MODES
from eqdiff_jax.live.record import Lines
from eqdiff_jax.live.worker import Job, Made
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.music import VOCABULARY
from eqdiff_jax.music.conductor import GENRES, SECTIONS, ConductorState
from eqdiff_jax.music.grid import BAR, SHAPE, STEPS, Event, events
from eqdiff_jax.music.midi import TICKS_PER_STEP, notes_to_midi
from eqdiff_jax.music.strudel import notes_to_strudel
from eqdiff_jax.targets import DEFAULT_RULES, NAMES, Rule
from eqdiff_jax.types import Dynamics


def _numbers(count: int, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    limits = {key: bound for key, bound in (("minimum", low), ("maximum", high)) if bound is not None}
    return {"type": "array", "minItems": count, "maxItems": count, "items": {"type": "number", **limits}}


_COUNT = {"type": "integer", "minimum": 0}
_TOKENS = {"type": "array", "minItems": SHAPE[0], "maxItems": SHAPE[0], "items": {
    "type": "array", "minItems": STEPS, "maxItems": STEPS,
    "items": {"type": "integer", "minimum": 0, "maximum": len(VOCABULARY) - 1}}}
# A line of a log, as a JSON schema. What is not required is written all the same, but `frame` and `previous`.
BAR_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "BarSnapshot", "type": "object",
    "required": list(FIELDS),
    "properties": {
        "timestamp": {"type": "number", "description": "seconds since 1970, at the bar line"},
        "z": _numbers(32), "velocity": _numbers(32),
        "dynamics": {
            "type": "object", "required": list(Dynamics._fields), "additionalProperties": False,
            "description": "means over the window; phase as 0.5 (1 - cos 2 pi phase)",
            "properties": {name: {"type": "number", "minimum": row.low, "maximum": row.high}
                           for name, row in TABLE._asdict().items()}},
        "activePattern": {"type": "string", "description": "the Strudel code that plays"},
        "instrumentActivations": {**_numbers(SHAPE[0], 0, 1), "description": "of the grid before"},
        "genre": {"enum": [*GENRES, None]},
        "bpm": {"type": "number", "exclusiveMinimum": 0, "description": "that the grid was made for"},
        "tempo": {"type": "number", "exclusiveMinimum": 0, "description": "bpm at which this bar plays"},
        "section": {"anyOf": [_numbers(len(SECTIONS), 0, 1), {"enum": list(SECTIONS)}]},
        "tokens": _TOKENS, "mode": {"enum": list(MODES)},
        "bar": {"type": "integer", "description": "of the page's clock; a grid's first bar is that of even ones"},
        "window": {**_COUNT, "description": "number of the grid; with `seed` its key"}, "seed": _COUNT,
        "steps": {**_COUNT, "description": "denoising steps taken, 0 without the network"},
        "wanted": {**_COUNT, "description": "steps that the commitment rule asked for"},
        "candidates": {**_COUNT, "description": "grids drawn, from which phrases were taken; 1 where left out"},
        "control": {"type": "number", "minimum": 0, "description": "how strongly targets counted; 0 where left out"},
        "targets": {**_numbers(len(NAMES), 0, 1), "description": f"ranks asked for: {', '.join(NAMES)}"},
        "rules": {"type": "object", "propertyNames": {"enum": list(NAMES)}, "additionalProperties": {"type": "array"},
                  "description": "the fields of targets.Rule of each target, where they are not the default"},
        "bucket": {**_COUNT, "description": "what earlier grids had left to spend, in 1/1024 cell; 0 where left out"},
        "bars": {**_COUNT, "description": "from the job before to this one; 2 where left out"},
        "temperature": {"type": "number", "minimum": 0}, "confidence": {"type": "number"},
        "budget": {**_COUNT, "description": "cells that were allowed to change"}, "changed": _COUNT,
        "seconds": {"type": "number", "minimum": 0, "description": "that the grid took to make"},
        "margin": {"type": ["number", "null"], "description": "1 - spectral radius at the window's last frame"},
        "missed": {"type": "array", "items": {"type": "string"}, "description": "grids missed since the line before"},
        "conductor": {"type": "array", "items": {"type": "number"}, "minItems": len(ConductorState._fields),
                      "maxItems": len(ConductorState._fields), "description": "its state before the window"},
        "frame": {**_COUNT, "description": "limb frames recorded until this bar line"},
        "previous": {"type": "object", "properties": {"tokens": _TOKENS, "conditioning": _numbers(SIZE)},
                     "dependentRequired": {"tokens": ["conditioning"], "conditioning": ["tokens"]},
                     "description": "what the grid was made from, where that is not the grid of the line before; {} "
                                    "for nothing"},
    },
}


def snapshot(job: Job, made: Made, *, bar: int, tempo: float, timestamp: float, missed: Sequence[str] = (),
             frame: int | None = None) -> dict[str, Any]:
    """The line of one bar, without `previous`: a dict that BAR_SCHEMA describes."""
    rules = {} if job.rules is None or job.rules == DEFAULT_RULES else {
        "rules": {name: list(rule) for name, rule in job.rules.items()}}
    return {
        "timestamp": round(timestamp, 3), "bar": bar, "window": job.window, "mode": made.mode, "genre": job.genre,
        "bpm": float(job.bpm), "tempo": float(tempo), "seed": job.seed, "steps": made.steps, "wanted": made.wanted,
        "candidates": job.candidates, "control": job.control, "targets": _short(made.asked), "bucket": job.bucket,
        "bars": job.bars, "temperature": float(made.temperature), "confidence": float(made.confidence),
        **rules, "budget": made.budget, "changed": made.changed, "seconds": round(made.seconds + made.overhead, 4),
        "missed": list(missed),
        "margin": float(made.margin) if math.isfinite(made.margin) else None,
        **({} if frame is None else {"frame": frame}),
        "section": _short(made.section), "instrumentActivations": _short(job.activations),
        "dynamics": {name: float(x) for name, x in job.dynamics._asdict().items()},
        "conductor": [x.item() if isinstance(x, np.generic) else x for x in job.conductor],
        "activePattern": made.code, "z": _short(job.z), "velocity": _short(job.velocity),
        "tokens": np.asarray(made.tokens).tolist()}


def _short(values: np.ndarray) -> list[float]:
    """float32 numbers as the shortest decimals that give them back."""
    return [float(str(x)) for x in np.asarray(values, np.float32)]


def _previous(job: Job, last: tuple[int, Made] | None, resumed: bool) -> dict[str, Any]:
    """The field `previous` of a line after the line `last` (window, grid), if it is needed. `resumed`: or after lines
    of which we know nothing."""
    before = job.previous_conditioning
    if last is None:
        known = before is None and not resumed
    else:
        known = last[0] == job.window or (
            before is not None and np.array_equal(last[1].tokens, job.previous)
            and np.array_equal(last[1].conditioning, before))
    if known:
        return {}
    return {"previous": {} if before is None else {"tokens": np.asarray(job.previous).tolist(),
                                                   "conditioning": _short(before)}}


class SessionLog:
    """A log that is being written; see `record.Lines` for what happens to it in a crash or on a full disk."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)
        self._last: tuple[int, Made] | None = None

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._lines.lost

    @property
    def error(self) -> str:
        """Why the last of them could not, one line; empty if none was lost."""
        return self._lines.error

    def append(self, job: Job, made: Made, *, bar: int, tempo: float, timestamp: float | None = None,
               missed: Sequence[str] = (), frame: int | None = None) -> None:
        """One bar line: the grid that plays, the job it was made by, the tempo in beats per minute.

        It is on disk when this returns, so this waits for the disk: keep it out of a loop that keeps time.
        """
        line = snapshot(job, made, bar=bar, tempo=tempo, timestamp=time.time() if timestamp is None else timestamp,
                        missed=missed, frame=frame) | _previous(job, self._last, self._lines.resumed)
        if self._lines.append(json.dumps(line, allow_nan=False, separators=(",", ":"))):
            self._last = job.window, made

    def close(self) -> None:
        """No more lines."""
        self._lines.close()


class Played(NamedTuple):
    """One grid of a log."""

    job: Job  # makes it again; `limbs`, which only the margin needs, is a body at rest
    tokens: np.ndarray  # int32 [12, 32]
    section: np.ndarray  # float32 [6]
    code: str
    bars: int  # that it was heard
    tempo: float  # bpm at its first bar line


def replay(path: str | Path) -> Iterator[Played]:
    """The grids of a log, in order; `worker.make(params, played.job)` makes the same tokens with the same parameters.

    Raises InputError for a log that cannot be read, or that does not say how its grids were made.
    """
    tokens: np.ndarray | None = None
    conditioning: np.ndarray | None = None
    played: Played | None = None
    for number, bar in enumerate(snapshots(path), 1):
        if played is not None and bar.get("window") == played.job.window and "previous" not in bar:
            played = played._replace(bars=played.bars + 1)
            continue
        if played is not None:
            yield played
        try:
            if "previous" in bar:
                said = bar["previous"]
                tokens = np.array(said["tokens"], np.int32).reshape(SHAPE) if said else None
                conditioning = np.array(said["conditioning"], np.float32).reshape(SIZE) if said else None
            played = _played(bar, tokens, conditioning)
        except (KeyError, TypeError, ValueError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise InputError(f"{path}, bar {number}: does not say how its grid was made ({why}); give a log that "
                             "live.py wrote") from None
        tokens, conditioning = played.tokens, np.asarray(assemble(
            bar["z"], bar["velocity"], bar["dynamics"], genre=bar["genre"], section=bar["section"],
            activations=bar["instrumentActivations"], bpm=bar["bpm"]))
    if played is not None:
        yield played


def _played(bar: dict[str, Any], previous: np.ndarray | None, conditioning: np.ndarray | None) -> Played:
    """The grid of one line; raises KeyError, TypeError or ValueError where a field is missing or wrong."""
    if bar["tokens"] is None:
        raise KeyError("tokens")
    if bar["mode"] not in MODES:
        raise ValueError(f"unknown mode {bar['mode']!r}")
    job = Job(int(bar["window"]), int(bar["seed"]), bar["mode"], bar["z"], bar["velocity"], bar["dynamics"], REST_FRAME,
              bar["genre"], bar["bpm"], ConductorState(*bar["conductor"]),
              np.full(SHAPE, PROCESS.mask, np.int32) if previous is None else previous, conditioning,
              bar["instrumentActivations"], steps=int(bar["steps"]), temperature=float(bar["temperature"]),
              candidates=int(bar.get("candidates", 1)), control=float(bar.get("control", 0.0)),
              rules={name: Rule(*rule) for name, rule in bar["rules"].items()} if "rules" in bar else None,
              bucket=int(bar.get("bucket", 0)), bars=int(bar.get("bars", 2)))
    return Played(job, bar["tokens"].astype(np.int32), bar["section"], bar["activePattern"], 1,
                  _tempo(bar))


def _tempo(bar: dict[str, Any]) -> float:
    """bpm at which a bar played, within what MIDI can say."""
    said = bar.get("tempo")
    tempo = said if isinstance(said, (int, float)) and math.isfinite(said) and said > 0 else bar["bpm"]
    return min(max(float(tempo), 4.0), 1000.0)


def song(path: str | Path) -> tuple[list[list[Event]], list[float]]:
    """What was heard, two bars at a time: their notes, and their tempos; a grid that stayed is repeated.

    The bar from an even bar line on (or from every other line, where they are not numbered) is the first of its line's
    grid, the next one the second of its own line's: a grid that comes at an odd line is heard from its second bar on.
    Raises InputError for a log that cannot be read or holds no grid.
    """
    parts: list[list[Event]] = []
    tempos: list[float] = []
    last: int | None = None
    for i, bar in enumerate(snapshots(path)):
        if bar["tokens"] is None:
            continue
        pair, odd = divmod(bar["bar"] if isinstance(bar.get("bar"), int) else i, GRID_BARS)
        notes = events(bar["tokens"].astype(np.int32))
        if pair != last:
            parts.append(notes)
            tempos.append(_tempo(bar))
        elif odd:
            parts[-1] = _joined(parts[-1], notes)
        last = pair
    if not parts:
        raise InputError(f"{path}: holds no grid; give a log of a session that played")
    return parts, tempos


def _joined(first: Sequence[Event], second: Sequence[Event]) -> list[Event]:
    """The notes that begin in the first bar of one grid and in the second of another.

    A note that lasts into the second bar ends at the latest where its track goes on.
    """
    late = [note for note in second if note.onset >= BAR]
    goes_on = {track: min(n.onset for n in late if n.track == track) for track in {n.track for n in late}}
    early = [n._replace(length=min(n.length, float(goes_on.get(n.track, STEPS) - n.onset)))
             for n in first if n.onset < BAR]
    return sorted([*early, *late], key=lambda n: (n.track, n.onset))


def export(path: str | Path, out: str | Path) -> list[Path]:
    """A session as NAME.mid, with its changes of tempo, and NAME.strudel.js at the tempo of most of its bars.

    Both play the grids as written: what parameters did to them in mode `modulate` is not in them. Raises InputError.
    """
    parts, tempos = song(path)
    midi = notes_to_midi(parts, bpm=tempos[0])
    _set_tempos(midi, tempos)
    file = io.BytesIO()
    midi.save(file=file)
    contents = {".mid": file.getvalue(), ".strudel.js": notes_to_strudel(parts, bpm=mode(tempos)).encode()}
    folder, made = Path(out), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in contents.items():
            made.append(folder / (Path(path).stem + suffix))
            scratch = made[-1].with_name(f".{made[-1].name}.part")
            scratch.write_bytes(content)
            os.replace(scratch, made[-1])
    except OSError as error:
        raise InputError(f"cannot write to --out {folder} ({error.strerror}): choose another") from None
    return made


def _set_tempos(midi: mido.MidiFile, tempos: Sequence[float]) -> None:
    """Changes of tempo into the first track, in place; the first tempo is there."""
    track, moments, now = midi.tracks[0], [], 0
    for message in track:
        now += message.time
        moments.append((now, message))
    for i in range(1, len(tempos)):
        if tempos[i] != tempos[i - 1]:
            message = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempos[i]))
            moments.append((i * STEPS * TICKS_PER_STEP, message))
    moments.sort(key=lambda moment: (moment[0], moment[1].type == "end_of_track"))
    times = [0, *(at for at, _ in moments)]
    track[:] = [message.copy(time=at - before) for before, (at, message) in zip(times, moments, strict=False)]


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 with the files written, or 2 with one line that says what to change."""
    parser = argparse.ArgumentParser(prog="log", description="A session's log as MIDI and as Strudel code.")
    parser.add_argument("session", metavar="SESSION.jsonl", help="a log that live.py wrote")
    parser.add_argument("--out", default="out", metavar="DIR", help="folder for the files (default: out)")
    args = parser.parse_args(argv)
    try:
        paths = export(args.session, args.out)
    except InputError as error:
        print(f"log: {error}", file=sys.stderr)
        return 2
    print("wrote " + ", ".join(os.path.relpath(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
