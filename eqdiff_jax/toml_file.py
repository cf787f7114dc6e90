"""TOML files that a person edits: read and checked, every slip one line with what to write instead."""

import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from eqdiff_jax.errors import InputError


def text_of(path: str | Path, what: str) -> str:
    """The text of a file of `what`. Raises InputError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of {what}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; give a file of {what}") from None


def tables(text: str, name: str, module: str) -> dict[str, Any]:
    """What the text of the file `name` says; `module` prints an example of one. Raises InputError."""
    try:
        return tomllib.loads(text + "\n")  # else an error in the last line has no number
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, numbers of thousands of digits, deep nesting
        raise InputError(f"{name}: not TOML, {str(error).splitlines()[0]}; compare with the file that `python -m "
                         f"{module}` prints") from None


def choose(what: str, given: object, names: Collection[str]) -> str:
    """`given`, if it is one of the names. Raises InputError."""
    if isinstance(given, str) and given in names:
        return given
    near = get_close_matches(str(given), names, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
    raise InputError(f"{what} {given!r} is unknown; {hint}")


def number(where: str, key: str, given: object, low: float, high: float) -> float:
    """`given`, if it is a number from low to high. Raises InputError."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not low <= given <= high:
        raise InputError(f"{where}: {key} is {given!r}; write a number from {low:g} to {high:g}")
    return float(given)
