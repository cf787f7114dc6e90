"""The map file: which argument of which OSC message moves which parameter, or tells of which limb.

    [[preset]]                       # ready rows, see presets.py
    name = "zigsim"
    limb = "l_hand"                  # where the device is worn; r_hand if left out
    device = "my-phone"              # put for the * of its addresses; any if left out

    [[row]]
    address = "/1/fader1"            # * stands for anything between two slashes
    argument = 0                     # the first argument
    to = "density"                   # a parameter, or limb.<name>.<component>[.<axis>]
    low = 0.0                        # argument that gives 0, and 1; the other way round turns it
    high = 1.0
    smooth = {min_cutoff = 1.0, beta = 0.02}     # One-Euro filter, Hz and Hz per (value/s)

Components of a limb: accel and gravity (g), gyro (rad/s), position take three arguments from `argument` on,
quaternion (x y z w) four, confidence one, and one axis (accel.x) one; `scale` multiplies them, one number or three.

    python -m eqdiff_jax.live.controls zigsim > map.toml      writes a preset's rows to edit
"""

import math
import re
import sys
import tomllib
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from eqdiff_jax.errors import InputError
from eqdiff_jax.live.presets import LIMB as WORN
from eqdiff_jax.live.presets import PRESETS
from eqdiff_jax.motion.skeleton import LIMB
from eqdiff_jax.music.modulation import PARAMETERS

COMPONENTS = {"accel": "xyz", "gyro": "xyz", "gravity": "xyz", "quaternion": "xyzw", "position": "xyz",
              "confidence": ""}  # and their axes
MAX_ARGUMENT = 1023
REMEMBERED, LONGEST = 1024, 256  # addresses whose rows are known; letters of one, longer ones have none
_KEYS = {"preset": ("name", "limb", "device"),
         "row": ("address", "argument", "to", "low", "high", "scale", "smooth")}
_SMOOTH = ("min_cutoff", "beta")


class Row(NamedTuple):
    """One line of the map."""

    address: str
    argument: int
    to: str
    low: float = 0.0
    high: float = 1.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    smooth: tuple[float, float] | None = None  # min_cutoff, beta
    limb: int | None = None  # of a limb's component, else None
    component: str = ""
    axis: int | None = None  # of one axis alone


class Reading(NamedTuple):
    """What a message tells of a limb."""

    limb: int
    component: str
    axis: int | None
    values: tuple[float, ...]  # 3 (quaternion 4, confidence or one axis 1), scaled


class OneEuro:
    """A low-pass filter that opens as the signal moves: cutoff = min_cutoff + beta |speed|."""

    def __init__(self, min_cutoff: float, beta: float):
        self.min_cutoff, self.beta = min_cutoff, beta
        self._time, self._value, self._speed = -math.inf, 0.0, 0.0

    def __call__(self, now: float, value: float) -> float:
        """The smoothed value at `now`."""
        passed = now - self._time
        self._time = now
        if not passed < 1.0:  # the first, or after a pause
            self._value, self._speed = value, 0.0
        elif passed > 0.0:
            self._speed += self._share(passed, 1.0) * ((value - self._value) / passed - self._speed)
            self._value += self._share(passed, self.min_cutoff + self.beta * abs(self._speed)) * (value - self._value)
        return self._value

    @staticmethod
    def _share(passed: float, cutoff: float) -> float:
        return 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff * passed))


