"""Offline performance: a motion in, consecutive two-bar grids out, and the files that hold them.

    limbs -> 60 Hz chain -> window means -> conditioning -> compose, grid after grid -> npz, js, mid, png, json
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from eqdiff_jax import cascade, control, motion, targets
from eqdiff_jax.composer import MOST_CANDIDATES, PROCESS, compose, music
from eqdiff_jax.conditioning import LAYOUT, assemble
from eqdiff_jax.conditioning.layout import BPM_RANGE, genre_vector
from eqdiff_jax.diffusion import SAMPLERS
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.windows import padded_trajectory, require_windows, window_means, window_seconds
from eqdiff_jax.music import LEGAL, VOCABULARY, descriptors, song_to_strudel, to_midi
from eqdiff_jax.music.conductor import conduct, initial_state, instrument_activations
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.types import CascadeRow, MotionFrame, Params

MODES = ("diffusion", "threshold")
BUDGET = cascade.CascadeConfig(variant=False)  # of the report's bounds: a few seconds
FILES = ("grids.npz", "grids.png", "report.json", "song.mid", "song.strudel.js")


class Settings(NamedTuple):
    """What a person may ask for; `check` refuses what cannot be."""

    num: int | None = None  # windows, None for all that the motion holds
    seed: int = 0
    genre: str | None = None
    bpm: float = 120.0
    steps: int = 0  # denoising steps, 0 for the commitment rule
    temperature: float = 0.0  # 0 for the commitment rule
    sampler: str = "analytic"
    mode: str = "diffusion"
    candidates: int = 2  # grids drawn for each window, from which phrases are taken
    control: float = 1.0  # how strongly the targets of the movement count
    targets: str | None = None  # a file of targets (targets.py), None for the default


class Performance(NamedTuple):
    """N windows of music with the values that made them."""

    tokens: np.ndarray  # int32 [N, 12, 32]
    conditioning: np.ndarray  # float32 [N, 104]
    z: np.ndarray  # float32 [N, 32]
    confidence: np.ndarray  # float32 [N]
    steps: np.ndarray  # int32 [N]
    temperature: np.ndarray  # float32 [N]
    changed: np.ndarray  # int32 [N] cells that differ from the window before
    budget: np.ndarray  # int32 [N] cells that were allowed to


def check(settings: Settings) -> None:
    """Raise InputError, one line, for a setting that cannot be used."""
    if settings.num is not None and settings.num < 1:
        raise InputError(f"--num is {settings.num}: ask for at least 1 window")
    if not 0 <= settings.seed < 2**31:
        raise InputError(f"--seed is {settings.seed}: use 0 .. 2147483647")
    if not BPM_RANGE[0] <= settings.bpm <= BPM_RANGE[1]:
        raise InputError(f"--bpm is {settings.bpm:g}: use {BPM_RANGE[0]:g} .. {BPM_RANGE[1]:g}")
    if not 0 <= settings.steps <= 1000:
        raise InputError(f"--steps is {settings.steps}: use auto or 1 .. 1000")
    if not (settings.temperature == 0.0 or 0.05 <= settings.temperature <= 10.0):
        raise InputError(f"--temperature is {settings.temperature:g}: use auto or 0.05 .. 10")
    if settings.sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {settings.sampler!r}: choose one of {', '.join(SAMPLERS)}")
    if not 1 <= settings.candidates <= MOST_CANDIDATES:
        raise InputError(f"--candidates is {settings.candidates}: use 1 .. {MOST_CANDIDATES}")
    control.check(settings.control)
    targets.load(settings.targets)
    if settings.mode not in MODES:
        raise InputError(f"unknown mode {settings.mode!r}: choose one of {', '.join(MODES)}")
    genre_vector(settings.genre)


def load_motion(source: str, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Clean limb frames [T, 27, 8] and window boundaries of a file, or of `demo[:STYLE]`.

    The demo dances as long as `num` windows take (default 8). Raises InputError.
    """
    if source == "demo" or source.startswith("demo:"):
        num = 8 if settings.num is None else settings.num
        seconds = num * window_seconds(settings.bpm)
        limbs = motion.demo(source.partition(":")[2] or "show", seconds, jax.random.key(settings.seed))
        return limbs, require_windows(limbs, settings.bpm, num, "the demo")
    limbs = motion.clean(motion.load(source))
    return limbs, require_windows(limbs, settings.bpm, settings.num, source)


