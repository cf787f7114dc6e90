"""What the server and the page say to each other: one JSON object per text frame, {"v": 1, "type": ..., ...}.

    encode : message -> text   finite numbers only; a field that is None by default is left out while it is None
    decode : text -> message   of a page; everything is checked, WireError is the only exception
    clamp  : a parameter's value inside its range
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eqdiff_jax.conditioning.layout import BPM_RANGE
from eqdiff_jax.music.conductor import GENRES
from eqdiff_jax.music.modulation import PARAMETERS

VERSION = 1
MODES = ("threshold", "modulate", "diffusion")
LOOKAHEADS = ("safe", "tight")  # SetParam says them as 0 and 1
MAX_TEXT = 1 << 16  # characters of one message
MAX_SOUNDS, MAX_NAME, MAX_PROSE = 2048, 64, 2000

Range = tuple[float, float, float]  # low, high, default
RANGES: dict[str, Range] = {
    "bpm": (*BPM_RANGE, 120.0), "lookahead": (0.0, 1.0, 0.0), "volume": (0.0, 1.0, 0.8),
    **{name: (row.low, row.high, row.default) for name, row in PARAMETERS.items()}}


class WireError(ValueError):
    """A message that breaks the protocol; one line that says how."""


# Server -> page.

class State(NamedTuple):
    """Everything a page needs to show and play what is on now, also after a break of the connection."""

    session: str  # name of this performance
    bpm: float
    mode: str
    genre: str | None
    pattern: str | None  # code of the grid that plays, None before the first
    id: int | None  # of the Eval that brought it
    tokens: Any | None  # [12][32]
    params: Mapping[str, float]
    lookahead: str  # "safe" or "tight"
    modes: Sequence[str]
    genres: Sequence[str]
    tracks: Sequence[str]  # 12 names
    ranges: Mapping[str, Range]


class Eval(NamedTuple):
    """Play this code from the next multiple of `bars` on; it holds no tempo."""

    pattern: str
    id: int | None = None
    at: str = "bar"  # or "now"
    bars: int = 2
    tokens: Any | None = None  # [12][32]
    changed: Any | None = None  # [[track, step], ...] cells that differ from the grid before
    steps: int | None = None
    temperature: float | None = None
    confidence: float | None = None
    seconds: float | None = None  # that making it took
    margin: float | None = None  # of the contraction certificate
    section: Any | None = None  # name, or six probabilities
    cascade: Any | None = None
    cycle: float | None = None  # the earliest one to start at


class Crossfade(NamedTuple):
    """Fade from what plays to this code, with equal power."""

    pattern: str
    duration_beats: float
    id: int | None = None
    tokens: Any | None = None
    changed: Any | None = None
    cycle: float | None = None
    bars: int | None = None  # as of an Eval


class MotionModulate(NamedTuple):
    """The movement sets a parameter, inside its range."""

    parameter: str
    value: float
    source: str


class SetParam(NamedTuple):
    """A setting: bpm, lookahead (0 safe, 1 tight), volume, or a parameter by its name."""

    name: str
    value: float


class Hush(NamedTuple):
    """Silence now."""


class Ping(NamedTuple):
    """Asks for a Pong with the same id and t0."""

    id: int
    t0: float  # seconds, the server's clock


class View(NamedTuple):
    """What the page draws, at most 20 times a second."""

    limbs: Any  # [27][3] positions
    confidence: Any  # [27]
    z: Any  # [32]
    dynamics: Mapping[str, float]  # the 15 scalars by name
    section: Any  # [6] probabilities
    lead: str | None
    active: Sequence[str]
    late_ms: float  # lateness of the 60 Hz loop
    misses: int  # grids that were not ready in time
    bar: float


# Page -> server.

class Hello(NamedTuple):
    """First message of a page."""

    protocol: int
    session: str  # random, stays the same while the tab lives
    strudel: str = ""  # version
    sounds: tuple[str, ...] = ()


class Evaluated(NamedTuple):
    """An Eval will play, or plays, from this cycle on."""

    id: int
    at_cycle: float


class Error(NamedTuple):
    """Something failed in the page; the last good pattern plays on."""

    id: int | None
    stage: str
    message: str
    line: int | None = None


class Missing(NamedTuple):
    """Sounds the pattern names and the page does not have."""

    sounds: tuple[str, ...]


class Clock(NamedTuple):
    """Where the music is, ten times a second; one cycle is one bar."""

    heard: float  # cycles
    frontier: float  # cycles up to which notes are already handed to the audio clock
    cps: float
    audio_state: str  # "running" once a person has pressed start
    audio_time: float  # seconds, the audio clock
    perf_now: float  # milliseconds, the page's clock
    output_latency: float = 0.0  # seconds; some browsers do not say


class Pong(NamedTuple):
    """The answer to a Ping."""

    id: int
    t0: float
    perf: float  # milliseconds, the page's clock


class Request(NamedTuple):
    """What a person asks for on the page: bpm, genre, mode, lookahead, hush, lead or volume."""

    name: str
    value: float | str | bool | None


ServerMessage = State | Eval | Crossfade | MotionModulate | SetParam | Hush | Ping | View
PageMessage = Hello | Evaluated | Error | Missing | Clock | Pong | Request
_TYPES = set(ServerMessage.__args__) | set(PageMessage.__args__)


def encode(message: ServerMessage | PageMessage) -> str:
    """The message as JSON, ASCII only; NumPy arrays and numbers may stand in it.

    Raises WireError for NaN, infinity and anything JSON has no word for.
    """
    if type(message) not in _TYPES:
        raise WireError(f"{type(message).__name__} is no message")
    optional = message._field_defaults
    fields = {k: v for k, v in message._asdict().items() if not (v is None and k in optional and optional[k] is None)}
    try:
        return json.dumps({"v": VERSION, "type": type(message).__name__, **fields}, allow_nan=False,
                          separators=(",", ":"), default=_plain)
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"{type(message).__name__} cannot be sent: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def decode(text: str) -> PageMessage:
    """The message of a page, every field checked and clamped; raises WireError for anything else.

    Unknown fields are ignored, but no field may hold an object or a list of lists.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise WireError(f"a message is text of at most {MAX_TEXT} characters")
    try:
        fields = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        raise WireError("not JSON") from None
    if not isinstance(fields, _Object) or len(fields) > 32:
        raise WireError("not one JSON object of at most 32 fields")
    values = dict(fields)
    if len(values) < len(fields):
        raise WireError("a field stands twice")
    if _number(values.get("v"), "v") != VERSION:
        raise WireError(f"v is not {VERSION}: reload the page")
    kind = values.get("type")
    if not isinstance(kind, str) or kind not in _PAGE:
        raise WireError(f"unknown type {str(kind)[:MAX_NAME]!r}")
    nested = next((k for k, v in fields if isinstance(v, _Object) or
                   (isinstance(v, list) and any(isinstance(x, list) for x in v))), None)
    if nested is not None:
        raise WireError(f"field {nested[:MAX_NAME]!r} is nested")
    cls, checks = _PAGE[kind]
    missing = [k for k in checks if k not in values and k not in cls._field_defaults]
    if missing:
        raise WireError(f"{kind} lacks {missing[0]}")
    message = cls(**{k: check(values[k], f"{kind}.{k}") for k, check in checks.items() if k in values})
    return _checked_request(message) if isinstance(message, Request) else message


