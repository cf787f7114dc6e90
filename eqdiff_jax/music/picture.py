"""Grids as a picture: a stage of twelve lanes, lit by what plays.

Every track is a lane with its own colour; a note is a bar from its onset, as long as it sounds and as bright
as it is loud; in pitched lanes it stands at its pitch and a thin line draws the melody. Letters at a lane's
right end name its effects. The same grids give the same bytes.
"""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import BAR, SHAPE, STEPS, TRACKS, Event, events
from eqdiff_jax.music.vocabulary import pitch_name

STAGE, LANE, BEAT, INK, DIM = "#090b12", "#121622", "#171c2b", "#eef1f8", "#69728c"
COLOURS = {
    "KICK": "#ff5c5c", "SNARE": "#ff8f4d", "HH": "#ffd05c", "CLAP": "#ff6fae", "BASS": "#7484ff",
    "PAD": "#46aaff", "LEAD": "#4fe3d6", "STAB": "#be86ff", "ARP": "#78e584", "FX": "#cfa488",
    "VOX": "#ff9ade", "AMB": "#8ea7cc",
}
_EFFECTS = {"lpf": "L", "hpf": "H", "delay": "D", "reverb": "R", "dist": "X"}
_DRUM_LINE = {"bd": 0.5, "sd": 0.4, "rim": 0.72, "hh": 0.36, "oh": 0.68, "cp": 0.5, "tom": 0.34, "perc": 0.66}
_DRUM_LANE, _PITCHED_LANE, _GAP = 1.0, 1.9, 0.16  # heights in the panel's own unit
_MOST = 400  # grids in one picture


class _Lane(NamedTuple):
    bottom: float
    height: float
    pitched: bool


class _Layout(NamedTuple):
    """Sizes in inches and points; `full` panels carry words, small ones only what can still be read."""

    columns: int
    width: float  # of one panel
    height: float
    font: float
    full: bool


def draw(grids, path, *, titles: Sequence[str] | None = None) -> Path:
    """Draw N grids, int32 [N, 12, 32] or one [12, 32], as a PNG at `path`; returns the path.

    `titles` are N captions (default: window 1, 2, ...). The file is written beside `path` and then renamed, so
    `path` never holds half a picture. Raises InputError for another shape, no grid at all, more than 400, or
    a wrong number of titles, or a folder that does not exist.
    """
    grids = np.asarray(grids)
    grids = grids[None] if grids.shape == SHAPE else grids
    if grids.ndim != 3 or grids.shape[1:] != SHAPE or not 0 < len(grids) <= _MOST:
        raise InputError(f"a picture needs 1 to {_MOST} grids [N, 12, 32], got an array {list(grids.shape)}")
    if titles is None:
        titles = [""] if len(grids) == 1 else [f"window {i + 1}" for i in range(len(grids))]
    if len(titles) != len(grids):
        raise InputError(f"{len(grids)} grids need as many titles, got {len(titles)}")
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"no folder {path.parent} to write {path.name} in: create it first")
    figure = _figure([events(g) for g in grids], list(titles))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".png")
    try:
        with os.fdopen(handle, "wb") as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def _layout(count: int) -> _Layout:
    if count == 1:
        return _Layout(1, 13.0, 7.6, 10.0, True)
    if count <= 4:
        return _Layout(2, 8.0, 5.0, 8.5, True)
    if count <= 12:
        return _Layout(2 if count <= 8 else 3, 6.0, 4.0, 8.0, False)
    return _Layout(min(6, math.ceil(math.sqrt(count))), 4.0, 2.9, 6.4, False)


def _figure(grids: list[list[Event]], titles: list[str]) -> Figure:
    layout = _layout(len(grids))
    rows = math.ceil(len(grids) / layout.columns)
    left, right, top, bottom = (layout.font * k for k in (0.085, 0.06, 0.0, 0.02))
    key = 0.05 * layout.font
    gap_x, gap_y = layout.font * (0.14 if layout.full else 0.065), layout.font * 0.052
    width = left + right + layout.columns * layout.width + (layout.columns - 1) * gap_x
    height = top + bottom + key + rows * (layout.height + gap_y)
    figure = Figure(figsize=(width, height), dpi=110, facecolor=STAGE)
    for i, (notes, title) in enumerate(zip(grids, titles, strict=True)):
        row, column = divmod(i, layout.columns)
        x = left + column * (layout.width + gap_x)
        y = height - top - (row + 1) * (layout.height + gap_y)
        axes = figure.add_axes((x / width, y / height, layout.width / width, layout.height / height))
        _panel(axes, notes, title, layout, names=layout.full or column == 0)
    _key(figure, left / width, 0.3 * key / height, layout.font)
    return figure


def _key(figure: Figure, x: float, y: float, font: float) -> None:
    effects = "   ".join(f"{letter} {name}" for name, letter in _EFFECTS.items())
    text = f"two bars of sixteenths      brighter is louder      effects:  {effects}"
    figure.text(x, y, text, color=DIM, fontsize=0.85 * font)


def _lanes() -> list[_Lane]:
    """The lanes of TRACKS from top to bottom; the lowest one ends at 0."""
    lanes, y = [], 0.0
    for name in reversed(TRACKS):
        sings = name not in ("KICK", "SNARE", "HH", "CLAP", "FX")
        height = _PITCHED_LANE if sings else _DRUM_LANE
        lanes.append(_Lane(y, height, sings))
        y += height + _GAP
    return lanes[::-1]


def _panel(axes: Axes, notes: list[Event], title: str, layout: _Layout, *, names: bool) -> None:
    lanes = _lanes()
    top = lanes[0].bottom + lanes[0].height
    axes.set_xlim(-0.15, STEPS + 0.15)
    axes.set_ylim(-0.1, top + 0.1)
    axes.set_axis_off()
    points = layout.height * 72 / (top + 0.2)  # of one unit of height
    _floor(axes, lanes)
    for t, lane in enumerate(lanes):
        own = [n for n in notes if n.track == t]
        _lane(axes, own, lane, COLOURS[TRACKS[t]], points, layout)
        if names:
            colour = DIM if layout.full and not own else COLOURS[TRACKS[t]]
            axes.text(-0.55, lane.bottom + lane.height / 2, TRACKS[t], ha="right", va="center",
                      fontsize=layout.font, fontweight="bold", color=colour)
    for beat in range(STEPS // 4):
        axes.text(4 * beat + 0.1, -0.25, f"{beat // 4 + 1}.{beat % 4 + 1}", ha="left", va="top",
                  fontsize=0.8 * layout.font, color=INK if beat % 4 == 0 else DIM)
    axes.text(0, top + 0.25, title, ha="left", va="bottom", fontsize=1.15 * layout.font, color=INK,
              parse_math=False)


def _floor(axes: Axes, lanes: list[_Lane]) -> None:
    """Lane grounds with every second beat lighter, beat lines, and the two bars' edges."""
    grounds = [Rectangle((0, lane.bottom), STEPS, lane.height) for lane in lanes]
    axes.add_collection(PatchCollection(grounds, facecolor=LANE, edgecolor="none", zorder=0))
    beats = [Rectangle((s, lane.bottom), 4, lane.height) for lane in lanes for s in range(0, STEPS, 8)]
    axes.add_collection(PatchCollection(beats, facecolor=BEAT, edgecolor="none", zorder=1))
    for step in range(0, STEPS + 1, 4):
        bar = step % BAR == 0
        axes.vlines(step, 0, lanes[0].bottom + lanes[0].height, color="#4a5370" if bar else "#242b3f",
                    linewidth=1.0 if bar else 0.5, zorder=2)


def _lane(axes: Axes, notes: list[Event], lane: _Lane, colour: str, points: float, layout: _Layout) -> None:
    if not notes:
        return
    thick = points * (0.22 if lane.pitched else 0.46)
    # Round caps reach half a line's width beyond its ends: draw the line shorter by that much.
    cap = min(0.5 * thick / (layout.width * 72 / (STEPS + 0.3)), 0.42)
    heights = _heights(notes, lane)
    lines = []
    for note, y in zip(notes, heights, strict=True):
        start, end = note.onset + 0.06 + cap, note.onset + max(note.length, 0.5) - 0.06 - cap
        lines.append([(start, y), (max(end, start + 1e-3), y)])
    if lane.pitched and len(notes) > 1:
        path = [point for line in lines for point in line]
        axes.plot(*zip(*path, strict=True), color=colour, alpha=0.28, linewidth=0.1 * points, zorder=3,
                  solid_joinstyle="round")
    shades = [_shade(colour, note.gain) for note in notes]
    for spread, alpha in ((3.2, 0.025), (2.7, 0.035), (2.2, 0.05), (1.8, 0.06), (1.4, 0.08)):  # the glow
        axes.add_collection(LineCollection(
            lines, colors=[(*rgb, alpha * n.gain / 0.63) for rgb, n in zip(shades, notes, strict=True)],
            linewidths=spread * thick, capstyle="round", zorder=4))
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=thick, capstyle="round", zorder=5))
    _labels(axes, notes, lane, colour, layout)


def _heights(notes: list[Event], lane: _Lane) -> list[float]:
    """Where each note stands in its lane: drums by sound, pitches between the track's lowest and highest."""
    if not lane.pitched:
        return [lane.bottom + lane.height * _DRUM_LINE[str(n.sound)] for n in notes]
    pitches = [n.pitch for n in notes]
    span = max(max(pitches) - min(pitches), 9)
    middle = (min(pitches) + max(pitches)) / 2
    return [lane.bottom + lane.height * (0.5 + 0.68 * (p - middle) / span) for p in pitches]


def _shade(colour: str, gain: float) -> tuple[float, float, float]:
    """The track's colour: towards the stage when soft, towards white when louder than forte."""
    rgb, stage = np.array(to_rgb(colour)), np.array(to_rgb(LANE))
    light = min(0.25 + 0.95 * gain, 1.0)
    white = min(max(gain - 0.75, 0.0) * 2.2, 0.55)
    red, green, blue = (light * rgb + (1 - light) * stage) * (1 - white) + white
    return float(red), float(green), float(blue)


def _labels(axes: Axes, notes: list[Event], lane: _Lane, colour: str, layout: _Layout) -> None:
    """The letters of the lane's effects and, in full panels, its lowest and highest pitch."""
    used = "".join(letter for name, letter in _EFFECTS.items() if any(name in n.effects for n in notes))
    pitches = sorted({n.pitch for n in notes}) if layout.full and lane.pitched else []
    compass = "–".join(pitch_name(p) for p in {pitches[0]: 0, pitches[-1]: 0}) if pitches else ""
    for text, place, colour_, size in ((used, 0.68 if compass else 0.5, colour, 0.85),
                                       (compass, 0.3 if used else 0.5, DIM, 0.75)):
        axes.text(STEPS + 0.3, lane.bottom + lane.height * place, text, ha="left", va="center",
                  fontsize=size * layout.font, fontweight="bold" if text is used else "normal", color=colour_)
