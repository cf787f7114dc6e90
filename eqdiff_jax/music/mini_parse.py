"""Mini-notation read as Strudel reads it: a pattern is a function from cycles to events.

The subset: words, rests `~` and `-`, `[ ]` groups, `< >` alternation, `*n`, `/n`, `!n`, `@n`, `_`, and `.`
between groups. Time is exact (fractions of a cycle).
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil, floor, lcm
from typing import Any, NamedTuple

from eqdiff_jax.errors import InputError


class Hap(NamedTuple):
    """The part of an event that falls into a query; it starts there if the part begins with the whole."""

    begin: Fraction  # of the part, in cycles
    end: Fraction
    whole_begin: Fraction
    whole_end: Fraction
    value: Any


def _moved(hap: Hap, scale: Fraction, offset: Fraction) -> Hap:
    """The event with its times scaled, then shifted."""
    begin, end = hap.begin * scale + offset, hap.end * scale + offset
    return Hap(begin, end,
               begin if hap.whole_begin is hap.begin else hap.whole_begin * scale + offset,
               end if hap.whole_end is hap.end else hap.whole_end * scale + offset, hap.value)


class Pattern:
    """A function from a cycle's number to the parts of events in it, which repeats after `period` cycles."""

    def __init__(self, cycle: Callable[[int], list[Hap]], period: int = 1) -> None:
        self._cycle, self.period = cycle, period
        self._known: dict[int, list[Hap]] = {}

    def cycle(self, number: int) -> list[Hap]:
        """Parts of events between cycle `number` and the next."""
        first = number % self.period
        if first not in self._known:
            self._known[first] = self._cycle(first)
            if len(self._known[first]) > _MOST_EVENTS:
                raise InputError(f"more than {_MOST_EVENTS} events in one cycle of a pattern")
        if number == first:
            return self._known[first]
        return [_moved(hap, Fraction(1), Fraction(number - first)) for hap in self._known[first]]

    def __call__(self, begin: Fraction, end: Fraction) -> list[Hap]:
        """Parts of events between two times, cut at cycles."""
        if begin.denominator == end.denominator == 1:
            return [hap for number in range(int(begin), int(end)) for hap in self.cycle(number)]
        return [hap._replace(begin=max(begin, hap.begin), end=min(end, hap.end))
                for number in range(floor(begin), ceil(end)) for hap in self.cycle(number)
                if hap.begin < end and hap.end > begin]


ACCEPTED = "words, ~, -, _, [ ], < >, *n, /n, !n, @n and . between groups"
_TOKEN = re.compile(r"\s*([\w#.^~-]+|[\[\]<>*/!@])")
_NUMBER = re.compile(r"\d+(\.\d+)?|\.\d+")
_ONE = Fraction(1)
_MOST_EVENTS = 256  # in one cycle
_MOST = 64  # finer than half a sixteenth in a grid of two bars


silence = Pattern(lambda cycle: [])


def pure(value: Any) -> Pattern:
    """One event per cycle."""
    def cycle(number: int) -> list[Hap]:
        begin, end = Fraction(number), Fraction(number + 1)
        return [Hap(begin, end, begin, end, value)]
    return Pattern(cycle)


def fast(factor: Fraction, pattern: Pattern) -> Pattern:
    """`factor` cycles of the pattern in one."""
    if factor == 1:
        return pattern
    return Pattern(lambda cycle: [_moved(hap, 1 / factor, Fraction(0))
                                  for hap in pattern(cycle * factor, (cycle + 1) * factor)],
                   (pattern.period / factor).numerator)


def timecat(parts: Sequence[tuple[Fraction, Pattern]]) -> Pattern:
    """Patterns one after the other in each cycle, (weight, pattern) each."""
    if len(parts) == 1:
        return parts[0][1]
    ends = list(accumulate(weight for weight, _ in parts))
    shares = [weight / ends[-1] for weight, _ in parts]
    starts = [Fraction(0), *(end / ends[-1] for end in ends[:-1])]

    def cycle(number: int) -> list[Hap]:
        return [_moved(hap, share, start + number * (1 - share) if number else start)
                for start, share, (_, pattern) in zip(starts, shares, parts, strict=True)
                for hap in pattern.cycle(number)]
    return Pattern(cycle, lcm(*(pattern.period for _, pattern in parts)))


