"""The Lipschitz cascade: how far a change of the body can go, stage by stage, limb frame -> grid.

One row per stage: a bound, how sure it is, and the worst ratio that a search found beside it. Bounds of the motion
chain are proved in motion/certify.py, that of the certified encoder in conditioning/encoder.py, the grid's by
diffusion/bounded_change.py, which clamps cells whatever the network says. Two stages have no proved constant:
the shipped encoder (LayerNorm) and p(tokens | c), for which published bounds of deep transformers reach 10^264.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import motion
from eqdiff_jax.cascade_search import (
    REST_FRAME,
    certified_search,
    compose_grids,
    encoder_search,
    frozen_search,
    motion_gain,
    motions,
    token_gain,
)
from eqdiff_jax.composer import PROCESS, SLOT_WEIGHTS, music
from eqdiff_jax.conditioning import assemble
from eqdiff_jax.conditioning.encoder import CertifiedEncoder, Layers, certificate, layers_of
from eqdiff_jax.conditioning.layout import LAYOUT, SCALE, SIZE
from eqdiff_jax.motion import certify, dell, lim_rps
from eqdiff_jax.motion.dell import LIMITS
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means, window_seconds
from eqdiff_jax.statistics import Statistics
from eqdiff_jax.targets import DEFAULT_RULES, lipschitz, targets
from eqdiff_jax.types import Array, CascadeRow, Certificate, Kind, Params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Slots whose proved constant is smaller news than their range, and those that jump; the widest they can move.
RANGES = {
    **{name: (getattr(TABLE, name).high - getattr(TABLE, name).low) / SCALE.get(name, 1.0)
       for name in ("curvature", "curvature_rate", "periodicity", "internal_tempo", "phase", "coherence")},
    "section": math.sqrt(2.0),  # two points of a simplex
    "activations": math.sqrt(12.0),  # two points of a unit cube
}
JUMPING = ("internal_tempo", "section", "activations")


class CascadeConfig(NamedTuple):
    """How much searching the measured column gets; the defaults take a few seconds once compiled."""

    starts: int = 4  # points or motions that each search starts from
    ascent: int = 4  # gradient steps on the point where a local constant is taken
    steps: int = 8  # of the search for the worst change of a whole motion
    frames: int = 240  # length of the motions that the real-time rows are searched on
    token_steps: int = 3  # steps of the search through the denoiser, the dearest one
    transitions: int = 3  # grids composed when no performance is given
    noise: float = 0.01  # size of the perturbation of whole motions, in features
    control: float = 1.0  # strength of attribute control (control.py)
    variant: bool = True  # also the row of the certified encoder with fresh weights


DEFAULT = CascadeConfig()


def lipschitz_cascade(params: Params, config: CascadeConfig = DEFAULT, *, key: Array | None = None,
                      limbs: np.ndarray | None = None, conditioning: np.ndarray | None = None,
                      tokens: np.ndarray | None = None, bpm: float = 120.0) -> tuple[CascadeRow, ...]:
    """The table of bounds for these parameters, each with the worst ratio found by gradient search.

    Args:
      params: `motion`, and `encoder`, `denoiser` and `statistics`; stages whose parameters are absent have no row.
      config: the searches' budget.
      key: default jax.random.key(0); same key, same machine, same table. Consumed.
      limbs [T, 27, 8]: motion to search near (default: 16 s of the demo dancer), at least one window of it.
      conditioning [N, 104], tokens [N, 12, 32]: consecutive windows of a performance, whose transitions fill the
        grid's row; by default those of `limbs`, composed here.
      bpm: tempo, that is the length of a window.
    """
    key = jax.random.key(0) if key is None else key
    key_motion, key_encoder, key_tokens, key_grids = jax.random.split(key, 4)
    limbs = motion.demo("show", 16.0, 0) if limbs is None else np.asarray(limbs, np.float32)
    own = _windows(params["motion"], limbs, bpm)
    rows, chain, means = _motion_rows(key_motion, params["motion"], limbs, window_seconds(bpm) * dell.RATE, config)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    noise = config.noise * rng.normal(size=limbs.shape).astype(np.float32) * (np.arange(8) < 7)
    noisy = _windows(params["motion"], limbs + noise, bpm)
    rows += _conditioning_rows(chain, means, noise, own - noisy)
    conditioning = own if conditioning is None else np.asarray(conditioning, np.float32)
    if "statistics" in params:
        rows += _target_rows(params["statistics"], conditioning)
    if "encoder" in params:
        rows += _encoder_rows(key_encoder, params["encoder"], conditioning, config)
    if {"encoder", "denoiser", "statistics"} <= params.keys():
        if tokens is None:
            tokens = compose_grids(key_grids, params, conditioning[:config.transitions], config.control)
        rows += _grid_rows(key_tokens, params, conditioning, np.asarray(tokens), config)
    return tuple(rows)


def _windows(params: Params, limbs: np.ndarray, bpm: float) -> np.ndarray:
    """Conditioning [N, 104] of the consecutive two-bar windows; a shorter motion is one window."""
    edges = boundaries(len(limbs), bpm)
    edges = edges if len(edges) > 1 else np.array([0, len(limbs)])
    return np.asarray(assemble(*window_means(padded_trajectory(params, limbs), edges)))


def _row(stage: str, proof: Certificate, measured: float, text: str = "") -> CascadeRow:
    method = f"{proof.method}; {text}" if text else proof.method
    return CascadeRow(stage, proof.bound, proof.kind, method, measured, proof.rounding)


def _motion_rows(key: Array, params: Params, limbs: np.ndarray, length: float, config: CascadeConfig
                 ) -> tuple[list[CascadeRow], dict[str, Certificate], float]:
    """Limb frame -> features -> z_raw -> z*, frozen, then z and velocity in real time.

    Also the real-time certificates, and the worst found change of the z and velocity slots of a window of `length`
    frames, or of config.frames if that is less.
    """
    weights = jax.jit(motion.prepare)(params)
    searched = min(math.floor(length), config.frames)
    chains = [certify.realtime(weights.dell, weights.cross, window)
              for window in sorted({searched, math.floor(length), math.ceil(length)})]
    chain = {name: max((c[name] for c in chains), key=lambda found: found.bound) for name in chains[0]}
    frozen = certify.frozen(weights.dell, weights.cross)
    latent = lim_rps.certificates(weights.cross)["latent"]
    key_point, key_motion, key_gain = jax.random.split(key, 3)
    some = max(config.starts - 2, 1)
    frames = np.concatenate([[REST_FRAME], limbs[np.linspace(0, len(limbs) - 1, some).astype(int)], [REST_FRAME]])
    wild = 0.2 * np.asarray(jax.random.normal(key_point, (27, 8)), np.float32) * (np.arange(8) < 7)
    frames[-1] += wild
    frames[:, :, 7] = np.maximum(frames[:, :, 7], 0.1)
    held = frozen_search(weights, frames, _corner(), config.ascent)
    bases = motions(key_motion, limbs, config.starts, config.frames)
    when = np.zeros((3, config.frames), np.float32)
    when[:2, -1], when[2, -searched:] = 1.0, 1.0 / searched
    slots = np.concatenate([np.kron(np.eye(2), np.ones(32)), np.ones((1, 64))]).astype(np.float32)
    moving = np.max(motion_gain(key_gain, weights, bases, when, slots, config.steps), axis=0)
    any_confidence = certify.feature_gain(False)
    worse = any_confidence.bound * dell.norms(weights.dell)["w_in"] / _folded(weights)
    rows = [
        _row("limb frame -> features, same confidences", certify.feature_gain(), float(held.features)),
        _row("limb frame -> features, confidences change", any_confidence, float(held.features_free)),
        _row("features -> z_raw, frozen frame (DELL)", frozen["z_raw"], float(held.z_raw)),
        _row("z_raw -> z*, at rest (LIM-RPS)", latent, float(held.z_rest)),
        _row("limb frame -> z*, frozen frame", frozen["limbs"], float(held.limbs)),
        _row("limbs -> z, real time", chain["z"], float(moving[0]),
             f"sup over time of both; {worse:.3g} times it when confidences change"),
        _row("limbs -> velocity, real time", chain["velocity"], float(moving[1]) * SCALE["velocity"],
             "per second, sup over time of both"),
    ]
    return rows, chain, float(moving[2])


def _folded(weights: motion.MotionWeights) -> float:
    return float(np.linalg.norm(np.asarray(weights.dell.w_in, np.float64) * certify.scales(), 2))


def _corner() -> np.ndarray:
    """A limb frame at the corner of the box, where changing confidences count most. [27, 8]"""
    signs = np.where(REST_FRAME > 0, -1, 1)
    return np.where(np.arange(8) < 7, signs * LIMITS * 0.999, 0.999).astype(np.float32)


def _conditioning_rows(chain: dict[str, Certificate], searched: float, noise: np.ndarray, change: np.ndarray
                       ) -> list[CascadeRow]:
    """Limbs -> conditioning, in the sup-over-time norm of the limbs: the continuous slots, then all 104.

    Slots are independent bounds |d c_i| <= L_i x (+ R_i for a range), so |dc| <= |L| x + |R| (Minkowski). Means over a
    window enlarge no dynamics. `change` [N, 104] is what `noise` [T, 27, 8] on the limbs made of the windows.
    """
    gains = {"z": chain["mean_z"].bound, "velocity": chain["mean_velocity"].bound / SCALE["velocity"]}
    gains |= {k: v for k, v in certify.dynamics_gains(chain).items() if k not in RANGES}
    bound = float(np.linalg.norm(list(gains.values())))
    rounding = float(np.hypot(chain["mean_z"].rounding, chain["mean_velocity"].rounding / SCALE["velocity"]))
    spread = float(np.linalg.norm(list(RANGES.values())))
    size = float(np.max(np.sqrt(np.sum(noise**2, axis=(1, 2)))))
    smooth = np.concatenate([np.arange(SIZE)[LAYOUT[name]] for name in gains])
    pairs = [float(np.max(np.linalg.norm(change[:, slots], axis=1))) / size
             for slots in (smooth, np.arange(SIZE))]
    kind = chain["z"].kind
    return [
        CascadeRow("limbs -> conditioning, slots with a constant", bound, kind,
                   "root of the sum of squares over z, velocity, " + ", ".join(list(gains)[2:])
                   + "; window means; dynamics in exact arithmetic", max(pairs[0], searched), rounding),
        CascadeRow("limbs -> conditioning, all 104", bound, Kind.RANGE,
                   f"the row above; the offset is the range of {', '.join(RANGES)}, of which {', '.join(JUMPING)} "
                   "jump: no constant exists. Genre and tempo are the same", max(pairs[1], searched),
                   rounding + spread),
    ]


def _target_rows(statistics: Statistics, conditioning: np.ndarray) -> list[CascadeRow]:
    """Conditioning -> each target: the map's constant beside its steepest derivative at these windows and near them."""
    spread = np.linspace(-1.0, 1.0, 201)[:, None, None] * np.eye(SIZE)[[LAYOUT[rule.source].start for rule in
                                                                       DEFAULT_RULES.values()]]
    points = (conditioning[0] + spread).reshape(-1, SIZE).astype(np.float32)
    slopes = jax.jit(jax.vmap(jax.jacrev(targets), (0, None)))(jnp.concatenate([conditioning, points]), statistics)
    steepest = np.linalg.norm(np.asarray(slopes, np.float64), axis=-1).max(0)
    return [CascadeRow(f"conditioning -> target {name}", bound, Kind.PROVED,
                       f"rank per |dc|: slope of {DEFAULT_RULES[name].source}'s quantiles times that of its curve",
                       float(measured), 1e-6)
            for (name, bound), measured in zip(lipschitz(statistics).items(), steepest, strict=True)]


