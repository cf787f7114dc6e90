"""What all command lines share: one line and exit code 2 for what the user can put right."""

import argparse
import sys
from collections.abc import Callable

import jax

from eqdiff_jax import paths
from eqdiff_jax.errors import InputError


class Parser(argparse.ArgumentParser):
    """One line for a wrong flag, like every other error."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def guarded(prog: str, action: Callable[[], int]) -> int:
    """The action's exit code, or 2 with one line on stderr for an InputError, OSError or MemoryError."""
    try:
        return action()
    except MemoryError as error:
        line = f"not enough memory ({error or 'none left'}): ask for less, or close other programs"
    except (InputError, OSError) as error:
        line = " ".join(str(error).split())
    print(f"{prog}: {line}", file=sys.stderr)
    return 2


def cache_compilations() -> None:
    """Keep what XLA compiles between runs."""
    jax.config.update("jax_compilation_cache_dir", str(paths.CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
