"""How well a checkpoint predicts held-out grids, and what the grids that it makes are like.

    python -m eqdiff_jax.training.evaluate --checkpoint checkpoints/default --data demo --out runs/evaluation

Tables: bits per observed cell (score.py: the model's is a bound, the baselines' are exact); figures of the grids that
it makes, beside the Conductor's, the baselines' and held-out ones; how a movement's dynamics are followed, by the
network alone first; how far a grid is from the nearest training grid; whole performances (response.py), fresh windows
and bounded ones apart. A first window is fresh, and no row of bounded ones counts it. --out keeps them as report.md and
report.json, with pictures. The same seed gives the same report on the same machine.
"""

import argparse
import sys
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from eqdiff_jax import data
from eqdiff_jax.composer import MOST_CANDIDATES
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.data import movement as dancers
from eqdiff_jax.data.pairing import says
from eqdiff_jax.data.pairs import PairsConfig
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import DESCRIPTORS, metrics
from eqdiff_jax.music.descriptors import of_events
from eqdiff_jax.music.grid import TRACKS, events
from eqdiff_jax.paths import SHIPPED
from eqdiff_jax.shell import guarded
from eqdiff_jax.training import baselines, checkpoint, report, response, systems
from eqdiff_jax.training.score import Columns, Scored, compare, groups, observed, paired, rate
from eqdiff_jax.types import Params

SLOTS = [LAYOUT[name].start for name in metrics.FIDELITY]  # of the conditioning: what is asked
HEARD = [DESCRIPTORS.index(name) for name in metrics.FIDELITY.values()]  # of the descriptors: what a grid has of it


class Settings(NamedTuple):
    """What a person may choose; `check` refuses what cannot be."""

    draws: int = 16  # network calls per scored grid
    limit: int | None = None  # held-out grids that are scored, evenly spaced; None for all
    samples: int = 256  # grids of each system
    steps: int = 24  # denoising steps, 0 for the commitment rule
    seed: int = 0
    dancers: tuple[str, ...] = ()  # sources of held-out movement; none: the data config's own
    candidates: int = 2  # grids drawn for each window, from which phrases are taken
    bpm: float = 140.0  # of the performances of the last tables


class Grids(NamedTuple):
    """What one system made, or what is held out."""

    name: str
    tokens: np.ndarray  # int32 [W, 12, 32]
    groups: np.ndarray  # int [W] windows of one performance or piece
    asked: np.ndarray | None = None  # [W, 5] dynamics of the movement that it follows
    beats: list[np.ndarray] | None = None  # [W] beats of a movement
    observed: np.ndarray | None = None  # bool [W, 12], None for all


class System(NamedTuple):
    """Grids with all that is measured on them."""

    grids: Grids
    measures: np.ndarray  # [W, 7] metrics.Measures
    heard: np.ndarray  # [W, 5] descriptors, nan where the observed tracks cannot say
    features: list[dict[str, np.ndarray]]
    alignment: np.ndarray | None  # [W, 3] metrics.BeatAlignment
    nearest: np.ndarray  # [W] share of cells that differ from the nearest training grid


class Followed(NamedTuple):
    """What was asked of windows and what was heard, in the order of metrics.FIDELITY."""

    asked: np.ndarray  # [W, 5]
    heard: np.ndarray  # [W, 5]
    groups: np.ndarray  # int [W]


