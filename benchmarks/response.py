"""How soon and how clearly the audience hears the body: scripted VMC bodies through everything that live.py runs.

    python benchmarks/response.py                      still, violent, still: 5 bodies x 3 seeds, mode diffusion
    python benchmarks/response.py --script slow_fast   or high_low: arms above and below; --mode threshold, modulate
    python benchmarks/response.py --dances FOLDER      tables of training/response.py on a folder of .bvh files instead
    python benchmarks/response.py --evening            128 bars of the show dancer: do tracks leave, does it drift?

Packets go through the receivers, 60 frames a second through the 60 Hz chain, windows through the same `make` as on
stage, grids onto the bars that the engine puts them on. Time is simulated: a grid takes --call seconds a step and
--overhead besides, so the same seed gives the same table on any machine. Notes are counted as written, without what
the buses do to them.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation
from tqdm import tqdm

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from senders import BONES, Body, vmc_packet  # noqa: E402

from eqdiff_jax import motion  # noqa: E402
from eqdiff_jax.live import engine, worker  # noqa: E402
from eqdiff_jax.live.budget import Budget, opening  # noqa: E402
from eqdiff_jax.live.clock import InnerClock, Reading  # noqa: E402
from eqdiff_jax.live.inbox import Inbox  # noqa: E402
from eqdiff_jax.live.performers import Cast  # noqa: E402
from eqdiff_jax.motion.limbs import REST_FRAME  # noqa: E402
from eqdiff_jax.motion.skeleton import LIMB  # noqa: E402
from eqdiff_jax.music import events  # noqa: E402
from eqdiff_jax.music.grid import SOUNDS  # noqa: E402
from eqdiff_jax.paths import CACHE, SHIPPED  # noqa: E402
from eqdiff_jax.training import checkpoint, response  # noqa: E402

PHASE = 20.0  # s of each part of a script
EASE = 0.25  # s that a body takes from one part to the next, from the change on: limbs do not jump
SETTLED = 8.0  # s after a change from which its level counts
ADDRESS = ("192.0.2.7", 40000)
ARMS = [f"{side}_{part}" for side in "lr" for part in ("up_arm", "low_arm")]
LEGS = [f"{side}_{part}" for side in "lr" for part in ("up_leg", "low_leg")]


@dataclasses.dataclass(frozen=True)
class Script:
    """What a body does in three parts: how far its limbs swing (rad), how often (Hz), how high its arms are held."""

    swing: tuple[float, float, float]
    rate: tuple[float, float, float]
    arms: tuple[float, float, float] = (0.0, 0.0, 0.0)


SCRIPTS = {
    "still_violent": Script((0.0, 0.4, 0.0), (2.0, 2.0, 2.0)),
    "slow_fast": Script((0.5, 0.5, 0.5), (0.5, 2.0, 0.5)),
    "high_low": Script((0.3, 0.3, 0.3), (1.0, 1.0, 1.0), (1.2, -1.0, 1.2)),
}


class Heard(NamedTuple):
    """One run, bar by bar."""

    start: np.ndarray  # [N] s, of each bar
    onsets: np.ndarray  # [N] notes a second
    velocity: np.ndarray  # [N] summed gain a second
    tracks: np.ndarray  # [N] that sound in the bar
    misses: int
    up: float  # s at which the body changes
    down: float  # and changes back


def body(script: Script, number: int, first: float, fps: float = 60.0) -> Body:
    """Body `number` of a script whose first change is at `first` seconds: arms, legs and hips, its own phases."""
    random = np.random.default_rng(number)
    times = np.arange(round((first + 2.0 * PHASE) * fps) + 1) / fps
    turns = np.array([first, first + EASE, first + PHASE, first + PHASE + EASE])
    swing, rate, arms = (np.interp(times, turns, np.repeat(x, 2)[1:-1])
                         for x in (script.swing, script.rate, script.arms))
    beat = 2.0 * np.pi * np.cumsum(rate) / fps
    size, phase = random.uniform(0.7, 1.3, (27, 3)), random.uniform(0.0, 2.0 * np.pi, (27, 3))
    moving = np.isin(np.arange(27), [LIMB[name] for name in (*ARMS, *LEGS, "root", "torso_4")])
    angles = swing[:, None, None] * size * np.sin(beat[:, None, None] + phase) * moving[:, None]
    angles[:, LIMB["root"]] *= 0.2
    angles[:, LIMB["torso_4"]] *= 0.3
    for side, sign in (("l", 1.0), ("r", -1.0)):
        angles[:, LIMB[f"{side}_up_arm"], 2] += sign * arms
    local = Rotation.from_rotvec(angles.reshape(-1, 3)).as_quat().reshape(-1, 27, 4)
    hips = np.zeros((len(times), 3))
    hips[:, 1] = 0.53 + 0.05 * swing * np.sin(beat)
    hips[:, 0] = 0.08 * swing * np.sin(0.5 * beat + phase[0, 0])
    return Body(times, local, hips)


def play(params, script: Script, number: int, seed: int, args: argparse.Namespace) -> Heard:
    """One body, one seed, in simulated time."""
    first = PHASE + np.random.default_rng((number, seed)).uniform(0.0, 4.0)  # anywhere between two bar lines
    dance, now = body(script, number, first), [0.0]
    cast = Cast()
    cast.fallback = lambda at: REST_FRAME
    inbox = Inbox(cast, "127.0.0.1", 0, clock=lambda: now[0])
    budget = Budget(args.call, (), args.overhead)
    settings = engine.Settings(args.mode, None, args.bpm)
    clock = InnerClock(0.0, args.bpm / 240.0, position=opening(args.mode, args.bpm, budget, 0.3))
    state = engine.init(settings, seed, budget, making=engine.Making(args.candidates, args.control))
    waiting: list[tuple[float, worker.Made | worker.Failed]] = []
    bars: list[engine.Bar] = []
    shown = tuple(BONES)
    for tick in range(len(dance.times)):
        now[0] = tick / 60.0
        inbox.datagram_received(vmc_packet(dance, tick, bones=shown), ADDRESS)
        reading = Reading(clock.position(now[0]), clock.frontier(now[0]), clock.cps, False, 0)
        answer = waiting.pop()[1] if waiting and waiting[0][0] <= now[0] else None
        state, info = engine.tick(params["weights"], state, cast.frame(now[0])[None], reading, answer=answer,
                                  idle=not waiting)
        bars += info.bars
        if info.job is not None:
            made = worker.make(params, info.job)
            if isinstance(made, worker.Made):
                calls = made.steps + worker.SCORING if made.calls else 0
                made = made._replace(seconds=args.call * calls, calls=calls, overhead=args.overhead)
                waiting = [(now[0] + made.seconds + made.overhead, made)]
            else:
                waiting = [(now[0], made)]
    seconds = 240.0 / args.bpm
    rows = []
    for bar in bars:
        half = bar.bar % 2
        notes = [n for n in events(bar.playing.made.tokens) if n.onset // 16 == half]
        rows.append((len(notes) / seconds, sum(n.gain for n in notes) / seconds, len({n.track for n in notes})))
    start = (np.array([bar.bar for bar in bars]) - clock.position(0.0)) / clock.cps
    return Heard(start, *np.array(rows, float).T, sum(state.misses.values()), first, first + PHASE)


class Step(NamedTuple):
    """What a run says of the change and of the change back, in seconds and notes a second."""

    before: float
    during: float
    after: float
    up: float  # s from the change to the start of the first bar half way to `during`
    down: float  # s from the change back to the first bar at 1.5 times `before` or fewer; inf for never
    noticed: float  # s to the first bar that is outside of what the first part's bars do


def step(run: Heard, column: np.ndarray) -> Step:
    """The figures of one column of a run."""
    seconds = run.start[1] - run.start[0]

    def level(low: float, high: float) -> float:
        return float(column[(run.start >= low) & (run.start + seconds <= high)].mean())

    quiet = column[(run.start >= SETTLED) & (run.start + seconds <= run.up)]
    before, during = level(SETTLED, run.up), level(run.up + SETTLED, run.down)
    after = level(run.down + SETTLED, run.down + PHASE)
    later = run.start + seconds > run.up  # bars that sound after the change
    half = later & ((column - before) * np.sign(during - before) >= 0.5 * abs(during - before))
    back = (run.start + seconds > run.down) & (column <= 1.5 * before)
    unlike = later & ((column > quiet.max()) | (column < quiet.min()))

    def first(which: np.ndarray, since: float) -> float:
        return max(float(run.start[which][0]) - since, 0.0) if which.any() else float("inf")

    return Step(before, during, after, first(half, run.up), first(back, run.down), first(unlike, run.up))


def table(runs: list[Heard]) -> Iterator[str]:
    """Medians and extremes over runs."""
    yield "| a second | first part | second | third | second / first | half way up, s | back to 1.5 x, s | noticed, s |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in ("onsets", "velocity", "tracks"):
        steps = [step(run, getattr(run, name)) for run in runs]
        ratio = [s.during / max(s.before, 1e-9) for s in steps]
        values = {field: np.array([getattr(s, field) for s in steps]) for field in Step._fields}
        cells = [values["before"], values["during"], values["after"], np.array(ratio),
                 values["up"], values["down"], values["noticed"]]
        yield "| " + " | ".join([name, *(f"{np.median(c):.1f} ({c.min():.1f} to {c.max():.1f})" for c in cells)]) + " |"


def draw(runs: list[Heard], path: str, title: str) -> None:
    """The three columns over time: every run, and their median."""
    figure = Figure(figsize=(10, 5.4), dpi=110, facecolor="#12131a", layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    grid = np.arange(-PHASE + 4.0, 2.0 * PHASE, 0.25)
    for axes, (name, label, colour) in zip(panels, (("onsets", "onsets a second", "#ff8a5c"), ("velocity",
                                           "summed gain a second", "#ffd166"), ("tracks", "tracks", "#7bdff2")),
                                           strict=True):
        lines = []
        for run in runs:
            at = np.searchsorted(run.start - run.up, grid, side="right") - 1
            lines.append(np.where(at >= 0, getattr(run, name)[np.maximum(at, 0)], np.nan))
            axes.plot(grid, lines[-1], color=colour, alpha=0.18, linewidth=1)
        axes.plot(grid, np.nanmedian(lines, axis=0), color=colour, linewidth=2.2)
        axes.axvspan(0.0, PHASE, color="white", alpha=0.07)
        axes.set_facecolor("#1b1d27")
        axes.set_ylabel(label, color="#c9ccd6", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.tick_params(colors="#8b8fa3", labelsize=7)
    panels[0].set_title(title, color="#c9ccd6", fontsize=10)
    panels[-1].set_xlabel("seconds since the body changed", color="#c9ccd6", fontsize=8)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def dances(params, args: argparse.Namespace) -> None:
    """The tables of training/response.py on the recordings of a folder, seeds pooled as more performances."""
    recordings = [(path.name, motion.clean(motion.load(path))) for path in sorted(Path(args.dances).rglob("*.bvh"))]
    through = response.played_through(params["motion"], recordings, args.bpm)
    sets = {"played through": through}
    if short := response.joined(params["motion"], recordings, args.bpm):
        sets["joined"] = short
    found = {}
    for title, performances in sets.items():
        print(f"{title}: {len(performances)} performances from {sum(p.clips for p in performances)} recordings",
              file=sys.stderr)
        ways = {"the network alone, bounded": {"control": 0.0}, "controlled, bounded": {"candidates": args.candidates},
                "controlled, fresh": {"candidates": args.candidates, "fresh": True}}
        for name, options in ways.items():
            played = response.play(jax.random.key(args.seed), params, performances, steps=args.steps, quiet=False,
                                   **options)
            found[f"{title}: {name}"] = response.measure(jax.random.key(1), params, played,
                                                         fresh=options.get("fresh", False))
            print(response.markdown({name: found[f"{title}: {name}"]}), file=sys.stderr)
        found[f"{title}: Conductor"] = response.measure(jax.random.key(1), params, response.conducted(performances))
    print(response.markdown(found))


WINDOWS = 64  # of an evening: 128 bars


def evening(params, args: argparse.Namespace) -> Iterator[str]:
    """The show dancer played through, grid from grid: how tracks come and go, and whether the music wears out."""
    yield "| seed | turns of 3 tracks | tracks | a track in a row | bits | fresh | harsh | fresh | over budget |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for seed in range(args.seeds):
        limbs = motion.demo("show", WINDOWS * 480.0 / args.bpm + 1.0, seed)
        dancer = [response.performance(params["motion"], "show", [limbs], args.bpm, WINDOWS)]
        key, scoring = jax.random.split(jax.random.key(seed))
        options = {"candidates": args.candidates, "control": args.control, "steps": args.steps, "quiet": False}
        bounded = response.play(key, params, dancer, **options)
        fresh = response.measure(scoring, params, response.play(key, params, dancer, fresh=True, **options), fresh=True)
        thirds = [response.measure(scoring, params, response.Played(*(x[part] for x in bounded)), fresh=True)
                  for part in np.array_split(np.arange(1, len(bounded.speed)), 3)]
        sounding = np.isin(bounded.tokens, np.flatnonzero(SOUNDS)).any(-1)
        tracks = sounding.sum(-1)
        late = ~bounded.fresh
        yield (f"| {seed} | {response.turns(tracks)} | {tracks.min()} to {tracks.max()} | "
               f"{response.longest(sounding)} of {len(tracks)} windows | "
               f"{', '.join(f'{x.bits:.2f}' for x in thirds)} | {fresh.bits:.2f} | "
               f"{', '.join(f'{x.rough:.3f}' for x in thirds)} | {fresh.rough:.3f} | "
               f"{(bounded.changed > bounded.budget)[late].sum()} of {late.sum()} |")


def main() -> None:
    """Print the tables, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(SHIPPED))
    parser.add_argument("--script", default="still_violent", choices=SCRIPTS)
    parser.add_argument("--mode", default="diffusion")
    parser.add_argument("--bodies", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bpm", type=float, default=120.0)
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--control", type=float, default=1.0)
    parser.add_argument("--call", type=float, default=0.025, help="simulated seconds of a guided step")
    parser.add_argument("--overhead", type=float, default=0.08, help="simulated seconds of a grid besides")
    parser.add_argument("--picture", help="a PNG of the runs")
    parser.add_argument("--json", help="every run, bar by bar")
    parser.add_argument("--dances", metavar="FOLDER", help="of .bvh files, instead of a script")
    parser.add_argument("--evening", action="store_true", help="the show dancer, --seeds times, instead of a script")
    parser.add_argument("--steps", type=int, default=0,
                        help="denoising steps for --dances and --evening, 0 for those of confidence")
    parser.add_argument("--seed", type=int, default=0, help="for --dances")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if args.dances:
        dances(checkpoint.load(args.checkpoint), args)
        return
    if args.evening:
        print("\n".join(evening(checkpoint.load(args.checkpoint), args)))
        return
    params, script = worker.load(args.checkpoint), SCRIPTS[args.script]
    pairs = [(number, seed) for number in range(args.bodies) for seed in range(args.seeds)]
    runs = [play(params, script, number, seed, args) for number, seed in tqdm(pairs, disable=None)]
    print(f"{args.script}, mode {args.mode}, {args.bpm:g} bpm, {args.bodies} bodies x {args.seeds} seeds, candidates "
          f"{args.candidates}, control {args.control:g}, steps and temperature by confidence within {args.call:g} s a "
          f"step: median (least to most); {sum(run.misses for run in runs)} grids missed\n")
    print("\n".join(table(runs)))
    if args.picture:
        title = f"{args.script.replace('_', ', ')}, mode {args.mode}: {len(runs)} runs and their median"
        draw(runs, args.picture, title)
    if args.json:
        rows = [{name: np.asarray(value).tolist() for name, value in run._asdict().items()} for run in runs]
        Path(args.json).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