def _encoder_rows(key: Array, params: Params, conditioning: np.ndarray, config: CascadeConfig) -> list[CascadeRow]:
    """Conditioning -> embedding: the parameters' own encoder, and the certified variant beside the shipped one."""
    key_points, key_fresh = jax.random.split(key)
    spread = np.asarray(jax.random.normal(key_points, (config.starts, SIZE)), np.float32) * 0.3
    real = conditioning[np.linspace(0, len(conditioning) - 1, max(config.starts - 1, 1)).astype(int)]
    points = np.concatenate([real, spread])[:config.starts]

    def certified(layers: Layers) -> float:
        return CertifiedEncoder.gain * float(certified_search(layers, points, config.ascent))

    if "raw_0" in params:
        return [_row("conditioning -> embedding", certificate(params), certified(layers_of(params)))]
    worst = float(encoder_search(params, points, config.ascent))
    rows = [CascadeRow("conditioning -> embedding", worst, Kind.ESTIMATED,
                       "LayerNorm has no useful constant: the worst found, no bound", worst)]
    if config.variant:
        fresh = jax.jit(CertifiedEncoder().init)(key_fresh, jnp.zeros((1, SIZE)))["params"]
        rows.append(_row("conditioning -> embedding, certified variant", certificate(fresh),
                         certified(layers_of(fresh)), "fresh weights, not the ones that play"))
    return rows