def check(settings: Settings) -> None:
    """Raise InputError, one line, for a setting that cannot be used."""
    if not 1 <= settings.candidates <= MOST_CANDIDATES:
        raise InputError(f"--candidates is {settings.candidates}: use 1 .. {MOST_CANDIDATES}")
    if not 40.0 <= settings.bpm <= 240.0:
        raise InputError(f"--bpm is {settings.bpm:g}: use 40 .. 240")
    for name in settings.dancers:
        dancers.source(name)
    for name, least in (("draws", 1), ("limit", 2), ("samples", 2), ("steps", 0), ("seed", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}: use {least} or more")


def evaluate(params: Params, builder, settings: Settings | None = None, *, quiet: bool = True) -> report.Evaluation:
    """Everything the command reports. params: encoder, denoiser, motion; builder: prepared, with three splits.

    Systems that follow a movement follow the same one: performances to the test recordings of `settings.dancers`.
    """
    settings = settings or Settings()
    check(settings)
    train, validation, test = (data.arrays(builder, split) for split in ("train", "validation", "test"))
    test = _evenly(test, settings.limit)
    markov = baselines.fit_markov(train["tokens"], validation["tokens"], observed(train), observed(validation))
    key_score, key_play, key_whole = jax.random.split(jax.random.key(settings.seed), 3)
    scored = compare(key_score, params, markov, train, validation, test, draws=settings.draws, quiet=quiet)

    clips = systems.held_out_clips(builder.builder_config, settings.dancers)
    movement = systems.held_out_movement(params["motion"], clips, settings.samples,
                                         genres=isinstance(builder.builder_config, PairsConfig))
    halves = _halves(test, settings.samples)
    everything = [
        *_played(key_play, params, movement, settings, quiet),
        *_baseline_grids(train, markov, movement, settings.seed),
        *(Grids(name, part["tokens"], groups(part), observed=observed(part))
          for name, part in zip(report.REAL, halves, strict=True))]
    found = [_measure(grids, train) for grids in tqdm(everything, desc="measuring", disable=quiet or None)]
    followed = {s.grids.name: Followed(s.grids.asked, s.heard, s.grids.groups)
                for s in found if s.grids.asked is not None}
    followed["held-out pairs"] = Followed(
        np.concatenate([np.where(paired(part)[:, None], part["conditioning"][:, SLOTS], np.nan) for part in halves]),
        np.concatenate([s.heard for s in found[-2:]]), np.concatenate([groups(part) for part in halves]))
    return report.Evaluation(
        settings=settings._asdict(), examples=len(test["tokens"]), windows=len(movement.conducted),
        bits=_bits(scored, test), tracks=_by_track(scored, test), sources=_by_source(scored, test),
        metrics=[_figures(system, found[-1]) for system in found],
        fidelity=[_fidelity(name, rows, settings.seed) for name, rows in followed.items()],
        nearest=[_nearest(system) for system in found],
        points={name: (rows.asked, rows.heard) for name, rows in followed.items()},
        distances={s.grids.name: s.nearest for s in found},
        response=responses(key_whole, params, clips, settings, quiet=quiet))


def responses(key, params: Params, clips, settings: Settings, *, quiet: bool = True) -> dict[str, response.Response]:
    """Whole performances to recordings, each played once: played through, and shorter ones joined, in several ways."""
    recordings = list({clip.limbs.tobytes(): (clip.name, clip.limbs) for clip in clips}.values())
    sets = {"played through": response.played_through, "joined": response.joined}
    found = {}
    for title, gather in sets.items():
        try:
            performances = gather(params["motion"], recordings, settings.bpm)
        except InputError:
            performances = []
        if not performances:
            continue
        ways: dict[str, dict] = {
            "the network alone, bounded": {"control": 0.0}, "controlled, bounded": {"candidates": settings.candidates},
            "controlled, fresh": {"candidates": settings.candidates, "fresh": True}}
        for name, options in ways.items():
            key, key_play, key_bits = jax.random.split(key, 3)
            played = response.play(key_play, params, performances, steps=settings.steps, quiet=quiet, **options)
            fresh = options.get("fresh", False)
            found[f"{title}: {name}"] = response.measure(key_bits, params, played, fresh=fresh, seed=settings.seed)
        key, key_bits = jax.random.split(key)
        found[f"{title}: Conductor"] = response.measure(key_bits, params, response.conducted(performances),
                                                        seed=settings.seed)
    return found


def _played(key, params: Params, movement: systems.Movement, settings: Settings, quiet: bool) -> list[Grids]:
    """The network's grids in several ways, and the Conductor's, to the same movement."""
    key_fresh, key_bounded = jax.random.split(key)
    asked, members, beats = movement.conditioning[:, SLOTS], movement.performance, movement.beats
    later = np.diff(members, prepend=-1) == 0  # first windows are fresh, and no evidence of bounded change

    def played(name: str, *, fresh: bool = True, **options) -> Grids:
        tokens = systems.play(key_fresh if fresh else key_bounded, params, movement, fresh=fresh, steps=settings.steps,
                              quiet=quiet, **options)
        rows = np.arange(len(tokens)) if fresh else np.flatnonzero(later)
        return Grids(name, tokens[rows], members[rows], asked[rows] if options.get("guidance") != 0.0 else None,
                     [beats[i] for i in rows])

    many = settings.candidates
    return [
        *(played(f"network alone, guidance {g:g}, fresh", guidance=g, control=0.0)
          for g in (float(params["statistics"].guidance), 1.0)),
        *([played("network alone, bounded", fresh=False, control=0.0)] if later.any() else []),
        played("controlled, fresh", candidates=many),
        *([played("controlled, bounded", fresh=False, candidates=many)] if later.any() else []),
        Grids("Conductor", movement.conducted, members, asked, beats),
        played("network, unconditional", guidance=0.0, control=0.0)]


def _baseline_grids(train: Columns, markov: baselines.Markov, movement: systems.Movement, seed: int) -> list[Grids]:
    rng, (count, _, steps) = np.random.default_rng([seed, 1]), movement.conducted.shape
    law = baselines.unigram(train["tokens"], observed(train), steps=False)
    return [Grids(name, tokens, movement.performance, None, movement.beats) for name, tokens in (
        ("Markov within tracks", baselines.sample_markov(rng, markov, count, steps)),
        ("unigram per track", baselines.sample_unigram(rng, law, count)))]


def _evenly(columns: Columns, count: int | None) -> Columns:
    """At most `count` rows, evenly spaced."""
    size = len(columns["tokens"])
    rows = np.unique(np.linspace(0, size - 1, min(size, count or size)).astype(int))
    return {name: column[rows] for name, column in columns.items()}


def _halves(test: Columns, most: int) -> list[Columns]:
    """Two sets of held-out rows, at most `most` each, that share no piece (no row, where there is one piece only)."""
    members = groups(test)
    side = members % 2 if members.any() else np.arange(len(members)) % 2
    return [_evenly({name: column[side == half] for name, column in test.items()}, most) for half in (0, 1)]


def _measure(grids: Grids, train: Columns) -> System:
    notes = [events(grid) for grid in grids.tokens]
    rows = np.ones(grids.tokens.shape[:2], bool) if grids.observed is None else grids.observed
    heard = np.where(says(rows), np.array([of_events(x) for x in notes]), np.nan)[:, HEARD]
    return System(
        grids, np.array([metrics.measure(grid, row) for grid, row in zip(grids.tokens, rows, strict=True)]), heard,
        [metrics.features(x) for x in notes],
        None if grids.beats is None else np.array([
            metrics.beat_alignment(x, beats) for x, beats in zip(notes, grids.beats, strict=True)]),
        metrics.nearest_distance(grids.tokens, train["tokens"], grids.observed, observed(train)))


def _bits(scored: list[Scored], test: Columns) -> list[dict]:
    """A row per law; `excess` is what it needs beyond the first one, with the error of the difference."""
    seen, members = observed(test), groups(test)
    return [{"name": s.name, "kind": s.kind, **rate(s.bits, seen, members)._asdict(),
             "excess": rate(s.bits - scored[0].bits, seen, members)._asdict()} for s in scored]


def _by_track(scored: list[Scored], test: Columns) -> dict[str, dict[str, dict]]:
    """law -> track -> bits per observed cell and its error."""
    seen, members = observed(test), groups(test)
    return {s.name: {track: rate(s.bits[:, [t]], seen[:, [t]], members)._asdict() for t, track in enumerate(TRACKS)}
            for s in scored}


def _by_source(scored: list[Scored], test: Columns) -> dict[str, dict[str, dict]]:
    """source -> law -> bits; empty where the data names no sources."""
    if "source" not in test:
        return {}
    names = np.array([x.decode() if isinstance(x, bytes) else str(x) for x in test["source"]])
    seen, members = observed(test), groups(test)
    return {str(name): {s.name: rate(s.bits[names == name], seen[names == name], members[names == name])._asdict()
                        for s in scored} for name in np.unique(names)}


def _figures(system: System, reference: System) -> dict:
    """A row of the metric table; overlaps are with the reference, which has none with itself."""
    area = metrics.overlapping_area(system.features, reference.features)
    simple = {name: metrics.histogram_overlap(system.measures[:, i], reference.measures[:, i])
              for i, name in enumerate(metrics.Measures._fields)}
    simple |= {name: metrics.histogram_overlap(system.heard[:, i], reference.heard[:, i])
               for i, name in enumerate(metrics.FIDELITY.values())}
    if system is reference:
        area, simple = dict.fromkeys(area, np.nan), dict.fromkeys(simple, np.nan)
    spread, distinct = metrics.diversity(system.grids.tokens, system.grids.observed)
    row = {"name": system.grids.name, "grids": len(system.features), "diversity": spread, "distinct": distinct,
           "overlapping_area": area, "overlapping_area_mean": metrics.summary(list(area.values())).mean,
           "histogram_overlap": simple, "histogram_overlap_mean": metrics.summary(list(simple.values())).mean}
    row |= {name: metrics.summary(system.measures[:, i])._asdict() for i, name in enumerate(metrics.Measures._fields)}
    if system.alignment is not None:
        row |= {f"beat_{name}": metrics.summary(system.alignment[:, i])._asdict()
                for i, name in enumerate(metrics.BeatAlignment._fields)}
        row["beat_lift"] = metrics.summary(system.alignment[:, 0] - system.alignment[:, 1])._asdict()
    return row


def _fidelity(name: str, rows: Followed, seed: int) -> dict:
    rho, error = metrics.control_fidelity(*rows, seed=seed)
    pairs = {f"{asked} -> {heard}": {"rho": float(r), "stderr": float(e)}
             for (asked, heard), r, e in zip(metrics.FIDELITY.items(), rho, error, strict=True)}
    return {"name": name, "mean": metrics.summary(rho).mean, "pairs": pairs}


def _nearest(system: System) -> dict:
    known = system.nearest[~np.isnan(system.nearest)]
    points = np.quantile(known, (0.0, 0.05, 0.5, 0.95)) if len(known) else np.full(4, np.nan)
    return {"name": system.grids.name, "counted": len(known), "copies": int((known == 0).sum()),
            **dict(zip(("least", "q05", "median", "q95"), points.tolist(), strict=True))}


def main(argv: list[str] | None = None, prog: str = "evaluate") -> int:
    """Print the tables, and keep them with the pictures where --out says."""
    default = Settings()
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", default=str(SHIPPED), help="weights folder or training workdir")
    parser.add_argument("--data", default="demo", help=f"data config: {', '.join(data.CONFIGS)}, "
                        "logs:FOLDER or midi:FOLDER")
    parser.add_argument("--data_dir", default="runs/data", help="where the pairs are, or are built")
    parser.add_argument("--draws", type=int, default=default.draws, help="network calls per scored grid")
    parser.add_argument("--limit", type=int, help="score only so many held-out grids")
    parser.add_argument("--samples", type=int, default=default.samples, help="grids of each system")
    parser.add_argument("--steps", type=int, default=default.steps, help="denoising steps, 0 for the commitment rule")
    parser.add_argument("--seed", type=int, default=default.seed, help="of everything random")
    parser.add_argument("--candidates", type=int, default=default.candidates, help="grids drawn for a window")
    parser.add_argument("--bpm", type=float, default=default.bpm, help="tempo of the performances of the last tables")
    parser.add_argument("--dancers", default="", help=f"held-out movement: {', '.join(dancers.SOURCES)}, "
                        "joined by +; empty: the data config's own")
    parser.add_argument("--out", help="folder for report.md, report.json and the pictures")
    args = parser.parse_args(argv)
    args.dancers = tuple(filter(None, args.dancers.split("+")))
    settings = Settings(*(getattr(args, name) for name in Settings._fields))

    def run() -> int:
        check(settings)
        if args.out:
            report.claim(args.out)
        params = checkpoint.load(args.checkpoint)
        builder = data.prepare(args.data, args.data_dir)
        found = evaluate(params, builder, settings, quiet=False)
        text = report.markdown(found, args.checkpoint, args.data)
        if args.out:
            report.write(args.out, found, text, {"checkpoint": args.checkpoint, "data": args.data})
        print(text)
        return 0

    return guarded(prog, run)


if __name__ == "__main__":
    sys.exit(main())
