"""What the movement asks of the music: seven target attributes, each a quantile rank in [0, 1].

    t_k(c) = clip(f_k(rank(c[slot_k])) + section shifts . section, 0, 1)

`rank` says where a slot of the conditioning lies among the movements of training, f_k is monotone. The map is data that
a person can edit: `python -m eqdiff_jax.targets > targets.toml` writes the default, `--targets FILE` plays another.
What a grid has of each target (music/attributes.py) is a rank, too, among recorded grids of which any number of tracks
plays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import toml_file
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.attributes import Attributes
from eqdiff_jax.music.conductor import SECTIONS
from eqdiff_jax.music.modulation import CURVES
from eqdiff_jax.types import Array

NAMES = Attributes._fields
MEANINGS = {
    "density": "notes", "range": "semitones that the notes of each track spread",
    "dissonance": "rough neighbours among the notes", "bass_weight": "share of what sounds that is kick or below C3",
    "stability": "how alike its bars, and their halves, are", "intensity": "summed loudness of the notes",
    "layers": "tracks that sound"}
LEVELS = np.linspace(0.0, 1.0, 13)  # of the quantiles below
BEND = np.linspace(0.0, 1.0, 33)  # points of a curve

# Quantiles at LEVELS, made by `python -m eqdiff_jax.data.quantiles --data shippable`: complete training pairs.
SOURCES: dict[str, tuple[float, ...]] = {
    "curvature": (0.000, 0.244, 0.270, 0.289, 0.308, 0.322, 0.340, 0.367, 0.410, 0.464, 0.517, 0.580, 0.778),
    "curvature_rate": (-0.078, -0.012, -0.008, -0.005, -0.003, -0.001, 0.000, 0.002, 0.004, 0.007, 0.013, 0.024, 0.089),
    "periodicity": (0.000, 0.033, 0.114, 0.233, 0.333, 0.406, 0.510, 0.663, 0.891, 0.920, 0.946, 0.973, 0.996),
    "tension": (0.000, 0.073, 0.161, 0.221, 0.281, 0.361, 0.456, 0.549, 0.618, 0.698, 0.760, 0.814, 0.931),
    "grounding": (0.040, 0.182, 0.281, 0.340, 0.393, 0.447, 0.506, 0.591, 0.715, 0.802, 0.945, 0.978, 1.000),
    "verticality": (-0.455, -0.117, -0.043, -0.018, -0.005, -0.001, 0.000, 0.002, 0.006, 0.014, 0.026, 0.049, 0.406),
    "coherence": (-0.852, -0.583, -0.285, -0.156, -0.073, 0.000, 0.032, 0.070, 0.111, 0.148, 0.189, 0.264, 0.948),
    "lr_pan": (-0.362, -0.113, -0.060, -0.033, -0.014, -0.003, 0.000, 0.005, 0.020, 0.037, 0.063, 0.118, 0.362),
    "energy": (0.000, 0.133, 0.206, 0.266, 0.402, 0.533, 0.617, 0.695, 0.755, 0.794, 0.826, 0.867, 0.935),
    "transition_intensity": (0.000, 0.032, 0.041, 0.075, 0.104, 0.251, 0.327, 0.369, 0.421, 0.476, 0.563, 0.651, 0.852),
    "prediction_confidence": (0.122, 0.197, 0.227, 0.266, 0.308, 0.350, 0.419, 0.514, 0.659, 0.778, 0.870, 0.967, 1.0),
}
# Of complete training grids with 1 to all of their sounding tracks, as many as chance says. Silence has the rank 0.
ACHIEVED: dict[str, tuple[float, ...]] = {
    "density": (0.010, 0.080, 0.136, 0.180, 0.237, 0.283, 0.334, 0.381, 0.430, 0.492, 0.556, 0.632, 0.872),
    "range": (0.000, 0.000, 0.062, 0.135, 0.194, 0.229, 0.271, 0.292, 0.333, 0.382, 0.440, 0.531, 1.000),
    "dissonance": (0.000, 0.000, 0.031, 0.062, 0.091, 0.115, 0.139, 0.162, 0.188, 0.217, 0.253, 0.328, 1.000),
    "bass_weight": (0.000, 0.000, 0.000, 0.000, 0.064, 0.110, 0.150, 0.187, 0.229, 0.277, 0.347, 0.496, 1.000),
    "stability": (0.000, 0.222, 0.332, 0.402, 0.455, 0.500, 0.539, 0.578, 0.616, 0.661, 0.709, 0.794, 1.000),
    "intensity": (0.003, 0.100, 0.172, 0.235, 0.298, 0.361, 0.413, 0.469, 0.527, 0.597, 0.674, 0.759, 0.971),
}
SPREADS = (0.000, 0.667, 1.399, 1.724, 1.976, 2.160, 2.321, 2.553, 2.799, 3.064, 3.453, 3.981, 6.200)  # semitones


class Rule(NamedTuple):
    """How one target follows the movement."""

    source: str  # a name of SOURCES
    low: float  # target where the source is lowest among training movements; at most `high`
    high: float  # where it is highest
    curve: str = "linear"  # a name of modulation.CURVES
    weight: float = 1.0  # how much it counts against the other targets
    sections: Mapping[str, float] = {}  # section -> what its probability adds


DEFAULT_RULES: dict[str, Rule] = {
    "density": Rule("periodicity", 0.15, 1.0, weight=0.7),
    "range": Rule("curvature", 0.0, 1.0),
    "dissonance": Rule("tension", 0.0, 0.8),
    "bass_weight": Rule("grounding", 0.1, 1.0),
    "stability": Rule("prediction_confidence", 0.1, 1.0),
    "intensity": Rule("energy", 0.18, 1.0, "s", 4.0),
    "layers": Rule("energy", 0.28, 0.95, "s", 1.5,
                   {"Intro": -0.05, "Climax": 0.1, "Breakdown": -0.1, "Outro": -0.05}),
}


class TargetMap(NamedTuple):
    """The rules as arrays, in the order of NAMES, so that another file needs no new compilation."""

    slot: Array | np.ndarray  # int32 [7] of the conditioning
    ranks: Array | np.ndarray  # float32 [7, 13] quantiles of that slot
    curve: Array | np.ndarray  # float32 [7, 33] target at each point of BEND
    sections: Array | np.ndarray  # float32 [7, 6]
    weight: Array | np.ndarray  # float32 [7]


def compiled(rules: Mapping[str, Rule] = DEFAULT_RULES) -> TargetMap:
    """The arrays of rules, one for each of NAMES."""
    chosen = [rules[name] for name in NAMES]
    bent = [[rule.low + (rule.high - rule.low) * CURVES[rule.curve].at(u) for u in BEND] for rule in chosen]
    return TargetMap(
        np.array([LAYOUT[rule.source].start for rule in chosen], np.int32),
        np.array([SOURCES[rule.source] for rule in chosen], np.float32), np.array(bent, np.float32),
        np.array([[rule.sections.get(name, 0.0) for name in SECTIONS] for rule in chosen], np.float32),
        np.array([rule.weight for rule in chosen], np.float32))


DEFAULT = compiled()


@jax.jit
def targets(conditioning: Array, chosen: TargetMap = DEFAULT) -> Array:
    """Ranks that the movement asks for, in the order of NAMES. [..., 104] -> [..., 7]"""
    def one(slot: Array, ranks: Array, curve: Array, sections: Array) -> Array:
        place = jnp.interp(conditioning[..., slot], ranks, LEVELS)
        shift = jnp.sum(conditioning[..., LAYOUT["section"]] * sections, axis=-1)
        return jnp.clip(jnp.interp(place, BEND, curve) + shift, 0.0, 1.0)

    return jax.vmap(one, out_axes=-1)(*map(jnp.asarray, chosen[:4]))


def achieved(measured: Attributes) -> Array:
    """Ranks of what grids have; fields [...] -> [..., 7]."""
    x = jnp.stack(measured, axis=-1)
    # Each table's segments add up: one sum where seven searches (jnp.interp) would be seven loops to compile.
    share = jnp.clip((x[..., None] - _BEGIN) / _WIDTH, 0.0, 1.0)
    return jnp.sum(share * _RISE, axis=-1) + _FIRST


def wanted(name: str, rank: Array) -> Array:
    """The attribute that has this rank, elementwise."""
    values, levels = _table(name)
    return jnp.interp(rank, levels, values)


def _table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Increasing values and their ranks. Values that many grids share have the middle of their ranks, nothing has 0."""
    if name == "layers":  # the number of tracks itself: no number is rarer than another among the grids above
        return np.array([0.0, 1.0], np.float32), np.array([0.0, 1.0], np.float32)
    values = np.array((0.0, *ACHIEVED[name]) if name != "stability" else ACHIEVED[name])
    levels = np.array((0.0, *LEVELS) if name != "stability" else LEVELS)
    distinct = np.unique(values)
    middle = [levels[values == v].mean() if v > 0 else 0.0 for v in distinct]
    return distinct.astype(np.float32), np.array(middle, np.float32)


