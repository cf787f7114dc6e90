"""Does the music follow the body, and is it music: whole performances, fresh windows and bounded ones apart.

    recordings -> performances (played through, or short clips joined) -> grids -> Response

A window whose previous grid is all masked is fresh; it is never counted as bounded. What the sampler's cost reads (the
seven targets) is chosen by what it reports; movement speed, the network's unconditional bits, and roughness beside
recorded music are measured besides. Errors are over performances, within which windows depend on each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata
from tqdm import tqdm

from eqdiff_jax.composer import PROCESS, compose, music, posterior
from eqdiff_jax.conditioning import LAYOUT, assemble
from eqdiff_jax.conditioning.layout import SIZE
from eqdiff_jax.diffusion import cell_log_likelihood
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means
from eqdiff_jax.music.attributes import Attributes, Sums, harsh, of_sums, sums
from eqdiff_jax.music.conductor import conduct, initial_state, instrument_activations
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.targets import DEFAULT, NAMES, TargetMap, achieved, targets
from eqdiff_jax.types import Array, Params

LEAST = 4  # windows of a recording that is played through
LENGTH = 12  # windows of a performance that is joined from clips
RESAMPLES = 200  # of performances, for errors
BATCH = 128
HEARD = ("onsets", "velocity", "tracks")  # what energy is compared with


class Performance(NamedTuple):
    """Consecutive windows of movement."""

    name: str
    conditioning: np.ndarray  # [N, 104], instrument activations left at zero
    speed: np.ndarray  # [N] mean limb speed, body heights/s
    clips: int  # recordings in it
    conducted: np.ndarray  # int32 [N, 12, 32] the Conductor's grids for it


class Played(NamedTuple):
    """What was played to P performances, in windows one after the other, W in all."""

    tokens: np.ndarray  # int32 [W, 12, 32]
    conditioning: np.ndarray  # [W, 104]
    speed: np.ndarray  # [W]
    member: np.ndarray  # int [W] performance, ascending
    fresh: np.ndarray  # bool [W]
    changed: np.ndarray  # int [W]
    budget: np.ndarray  # int [W]


class Response(NamedTuple):
    """Figures of one way to play; pairs are (value, error over performances), in the order of NAMES or HEARD."""

    windows: int
    followed: tuple[tuple[float, float], ...]  # Spearman, targets against achieved
    changes: tuple[tuple[float, float], ...]  # the same of their differences from window to window
    partial: tuple[tuple[float, float], ...]  # followed, ranks of energy taken out of both
    energy: tuple[tuple[float, float], ...]  # Pearson within performances, mean limb speed against HEARD
    energy_changes: tuple[tuple[float, float], ...]
    shuffled: tuple[tuple[float, float], ...]  # `energy`, windows of each performance in any order: (mean, deviation)
    bits: float  # per cell, unconditional, half of the cells hidden
    rough: float  # share of the time with two pitches or more that holds a semitone, its inversion or a tritone
    notes: float
    layers: float
    cells: float  # changed in a window
    allowed: float


def performance(chain: Params, name: str, limbs: Sequence[np.ndarray], bpm: float, length: int | None = None
                ) -> Performance:
    """The whole windows of recordings [T, 27, 8], one after the other, with the section machine run along them."""
    rows, speeds, grids, state = [], [], [], initial_state()
    for part in limbs:
        edges = boundaries(len(part), bpm)
        if len(edges) < 2:
            continue
        z, velocity, dynamics = window_means(padded_trajectory(chain, part), edges)
        for i in range(len(z)):
            now = jax.tree.map(lambda x, i=i: float(x[i]), dynamics)
            state, grid, section = conduct(state, now)
            rows.append(np.asarray(assemble(z[i], velocity[i], now, section=section, bpm=bpm)))
            speeds.append(np.linalg.norm(part[edges[i]:edges[i + 1], :, 3:6], axis=-1).mean())
            grids.append(grid)
    return Performance(name, np.array(rows)[:length], np.array(speeds)[:length], len(limbs), np.array(grids)[:length])


def played_through(chain: Params, recordings: Iterable[tuple[str, np.ndarray]], bpm: float) -> list[Performance]:
    """A performance for each recording of LEAST windows or more. Raises InputError when there is none."""
    whole = [performance(chain, name, [limbs], bpm) for name, limbs in recordings
             if len(boundaries(len(limbs), bpm)) > LEAST]
    if not whole:
        raise InputError(f"no recording holds {LEAST} windows of two bars at {bpm:g} bpm: give longer ones")
    return whole


def joined(chain: Params, recordings: Iterable[tuple[str, np.ndarray]], bpm: float, seed: int = 0) -> list[Performance]:
    """Performances of LENGTH windows from recordings of fewer than LEAST, in an order by chance."""
    clips = [(name, limbs) for name, limbs in recordings if 1 < len(boundaries(len(limbs), bpm)) <= LEAST]
    made: list[Performance] = []
    waiting: list[np.ndarray] = []
    windows = 0
    for i in np.random.default_rng(seed).permutation(len(clips)):
        waiting.append(clips[i][1])
        windows += len(boundaries(len(clips[i][1]), bpm)) - 1
        if windows >= LENGTH:
            made.append(performance(chain, f"joined {len(made) + 1}", waiting, bpm, LENGTH))
            waiting, windows = [], 0
    return made


def play(key: Array, params: Params, performances: Sequence[Performance], *, fresh: bool = False, candidates: int = 1,
         control: float = 1.0, steps: int = 0, guidance: float | None = None, target_map: TargetMap = DEFAULT,
         quiet: bool = True) -> Played:
    """The performances side by side, each window from the grid before (fresh: from none). The key is consumed."""
    weights = music(params)
    lengths = np.array([len(p.conditioning) for p in performances])
    empty = np.full((len(performances), *SHAPE), PROCESS.mask, np.int32)
    grids, before, bucket = empty, None, jnp.zeros(len(performances), jnp.int32)
    made: list[tuple[np.ndarray, ...]] = []
    activations = np.zeros((len(performances), SHAPE[0]), np.float32)
    for i in tqdm(range(lengths.max()), desc=f"playing, control {control:g}", disable=quiet or None):
        # A performance that has ended waits, and is left out below.
        now = np.stack([p.conditioning[min(i, n - 1)] for p, n in zip(performances, lengths, strict=True)])
        now[:, LAYOUT["activations"]] = activations
        change = compose(jax.random.fold_in(key, i), weights, jnp.asarray(now), jnp.asarray(empty if fresh else grids),
                         previous_conditioning=jnp.asarray(now if before is None else before), bucket=bucket,
                         candidates=candidates, control=control, steps=steps, guidance=guidance,
                         target_map=target_map)
        if bool(change.invalid.any()):
            raise InputError("the network gave NaN; its weights are damaged, load another checkpoint")
        grids, before = np.asarray(change.tokens), now
        bucket = jnp.zeros_like(change.bucket) if fresh else change.bucket
        activations = np.stack([instrument_activations(grid) for grid in grids])
        made.append((grids, now, np.asarray(change.changed), np.asarray(change.budget)))
    rows = [(p, i) for p, n in enumerate(lengths) for i in range(n)]
    tokens, conditioning, changed, budget = (np.array([made[i][k][p] for p, i in rows]) for k in range(4))
    return Played(tokens, conditioning, *_places(performances, fresh), changed, budget)


def conducted(performances: Sequence[Performance]) -> Played:
    """What the Conductor plays to them: rules, no network and no budget."""
    tokens = np.concatenate([p.conducted for p in performances])
    places = _places(performances, False)
    changed = np.append(0, (tokens[1:] != tokens[:-1]).sum((1, 2)))
    return Played(tokens, np.concatenate([p.conditioning for p in performances]), *places, changed,
                  np.full(len(tokens), tokens[0].size))


def _places(performances: Sequence[Performance], fresh: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    member = np.repeat(np.arange(len(performances)), [len(p.speed) for p in performances])
    first = np.diff(member, prepend=-1) > 0
    return np.concatenate([p.speed for p in performances]), member, first | fresh


def measure(key: Array, params: Params, played: Played, *, fresh: bool = False, target_map: TargetMap = DEFAULT,
            seed: int = 0) -> Response:
    """The figures of the bounded windows, or of all where fresh. The key is consumed."""
    statistics, whole = params["statistics"], jax.tree.map(np.asarray, grid_sums(played.tokens))
    heard = np.stack([whole.onsets, whole.gain, whole.sounding], axis=1)
    has = np.asarray(achieved(Attributes(*map(jnp.asarray, of_sums(whole))), statistics))
    asked = np.asarray(targets(jnp.asarray(played.conditioning), statistics, target_map))
    kept = np.ones(len(asked), bool) if fresh else ~played.fresh
    pair = (played.member[1:] == played.member[:-1])
    member, late = played.member[kept], played.member[1:][pair]
    energy = played.conditioning[kept, LAYOUT["energy"].start]

    def change(x: np.ndarray) -> np.ndarray:
        return (x[1:] - x[:-1])[pair]

    def errors(figure, member: np.ndarray, *columns: np.ndarray) -> tuple[tuple[float, float], ...]:
        return _bootstrap(figure, member, columns, np.random.default_rng(seed))

    def of_ranks(a: np.ndarray, b: np.ndarray, *others: np.ndarray) -> np.ndarray:
        return np.array([_correlated(_without(rankdata(x), *others), _without(rankdata(y), *others))
                         for x, y in zip(a.T, b.T, strict=True)])

    def inside(member: np.ndarray, speed: np.ndarray, heard: np.ndarray) -> np.ndarray:
        return np.array([_correlated(_centred(speed, member), _centred(x, member)) for x in heard.T])

    rng = np.random.default_rng(seed)
    order = [np.concatenate([rng.permutation(np.flatnonzero(member == m)) for m in np.unique(member)])
             for _ in range(RESAMPLES)]
    null = np.array([inside(member, played.speed[kept][o], heard[kept]) for o in order])
    return Response(
        windows=int(kept.sum()), followed=errors(lambda m, a, b: of_ranks(a, b), member, asked[kept], has[kept]),
        changes=errors(lambda m, a, b: of_ranks(a, b), late, change(asked), change(has)),
        partial=errors(lambda m, a, b, e: of_ranks(a, b, rankdata(e)), member, asked[kept], has[kept], energy),
        energy=errors(inside, member, played.speed[kept], heard[kept]),
        energy_changes=errors(lambda m, a, b: np.array([_correlated(a, x) for x in b.T]), late, change(played.speed),
                              change(heard)),
        shuffled=tuple(zip(null.mean(0).tolist(), null.std(0).tolist(), strict=True)),
        bits=bits(key, params, played.tokens[kept]), rough=float(np.asarray(harsh(whole))[kept].mean()),
        notes=float(whole.onsets[kept].mean()), layers=float(whole.sounding[kept].mean()),
        cells=float(played.changed[kept].mean()), allowed=float(played.budget[kept].mean()))


def bits(key: Array, params: Params, tokens: np.ndarray, draws: int = 2) -> float:
    """Bits a cell of grids int [N, 12, 32] for the unconditional network, each cell hidden once a draw.

    Half of the others are hidden with it. The key is consumed.
    """
    parts = [_nats(jax.random.fold_in(key, i * draws + d), music(params), part)
             for i, part in enumerate(np.array_split(tokens, len(tokens) // BATCH + 1)) for d in range(draws)]
    return float(np.concatenate(parts).mean() / np.log(2.0) / tokens[0].size)


@jax.jit
def _nats(key: Array, params: Params, tokens: Array) -> Array:
    own = posterior(params, jnp.zeros((len(tokens), SIZE)), jnp.zeros(len(tokens), bool))
    return -cell_log_likelihood(key, own, jnp.asarray(tokens, jnp.int32), PROCESS.mask).sum((1, 2))


def turns(tracks: np.ndarray, least: int = 3) -> int:
    """How often a number of tracks [N] turns round: a fall of `least` or more after a rise of as much, or a rise after
    a fall."""
    high = low = tracks[0]
    direction = found = 0
    for now in tracks[1:]:
        high, low = max(high, now), min(low, now)
        turned = -1 if direction >= 0 and high - now >= least else 1 if direction <= 0 and now - low >= least else 0
        if turned:
            found += direction != 0
            direction, high, low = turned, now, now
    return found


def longest(sounding: np.ndarray) -> int:
    """The most windows in a row that any one track sounds in; bool [N, 12]."""
    most, run = 0, np.zeros(sounding.shape[1], int)
    for now in sounding:
        run = np.where(now, run + 1, 0)
        most = max(most, int(run.max()))
    return most


def grid_sums(tokens: np.ndarray) -> Sums:
    """Sums over the tracks of grids int [N, 12, 32]; fields [N, ...]."""
    parts = [_sums(part) for part in np.array_split(tokens, len(tokens) // BATCH + 1)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


_sums = jax.jit(lambda tokens: jax.tree.map(lambda x: x.sum(1), sums(tokens)))


def _correlated(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation, nan where one of them stands still."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 1e-12 else np.nan


def _without(x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """x less what the others explain of it linearly."""
    basis = np.stack([np.ones(len(x)), *others], axis=1)
    return _left(x, basis @ np.linalg.lstsq(basis, x, rcond=None)[0])


def _centred(x: np.ndarray, member: np.ndarray) -> np.ndarray:
    """x less the mean of its performance; members ascend."""
    groups, index = np.unique(member, return_inverse=True)
    return _left(x, (np.bincount(index, x) / np.bincount(index, minlength=len(groups)))[index])


def _left(x: np.ndarray, explained: np.ndarray) -> np.ndarray:
    """x - explained, and exactly 0 where only rounding is left, which would correlate with anything."""
    left = x - explained
    return left if np.abs(left).max() > 1e-9 * np.abs(x).max() else np.zeros_like(left)


def _bootstrap(figure, member: np.ndarray, columns: Sequence[np.ndarray], rng: np.random.Generator
               ) -> tuple[tuple[float, float], ...]:
    """figure(member, *columns) with its deviation when performances are drawn again."""
    rows = [np.flatnonzero(member == m) for m in np.unique(member)]
    found = []
    for _ in range(RESAMPLES if len(rows) > 1 else 0):
        drawn = [rows[i] for i in rng.integers(len(rows), size=len(rows))]
        again = np.repeat(np.arange(len(drawn)), [len(r) for r in drawn])
        chosen = np.concatenate(drawn)
        found.append(figure(again, *(column[chosen] for column in columns)))
    values = figure(member, *columns)
    known = [x[~np.isnan(x)] for x in np.reshape(found, (-1, len(values))).T]
    return tuple((float(value), float(x.std()) if len(x) else np.nan) for value, x in zip(values, known, strict=True))


def markdown(rows: Mapping[str, Response]) -> str:
    """Three tables: what was followed, what energy did, what the music is like."""
    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    def pairs(values: Iterable[tuple[float, float]]) -> list[str]:
        return ["–" if np.isnan(value) else f"{value:.2f}" if np.isnan(error) else f"{value:.2f} ± {error:.2f}"
                for value, error in values]

    def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
        return "\n".join([line(head), line(["---"] * len(head)), *map(line, body)])

    return "\n\n".join([
        table(("how it is played", "figure", *NAMES), [
            (name, figure, *pairs(getattr(row, figure))) for name, row in rows.items()
            for figure in ("followed", "changes", "partial")]),
        table(("how it is played", *(f"speed → {x}" for x in HEARD), *(f"changes → {x}" for x in HEARD),
               *(f"shuffled → {x}" for x in HEARD)), [
            (name, *pairs((*row.energy, *row.energy_changes, *row.shuffled))) for name, row in rows.items()]),
        table(("how it is played", "windows", "bits a cell", "rough", "notes", "tracks", "cells changed", "allowed"), [
            (name, row.windows, f"{row.bits:.3f}", f"{row.rough:.3f}", f"{row.notes:.1f}", f"{row.layers:.1f}",
             f"{row.cells:.0f}", f"{row.allowed:.0f}") for name, row in rows.items()])]) + "\n"
