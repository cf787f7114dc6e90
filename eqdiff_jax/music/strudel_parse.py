"""Strudel code as a grid: what `to_strudel` prints, and what a person may make of it by hand.

    program   : statements, one per track:  label: pattern
                (setcpm(..), comments and the block of drums at the top of a song are passed over)
    pattern   : s("..") or note("..") or silence or arrange([cycles, pattern], ..), then any of the calls
    calls     : .s .sound .note .gain .slow .fast, the effects, and .when("..", x => x.effect(..)..)

Values of effects are not read, only that they are on. A gain goes to the nearest one that a grid has; a line
without gain is mf. A label with a leading or trailing underscore is muted, as in Strudel.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.encode import from_events, nearest_gain
from eqdiff_jax.music.grid import STEPS, TRACKS, Event
from eqdiff_jax.music.mini_parse import Hap, Pattern, fast, parse_mini, pure, silence, timecat, value_at
from eqdiff_jax.music.vocabulary import DEFAULT_DYNAMICS, VELOCITIES, VOCABULARY

_LABELS = {name.lower(): row for row, name in enumerate(TRACKS)}
_EFFECT_CALLS = {"lpf": "lpf", "lp": "lpf", "ctf": "lpf", "cutoff": "lpf", "hpf": "hpf", "hp": "hpf",
                 "hcutoff": "hpf", "delay": "delay", "room": "reverb", "dist": "dist", "distort": "dist"}
_CONTROLS = {"s": "s", "sound": "s", "note": "note", "gain": "gain"}
_ACCEPTED = ("s, sound, note, gain, slow, fast, when, arrange, silence, setcpm and the effects "
             "lpf, hpf, delay, room, dist")
_BLANK = r"(?:\s|//[^\n]*|/\*.*?\*/|^if\ \(globalThis\.registerSound\b.*?^\})*"
_TOKEN = re.compile(rf"""{_BLANK}(?:
    (?P<string>"[^"\n]*"|`[^`]*`|'[^'\n]*') | (?P<number>-?(?:\d+(?:\.\d*)?|\.\d+))
    | (?P<name>[A-Za-z_$][\w$]*) | (?P<sign>=>|[().,:;\[\]/*]) )""", re.VERBOSE | re.DOTALL | re.MULTILINE)
_SKIP = re.compile(_BLANK, re.DOTALL | re.MULTILINE)
_PITCH = re.compile(r"([a-g])(##|bb|ss|ff|[#bsf]?)(\d?)", re.IGNORECASE)
_CLASSES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SHIFTS = {"#": 1, "s": 1, "b": -1, "f": -1}


def from_strudel(text: str) -> np.ndarray:
    """The grid that code as `to_strudel` prints it plays, structure-free, int32 [12, 32].

    Raises InputError, naming the place, for code that is not understood or that no grid can play.
    """
    grids = song_from_strudel(text)
    if len(grids) > 1:
        raise InputError(f"the code holds {len(grids)} grids one after the other: read it as a song")
    return grids[0]


def song_from_strudel(text: str) -> np.ndarray:
    """The grids that code as `song_to_strudel` prints it plays, int32 [N, 12, 32]."""
    try:
        return _grids(_Reader(text))
    except RecursionError:
        raise InputError("the code is nested too deeply: write it with fewer brackets in brackets") from None


def _grids(reader: "_Reader") -> np.ndarray:
    tracks = reader.program()
    count = max(1, -(-int(reader.cycles) // 2))
    if not reader.cycles and any(2 % pattern.period for pattern in tracks.values()):
        raise InputError("the code repeats after more than two bars: a grid is a loop of two bars")
    return np.stack([from_events([event for track, pattern in tracks.items()
                                  for event in _events(track, pattern, 2 * k)]) for k in range(count)])


def _events(track: int, pattern: Pattern, first: int) -> list[Event]:
    """The two bars of a track's pattern from cycle `first` on."""
    notes = []
    for hap in pattern(Fraction(first), Fraction(first + 2)):
        if hap.begin != hap.whole_begin:
            continue
        onset, length = (hap.whole_begin - first) * 16, (hap.whole_end - hap.whole_begin) * 16
        place = f"{TRACKS[track].lower()}, cycle {hap.whole_begin}"
        if onset.denominator != 1 or length.denominator > 2:
            raise InputError(f"{place}: a note of length {length / 16} is off the grid of sixteenths "
                             "(lengths: of half sixteenths)")
        if onset + length > STEPS:
            raise InputError(f"{place}: the note lasts beyond the grid's two bars")
        notes.append(Event(track, int(onset), float(length), _sound(place, hap.value),
                           _gain(place, hap.value), tuple(
                               e for e in VOCABULARY.groups["effect"] if e in hap.value)))
    return notes


def _sound(place: str, value: dict) -> int | str:
    return _pitch(place, str(value["note"])) if "note" in value else str(value["s"])


def _pitch(place: str, word: str) -> int:
    if word.isdigit():
        return int(word)
    match = _PITCH.fullmatch(word)
    if not match:
        raise InputError(f"{place}: {word!r} is no note; notes are c2 to c6, as c#3 or eb3, or 36 to 84")
    letter, signs, octave = match.groups()
    return 12 * (int(octave or 3) + 1) + _CLASSES[letter.lower()] + sum(_SHIFTS[s] for s in signs.lower())


def _gain(place: str, value: dict) -> float:
    if "gain" not in value:
        return VELOCITIES[DEFAULT_DYNAMICS] / 127
    try:
        gain = float(value["gain"])
    except ValueError:
        gain = -1.0
    if not 0 <= gain <= 1:
        raise InputError(f"{place}: gain {value['gain']} is not between 0 and 1")
    return nearest_gain(gain)


def _with(pattern: Pattern, values: Pattern, change: Callable[[Any], dict]) -> Pattern:
    """The pattern with `change(value)` merged into each event, the value sampled at its onset.

    Events that find no value fall silent.
    """
    def cycle(number: int) -> list[Hap]:
        sampled = [(hap, value_at(values, hap.whole_begin)) for hap in pattern.cycle(number)]
        return [h._replace(value={**h.value, **change(value)}) for h, value in sampled if value is not None]
    return Pattern(cycle, lcm(pattern.period, values.period))


def _control(key: str, values: Pattern, pattern: Pattern | None) -> Pattern:
    """The pattern with one control; without a pattern, the values give the structure."""
    if pattern is None:
        return Pattern(lambda c: [h._replace(value={key: h.value}) for h in values.cycle(c)], values.period)
    return _with(pattern, values, lambda value: {key: value})


def _switched(condition: Pattern, effects: set[str], pattern: Pattern) -> Pattern:
    """Effects where the condition's value is not 0; events that find none fall silent, as in Strudel."""
    return _with(pattern, condition,
                 lambda value: dict.fromkeys(effects if str(value).strip("0.") else (), True))


class _Reader:
    """Recursive descent over the tokens of a program."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.index, self.cycles = text, [], 0, Fraction(0)
        at = 0
        while (gap := _SKIP.match(text, at)) and (at := gap.end()) < len(text):
            match = _TOKEN.match(text, at)
            if not match or not match.lastgroup:
                raise self.fail(at, f"{text[at]!r} is not understood")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            at = match.end()
        self.tokens.append(("end", "the end of the code", len(text)))

    def fail(self, at: int, reason: str, accepted: str = f"; accepted are {_ACCEPTED}") -> InputError:
        line = self.text.count("\n", 0, at) + 1
        column = at - self.text.rfind("\n", 0, at)
        return InputError(f"Strudel code, line {line}, column {column}: {reason}{accepted}")

    def wrong(self, expected: str) -> InputError:
        _, text, at = self.tokens[self.index]
        return self.fail(at, f"expected {expected}, found {text[:30]!r}")

    def next_is(self, *texts: str) -> bool:
        return [t for _, t, _ in self.tokens[self.index:self.index + len(texts)]] == list(texts)

    def take(self, kind: str, text: str | None = None) -> str:
        found = self.tokens[self.index]
        if found[0] != kind or text not in (None, found[1]):
            raise self.wrong(repr(text) if text else f"a {kind}")
        self.index += 1
        return found[1]

    def program(self) -> dict[int, Pattern]:
        """Patterns by track; muted ones are read, and left out."""
        tracks: dict[int, Pattern] = {}
        while self.tokens[self.index][0] != "end":
            if self.next_is(";"):
                self.index += 1
            elif self.next_is("setcpm") or self.next_is("setcps"):
                self.tempo()
            elif self.next_is("silence"):
                self.index += 1
            else:
                self.labelled(tracks)
        return tracks

    def tempo(self) -> None:
        self.index += 1
        self.take("sign", "(")
        while not self.next_is(")"):
            if self.tokens[self.index][0] != "number" and not (self.next_is("/") or self.next_is("*")):
                raise self.wrong("a number")
            self.index += 1
        self.index += 1

    def labelled(self, tracks: dict[int, Pattern]) -> None:
        at, label = self.tokens[self.index][2], self.take("name")
        track = _LABELS.get(label.strip("_"))
        if track is None:
            raise self.fail(at, f"{label!r} is no track; a line starts with one of {', '.join(_LABELS)} and ':'")
        self.take("sign", ":")
        pattern = self.pattern()
        if track in tracks:
            raise self.fail(at, f"{label} stands twice")
        if label == label.strip("_"):
            tracks[track] = pattern

    def pattern(self) -> Pattern:
        name = self.take("name")
        if name == "silence":
            source: Pattern = silence
        elif name == "arrange":
            source = self.arrange()
        elif name in ("s", "sound", "note"):
            source = _control(_CONTROLS[name], self.argument(), None)
        else:
            self.index -= 1
            raise self.wrong("s, note, arrange or silence")
        while self.next_is("."):
            self.index += 1
            source = self.call(source)
        return source

    def arrange(self) -> Pattern:
        self.take("sign", "(")
        sections = []
        while not self.next_is(")"):
            self.take("sign", "[")
            at, cycles = self.tokens[self.index][2], Fraction(self.take("number"))
            if cycles % 2 or not 0 < cycles <= 4096:
                raise self.fail(at, "sections last an even number of cycles: a grid has two bars")
            self.take("sign", ",")
            sections.append((cycles, self.pattern()))
            self.take("sign", "]")
            if not self.next_is(")"):
                self.take("sign", ",")
        self.index += 1
        if not sections:
            raise self.wrong("a section [cycles, pattern]")
        total = sum((cycles for cycles, _ in sections), Fraction(0))
        self.cycles = max(self.cycles, total)
        return fast(1 / total, timecat([(cycles, fast(cycles, pattern)) for cycles, pattern in sections]))

    def call(self, pattern: Pattern) -> Pattern:
        name = self.take("name")
        if name in _CONTROLS:
            return _control(_CONTROLS[name], self.argument(), pattern)
        if name in ("slow", "fast"):
            return self.timed(name, pattern)
        if name == "when":
            return self.when(pattern)
        if name in _EFFECT_CALLS:
            return _control(_EFFECT_CALLS[name], self.argument(), pattern)
        self.index -= 1
        raise self.wrong("a call that a grid can play")

    def timed(self, name: str, pattern: Pattern) -> Pattern:
        self.take("sign", "(")
        at, factor = self.tokens[self.index][2], Fraction(self.take("number"))
        self.take("sign", ")")
        if not 0 < factor <= 64:
            raise self.fail(at, f"{name} takes a number above 0 and up to 64")
        return fast(factor if name == "fast" else 1 / factor, pattern)

    def argument(self) -> Pattern:
        """(number) or (string), the string with .slow(n) or .fast(n) after it."""
        self.take("sign", "(")
        pattern = self.value()
        self.take("sign", ")")
        return pattern

    def value(self) -> Pattern:
        kind, text, at = self.tokens[self.index]
        if kind == "number":
            self.index += 1
            return pure(text)
        body = self.take("string")[1:-1]
        try:
            pattern = parse_mini(body)
        except InputError as error:
            raise self.fail(at, str(error), "") from None
        while self.next_is(".", "slow") or self.next_is(".", "fast"):
            self.index += 1
            pattern = self.timed(self.take("name"), pattern)
        return pattern

    def when(self, pattern: Pattern) -> Pattern:
        self.take("sign", "(")
        condition = self.value()
        self.take("sign", ",")
        argument = self.take("name")
        self.take("sign", "=>")
        self.take("name", argument)
        effects = set()
        while self.next_is("."):
            self.index += 1
            if self.tokens[self.index][1] not in _EFFECT_CALLS:
                raise self.wrong("an effect")
            effects.add(_EFFECT_CALLS[self.take("name")])
            self.argument()
        self.take("sign", ")")
        return _switched(condition, effects, pattern)
