"""Print timed values as the mini-notation that a person would write: short, by beats and bars, exact.

Time is counted in half sixteenths: a beat has 8, a bar 32, a grid 64. A sequence is a tuple of segments;
those that are `free` (rests, and values sampled at onsets) may be split anywhere, notes may not.
"""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

BAR, GRID = 32, 64


class Segment(NamedTuple):
    """One value that lasts `length` half sixteenths."""

    length: int
    text: str
    free: bool


Segments = tuple[Segment, ...]


def two_bars(segments: Segments) -> tuple[str, bool]:
    """Mini-notation of 64 half sixteenths, and whether its cycle lasts two bars (needs `.slow(2)`)."""
    segments = _merged(segments)
    bars = _split(segments, 2)
    if not bars:  # a note is held over the bar line
        return sequence(segments), True
    if bars[0] == bars[1]:
        return sequence(bars[0]), False
    return f"<{step(bars[0])} {step(bars[1])}>", False


def sampled(points: dict[int, str], fold: bool = True) -> str:
    """Mini-notation that has the given values at the given half sixteenths (0..63), whatever elsewhere.

    The cycle is one bar; what takes two bars is written `<..>` or `[..]/2`. With `fold`, values that allow
    it are written as one bar or beat that repeats.
    """
    for period in (8, 16, 32) if fold else ():
        folded: dict[int, str] = {}
        if all(folded.setdefault(at % period, text) == text for at, text in points.items()):
            return _period_text(_held(folded, period), period)
    return _period_text(_held(points, GRID), GRID)


def _period_text(segments: Segments, period: int) -> str:
    if len(segments) == 1:
        return segments[0].text
    if period < BAR:
        return f"{step(segments)}*{BAR // period}"
    if period == BAR:
        return sequence(segments)
    return min(two_bars(segments)[0], f"[{sequence(segments)}]/2", key=len)


def _held(points: dict[int, str], period: int) -> Segments:
    """Values held until the next different one, which starts early on a round position where it can."""
    places = sorted(points)
    starts, texts = [0], [points[places[0]]]
    for before, place in zip(places, places[1:], strict=False):
        if points[place] != texts[-1]:
            starts.append(_roundest(before + 1, place))
            texts.append(points[place])
    ends = [*starts[1:], period]
    return tuple(Segment(b - a, t, True) for a, b, t in zip(starts, ends, texts, strict=True))


def _roundest(low: int, high: int) -> int:
    """The multiple of the highest power of two in low..high."""
    power = 1
    while high // (2 * power) * 2 * power >= low:
        power *= 2
    return high // power * power


@lru_cache(maxsize=1 << 14)
def step(segments: Segments) -> str:
    """The segments as one step of mini-notation."""
    if len(segments) == 1:
        return segments[0].text
    return min([*_repeats(segments), f"[{sequence(segments)}]"], key=len)


@lru_cache(maxsize=1 << 14)
def sequence(segments: Segments) -> str:
    """The segments as a space-separated sequence that fills its cycle or brackets."""
    total = sum(s.length for s in segments)
    texts = [*_repeats(segments), *(_grouped(segments, total // n) for n in (4, 2, 8)
                                     if total % (2 * n) == 0)]
    odd = total > 4 and any(s.length % 2 for s in segments)
    by_steps = _grouped(segments, 2) if odd else None  # rather than a long row of half sixteenths
    return min(filter(None, [*texts, by_steps or _flat(segments)]), key=len)


def _repeats(segments: Segments) -> list[str]:
    """The segments as n times the same, for every n that is a power of two."""
    total, notes, texts, n = sum(s.length for s in segments), sum(not s.free for s in segments), [], 2
    while total % n == 0 and notes % n == 0:
        parts = _split(segments, n)
        if not parts or any(part != parts[0] for part in parts):
            break
        texts.append(f"{step(parts[0])}*{n}")
        n *= 2
    return texts


def _flat(segments: Segments) -> str:
    unit = gcd(*(s.length for s in segments))
    return _joined([(s.text, s.length // unit, s.free) for s in segments])


def _grouped(segments: Segments, unit: int) -> str | None:
    """Groups of `unit` half sixteenths, joined where a note crosses their border; None if all are one."""
    items, group, size = [], [], 0
    for segment in _cut(segments, unit):
        group.append(segment)
        size += segment.length
        if size % unit == 0:
            whole = _merged(tuple(group))
            if whole == segments:
                return None
            items.append((step(whole), size // unit, len(whole) == 1 and whole[0].free))
            group, size = [], 0
    return _joined(items)


def _joined(items: list[tuple[str, int, bool]]) -> str:
    """Steps (text, weight, free) with @ for weights and ! for repetition."""
    words: list[str] = []
    i = 0
    while i < len(items):
        text, weight, free = items[i]
        run = 1
        while i + run < len(items) and items[i + run][:2] == items[i][:2] and (free or weight == 1):
            run += 1
        if free:
            weight *= run
            spelled, short = " ".join([text] * weight), f"{text}@{weight}"
        elif weight == 1:
            spelled, short = " ".join([text] * run), f"{text}!{run}"
        else:
            spelled = short = f"{text}@{weight}"
        words.append(spelled if len(spelled) <= len(short) + 1 else short)
        i += run
    return " ".join(words)


def _merged(segments: Segments) -> Segments:
    """Adjacent free segments of one value become one."""
    out: list[Segment] = []
    for segment in segments:
        if out and segment.free and out[-1].free and out[-1].text == segment.text:
            out[-1] = Segment(out[-1].length + segment.length, segment.text, True)
        else:
            out.append(segment)
    return tuple(out)


def _cut(segments: Segments, unit: int) -> list[Segment]:
    """Free segments cut at every multiple of `unit`."""
    out, at = [], 0
    for segment in segments:
        left = segment.length
        while segment.free and left > unit - at % unit:
            piece = unit - at % unit
            out.append(Segment(piece, segment.text, True))
            at, left = at + piece, left - piece
        out.append(Segment(left, segment.text, segment.free))
        at += left
    return out


def _split(segments: Segments, parts: int) -> list[Segments] | None:
    """Equal parts, or None where a note crosses a border."""
    unit = sum(s.length for s in segments) // parts
    groups, group, size = [], [], 0
    for segment in _cut(segments, unit):
        group.append(segment)
        size += segment.length
        if size > unit:
            return None
        if size == unit:
            groups.append(_merged(tuple(group)))
            group, size = [], 0
    return groups
