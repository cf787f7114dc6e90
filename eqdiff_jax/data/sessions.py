"""Session logs read back: one JSON line per bar boundary, what the performer's movement was and what was played.

    {timestamp, z [32], dynamics {15}, activePattern, instrumentActivations [12], genre, bpm}   in every line
    {velocity [32], section, tokens [12][32]}                                                  where known

A line that was being written when the power went is no error; a bad line before it is.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eqdiff_jax.conditioning import assemble
from eqdiff_jax.data.movement import MotionWindows, concatenated
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.conductor import GENRES, SECTIONS
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.music.vocabulary import VOCABULARY
from eqdiff_jax.types import Dynamics

FIELDS = ("timestamp", "z", "dynamics", "activePattern", "instrumentActivations", "genre", "bpm")


def snapshots(path: str | Path) -> Iterator[dict]:
    """The bars of a log: its lines with `z`, `velocity`, `section`, `instrumentActivations` as float32 arrays,
    `tokens` as uint8 [12, 32] or None, `genre` as a name or None, `dynamics` as Dynamics of floats.

    What an optional field does not say is zero. Raises InputError, with the line's number, for a bad line; a last
    line without its end is left out.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a session log") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _snapshot(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            torn = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
            if torn and number == len(lines):  # every whole line ends with a newline
                return
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise InputError(f"{path}, line {number}: not a bar's snapshot ({why}); remove the line") from None


def _snapshot(bar: dict) -> dict:
    """One line as `snapshots` gives it; raises ValueError, TypeError or KeyError for a bad one."""
    if not isinstance(bar, dict):
        raise ValueError("not a JSON object")
    bar = {**{name: bar[name] for name in FIELDS}, "velocity": [0.0] * 32, "section": [0.0] * len(SECTIONS),
           "tokens": None} | {k: v for k, v in bar.items() if v is not None or k == "genre"}
    if isinstance(bar["section"], str):
        if bar["section"] not in SECTIONS:
            raise ValueError(f"unknown section {bar['section']!r}")
        bar["section"] = [float(bar["section"] == name) for name in SECTIONS]
    for name, size in (("z", 32), ("velocity", 32), ("section", len(SECTIONS)), ("instrumentActivations", SHAPE[0])):
        bar[name] = np.array(bar[name], np.float32)
        if bar[name].shape != (size,) or not np.isfinite(bar[name]).all():
            raise ValueError(f"{name} is not {size} finite numbers")
    bar["dynamics"] = Dynamics(**{name: float(bar["dynamics"][name]) for name in Dynamics._fields})
    bar["bpm"], bar["genre"] = float(bar["bpm"]), bar["genre"] or None
    if not all(map(math.isfinite, (*bar["dynamics"], bar["bpm"]))) or bar["bpm"] <= 0.0:
        raise ValueError("dynamics or bpm are not finite numbers")
    if bar["genre"] is not None and bar["genre"] not in GENRES:
        raise ValueError(f"unknown genre {bar['genre']!r}")
    if bar["tokens"] is not None:
        tokens = np.array(bar["tokens"])
        if tokens.shape != SHAPE or tokens.dtype.kind != "i" or tokens.min() < 0 or tokens.max() >= len(VOCABULARY):
            raise ValueError("tokens are no grid [12][32] of ids 0..80")
        bar["tokens"] = tokens.astype(np.uint8)
    return bar


def session_rows(path: str | Path) -> Iterator[tuple[str, dict]]:
    """Rows of PairedMusic: each bar that says its tokens, with the conditioning that it was played from."""
    name = Path(path).stem
    for i, bar in enumerate(snapshots(path)):
        if bar["tokens"] is not None:
            conditioning = assemble(bar["z"], bar["velocity"], bar["dynamics"], genre=bar["genre"],
                                    section=bar["section"], activations=bar["instrumentActivations"], bpm=bar["bpm"])
            yield f"{name}/{i}", {
                "tokens": bar["tokens"], "observed": np.ones(SHAPE[0], bool),
                "conditioning": np.asarray(conditioning, np.float32), "paired": True, "clip": name,
                "frames": np.zeros(2, np.int32), "piece": name, "source": "session"}


def session_windows(path: str | Path, *, split: str = "", shippable: bool = False) -> MotionWindows:
    """The movement of a log as windows, to be paired with other music."""
    parts = []
    for bar in snapshots(path):
        dynamics = Dynamics(*(np.array([x], np.float32) for x in bar["dynamics"]))
        parts.append(MotionWindows(
            bar["z"][None], bar["velocity"][None], dynamics, bar["section"][None], np.array([bar["bpm"]], np.float32),
            np.array([Path(path).stem]), np.zeros((1, 2), np.int32), np.array(["session"]), np.array([split]),
            np.array([shippable])))
    return concatenated(parts)
