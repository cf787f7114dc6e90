"""What can be measured on grids: one grid, a set of them, two sets, and a set beside the movement that asked for it.

Everything is read from `events`, so a token that its track cannot say is silent. A figure without a meaning (the
scale of a grid without pitches) is nan; `summary` leaves nan out of the mean and says how many were counted.
References: muspy (entropy, scale, groove, polyphony), mgeval (overlapping area), Bailando (beats of a movement).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist, pdist
from scipy.stats import gaussian_kde, spearmanr

from eqdiff_jax.music.grid import BAR, LEGAL, STEPS, TRACKS, Event, as_grid, events
from eqdiff_jax.music.vocabulary import VOCABULARY

# What a slot of the conditioning asks for, and the descriptor that should follow it.
FIDELITY = {"periodicity": "density", "curvature": "range", "tension": "dissonance", "grounding": "bass_weight",
            "prediction_confidence": "stability"}
BEAT_WIDTH = 0.5  # sixteenths: standard deviation of the forgiveness around a beat
SMOOTHING = 5.0  # frames of 1/60 s, of the joint speed
BINS, POINTS = 20, 256  # of the two overlaps
_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
_SCALES = np.array([[(pitch - root) % 12 in mode for pitch in range(12)] for mode in (_MAJOR, _MINOR)
                    for root in range(12)])  # [24, 12]
_LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)  # lower edges of the bins of note lengths, in sixteenths


class Measures(NamedTuple):
    """Figures of one grid."""

    density: float  # notes per window of two bars
    pitch_class_entropy: float  # bits, 0 .. log2 12; nan without pitched notes
    scale_consistency: float  # share of pitched notes in the best major or minor scale; nan without pitched notes
    groove_consistency: float  # 1 - share of sixteenths at which the bars' onsets differ; nan without notes
    polyphony: float  # pitches that sound, mean over the time that any does; nan without pitched notes
    empty_tracks: float  # share of the tracks without a note
    legality: float  # share of the (observed) cells whose token the track can say


class Summary(NamedTuple):
    """A mean over what is not nan."""

    mean: float  # nan when nothing is counted
    stderr: float  # standard deviation / sqrt(counted), nan for fewer than two
    counted: int


def summary(values) -> Summary:
    """Mean, standard error and number of the values [N] that are not nan."""
    kept = np.asarray(values, float)
    kept = kept[~np.isnan(kept)]
    return Summary(float(kept.mean()) if len(kept) else np.nan,
                   float(kept.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else np.nan, len(kept))


def measure(grid, observed=None) -> Measures:
    """The figures of a grid, int [12, 32]; observed bool [12]: tracks that count for legality (default all)."""
    grid, notes = as_grid(grid), events(grid)
    pitches = np.bincount([n.pitch % 12 for n in notes if not isinstance(n.sound, str)], minlength=12)
    return Measures(
        density=float(len(notes)), pitch_class_entropy=_entropy(pitches),
        scale_consistency=float((_SCALES @ pitches).max() / pitches.sum()) if pitches.any() else np.nan,
        groove_consistency=groove_consistency(notes), polyphony=_polyphony(notes),
        empty_tracks=1.0 - len({n.track for n in notes}) / len(TRACKS), legality=_legality(grid, observed))


def groove_consistency(notes: list[Event]) -> float:
    """1 - Hamming(a, b)/16, a and b the onset vectors [16] of the two bars: does any track, drums included, start here?

    muspy's definition for two bars in 4/4; what its documentation calls a distance is, like this, a similarity.
    """
    if not notes:
        return np.nan
    starts = np.zeros(STEPS, bool)
    starts[[n.onset for n in notes]] = True
    first, second = starts.reshape(-1, BAR)
    return float(1.0 - np.mean(first != second))


def _entropy(counts: np.ndarray) -> float:
    """-sum p log2 p of counts, nan for none."""
    if not counts.any():
        return np.nan
    p = counts[counts > 0] / counts.sum()
    return float(max(-(p * np.log2(p)).sum(), 0.0))


def _polyphony(notes: list[Event]) -> float:
    """Distinct pitches sounding, averaged over the half sixteenths in which one sounds."""
    sounding = np.zeros((2 * STEPS, 128), bool)
    for n in notes:
        if not isinstance(n.sound, str):
            sounding[2 * n.onset:int(2 * (n.onset + n.length)), n.pitch] = True
    count = sounding.sum(1)
    return float(count[count > 0].mean()) if count.any() else np.nan


def _legality(grid: np.ndarray, observed) -> float:
    legal = np.pad(LEGAL, ((0, 0), (0, 1)))  # anything outside the vocabulary is illegal
    known = np.where((grid >= 0) & (grid < len(VOCABULARY)), grid, len(VOCABULARY))
    rows = np.ones(len(TRACKS), bool) if observed is None else np.asarray(observed)
    return float(legal[np.arange(len(TRACKS))[:, None], known][rows].mean()) if rows.any() else np.nan


def diversity(grids: np.ndarray, observed=None) -> tuple[float, int]:
    """(mean Hamming distance of two grids of the set, as a share of the cells; number of distinct grids).

    Exact over all pairs, by counting tokens per cell. grids int [N, 12, 32]; observed bool [N, 12]: a cell counts for
    the pairs that both observe it. nan for a set without a pair.
    """
    tokens = grids.reshape(len(grids), -1)
    seen = _cells(observed, grids).reshape(tokens.shape)
    counts = np.stack([((tokens == v) & seen).sum(0) for v in range(len(VOCABULARY))]).astype(float)
    total = counts.sum(0)
    pairs, same = (total * (total - 1)).sum(), (counts * (counts - 1)).sum()
    return float(1.0 - same / pairs) if pairs else np.nan, len(np.unique(tokens, axis=0))


def nearest_distance(grids: np.ndarray, train: np.ndarray, observed=None, train_observed=None, *,
                     common: float = 0.5, block: int = 1 << 26) -> np.ndarray:
    """Hamming distance of each grid to the nearest training grid, as a share of the cells both observe. [M]

    Exact, in blocks of at most about `block` bytes. A training grid that observes less than the share `common` of
    what the grid observes is no neighbour; nan where there is none. grids int [M, 12, 32], train int [N, 12, 32];
    observed, train_observed bool [M, 12], [N, 12], all by default.
    """
    tokens, stored = (x.reshape(len(x), -1).astype(np.int16) for x in (grids, train))
    seen, known = (_cells(o, x).reshape(len(x), -1) for o, x in ((observed, grids), (train_observed, train)))
    rows = max(1, block // (4 * tokens.shape[1]))
    best = np.full(len(tokens), np.inf)
    everything = bool(seen.all() and known.all())
    for start in range(0, len(stored), rows):
        part, part_known = stored[start:start + rows], known[start:start + rows]
        for i, (row, row_seen) in enumerate(zip(tokens, seen, strict=True)):
            if everything:
                best[i] = min(best[i], np.count_nonzero(part != row, axis=1).min() / len(row))
                continue
            both = part_known & row_seen
            cells = np.count_nonzero(both, axis=1)
            differ = np.count_nonzero(both & (part != row), axis=1)
            near = cells >= max(common * row_seen.sum(), 1)
            best[i] = min(best[i], np.min(differ[near] / cells[near], initial=np.inf))
    return np.where(np.isinf(best), np.nan, best)


def _cells(observed, grids: np.ndarray) -> np.ndarray:
    """Which cells count, bool [N, 12, 32], from observed [N, 12] or None."""
    return np.broadcast_to(True if observed is None else np.asarray(observed)[..., None], grids.shape)


def features(notes: list[Event]) -> dict[str, np.ndarray]:
    """The features of `overlapping_area`, mgeval's nine carried over to twelve tracks; nan where there is nothing.

    Note count and lengths read all notes; pitches and intervals the pitched ones, intervals and transitions from note
    to note within a track; IOI is the mean gap of successive onset steps of the whole grid, in sixteenths.
    """
    pitched = [n for n in notes if not isinstance(n.sound, str)]
    pitch = np.array([n.pitch for n in pitched], int)
    steps = [(a.pitch, b.pitch) for a, b in zip(pitched, pitched[1:], strict=False) if a.track == b.track]
    moves = np.array(steps, int).reshape(-1, 2)
    lengths = np.searchsorted(_LENGTHS, [n.length for n in notes], side="right") - 1
    onsets = np.unique([n.onset for n in notes])
    return {
        "note_count": np.array([float(len(notes))]),
        "pitch_count": np.array([float(len(np.unique(pitch)))]),
        "pitch_class_histogram": _share(np.bincount(pitch % 12, minlength=12)),
        "pitch_class_transitions": _share(np.bincount(moves[:, 0] % 12 * 12 + moves[:, 1] % 12, minlength=144)),
        "pitch_range": np.array([float(np.ptp(pitch)) if len(pitch) else np.nan]),
        "pitch_interval": np.array([np.abs(np.diff(moves)).mean() if len(moves) else np.nan]),
        "inter_onset": np.array([np.diff(onsets).mean() if len(onsets) > 1 else np.nan]),
        "note_lengths": _share(np.bincount(lengths, minlength=len(_LENGTHS))),
    }


def _share(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum() if counts.any() else np.full(len(counts), np.nan)


def overlapping_area(made: Sequence[dict], real: Sequence[dict], *, most: int = 128) -> dict[str, float]:
    """mgeval's overlapping area (OA) per feature, in [0, 1]: 1 where two sets differ as a set differs from itself.

        integral of min(KDE of distances within `made`, KDE of distances from `made` to `real`)

    over the range of those distances, Euclidean, Gaussian kernels of Scott's width (scipy). Sets of `features`; at most
    `most` of each, evenly spaced, are used. A set without spread has no density: 1 if both are the same constant, else
    0. nan for fewer than two grids with the feature.
    """
    sets = [[x[i] for i in np.unique(np.linspace(0, len(x) - 1, most).astype(int))] for x in (made, real)]
    found = {}
    for name in sets[0][0]:
        a, b = (np.array([f[name] for f in grids]) for grids in sets)
        a, b = (x[~np.isnan(x).any(1)] for x in (a, b))
        if len(a) < 2 or not len(b):
            found[name] = np.nan
            continue
        found[name] = density_overlap(pdist(a), cdist(a, b).ravel())
    return found


def density_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Integral of min(KDE_a, KDE_b) over the range of both, in [0, 1]; without spread as `overlapping_area` says."""
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    if len(a) < 2 or len(b) < 2 or min(np.ptp(a), np.ptp(b)) < 1e-6 * max(abs(low), abs(high), 1.0):
        return float(high - low < 1e-6 * max(abs(high), 1.0))
    x = np.linspace(low, high, POINTS)
    return float(np.clip(np.trapezoid(np.minimum(gaussian_kde(a)(x), gaussian_kde(b)(x)), x), 0.0, 1.0))