def _segments() -> tuple[np.ndarray, ...]:
    """Where each segment of the tables begins, its width and rise [7, 14], and the ranks at the left end [7].

    Ranks are rounded to 2^-20, so that float32 adds them up without error and the highest value has the rank 1.
    """
    tables = [(values, np.round(levels * 2.0**20) / 2.0**20) for values, levels in map(_table, NAMES)]
    most = max(len(values) for values, _ in tables)
    # Shorter tables end in segments that rise by nothing.
    begin = np.stack([np.pad(values[:-1], (0, most - len(values)), mode="edge") for values, _ in tables])
    width = np.stack([np.pad(np.diff(values), (0, most - len(values)), constant_values=1.0) for values, _ in tables])
    rise = np.stack([np.pad(np.diff(levels), (0, most - len(levels))) for _, levels in tables])
    return tuple(x.astype(np.float32) for x in (begin, width, rise, np.array([levels[0] for _, levels in tables])))


_BEGIN, _WIDTH, _RISE, _FIRST = _segments()


def lipschitz(rules: Mapping[str, Rule] = DEFAULT_RULES) -> dict[str, float]:
    """For each target, L with |t(c) - t(c')| <= L |c - c'|: its source's slot and the sections are different slots."""
    found = {}
    for name, rule in rules.items():
        steep = float(np.max(np.diff(LEVELS) / np.diff(SOURCES[rule.source])))
        slope = (rule.high - rule.low) * CURVES[rule.curve].slope * steep
        found[name] = float(np.hypot(slope, np.linalg.norm(list(rule.sections.values()))))
    return found