def _grid_rows(key: Array, params: Params, conditioning: np.ndarray, tokens: np.ndarray, config: CascadeConfig
               ) -> list[CascadeRow]:
    """Conditioning -> p(tokens), estimated; conditioning -> grid, proved without it."""
    half = tokens[-1:].copy()
    half[:, :, ::2] = PROCESS.mask
    grids = np.concatenate([np.full_like(half, PROCESS.mask), half]).astype(np.int32)
    laws = token_gain(key, music(params), conditioning[[0, -1]], grids, config.control, config.token_steps)
    kappa, slack, cap = (np.asarray(getattr(params["statistics"], name)).item() for name in ("kappa", "slack", "cap"))
    changed = (tokens[1:] != tokens[:-1]).sum((1, 2))
    moved = np.linalg.norm(SLOT_WEIGHTS * np.diff(conditioning[:len(tokens)].astype(np.float64), axis=0), axis=1)
    ratios = np.maximum(np.cumsum(changed - slack), 0) / np.maximum(np.cumsum(moved), 1e-9)
    cells = tokens[0].size
    return [
        CascadeRow("conditioning -> p(tokens)", float(np.max(laws)), Kind.ESTIMATED,
                   "total variation of one cell per |dc|, the worst of those hidden, on an empty and a half empty "
                   "grid: the worst found; published bounds for deep transformers reach 10^264, so none is claimed",
                   float(np.max(laws))),
        CascadeRow("conditioning -> grid", kappa * cells, Kind.PROVED,
                   f"cells that change per |W dc|, summed over grids since the first, beyond {slack} for nothing in "
                   f"each: all others are kept, whatever the network says; over other stretches {cap} more in all",
                   float(ratios.max(initial=0.0)), float(slack)),
        CascadeRow("limbs -> grid", 0.0, Kind.PROVED,
                   "cells that change, whatever the body does: the cap of the budget", 0.0, float(cap)),
    ]