def perform(params: Params, limbs: np.ndarray, edges: np.ndarray, settings: Settings, *,
            quiet: bool = True) -> tuple[Performance, MotionFrame]:
    """Play the windows between the edges [N + 1] of limbs [T, 27, 8]; same seed, same machine, same arrays.

    Each grid starts from the one before and may differ from it by at most its budget; the first may be anything
    (budget 384). In threshold mode the Conductor writes the grids, with no budget but the grid's size, and steps
    and temperature are recorded as 0.
    """
    frames = padded_trajectory(params["motion"], limbs[:edges[-1]])
    z, velocity, dynamics = window_means(frames, edges)
    weights = music(params)
    grid, before, state = np.full(SHAPE, PROCESS.mask, np.int32), None, initial_state(settings.seed)
    bucket, target_map = jnp.int32(0), targets.compiled(targets.load(settings.targets))
    activations = np.zeros(SHAPE[0], np.float32)
    key, rows = jax.random.key(settings.seed), []
    for i in tqdm(range(len(edges) - 1), unit="window", disable=quiet or None):
        now = jax.tree.map(lambda x, i=i: float(x[i]), dynamics)
        state, conducted, section = conduct(state, now, settings.genre)
        conditioning = np.asarray(assemble(z[i], velocity[i], now, genre=settings.genre, section=section,
                                           activations=activations, bpm=settings.bpm))
        if not np.isfinite(conditioning).all():
            raise InputError(f"window {i}: the motion gives a conditioning that is not finite; check the file")
        if settings.mode == "threshold":
            new, steps, temperature, allowed = conducted, 0, 0.0, grid.size
        else:
            change = compose(
                jax.random.fold_in(key, i), weights, jnp.asarray(conditioning), jnp.asarray(grid), bucket=bucket,
                previous_conditioning=jnp.asarray(conditioning if before is None else before),
                candidates=settings.candidates, steps=settings.steps, temperature=settings.temperature,
                sampler=settings.sampler, control=settings.control, target_map=target_map)
            if bool(change.invalid):
                raise InputError(f"window {i}: the network gave NaN; its weights are damaged, load another checkpoint")
            new, steps, temperature = np.asarray(change.tokens), int(change.steps), float(change.temperature)
            allowed, bucket = int(change.budget), change.bucket
        confidence = conditioning[LAYOUT["prediction_confidence"]][0]
        rows.append((new, conditioning, z[i], confidence, steps, temperature, int((new != grid).sum()), allowed))
        grid, before, activations = new, conditioning, instrument_activations(new)
    kinds = (np.int32, np.float32, np.float32, np.float32, np.int32, np.float32, np.int32, np.int32)
    return Performance(*(np.array(c, k) for c, k in zip(zip(*rows, strict=True), kinds, strict=True))), frames


def bounds(params: Params, limbs: np.ndarray, performance: Performance, settings: Settings) -> tuple[CascadeRow, ...]:
    """The Lipschitz cascade of this performance: its parameters, searched near its motion limbs [T, 27, 8].

    In threshold mode no network plays, so its stages have no row.
    """
    if settings.mode == "threshold":
        params = {name: params[name] for name in ("motion", "statistics")}
    return cascade.lipschitz_cascade(params, BUDGET._replace(control=settings.control),
                                     key=jax.random.key(settings.seed), limbs=limbs,
                                     conditioning=performance.conditioning, tokens=performance.tokens,
                                     bpm=settings.bpm)


