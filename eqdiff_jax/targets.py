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
from eqdiff_jax.statistics import LEVELS, SOURCES, Statistics
from eqdiff_jax.types import Array

NAMES = Attributes._fields
MEANINGS = {
    "density": "notes", "range": "semitones that the notes of each track spread",
    "dissonance": "rough neighbours among the notes", "bass_weight": "share of what sounds that is kick or below C3",
    "stability": "how alike its bars, and their halves, are", "intensity": "summed loudness of the notes",
    "layers": "tracks that sound"}
BEND = np.linspace(0.0, 1.0, 33)  # points of a curve


class Rule(NamedTuple):
    """How one target follows the movement."""

    source: str  # a name of statistics.SOURCES
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

    source: Array | np.ndarray  # int32 [7] index in SOURCES
    curve: Array | np.ndarray  # float32 [7, 33] target at each point of BEND
    sections: Array | np.ndarray  # float32 [7, 6]
    weight: Array | np.ndarray  # float32 [7]


def compiled(rules: Mapping[str, Rule] = DEFAULT_RULES) -> TargetMap:
    """The arrays of rules, one for each of NAMES."""
    chosen = [rules[name] for name in NAMES]
    bent = [[rule.low + (rule.high - rule.low) * CURVES[rule.curve].at(u) for u in BEND] for rule in chosen]
    return TargetMap(
        np.array([SOURCES.index(rule.source) for rule in chosen], np.int32), np.array(bent, np.float32),
        np.array([[rule.sections.get(name, 0.0) for name in SECTIONS] for rule in chosen], np.float32),
        np.array([rule.weight for rule in chosen], np.float32))


DEFAULT = compiled()
_SLOTS = np.array([LAYOUT[name].start for name in SOURCES], np.int32)


@jax.jit
def targets(conditioning: Array, statistics: Statistics, target_map: TargetMap = DEFAULT) -> Array:
    """Ranks that the movement asks for, in the order of NAMES. [..., 104] -> [..., 7]"""
    def one(source: Array, curve: Array, sections: Array) -> Array:
        slot, ranks = jnp.asarray(_SLOTS)[source], jnp.asarray(statistics.sources)[source]
        rank = jnp.interp(conditioning[..., slot], ranks, LEVELS)
        shift = jnp.sum(conditioning[..., LAYOUT["section"]] * sections, axis=-1)
        return jnp.clip(jnp.interp(rank, BEND, curve) + shift, 0.0, 1.0)

    return jax.vmap(one, out_axes=-1)(*map(jnp.asarray, target_map[:3]))


def achieved(measured: Attributes, statistics: Statistics) -> Array:
    """Ranks of what grids have; fields [...] -> [..., 7]."""
    x = jnp.stack(measured, axis=-1)
    values, ranks = jnp.asarray(statistics.values), jnp.asarray(statistics.ranks)
    # Each table's segments add up: one sum where seven searches (jnp.interp) would be seven loops to compile.
    width = jnp.diff(values)
    share = jnp.clip((x[..., None] - values[:, :-1]) / jnp.where(width > 0, width, 1.0), 0.0, 1.0)
    return jnp.sum(share * jnp.diff(ranks), axis=-1) + ranks[:, 0]


def wanted(name: str, rank: Array, statistics: Statistics) -> Array:
    """The attribute that has this rank, elementwise."""
    row = NAMES.index(name)
    return jnp.interp(rank, jnp.asarray(statistics.ranks)[row], jnp.asarray(statistics.values)[row])


def lipschitz(statistics: Statistics, rules: Mapping[str, Rule] = DEFAULT_RULES) -> dict[str, float]:
    """For each target, L with |t(c) - t(c')| <= L |c - c'|: its source's slot and the sections are different slots.

    inf where training movements share a value, which is a jump of rank.
    """
    found = {}
    for name, rule in rules.items():
        rise = np.diff(np.asarray(statistics.sources, np.float64)[SOURCES.index(rule.source)])
        with np.errstate(divide="ignore"):
            steep = float(np.max(np.diff(LEVELS) / rise))
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