def as_dicts(rows: Iterable[CascadeRow]) -> list[dict]:
    """Rows as JSON values: a number that is not finite becomes None, with a `note`."""
    found = []
    for row in rows:
        values: dict[str, Any] = row._asdict() | {"kind": str(row.kind)}
        lost = [name for name in ("bound", "measured", "offset") if not math.isfinite(values[name])]
        values |= dict.fromkeys(lost)
        found.append(values | ({"note": f"{', '.join(lost)} not finite"} if lost else {}))
    return found


def markdown(rows: Iterable[CascadeRow]) -> str:
    """The table as Markdown: stage, bound, offset, measured, slack = bound / measured, kind, method."""
    lines = ["| stage | bound | offset | measured | slack | kind | method |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        slack = f"{row.bound / row.measured:.3g}" if row.measured > 0 and row.kind == Kind.PROVED else ""
        method = row.method.replace("|", r"\|")
        lines.append(f"| {row.stage} | {row.bound:.4g} | {row.offset:.3g} | {row.measured:.4g} | {slack} "
                     f"| {row.kind} | {method} |")
    return "\n".join(lines) + "\n"


def draw(rows: Iterable[CascadeRow], path: str | Path) -> None:
    """A PNG of the table, see `picture`."""
    picture(rows).savefig(path, dpi=110, metadata={"Software": None})


def picture(rows: Iterable[CascadeRow]) -> "Figure":
    """Bound (bar) beside the worst found (dot) per stage, log axis, coloured by kind."""
    from matplotlib.figure import Figure  # half a second, for those who draw
    rows = [row for row in rows if row.bound > 0]
    colours = {Kind.PROVED: "#2a7f62", Kind.ESTIMATED: "#c77d1e", Kind.RANGE: "#7a6fb0"}
    figure = Figure(figsize=(10, 0.5 * len(rows) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    top = 10 * max(max(row.bound for row in rows if math.isfinite(row.bound)), 1.0)
    for i, row in enumerate(rows):
        axes.barh(i, min(row.bound, top), color=colours[row.kind], height=0.6)
        if row.measured > 0:
            axes.plot(row.measured, i, "o", color="black", markersize=5)
    for kind, colour in colours.items():
        axes.barh(0, 0, color=colour, label=f"bound: {kind}")
    axes.plot([], [], "o", color="black", label="worst found")
    axes.set(xscale="log", xlabel="Lipschitz constant, units of each stage", yticks=range(len(rows)),
             yticklabels=[row.stage for row in rows])
    axes.invert_yaxis()
    axes.legend(loc="lower right", fontsize=8)
    return figure