def value_at(pattern: Pattern, time: Fraction) -> Any:
    """Value of the event that sounds at a time, or None."""
    return next((h.value for h in pattern.cycle(floor(time)) if h.begin <= time < h.end), None)


class _Reader:
    """Recursive descent over the tokens of one string."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.index = text, [], 0
        self.apart: list[bool] = []  # whether white space stands before the token
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if not match:
                raise self.fail(f"{text[at:].strip()[0]!r} is not understood")
            self.tokens.append(match.group(1))
            self.apart.append(match.start(1) > match.start())
            at = match.end()

    def peek(self) -> str | None:
        return self.tokens[self.index] if self.index < len(self.tokens) else None

    def is_number(self) -> bool:
        """Whether a number follows at once."""
        return bool(_NUMBER.fullmatch(self.peek() or "")) and not self.apart[self.index]

    def take(self) -> str:
        self.index += 1
        return self.tokens[self.index - 1]

    def fail(self, reason: str) -> InputError:
        shown = " ".join(self.text.split())
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InputError(f'in "{shown}": {reason}; accepted are {ACCEPTED}')

    def number(self, after: str) -> Fraction:
        word = self.peek() or ""
        number = Fraction(int(word) if word.isdecimal() else word) if self.is_number() else Fraction(0)
        if not number:
            raise self.fail(f"{after!r} needs a positive number, found {word or 'the end'!r}")
        self.take()
        return number

    def sequence(self, closing: str | None) -> list[tuple[Fraction, Pattern]]:
        """Steps (weight, pattern) up to the closing bracket."""
        groups: list[list[tuple[Fraction, Pattern]]] = [[]]
        while (token := self.peek()) != closing:
            if token is None:
                raise self.fail(f"{closing!r} is missing")
            if token == "." and closing != ">":
                self.take()
                groups.append([])
            elif token == "_" and groups[-1]:
                self.take()
                weight, pattern = groups[-1].pop()
                groups[-1].append((weight + 1, pattern))
            else:
                groups[-1].append(self.step())
        if not all(groups):
            raise self.fail("an empty sequence")
        if len(groups) == 1:
            return groups[0]
        return [(Fraction(1), timecat(group)) for group in groups]

    def step(self) -> tuple[Fraction, Pattern]:
        """One step with its modifiers, in order, as Strudel combines them.

        `!` replaces a weight that `@` gave before it; several `!` add up, at the place of the last one.
        """
        pattern = self.atom()
        calls: list[tuple[str, Fraction]] = []
        weight = copies = _ONE
        while self.peek() in ("*", "/", "!", "@"):
            if self.apart[self.index] and self.peek() in ("*", "/"):
                raise self.fail(f"white space before {self.peek()!r}")
            sign = self.take()
            if sign == "@":
                weight += self.number(sign) - 1
            elif sign == "!":
                more = self.number(sign) - 1 if self.is_number() else _ONE
                weight = copies = copies + more
                calls = [*(c for c in calls if c[0] != "!"), ("!", copies)]
            else:
                number = self.number(sign)
                calls.append((sign, number if sign == "*" else 1 / number))
        if weight <= 0 or copies.denominator != 1 or any(n > _MOST for _, n in calls):
            raise self.fail(f"a step of weight {weight}, {copies} times")
        for sign, number in calls:
            pattern = timecat([(_ONE, pattern)] * int(number)) if sign == "!" else fast(number, pattern)
        return weight, pattern

    def atom(self) -> Pattern:
        token = self.take()
        if token in ("~", "-"):
            return silence
        if token == "[":
            parts = self.sequence("]")
            self.take()
            return timecat(parts)
        if token == "<":
            parts = self.sequence(">")
            self.take()
            return fast(1 / sum((weight for weight, _ in parts), Fraction(0)), timecat(parts))
        if not re.fullmatch(r"-?[\w#.]+", token) or token == "_":
            raise self.fail(f"{token!r} is not understood here")
        return pure(token)


def parse_mini(text: str) -> Pattern:
    """Pattern of a mini-notation string; its values are words. Raises InputError for what is not understood."""
    reader = _Reader(text)
    return timecat(reader.sequence(None))
