"""Modulation (v2): the 15 scalars of movement drive parameters of the sound, through mappings a person can edit.

    scalar -> its place u in [0, 1] -> one-pole smoothing -> curve f -> low + (high - low) f(u) -> clamped

A parameter is of one of two kinds. An `event` parameter is read by the code that plays (live/code.py prints it as
`param('density', 1)`); a `bus` parameter moves an audio control of the page (gain, pan, lpf, hpf, room) on some
tracks, or on all of them together. At its default a parameter leaves the grid as it is.

    python -m eqdiff_jax.music.modulation > mappings.toml      writes the default mappings to edit
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from eqdiff_jax import toml_file
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.types import Dynamics


class Parameter(NamedTuple):
    """What a mapping may move: `low <= value <= high` always."""

    low: float
    high: float
    default: float  # leaves the grid's events, or the bus, as they are
    kind: str  # "event" or "bus"
    control: str  # of a bus: gain (factor), pan (-1 left .. 1 right), lpf or hpf (Hz), room (send level)
    tracks: tuple[str, ...]  # that it acts on, names of grid.TRACKS; none: on the master bus
    text: str  # what a listener hears when it rises


_PITCHED = ("BASS", "PAD", "LEAD", "STAB", "ARP", "VOX", "AMB")
_CHORDS = ("PAD", "LEAD", "STAB", "ARP", "VOX", "AMB")
_RHYTHM = ("KICK", "SNARE", "HH", "CLAP", "BASS", "LEAD", "STAB", "ARP", "FX", "VOX")

# No two parameters move the same control of one track, so that a page never has to combine them.
PARAMETERS: dict[str, Parameter] = {
    "density": Parameter(0.25, 1.0, 1.0, "event", "", _RHYTHM, "more notes: the weak sixteenths come back"),
    "range": Parameter(0.0, 1.0, 0.0, "event", "", _PITCHED, "wider lines: outer notes leap an octave"),
    "dissonance": Parameter(0.0, 1.0, 0.0, "event", "", _CHORDS, "more notes get a rough neighbour"),
    "stability": Parameter(0.0, 1.0, 1.0, "event", "", ("SNARE", "HH", "CLAP", "FX", *_PITCHED),
                           "bars more alike, fewer notes a sixteenth late"),
    "length": Parameter(0.3, 1.0, 1.0, "event", "", _PITCHED, "longer notes, from staccato to as written"),
    "hats": Parameter(0.0, 1.0, 0.0, "event", "", ("HH",), "more hi-hats struck twice"),
    "bass_gain": Parameter(0.5, 1.4, 1.0, "bus", "gain", ("KICK", "BASS"), "more kick and bass"),
    "drums_gain": Parameter(0.5, 1.3, 1.0, "bus", "gain", ("SNARE", "HH", "CLAP", "FX"), "louder drums, kick aside"),
    "pads_gain": Parameter(0.4, 1.4, 1.0, "bus", "gain", ("PAD", "AMB"), "louder pads"),
    "pump_gain": Parameter(0.2, 1.0, 1.0, "bus", "gain", ("STAB", "ARP", "VOX"), "less ducking"),
    "pan": Parameter(-0.8, 0.8, 0.0, "bus", "pan", ("HH", "LEAD", "STAB", "ARP", "FX"), "to the right"),
    "lead_lpf": Parameter(500.0, 18000.0, 18000.0, "bus", "lpf", ("LEAD", "ARP"), "brighter melody"),
    "lift_hpf": Parameter(20.0, 1200.0, 20.0, "bus", "hpf", _CHORDS, "thinner chords, the lows lifted out"),
    "room": Parameter(0.0, 0.8, 0.0, "bus", "room", ("SNARE", "CLAP", "FX", *_CHORDS), "more room"),
    "master_lpf": Parameter(300.0, 18000.0, 18000.0, "bus", "lpf", (), "brighter sound"),
    "master_gain": Parameter(0.3, 1.0, 1.0, "bus", "gain", (), "louder"),
}


class Curve(NamedTuple):
    """A monotone map of [0, 1] onto itself."""

    at: Callable[[float], float]
    slope: float  # the largest there is


_BEND = 30.0  # how far exp and log bend: their largest slope is 3.5 and 8.7
CURVES: dict[str, Curve] = {
    "linear": Curve(lambda u: u, 1.0),
    "exp": Curve(lambda u: math.expm1(u * math.log1p(_BEND)) / _BEND, (1.0 + _BEND) * math.log1p(_BEND) / _BEND),
    "log": Curve(lambda u: math.log1p(_BEND * u) / math.log1p(_BEND), _BEND / math.log1p(_BEND)),
    "s": Curve(lambda u: u * u * (3.0 - 2.0 * u), 1.5),
}


class Mapping(NamedTuple):
    """One scalar moves one parameter."""

    source: str  # a field of Dynamics
    parameter: str  # a name of PARAMETERS
    low: float  # value at the scalar's lowest; may be above `high`
    high: float  # value at its highest
    curve: str  # a name of CURVES
    smoothing: float  # s, time constant; 0 follows at once


DEFAULT_MAPPINGS = (
    Mapping("periodicity", "density", 0.5, 1.0, "linear", 0.5),
    Mapping("curvature", "range", 0.0, 1.0, "s", 0.5),
    Mapping("tension", "dissonance", 0.0, 0.7, "exp", 1.0),
    Mapping("grounding", "bass_gain", 0.7, 1.25, "linear", 0.1),
    Mapping("prediction_confidence", "stability", 0.3, 1.0, "log", 1.0),
    Mapping("speed", "master_gain", 0.6, 1.0, "log", 0.05),
    Mapping("energy", "pads_gain", 1.3, 0.7, "linear", 0.1),
    Mapping("speed", "master_lpf", 5000.0, 18000.0, "log", 0.05),
    Mapping("acceleration", "drums_gain", 0.75, 1.2, "log", 0.05),
    Mapping("lr_pan", "pan", -0.7, 0.7, "linear", 0.2),
    Mapping("verticality", "lift_hpf", 20.0, 600.0, "exp", 0.3),
    Mapping("coherence", "length", 0.4, 1.0, "log", 1.0),
    Mapping("transition_intensity", "room", 0.0, 0.6, "linear", 0.5),
    Mapping("curvature_rate", "lead_lpf", 900.0, 18000.0, "exp", 0.05),
    Mapping("internal_tempo", "hats", 0.0, 0.8, "exp", 2.0),
    Mapping("phase", "pump_gain", 0.5, 1.0, "linear", 0.05),
)
MAX_SMOOTHING = 60.0  # s


class ModulationState(NamedTuple):
    """Carried from step to step: the smoothed place u in [0, 1] of each mapping's scalar, None before the first."""

    places: tuple[float | None, ...]


