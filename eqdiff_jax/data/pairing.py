"""Which movement belongs to a grid: entropic optimal transport between what music is and what movement asks for.

A grid's five descriptors and a window's five asked dynamics become ranks u, v in (0, 1), and

    C_ij = sum_k w_ik (u_ik - v_jk)^2 / sum_k w_ik,        w_ik = WEIGHTS_k, 0 where grid i cannot say k
    P    = argmin <P, C> - eps H(P) + rho KL(P 1 | 1/N)   over   P^T 1 = 1/M

Pairs are draws from P. Every window is used equally; rho says how nearly every grid is. rho = inf: exactly, which is
balanced transport. Then eps -> 0 is an assignment, in one dimension the monotone one (least to least), and
eps -> inf makes movement independent of the music. A finite rho leaves out the grids that ask for what no body does:
real movement nearly lies on a line (who moves hard is tense, ungrounded and hard to predict all at once), music does
not. rho -> 0: each window takes its nearest grids. Only ranks enter, so an increasing change of a descriptor or of a
dynamic changes nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from eqdiff_jax.data.movement import TEMPI
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.descriptors import DESCRIPTORS
from eqdiff_jax.music.grid import TRACKS
from eqdiff_jax.music.midi_tables import DRUM_TRACKS

ASKED = ("periodicity", "curvature", "tension", "grounding", "prediction_confidence")  # in the order of DESCRIPTORS
# Periodicity is nearly free of the other dynamics, so easy to follow; the last two are hardest (docs/pairing.md).
WEIGHTS = (0.7, 1.0, 1.0, 1.3, 1.3)
TEMPERATURE = 1e-3  # eps, in squared rank differences
PRICE = 0.01  # rho, likewise
TOLERANCE = 1e-3  # total variation by which the next scaling of the rows would still move P; columns are exact
SWEEPS, WARMING = 2000, 30  # at most: at the temperature asked for, at each higher one on the way
SMALLEST = 64  # grids that are ranked among themselves; fewer join a wider group
LARGEST = 2048, 4096  # grids and windows of one transport problem
_ABSORB = 20.0  # log of a scaling that moves into the potentials

PITCHED = np.isin(TRACKS, DRUM_TRACKS, invert=True)  # bool [12]


class Plan(NamedTuple):
    """P_ij = exp((f_i + g_j - C_ij) / eps)."""

    f: np.ndarray  # float32 [N]
    g: np.ndarray  # float32 [M]
    mass: np.ndarray  # float [N] how much of P each row holds: P 1, and exactly 1/N for rho = inf
    error: float  # what is missing to convergence; for rho = inf the sum over rows of |P 1 - 1/N|
    sweeps: int  # rows and columns once each, at all temperatures together

    def matrix(self, costs: np.ndarray, temperature: float) -> np.ndarray:
        """P, float32 [N, M]."""
        return np.exp((self.f[:, None] + self.g - costs) / np.float32(temperature))


class Pairing(NamedTuple):
    """Q pairs of N grids and M windows."""

    grids: np.ndarray  # int [Q] ascending
    windows: np.ndarray  # int [Q]
    block: np.ndarray  # int [Q] the transport problem that a pair comes from
    errors: np.ndarray  # float [blocks] how far each is from convergence


def says(observed: np.ndarray) -> np.ndarray:
    """Which descriptors a grid with these observed tracks, bool [..., 12], can have. bool [..., 5]

    Range and dissonance need a pitched track, bass weight the BASS track.
    """
    observed = np.asarray(observed, bool)
    some, pitched = observed.any(-1), (observed & PITCHED).any(-1)
    return np.stack([some, pitched, pitched, observed[..., TRACKS.index("BASS")], some], axis=-1)


def ranks(values: np.ndarray) -> np.ndarray:
    """(rank - 1/2) / N of the values [N, K] in their column, ties in the middle of theirs: in (0, 1). float32"""
    return ((rankdata(values, axis=0) - 0.5) / max(len(values), 1)).astype(np.float32)


def cost(u: np.ndarray, v: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """C of ranks u [N, K], v [M, K] with weights [N, K]; 0 for a grid that says nothing. float32 [N, M]"""
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
    expanded = (weights * u * u).sum(1)[:, None] - 2.0 * (weights * u) @ v.T + weights @ (v * v).T
    return np.maximum(expanded, 0.0).astype(np.float32)


def transport(costs: np.ndarray, temperature: float, *, price: float = np.inf, tolerance: float = TOLERANCE,
              sweeps: int = SWEEPS) -> Plan:
    """The plan P of costs C [N, M] at eps = temperature and rho = price: Sinkhorn's iteration in the log domain.

    The temperature falls by halves to `temperature`, each start from the end of the one before. Stops at
    `tolerance`, or after `sweeps` at the last temperature; the plan's error says how it went.
    Raises InputError unless temperature and price are positive.
    """
    for name, value in (("temperature", temperature), ("price", price)):
        if not value > 0.0:
            raise InputError(f"the pairing's {name} is {value:g}: use a positive one, such as {TEMPERATURE:g}")
    f = costs.min(1)
    plan = Plan(f, (costs - f[:, None]).min(0), np.full(len(f), 1.0 / len(f)), np.inf, 0)
    halvings = max(0, int(np.ceil(np.log2(max(float(costs.max()), temperature) / temperature))))
    for halving in range(halvings, 0, -1):
        plan = _scaled(costs, plan, temperature * 2.0**halving, price, tolerance, WARMING)
    return _scaled(costs, plan, temperature, price, tolerance, sweeps)


def _scaled(costs: np.ndarray, plan: Plan, temperature: float, price: float, tolerance: float, sweeps: int) -> Plan:
    """Alternate scalings of the columns and rows of K = exp((f + g - C)/eps).

    With a, b the scalings since f and g were last updated (before they outgrow float32) and r = rho/(rho + eps):
        b = (1/M) / K^T a,    e^(f/eps) a = (e^(f/eps) (1/N) / K b)^r
    """
    rows, columns = (np.float32(1.0 / size) for size in costs.shape)
    eps, share = np.float32(temperature), np.float32(1.0 / (1.0 + temperature / price))
    f, g, error = plan.f, plan.g, np.inf
    a, b, kernel = np.ones_like(f), np.ones_like(g), plan.matrix(costs, temperature)
    for sweep in range(1, sweeps + 1):
        b = columns / (kernel.T @ a)
        mass = kernel @ b
        new = np.exp(share * np.log(rows / mass) + (share - 1.0) * f / eps)
        error = float((np.abs(new - a) * mass).sum())
        if error <= tolerance or sweep == sweeps:
            break
        a = new
        if max(np.abs(np.log(a)).max(), np.abs(np.log(b)).max()) > _ABSORB:
            f, g = f + eps * np.log(a), g + eps * np.log(b)
            a, b = np.ones_like(f), np.ones_like(g)
            kernel = np.exp((f[:, None] + g - costs) / eps)
    held = plan.mass if np.isinf(price) else (a * mass) / (a * mass).sum(dtype=np.float64)
    return Plan(f + eps * np.log(a), g + eps * np.log(b), held, error, plan.sweeps + sweep)


def drawn(rng: np.random.Generator, costs: np.ndarray, plan: Plan, temperature: float,
          draws: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """N draws pairs (row, column) of P, rows ascending. int [N draws] twice

    A row of mass p is drawn floor or ceil of p N draws times (systematic sampling), its columns independently.
    """
    ends = np.cumsum(plan.mass) * len(costs) * draws
    times = np.diff(np.floor(ends + rng.uniform(0.001, 0.999)), prepend=0.0).astype(int)
    rows = np.repeat(np.arange(len(costs)), times)
    columns = np.empty_like(rows)
    for start in range(0, len(rows), 256):
        chunk = slice(start, start + 256)
        logits = (plan.g - costs[rows[chunk]]) / np.float32(temperature)
        cdf = np.cumsum(np.exp(logits - logits.max(1, keepdims=True)), axis=1, dtype=np.float64)
        level = rng.random((len(cdf), 1)) * cdf[:, -1:]
        columns[chunk] = np.minimum((cdf <= level).sum(1), costs.shape[1] - 1)
    return rows, columns


def tempo_class(bpm: np.ndarray) -> np.ndarray:
    """Index of the tempo of TEMPI nearest to bpm [N] in log scale, octaves apart counting as equal. int [N]"""
    octaves = np.log2(np.asarray(bpm, np.float64)[:, None] / np.array(TEMPI))
    return np.abs(octaves - np.round(octaves)).argmin(1)


def blocks(rng: np.random.Generator, observed: np.ndarray, tempo: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of grids that are paired together, and the class of their tempo (-1: any).

    Grids of one block observe the same tracks and have the same tempo. Sets of tracks that fewer than SMALLEST
    grids observe join those that say the same descriptors; tempi with fewer join each other. Blocks beyond LARGEST
    are cut at random.
    """
    names = np.array([row.tobytes() for row in observed.astype(np.uint8)])
    _, index, counts = np.unique(names, return_inverse=True, return_counts=True)
    rare = counts[index] < SMALLEST
    names = np.where(rare, np.array([row.tobytes() for row in says(observed).astype(np.uint8) + 2]), names)
    for name in np.unique(names):
        alike = np.flatnonzero(names == name)
        sizes = np.bincount(tempo[alike], minlength=len(TEMPI))
        common = np.where(sizes[tempo[alike]] >= SMALLEST, tempo[alike], -1)
        for kind in np.unique(common):
            rows = rng.permutation(alike[common == kind])
            for part in np.array_split(rows, -(-len(rows) // LARGEST[0])):
                yield part, int(kind)


def pair(descriptors: np.ndarray, observed: np.ndarray, bpm: np.ndarray, asked: np.ndarray, motion_bpm: np.ndarray, *,
         seed: int = 0, temperature: float = TEMPERATURE, price: float = PRICE, weights: tuple[float, ...] = WEIGHTS,
         draws: int = 1) -> Pairing:
    """About N draws pairs of grids and windows, drawn from the transport plan; the same for the same arguments.

    Args:
      descriptors: [N, 5] in the order of DESCRIPTORS. observed: bool [N, 12] tracks. bpm: [N].
      asked: [M, 5] in the order of ASKED. motion_bpm: [M] tempo of each window.
      draws: pairs for each grid, on average; exactly for price = inf.
    Raises InputError for wrong shapes, numbers that are not finite, or when there is no grid or no window.
    """
    descriptors, observed, bpm, asked, motion_bpm = _checked(descriptors, observed, bpm, asked, motion_bpm)
    rng = np.random.default_rng([seed, 5])
    meaning, motion_tempo = says(observed), tempo_class(motion_bpm)
    found: list[tuple[np.ndarray, ...]] = []
    errors: list[float] = []
    for rows, tempo in blocks(rng, observed, tempo_class(bpm)):
        pool = np.flatnonzero(motion_tempo == tempo)
        pool = pool if len(pool) else np.arange(len(asked))  # any tempo, or one at which nothing was cut
        pool = rng.permutation(pool)[:LARGEST[1]]
        costs = cost(ranks(descriptors[rows]), ranks(asked[pool]), meaning[rows] * np.asarray(weights, np.float32))
        plan = transport(costs, temperature, price=price)
        grid, window = drawn(rng, costs, plan, temperature, draws)
        found.append((rows[grid], pool[window], np.full(len(grid), len(errors))))
        errors.append(plan.error)
    grids, windows, block = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(grids, kind="stable")
    return Pairing(grids[order], windows[order], block[order], np.array(errors))


def _checked(descriptors, observed, bpm, asked, motion_bpm) -> tuple[np.ndarray, ...]:
    """The arguments of `pair` as arrays of the right shapes; raises InputError."""
    named = {"descriptors": descriptors, "bpm": bpm, "asked": asked, "motion_bpm": motion_bpm}
    arrays = {name: np.asarray(values, np.float64) for name, values in named.items()} | {
        "observed": np.asarray(observed, bool)}
    grids, windows = len(arrays["bpm"]), len(arrays["motion_bpm"])
    if not grids or not windows:
        raise InputError(f"{grids} grids and {windows} windows of movement cannot be paired: give at least one of each")
    shapes = {"descriptors": (grids, len(DESCRIPTORS)), "observed": (grids, len(TRACKS)), "bpm": (grids,),
              "asked": (windows, len(ASKED)), "motion_bpm": (windows,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise InputError(f"{name} has shape {list(arrays[name].shape)}, {list(shape)} is needed")
        if not np.isfinite(arrays[name]).all() or ("bpm" in name and (arrays[name] <= 0).any()):
            raise InputError(f"{name} holds a number that is not finite or no tempo: leave those rows out")
    return tuple(arrays[name] for name in ("descriptors", "observed", "bpm", "asked", "motion_bpm"))


def spearman(descriptors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Rank correlation of each column of [N, K] with the same column of the other; 0 where one is constant. [K]"""
    a, b = (rankdata(values, axis=0) for values in (descriptors, asked))
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.where(scale > 0.0, (a * b).sum(0) / np.maximum(scale, 1e-12), 0.0)