def report(performance: Performance, frames: MotionFrame, rows: tuple[CascadeRow, ...], settings: Settings, source: str,
           timing: dict[str, float]) -> dict:
    """What happened, for people and scripts: settings, one row per window, totals, bounds, timing in seconds."""
    tokens = performance.tokens
    windows = [{
        "confidence": round(float(performance.confidence[i]), 4), "steps": int(performance.steps[i]),
        "temperature": round(float(performance.temperature[i]), 4), "changed": int(performance.changed[i]),
        "budget": int(performance.budget[i]),
        "descriptors": {k: round(float(v), 4) for k, v in descriptors(tokens[i])._asdict().items()},
    } for i in range(len(tokens))]
    counts = np.bincount(tokens.ravel(), minlength=len(VOCABULARY))
    legal = np.take_along_axis(LEGAL[None, :, :].repeat(len(tokens), 0), tokens, axis=2)
    return {
        "motion": source, "settings": settings._asdict(), "windows": windows,
        "legal": bool(legal.all()), "within_budget": bool((performance.changed <= performance.budget).all()),
        "histogram": {name: int(n) for name, n in zip(VOCABULARY.names, counts, strict=True) if n},
        "equilibrium_error_bounds": {
            name: round(float(np.max(getattr(frames, name))), 6)
            for name in ("error_fast", "error_slow", "error_lim_rps")},
        "cascade": cascade.as_dicts(rows),
        "timing": {name: round(seconds, 3) for name, seconds in timing.items()},
    }


class Output:
    """The folder of a performance: opened before work starts, filled at once at the end.

    Used as a context; files are written to a scratch folder beside it and renamed into place by `write`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()

    def __enter__(self) -> "Output":
        try:
            if self.folder.exists() and not (self.folder.is_dir() and os.access(self.folder, os.W_OK)):
                raise PermissionError(0, "not a folder one can write to")
            clash = next((name for name in FILES if (self.folder / name).is_dir()), None)
            if clash:
                raise IsADirectoryError(0, f"{clash} in it is a folder")
            # On the same file system as the folder, so that renaming cannot fail half-way.
            place = self.folder if self.folder.exists() else next(p for p in self.folder.parents if p.exists())
            self.scratch = Path(tempfile.mkdtemp(prefix=".eqdiff-", dir=place))
        except OSError as error:
            raise InputError(f"cannot write to --out {self.folder} ({error.strerror}): choose another") from error
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def write(self, performance: Performance, summary: dict, settings: Settings) -> list[Path]:
        """grids.npz, song.strudel.js, song.mid, grids.png, report.json; returns their paths."""
        from eqdiff_jax.music.picture import draw  # half a second, while the music is there already
        np.savez(self.scratch / "grids.npz", **performance._asdict())
        (self.scratch / "song.strudel.js").write_text(song_to_strudel(performance.tokens, bpm=settings.bpm))
        to_midi(performance.tokens, bpm=settings.bpm).save(self.scratch / "song.mid")
        draw(performance.tokens, self.scratch / "grids.png")
        (self.scratch / "report.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.scratch.iterdir()):
                os.replace(path, self.folder / path.name)
        except OSError as error:
            raise InputError(f"cannot write to --out {self.folder} ({error.strerror}): choose another") from error
        return [self.folder / name for name in FILES]


def run(source: str, load_params, settings: Settings, out: str | Path, *, quiet: bool = False) -> list[Path]:
    """Everything sample.py does: check, load, perform, write. load_params() gives the parameters.

    Raises InputError before anything is written.
    """
    check(settings)
    limbs, edges = load_motion(source, settings)
    with Output(out) as output:
        params = load_params()
        started = time.perf_counter()
        performance, frames = perform(params, limbs, edges, settings, quiet=quiet)
        played = time.perf_counter()
        rows = bounds(params, limbs[:edges[-1]], performance, settings)
        timing = {"seconds": played - started, "seconds_per_window": (played - started) / len(performance.tokens),
                  "cascade_seconds": time.perf_counter() - played}
        summary = report(performance, frames, rows, settings, source, timing)
        return output.write(performance, summary, settings)