def initial_state(mappings: Sequence[Mapping] = DEFAULT_MAPPINGS) -> ModulationState:
    """State before the first step."""
    return ModulationState((None,) * len(mappings))


def step(state: ModulationState, dynamics: Dynamics[float], dt: float,
         mappings: Sequence[Mapping] = DEFAULT_MAPPINGS) -> tuple[ModulationState, dict[str, float]]:
    """The parameters now: {parameter: value}, each finite and inside its range, whatever the scalars are.

    Args:
      state: from `initial_state(mappings)` or the step before.
      dynamics: of this moment, `phase` as the beat's phase in [0, 1). A scalar that is not finite counts as unchanged.
      dt: seconds since the step before. Smoothing is exact in it: two steps with the same scalars are one of both.
    """
    dt = dt if math.isfinite(dt) and dt > 0.0 else 0.0
    places, values = [], {}
    for mapping, old in zip(mappings, state.places, strict=True):
        u = place(mapping.source, float(getattr(dynamics, mapping.source)))
        if u is None:
            u = old
        elif old is not None and mapping.smoothing > 0.0:
            u = old - math.expm1(-dt / mapping.smoothing) * (u - old)
        places.append(u)
        values[mapping.parameter] = PARAMETERS[mapping.parameter].default if u is None else value(mapping, u)
    return ModulationState(tuple(places)), values


def place(source: str, scalar: float) -> float | None:
    """Where a scalar lies in its range, 0 to 1; None if it is not finite.

    The beat's phase counts as 0.5 (1 - cos 2 pi phase): 0 on the beat, 1 between two, without a jump.
    """
    if not math.isfinite(scalar):
        return None
    if source == "phase":
        return 0.5 - 0.5 * math.cos(2.0 * math.pi * (scalar % 1.0))
    row = getattr(TABLE, source)
    return min(max((scalar - row.low) / (row.high - row.low), 0.0), 1.0)


def value(mapping: Mapping, u: float) -> float:
    """The parameter where the scalar's place is u in [0, 1], inside the parameter's range."""
    row = PARAMETERS[mapping.parameter]
    moved = mapping.low + (mapping.high - mapping.low) * CURVES[mapping.curve].at(u)
    return min(max(moved, row.low), row.high)