class _Object(list):
    """The (name, value) pairs of a JSON object, so that a name that stands twice is seen."""


Check = Callable[[Any, str], Any]


def _number(value: Any, name: str, low: float = -1e15, high: float = 1e15) -> float:
    # Compared, not converted: an integer of 400 digits fits no float, and NaN fails every comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise WireError(f"{name} is not a number in {low:g} .. {high:g}")
    return float(value)


def _between(low: float, high: float) -> Check:
    return lambda value, name: _number(value, name, low, high)


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise WireError(f"{name} is not a whole number from 0 on")
    return value


def _optional(check: Check, empty: Any = None) -> Check:
    return lambda value, name: empty if value is None else check(value, name)


def _word(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_NAME:
        raise WireError(f"{name} is not a name of at most {MAX_NAME} characters")
    return value


def _prose(value: Any, name: str) -> str:
    """Text for people: cut to size, and no character in it moves a terminal's cursor."""
    if not isinstance(value, str):
        raise WireError(f"{name} is not text")
    return "".join(c if c.isprintable() else " " for c in value[:MAX_PROSE])


def _words(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_SOUNDS:
        raise WireError(f"{name} is not a list of at most {MAX_SOUNDS} names")
    return tuple(_word(v, name) for v in value)


def _session(value: Any, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{8,64}", value):
        raise WireError(f"{name} is not 8 to 64 letters and digits")
    return value


def _protocol(value: Any, name: str) -> int:
    if _number(value, name) != VERSION:
        raise WireError(f"{name} is not {VERSION}: reload the page")
    return VERSION


def _scalar(value: Any, name: str) -> Any:
    if isinstance(value, list):
        raise WireError(f"{name} is a list")
    return value


_CYCLES = _between(-1e9, 1e9)
_CHECKS: dict[type, dict[str, Check]] = {
    Hello: {"protocol": _protocol, "session": _session, "strudel": _word, "sounds": _words},
    Evaluated: {"id": _whole, "at_cycle": _CYCLES},
    Error: {"id": _optional(_whole), "stage": _word, "message": _prose, "line": _optional(_whole)},
    Missing: {"sounds": _words},
    Clock: {"heard": _CYCLES, "frontier": _CYCLES, "cps": _between(0.0, 100.0), "audio_state": _word,
            "audio_time": _between(0.0, 1e9), "perf_now": _between(0.0, 1e13),
            "output_latency": _optional(_between(0.0, 60.0), 0.0)},
    Pong: {"id": _whole, "t0": _number, "perf": _between(0.0, 1e13)},
    Request: {"name": _word, "value": _scalar},
}
_PAGE: dict[str, tuple[Any, dict[str, Check]]] = {cls.__name__: (cls, checks) for cls, checks in _CHECKS.items()}


def _one_of(names: Sequence[str]) -> Check:
    def check(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise WireError(f"{name} is none of {', '.join(names)}")
        return value
    return check


def _clamped(low: float, high: float) -> Check:
    return lambda value, name: min(max(_number(value, name), low), high)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise WireError(f"{name} is not true or false")
    return value


_REQUESTS: dict[str, Check] = {
    "bpm": _clamped(*RANGES["bpm"][:2]),
    "volume": _clamped(*RANGES["volume"][:2]),
    "genre": _optional(_one_of(GENRES)),
    "mode": _one_of(MODES),
    "lookahead": _one_of(LOOKAHEADS),
    "hush": _optional(_flag, True),  # false: play on
    "lead": _optional(_word),  # None: whoever moves first
}


def _checked_request(message: Request) -> Request:
    if message.name not in _REQUESTS:
        raise WireError(f"Request.name is none of {', '.join(_REQUESTS)}")
    return message._replace(value=_REQUESTS[message.name](message.value, f"Request {message.name}"))


def clamp(name: str, value: float, ranges: Mapping[str, Range] = RANGES) -> float:
    """The value inside the range of that name; raises WireError for an unknown name or a value not finite."""
    if name not in ranges:
        raise WireError(f"unknown parameter {name!r}")
    value = float(value)
    if not abs(value) < float("inf"):
        raise WireError(f"{name} is {value}")
    low, high, _ = ranges[name]
    return min(max(value, low), high)