class Controls:
    """The rows at work. `values` holds the latest of each parameter, in 0..1."""

    def __init__(self, rows: Sequence[Row] = ()):
        self.values: dict[str, float] = {}
        self.rows = tuple(rows)
        self._patterns = [re.compile("[^/]*".join(map(re.escape, row.address.split("*")))) for row in self.rows]
        self._filters = {i: OneEuro(*row.smooth) for i, row in enumerate(self.rows) if row.smooth is not None}
        self._matching: dict[str, tuple[int, ...]] = {}

    def take(self, address: str, args: Sequence, now: float) -> list[Reading]:
        """One message in: parameters move, and what it tells of limbs is given back. Nothing is raised."""
        indices = self._matching.get(address[:LONGEST + 1])
        if indices is None:
            if len(self._matching) >= REMEMBERED:
                self._matching.clear()
            known = len(address) <= LONGEST
            indices = tuple(i for i, pattern in enumerate(self._patterns) if known and pattern.fullmatch(address))
            self._matching[address[:LONGEST + 1]] = indices
        readings = []
        for i in indices:
            row = self.rows[i]
            count = 1 if row.limb is None or row.axis is not None else max(len(COMPONENTS[row.component]), 1)
            values = args[row.argument:row.argument + count]
            if len(values) < count or any(type(value) not in (float, int, bool) for value in values):
                continue
            if row.limb is not None:
                scale = row.scale[row.axis:] if row.axis is not None and row.axis < 3 else row.scale
                scaled = tuple(float(value) * factor for value, factor in zip(values, (*scale, 1.0), strict=False))
                readings.append(Reading(row.limb, row.component, row.axis, scaled))
                continue
            value = min(max((float(values[0]) - row.low) / (row.high - row.low), 0.0), 1.0)
            self.values[row.to] = self._filters[i](now, value) if i in self._filters else value
        return readings


def load_map(path: str | Path) -> tuple[Row, ...]:
    """The rows of a map file, or of the preset of that name. Raises InputError as `parse_map`, or for no such file."""
    name = str(path)
    if name in PRESETS and not Path(path).exists():
        return parse_map(f'[[preset]]\nname = "{name}"\n', name)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: cannot be read ({why}); give a map file or one of {', '.join(PRESETS)}") from None
    return parse_map(text, name)


