"""The tables of docs/music.md, docs/performance.md and docs/conditioning.md, made from the code.

    python tools/tables.py docs/music.md      writes them between their marks in the file
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from eqdiff_jax.music.encode import GAINS
from eqdiff_jax.music.grid import FILLS, LEGAL, TRACKS
from eqdiff_jax.music.midi_tables import CHANNELS, DRUM_NOTES, EFFECT_CONTROLS, PROGRAMS
from eqdiff_jax.music.modulation import mapping_table
from eqdiff_jax.music.strudel import EFFECTS, SYNTHS, gain_text
from eqdiff_jax.music.vocabulary import VOCABULARY
from eqdiff_jax.statistics import parse
from eqdiff_jax.targets import DEFAULT_RULES, MEANINGS, lipschitz

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "default" / "model.json"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _members(group: str, legal: np.ndarray) -> str:
    """The group's tokens that are legal: 'all', 'none', a range of pitches or the names."""
    ids = [i for i in VOCABULARY.ranges[group] if legal[i]]
    names = [VOCABULARY.names[i] for i in ids]
    if len(ids) == len(VOCABULARY.ranges[group]):
        return "all"
    return f"{names[0]}–{names[-1]}" if group == "pitch" and ids else " ".join(names) or "none"


def vocabulary_table() -> str:
    """Groups with their ids."""
    rows = [(group, f"{ids[0]}–{ids[-1]}" if len(ids) > 1 else ids[0], len(ids),
             "C2–C6, MIDI 36–84" if group == "pitch" else " ".join(VOCABULARY.groups[group]))
            for group, ids in VOCABULARY.ranges.items()]
    return _table(("group", "ids", "number", "tokens"), rows)


def legality_table() -> str:
    """What may stand in each track; rest may in all."""
    groups = [g for g in VOCABULARY.groups if g != "rest"]
    return _table(("track", *groups, "tokens"), [
        (name, *(_members(g, LEGAL[row]) for g in groups), LEGAL[row].sum()) for row, name in enumerate(TRACKS)])


def fill_table() -> str:
    """The 8 cells that `fill` plays in each track."""
    return _table(("track", *range(8)), [
        (name, *(VOCABULARY.names[t] for t in FILLS[row])) for row, name in enumerate(TRACKS)])


def gain_table() -> str:
    """The 17 velocities, how they are said, and what Strudel and MIDI get."""
    return _table(("velocity", "said by", "Strudel gain", "MIDI velocity"), [
        (f"{127 * gain:g}", ", ".join(" ".join(filter(None, pair)) for pair in GAINS[gain]), gain_text(gain),
         int(127 * gain + 0.5)) for gain in sorted(GAINS)])


def sound_table() -> str:
    """What each track sounds like in Strudel and in MIDI."""
    drums = {name: " ".join(d for d in DRUM_NOTES if LEGAL[row, VOCABULARY.ids[d]])
             for row, name in enumerate(TRACKS)}
    return _table(("track", "Strudel", "MIDI channel", "MIDI program or notes"), [
        (name, f'`note(..).s("{SYNTHS[name]}")`' if name in SYNTHS else f"`s(..)`: {drums[name]}",
         CHANNELS[name] + 1, PROGRAMS[name] + 1 if name in PROGRAMS
         else ", ".join(f"{d} {DRUM_NOTES[d]}" for d in drums[name].split())) for name in TRACKS])


def effect_table() -> str:
    """What each effect sets in Strudel and in MIDI."""
    return _table(("effect", "Strudel", "control it sets", "MIDI controller", "off", "on"), [
        (name, f"`.{EFFECTS[name][0]}({EFFECTS[name][2]})`", EFFECTS[name][1], *EFFECT_CONTROLS[name])
        for name in VOCABULARY.groups["effect"]])


def target_table() -> str:
    """What the movement asks: each target's attribute, source and map, its constant for the shipped weights."""
    constants = lipschitz(parse(json.loads(SHIPPED.read_text())["statistics"]))
    return _table(("target", "what of the grid", "slot", "low to high", "curve", "weight", "sections", "constant"), [
        (name, MEANINGS[name], rule.source, f"{rule.low:g} to {rule.high:g}", rule.curve, f"{rule.weight:g}",
         ", ".join(f"{section} {shift:+g}" for section, shift in rule.sections.items()) or "–",
         f"{constants[name]:.1f}")
        for name, rule in DEFAULT_RULES.items()])


TABLES: dict[str, Callable[[], str]] = {
    "vocabulary": vocabulary_table, "legality": legality_table, "fills": fill_table, "gains": gain_table,
    "sounds": sound_table, "effects": effect_table, "mappings": mapping_table,
    "targets": target_table}


def with_tables(text: str) -> str:
    """The text with every table between its marks made anew."""
    for name, make in TABLES.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, mark, rest = text.partition(begin)
        if mark:
            text = f"{before}{begin}{make()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")