def parse(text: str, name: str = "targets") -> dict[str, Rule]:
    """The rules that a TOML text says, a table for each target; a target without one keeps its default.

        [layers]
        source = "energy"
        low = 0.0
        high = 1.0
        curve = "linear"
        weight = 1.0
        sections = { Breakdown = -0.2 }

    Raises:
      InputError: one line with `name`, the key, and what to write instead.
    """
    tables = toml_file.tables(text, name, "eqdiff_jax.targets")
    rules = dict(DEFAULT_RULES)
    for target, table in tables.items():
        toml_file.choose(f"{name}: target", target, NAMES)
        rules[target] = _rule(f"{name}, {target}", table, rules[target])
    return rules


def load(path: str | Path | None) -> dict[str, Rule]:
    """The rules of a file, see `parse`; the default ones for None. Raises InputError."""
    if path is None:
        return dict(DEFAULT_RULES)
    return parse(toml_file.text_of(path, "targets"), str(path))


def _rule(where: str, table: object, default: Rule) -> Rule:
    """One table of the file, checked."""
    if not isinstance(table, dict):
        raise InputError(f'{where}: {table!r} is no table; write source = "energy" and the like below '
                         f"[{where.rpartition(', ')[2]}]")
    for key in table:
        toml_file.choose(f"{where}: key", key, Rule._fields)
    source = toml_file.choose(f"{where}: source", table.get("source", default.source), SOURCES)
    low, high, weight = (toml_file.number(where, key, table.get(key, getattr(default, key)), 0.0, most)
                         for key, most in (("low", 1.0), ("high", 1.0), ("weight", 10.0)))
    if low > high:
        raise InputError(f"{where}: low is {low:g}, above high, {high:g}; a target rises with its source, so exchange "
                         "them")
    curve = toml_file.choose(f"{where}: curve", table.get("curve", default.curve), CURVES)
    sections = table.get("sections", default.sections)
    if not isinstance(sections, Mapping):
        raise InputError(f"{where}: sections is {sections!r}; write {{ Breakdown = -0.2 }}")
    shifts = {toml_file.choose(f"{where}: section", key, SECTIONS): toml_file.number(where, key, value, -1.0, 1.0)
              for key, value in sections.items()}
    return Rule(source, low, high, curve, weight, shifts)


_HEAD = """\
# What the movement asks of the music: a table for each of the seven targets. Delete one and it stays as it is.
#   source     {sources}
#   low, high  the target (a rank, 0 to 1) where the source is lowest and highest among the movements of training
#   curve      linear, exp (slow at first), log (fast at first), s (slow at both ends)
#   weight     how much it counts against the other targets, 0 to 10
#   sections   what each section adds: {names}
"""


def formatted(rules: Mapping[str, Rule] = DEFAULT_RULES) -> str:
    """The rules as TOML that a person can edit; `parse` gives them back."""
    names = list(SOURCES)
    sources = ("\n" + "#".ljust(15)).join(", ".join(names[i:i + 5]) for i in range(0, len(names), 5))
    text = _HEAD.format(sources=sources, names=", ".join(SECTIONS))
    for name, rule in rules.items():
        shifts = ", ".join(f"{section} = {shift!r}" for section, shift in rule.sections.items())
        text += (f'\n[{name}]\nsource = "{rule.source}"\nlow = {rule.low!r}\nhigh = {rule.high!r}\ncurve = '
                 f'"{rule.curve}"\nweight = {rule.weight!r}\n')
        if shifts or DEFAULT_RULES[name].sections:
            text += f"sections = {{ {shifts} }}\n"
    return text


if __name__ == "__main__":
    print(formatted(), end="")