def histogram_overlap(a, b) -> float:
    """The simple overlap of two sets of one figure per window: sum of min(p, q) over 20 bins of their common range.

    nan values are left out; nan when a set has none left. In [0, 1], symmetric.
    """
    a, b = (np.asarray(x, float)[~np.isnan(np.asarray(x, float))] for x in (a, b))
    if not len(a) or not len(b):
        return np.nan
    edges = np.histogram_bin_edges(np.concatenate([a, b]), BINS)
    return float(np.minimum(np.histogram(a, edges)[0] / len(a), np.histogram(b, edges)[0] / len(b)).sum())


def motion_beats(limbs: np.ndarray) -> np.ndarray:
    """Frames at which the mean joint speed, smoothed by a Gaussian of 5 frames, has a local minimum. int [K]

    limbs [T, 27, 8] at 60 Hz. Reference: Siyao et al. 2022 (Bailando), arXiv:2203.13055.
    """
    speed = gaussian_filter1d(np.linalg.norm(limbs[..., 3:6], axis=-1).mean(1).astype(float), SMOOTHING)
    return 1 + np.flatnonzero((speed[1:-1] < speed[:-2]) & (speed[1:-1] <= speed[2:]))


class BeatAlignment(NamedTuple):
    """How the beats of a movement meet the onsets of a grid; nan without beats or without notes."""

    score: float  # mean over the beats of exp(-d^2 / (2 w^2)), d to the nearest onset in sixteenths, w = 0.5
    chance: float  # what a beat at a uniformly random moment scores: dense music meets everything
    hits: float  # share of the beats within half a sixteenth of an onset


