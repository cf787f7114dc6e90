"""Train a denoiser: --config=tiny --workdir=runs/tiny"""

import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from eqdiff_jax import paths
from eqdiff_jax.errors import InputError
from eqdiff_jax.parallel import join
from eqdiff_jax.shell import guarded
from eqdiff_jax.training import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment: tiny, default, roformer_86m, or a file; override "
                                         "a field with --config.field=value.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints/, metrics.jsonl and config.json; run again "
                              "with the same one to resume.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Several hosts: HOST:PORT of process 0, the same on all, or "
                                  "'auto' under Slurm or on a TPU pod.")
PROCESSES = flags.DEFINE_integer("processes", 1, "Several hosts: how many processes there are.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", 0, "Several hosts: which of them this is, from 0.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Check the flags, then train."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: flags are --config=FILE --workdir=DIR")
    if CONFIG.value is None or WORKDIR.value is None:
        raise InputError("give both: --config=tiny (or a file) --workdir=DIR")
    if COORDINATOR.value is None and PROCESSES.value > 1:
        raise InputError("--processes needs --coordinator=HOST:PORT, the address of process 0")
    if PROCESS.value >= PROCESSES.value:
        raise InputError(f"--process is {PROCESS.value}: with --processes={PROCESSES.value} use 0 .. "
                         f"{PROCESSES.value - 1}")
    logging.set_verbosity(logging.WARNING)  # orbax narrates every file it writes
    if COORDINATOR.value is not None:
        join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    train_and_evaluate(CONFIG.value, WORKDIR.value)


def named(argument: str) -> str:
    """--config=NAME as the file of that config; anything else as it is. Raises InputError for no such config."""
    flag, equals, value = argument.partition("=")
    if flag.lstrip("-") != "config" or not equals or os.path.isfile(value):
        return argument
    file = paths.CONFIGS / f"{value}.py"
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in paths.CONFIGS.glob("[a-z]*.py")))
        raise InputError(f"{value}: no such config file; those that come along are {names}, as in --config=tiny")
    return f"{flag}={file}"


def _parse(argv: list[str]) -> list[str]:
    """absl's parsing, with everything a config file or an override can do wrong as one InputError."""
    if str(paths.ROOT) not in sys.path:
        sys.path.append(str(paths.ROOT))  # configs build on each other
    argv = [named(argument) for argument in argv]
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, SyntaxError, ImportError) as error:
        raise InputError(f"cannot use the flags or the config file ({error}); see --help and configs/") from error


def run(prog: str = "eqdiff-train") -> None:
    """Command line with one clear line and exit code 2 for what the user can put right."""
    def train() -> int:
        app.run(main, flags_parser=_parse)
        return 0

    sys.exit(guarded(prog, train))