def parse_map(text: str, source: str = "map", parameters: Collection[str] = tuple(PARAMETERS)) -> tuple[Row, ...]:
    """The rows of a map, those of its presets first.

    Raises InputError: one line that names the line, the key and, for a misspelt name, the nearest one there is.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not TOML ({error}); mend that line") from None
    rows: list[Row] = []
    for kind, entries in tables.items():
        _known(kind, _KEYS, f"{source}, line {_line(text, kind)}: the table")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{source}, line {_line(text, kind)}: {kind} is no list of tables; write [[{kind}]]")
    for number, entry in enumerate(tables.get("preset", [])):
        where = _Place(text, source, "preset", number)
        where.check(entry, _KEYS["preset"], needed=("name",))
        _known(entry["name"], PRESETS, f"{where('name')}: the preset")
        limb = entry.get("limb", WORN)
        _known(limb, LIMB, f"{where('limb')}: the limb")
        for row in PRESETS[entry["name"]]:
            address = row["address"].replace("*", where.text(entry, "device", "*"))
            rows.append(_row(row | {"address": address, "to": row["to"].format(limb=limb)}, where, parameters))
    for number, entry in enumerate(tables.get("row", [])):
        rows.append(_row(entry, _Place(text, source, "row", number), parameters))
    return tuple(rows)


class _Place(NamedTuple):
    """One table of a map file, to say where something is wrong."""

    file: str
    source: str
    kind: str
    number: int

    def __call__(self, key: str | None = None) -> str:
        line = _line(self.file, self.kind, self.number, key)
        return f"{self.source}, line {line}" if line else f"{self.source}, {self.kind} {self.number + 1}"

    def check(self, entry: dict[str, Any], keys: Sequence[str], needed: Sequence[str]) -> None:
        for key in entry:
            _known(key, keys, f"{self(key)}: the key")
        for key in needed:
            if key not in entry:
                raise InputError(f"{self()}: a {self.kind} needs {key!r}; add {key} = ...")

    def text(self, entry: dict[str, Any], key: str, default: str = "") -> str:
        if not isinstance(value := entry.get(key, default), str) or not value:
            raise InputError(f"{self(key)}: {key} = {value!r} is no text; put it in quotes")
        return value

    def value(self, value: Any, key: str, low: float = -math.inf, high: float = math.inf, under: str = "") -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            span = "" if low == -math.inf else f" from {low:g}" + (f" to {high:g}" if high < math.inf else " on")
            raise InputError(f"{self(under or key)}: {key} = {value!r} is no number{span}; give one")
        return float(value)


def _row(entry: dict[str, Any], where: _Place, parameters: Collection[str]) -> Row:
    where.check(entry, _KEYS["row"], needed=("address", "argument", "to"))
    address, to = where.text(entry, "address"), where.text(entry, "to")
    if not address.startswith("/"):
        raise InputError(f"{where('address')}: address {address!r} does not start with /; write {'/' + address!r}")
    if any(part.count("*") > 1 for part in address.split("/")):  # one alone is matched in a time linear in its length
        raise InputError(f"{where('address')}: address {address!r} has two * between slashes; leave one")
    argument = where.value(entry["argument"], "argument", 0, MAX_ARGUMENT)
    if argument != int(argument):
        raise InputError(f"{where('argument')}: argument = {argument:g} is no whole number; 0 is the first argument")
    low, high = (where.value(entry.get(key, default), key) for key, default in (("low", 0.0), ("high", 1.0)))
    if low == high:
        key = "high" if "high" in entry else "low"
        raise InputError(f"{where(key)}: low and high are both {low:g}; give the range of the argument")
    factors = entry.get("scale", 1.0)
    factors = factors if isinstance(factors, list) and len(factors) == 3 else [factors] * 3
    scale = tuple(where.value(factor, "scale") for factor in factors)
    smooth = None
    if "smooth" in entry:
        if not isinstance(entry["smooth"], dict):
            raise InputError(f"{where('smooth')}: smooth is no table; write smooth = {{min_cutoff = 1.0, beta = 0.02}}")
        for key in entry["smooth"]:
            _known(key, _SMOOTH, f"{where('smooth')}: the key")
        smooth = (where.value(entry["smooth"].get("min_cutoff", 1.0), "min_cutoff", 1e-3, under="smooth"),
                  where.value(entry["smooth"].get("beta", 0.0), "beta", 0.0, under="smooth"))
    row = Row(address, int(argument), to, low, high, (scale[0], scale[1], scale[2]), smooth)
    if not to.startswith("limb."):
        _known(to, parameters, f"{where('to')}: the parameter")
        return row
    _, limb, component, axis, *rest = (*to.split("."), "", "", "")
    _known(limb, LIMB, f"{where('to')}: the limb")
    _known(component, COMPONENTS, f"{where('to')}: the component")
    if any(rest) or axis not in ("", *COMPONENTS[component]):
        axes = ", ".join(f".{name}" for name in COMPONENTS[component])
        fix = f"write limb.{limb}.{component}" + (f" or one of {axes} after it" if axes else "")
        raise InputError(f"{where('to')}: {to!r} has no such axis; {fix}")
    return row._replace(limb=LIMB[limb], component=component,
                        axis=COMPONENTS[component].index(axis) if axis else None)


def _known(name: Any, names: Collection[str], what: str) -> None:
    """Raises InputError, with the nearest name, unless `name` is one of `names`."""
    if isinstance(name, str) and name in names and name:
        return
    near = get_close_matches(str(name), list(names), 1, 0.5)
    fix = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"
    raise InputError(f"{what} {name!r} is unknown; {fix}")


def _line(text: str, kind: str, number: int = 0, key: str | None = None) -> int:
    """Line of a table of that kind, or of a key in it; 0 where it is written in another way."""
    seen, start = -1, 0
    for i, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[\[?\s*{re.escape(kind)}\s*\]|\s*{re.escape(kind)}\s*=", line):
            seen, start = seen + 1, i if seen + 1 == number else start
        if start and key is not None and seen == number and re.match(rf"\s*[\"']?{re.escape(key)}\b", line):
            return i
    return start


def to_toml(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of presets.py as the text of a map file."""
    def value(x: Any) -> str:
        if isinstance(x, dict):
            return "{" + ", ".join(f"{key} = {value(y)}" for key, y in x.items()) + "}"
        return f'"{x}"' if isinstance(x, str) else str(x)
    return "\n".join("[[row]]\n" + "".join(f"{key} = {value(x)}\n" for key, x in row.items()) for row in rows)


def main(args: Sequence[str]) -> None:
    """Prints a preset's rows."""
    if len(args) != 1 or args[0] not in PRESETS:
        raise SystemExit(f"give one preset: {', '.join(PRESETS)}")
    print(to_toml([row | {"to": row["to"].format(limb=WORN)} for row in PRESETS[args[0]]]), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