def beat_alignment(notes: list[Event], beats) -> BeatAlignment:
    """Beats, in sixteenths of the window [0, 32), against the onset steps. Bailando's score at this resolution."""
    beats, onsets = np.asarray(beats, float), np.unique([n.onset for n in notes])
    if not len(beats) or not len(onsets):
        return BeatAlignment(np.nan, np.nan, np.nan)
    d, anywhere = (np.abs(x[:, None] - onsets).min(1) for x in (beats, np.arange(0.0, STEPS, 1 / 16)))
    score, chance = (float(np.exp(-0.5 * (x / BEAT_WIDTH) ** 2).mean()) for x in (d, anywhere))
    return BeatAlignment(score, chance, float(np.mean(d <= 0.5)))


def control_fidelity(asked: np.ndarray, heard: np.ndarray, groups=None, *, resamples: int = 200,
                     seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spearman's rank correlation of each column of asked [N, K] with that of heard [N, K], and its standard error.

    The error is the bootstrap's: whole groups [N] (performances; by default each window) are drawn with replacement;
    nan for one group. A column that does not vary correlates with nothing: nan, and such resamples are left out.
    """
    groups = np.arange(len(asked)) if groups is None else np.asarray(groups)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    rng = np.random.default_rng(seed)
    draws = [np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
             for _ in range(resamples)]
    rho = np.array([_spearman(asked[:, k], heard[:, k]) for k in range(asked.shape[1])])
    spread = [_spread([_spearman(asked[rows, k], heard[rows, k]) for rows in draws])
              for k in range(asked.shape[1])]
    return rho, np.where(np.isnan(rho) | (len(members) < 2), np.nan, spread)


def _spread(values: list[float]) -> float:
    """Standard deviation of what is not nan; nan for fewer than two."""
    kept = np.array(values)[~np.isnan(values)]
    return float(kept.std(ddof=1)) if len(kept) > 1 else np.nan


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    kept = ~(np.isnan(x) | np.isnan(y))
    x, y = x[kept], y[kept]
    return float(spearmanr(x, y).statistic) if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan
