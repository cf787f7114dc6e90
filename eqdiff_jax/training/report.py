"""An evaluation as Markdown, JSON and pictures, all put in place at once."""

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import SHAPE, TRACKS
from eqdiff_jax.music.metrics import FIDELITY
from eqdiff_jax.music.picture import COLOURS, DIM, INK, LANE, STAGE
from eqdiff_jax.training.response import Response
from eqdiff_jax.training.response import markdown as response_tables

REAL = ("held-out grids, first half", "held-out grids, second half")  # two halves that share no piece
_SHADES = tuple(COLOURS[t] for t in ("PAD", "KICK", "ARP", "HH", "STAB", "SNARE", "LEAD", "CLAP", "AMB", "FX"))
# Columns of the metric table: heading, key of the row, digits.
_COLUMNS = (("notes", "density", 1), ("pitch-class entropy", "pitch_class_entropy", 2),
            ("scale", "scale_consistency", 3), ("groove", "groove_consistency", 3), ("polyphony", "polyphony", 2),
            ("empty tracks", "empty_tracks", 3), ("legal", "legality", 4))


class Evaluation(NamedTuple):
    """What evaluate.py found; rows are dicts of plain numbers, nan where there is no figure."""

    settings: dict
    examples: int  # held-out grids scored
    windows: int  # windows of movement
    bits: list[dict]  # name, kind, bits, stderr; excess: bits, stderr of the difference to the first
    tracks: dict[str, dict[str, dict]]  # law -> track -> bits, stderr
    sources: dict[str, dict[str, dict]]  # source -> law -> bits, stderr
    metrics: list[dict]
    fidelity: list[dict]  # name, mean, pairs: "asked -> heard" -> rho, stderr
    nearest: list[dict]  # name, counted, least, q05, median, q95, copies
    points: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> asked [W, 5], heard [W, 5]
    distances: dict[str, np.ndarray]  # name -> [W]
    response: dict[str, Response]  # whole performances, by how they are played


def markdown(found: Evaluation, checkpoint: str, data: str) -> str:
    """The tables."""
    cells = SHAPE[0] * SHAPE[1]
    parts = [
        "# Evaluation", f"Checkpoint `{checkpoint}`, data `{data}`: "
        + ", ".join(f"{name} {value}" for name, value in found.settings.items() if value is not None) + ".",
        "## Bits per cell",
        f"{found.examples} held-out grids of {cells} cells; tracks that a source cannot speak of are left out. A bound "
        "is an upper one. Standard errors are over pieces, within which windows may depend on each other.",
        _table(("law", "bits per observed cell", "standard error", "kind", "more than the first"),
               [(r["name"], _n(r["bits"], 4), _n(r["stderr"], 4), r["kind"],
                 _pm(r["excess"]["bits"], r["excess"]["stderr"], 4) if i else "–") for i, r in enumerate(found.bits)]),
        _table(("law", *TRACKS), [(name, *(_n(row[t]["bits"], 3) for t in TRACKS))
                                  for name, row in found.tracks.items()])]
    if found.sources:
        laws = [r["name"] for r in found.bits]
        parts.append(_table(("source", *laws), [
            (source, *(_pm(row[law]["bits"], row[law]["stderr"], 3) for law in laws))
            for source, row in found.sources.items()]))
    parts += [
        "## Grids",
        f"{found.windows} windows of held-out movement, the same for every system that follows one. Means, with the "
        "standard error over grids; `unpitched` counts the grids without pitched notes, which have no entropy, scale "
        "or polyphony and are left out there. Diversity is the mean Hamming distance of two grids as a share of the "
        "cells. OA is mgeval's overlapping area (KDE of distances within the set and from it to held-out grids), "
        "`overlap` that of histograms of the figures themselves; both are means over features, against the second "
        "half of the held-out grids, so the first half's row is what real grids reach (tracks that are not observed "
        "are silent in them). Beat lift is the score of the body's beats against the onsets, less what random moments "
        "score.",
        _table(("system", "grids", *(c[0] for c in _COLUMNS), "unpitched", "diversity", "distinct", "OA", "overlap",
                "beat lift"), [_metric_row(r) for r in found.metrics]),
        "## Control fidelity",
        "Spearman's rank correlation of what the movement asks with what the grid does, with a bootstrap standard "
        "error over performances or pieces. `held-out pairs` are the data's own.",
        _table(("system", *(f"{a} → {h}" for a, h in FIDELITY.items()), "mean"), [
            (r["name"], *(_pm(p["rho"], p["stderr"], 2) for p in r["pairs"].values()), _n(r["mean"], 2))
            for r in found.fidelity]),
        "## Distance to the nearest training grid",
        "Share of the observed cells that differ; a copy differs nowhere.",
        _table(("system", "least", "5 %", "median", "95 %", "copies", "grids"), [
            (r["name"], *(_n(r[k], 3) for k in ("least", "q05", "median", "q95")), r["copies"], r["counted"])
            for r in found.nearest])]
    if found.response:
        parts += ["## Whole performances", "Recordings of four windows or more played through, each once, and shorter "
                  "ones joined into performances of twelve windows. A window with no grid before it is fresh: "
                  "no bounded row counts it. `followed`: Spearman of targets and achieved ranks; `changes`: of "
                  "their differences; `partial`: given energy. **Rows called controlled are chosen by what these three "
                  "report**; speed (mean limb speed within a performance, Pearson; shuffled: mean and deviation of 200 "
                  "orders), bits (unconditional, half of the cells hidden) and rough (share of the time with two "
                  "pitches or more that holds a minor second, a major seventh or a tritone) are not what the "
                  "distribution of phrases reads, though the network's conditional nats and roughness beyond recorded "
                  "music are in it. Errors are over performances.", response_tables(found.response).strip()]
    return "\n\n".join(parts) + "\n"


def _metric_row(row: dict) -> tuple:
    lift = row.get("beat_lift")
    return (row["name"], row["grids"], *(_pm(row[key]["mean"], row[key]["stderr"], digits)
                                         for _, key, digits in _COLUMNS),
            row["grids"] - row["scale_consistency"]["counted"], _n(row["diversity"], 3), row["distinct"],
            _n(row["overlapping_area_mean"], 3), _n(row["histogram_overlap_mean"], 3),
            _pm(lift["mean"], lift["stderr"], 3) if lift else "–")


def _table(head, rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _n(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _pm(value: float, error: float, digits: int) -> str:
    return _n(value, digits) if math.isnan(value) or math.isnan(error) else f"{value:.{digits}f} ± {error:.{digits}f}"


def claim(folder: str | Path) -> None:
    """Raise InputError unless reports can be written in `folder` (which need not exist)."""
    folder = Path(folder).absolute()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"cannot write to --out {folder} ({place} is not a folder one can write to): choose another")


def write(folder: str | Path, found: Evaluation, text: str, context: dict[str, str]) -> list[Path]:
    """report.md, report.json, bits.png, fidelity.png and nearest.png in `folder`: written beside, then renamed.

    Raises InputError when the folder cannot be written to.
    """
    folder = Path(folder).absolute()
    claim(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".evaluation-", dir=folder))
    try:
        (scratch / "report.md").write_text(text, encoding="utf-8")
        rows = {k: v for k, v in found._asdict().items() if k not in ("points", "distances", "response")}
        rows["response"] = {
            name: {k: list(map(list, v)) if isinstance(v, tuple) else v for k, v in row._asdict().items()}
            for name, row in found.response.items()}
        (scratch / "report.json").write_text(json.dumps(_plain(context | rows), indent=1, allow_nan=False) + "\n")
        for name, figure in (("bits", _bits(found)), ("fidelity", _fidelity(found)), ("nearest", _distances(found))):
            FigureCanvasAgg(figure).print_png(scratch / f"{name}.png", metadata={"Software": None})
        names = sorted(p.name for p in scratch.iterdir())
        for name in names:
            os.replace(scratch / name, folder / name)
    except OSError as error:
        raise InputError(f"cannot write to --out {folder} ({error.strerror}): choose another") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / name for name in names]


def _plain(value):
    """The same with nan as None, which JSON can say."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stage(axes: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    axes.set_facecolor(LANE)
    axes.set_title(title, color=INK, fontsize=9)
    axes.set_xlabel(x, color=DIM, fontsize=8)
    axes.set_ylabel(y, color=DIM, fontsize=8)
    axes.tick_params(colors=DIM, labelsize=7)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=110, facecolor=STAGE, layout="constrained")


def _bits(found: Evaluation) -> Figure:
    """Bits per observed cell, track by track: a group of bars per track."""
    figure = _figure(11.0, 3.6)
    axes = _stage(figure.subplots(), "bits per observed cell, by track")
    width = 0.8 / len(found.tracks)
    for i, (name, row) in enumerate(found.tracks.items()):
        axes.bar(np.arange(len(TRACKS)) + (i - (len(found.tracks) - 1) / 2) * width, [row[t]["bits"] for t in TRACKS],
                 width, color=_SHADES[i % len(_SHADES)], label=name)
    axes.set_xticks(range(len(TRACKS)), TRACKS)
    axes.legend(fontsize=7, facecolor=LANE, labelcolor=INK, edgecolor="none")
    return figure


def _fidelity(found: Evaluation) -> Figure:
    """Asked against heard: a row per system, a column per control."""
    figure = _figure(2.3 * len(FIDELITY), 1.8 * len(found.points))
    panels = figure.subplots(len(found.points), len(FIDELITY), squeeze=False, sharex="col", sharey="col")
    for i, (row, (name, (asked, heard)), stats) in enumerate(zip(panels, found.points.items(), found.fidelity,
                                                                 strict=True)):
        for k, (axes, (ask, hear), pair) in enumerate(zip(row, FIDELITY.items(), stats["pairs"].values(),
                                                          strict=True)):
            _stage(axes, f"ρ = {_n(pair['rho'], 2)}", ask if i == len(panels) - 1 else "",
                   f"{name}\n{hear}" if k == 0 else hear)
            axes.plot(asked[:, k], heard[:, k], ".", markersize=3, alpha=0.7, color=_SHADES[i % len(_SHADES)])
    return figure


def _distances(found: Evaluation) -> Figure:
    """Distribution of the distance to the nearest training grid, a curve per system."""
    figure = _figure(7.0, 3.6)
    axes = _stage(figure.subplots(), "distance to the nearest training grid", "share of observed cells that differ",
                  "share of grids at or below")
    for i, (name, values) in enumerate(found.distances.items()):
        kept = np.sort(values[~np.isnan(values)])
        if len(kept):
            axes.step(kept, np.arange(1, len(kept) + 1) / len(kept), where="post", color=_SHADES[i % len(_SHADES)],
                      linestyle="--" if name in REAL else "-", linewidth=1.4, label=name)
    axes.legend(fontsize=6, facecolor=LANE, labelcolor=INK, edgecolor="none")
    return figure