def lipschitz(mapping: Mapping) -> float:
    """L with |value(a) - value(b)| <= L |a - b| for any two values of the scalar (of the phase: along its circle)."""
    row = getattr(TABLE, mapping.source)
    spread = math.pi if mapping.source == "phase" else 1.0 / (row.high - row.low)
    return abs(mapping.high - mapping.low) * CURVES[mapping.curve].slope * spread


def parse_mappings(text: str, name: str = "mappings") -> tuple[Mapping, ...]:
    """The mappings that a TOML text says, one line each; a parameter without a line stays at its default.

        density = { source = "periodicity", low = 0.5, high = 1.0, curve = "linear", smoothing = 0.5 }

    `low` and `high` are the parameter's own range if left out, `curve` is linear, `smoothing` 0.2 s.

    Raises:
      InputError: one line with `name`, the line or the key, and what to write instead.
    """
    rows = toml_file.tables(text, name, "eqdiff_jax.music.modulation")
    return tuple(_mapping(name, parameter, row) for parameter, row in rows.items())


def load(path: str | Path) -> tuple[Mapping, ...]:
    """The mappings of a file; see `parse_mappings`. Raises InputError."""
    return parse_mappings(toml_file.text_of(path, "mappings"), str(path))


def _mapping(name: str, parameter: str, row: object) -> Mapping:
    """One line of the file, checked."""
    toml_file.choose(f"{name}: parameter", parameter, PARAMETERS)
    where = f"{name}, {parameter}"
    if not isinstance(row, dict):
        raise InputError(f'{where}: {row!r} is no mapping; write {{ source = "energy", low = 0, high = 1 }}')
    for key in row:
        toml_file.choose(f"{where}: key", key, ("source", *Mapping._fields[2:]))
    if "source" not in row:
        raise InputError(f'{where}: says no source; add source = "energy" or another scalar of the movement')
    limits = PARAMETERS[parameter]
    numbers = [toml_file.number(where, key, row.get(key, default), low, high)
               for key, default, low, high in (
        ("low", limits.low, limits.low, limits.high), ("high", limits.high, limits.low, limits.high),
        ("smoothing", 0.2, 0.0, MAX_SMOOTHING))]
    source = toml_file.choose(f"{where}: source", row["source"], Dynamics._fields)
    return Mapping(source, parameter, numbers[0], numbers[1],
                   toml_file.choose(f"{where}: curve", row.get("curve", "linear"), CURVES), numbers[2])


_HEAD = """\
# What of the movement moves what of the sound: one line per parameter. Delete a line and its parameter stays as it is.
#   source     {scalars}
#   low, high  the parameter at the scalar's lowest and highest; low may be above high
#   curve      linear, exp (slow at first), log (fast at first), s (slow at both ends)
#   smoothing  seconds, 0 to {seconds:g}
"""


def format_mappings(mappings: Sequence[Mapping] = DEFAULT_MAPPINGS) -> str:
    """The mappings as TOML that a person can edit; `parse_mappings` gives them back."""
    names = list(Dynamics._fields)
    scalars = ("\n" + "#".ljust(15)).join(", ".join(names[i:i + 5]) for i in range(0, len(names), 5))
    lines = []
    for m in mappings:
        row = PARAMETERS[m.parameter]
        low, high, seconds = map(_shortest, (m.low, m.high, m.smoothing))
        lines.append(f"\n# {row.low:g} to {row.high:g}, by itself {row.default:g}; higher: {row.text}\n"
                     f'{m.parameter} = {{ source = "{m.source}", low = {low}, high = {high}, curve = "{m.curve}", '
                     f"smoothing = {seconds} }}")
    return _HEAD.format(scalars=scalars, seconds=MAX_SMOOTHING) + "\n".join(lines) + "\n"


def _shortest(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def mapping_table(mappings: Sequence[Mapping] = DEFAULT_MAPPINGS) -> str:
    """The mappings as a table in Markdown, for the documentation."""
    head = ("movement", "parameter", "kind", "from", "to", "seconds", "curve", "where", "higher means")
    rows: list[Sequence[str]] = [head, ["---"] * len(head)]
    for m in mappings:
        row = PARAMETERS[m.parameter]
        kind = f"{row.kind} {row.control}".strip()
        where = " ".join(row.tracks) or "master"
        numbers = map(_shortest, (m.low, m.high, m.smoothing))
        rows.append((m.source, f"`{m.parameter}`", kind, *numbers, m.curve, where, row.text))
    return "\n".join(f"| {' | '.join(line)} |" for line in rows)


if __name__ == "__main__":
    print(format_mappings(), end="")
