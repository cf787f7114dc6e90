"""Train a denoiser: python train.py --config=configs/tiny.py --workdir=runs/tiny"""

import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from eqdiff_jax.errors import InputError
from eqdiff_jax.parallel import join
from eqdiff_jax.training import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file of configs/; override a field with "
                                         "--config.field=value.")
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
    files = [a.partition("=")[2] for a in sys.argv[1:] if a.startswith(("--config=", "-config="))]
    missing = next((file for file in files if not os.path.isfile(file)), None)
    if missing is not None:
        raise InputError(f"{missing}: no such config file; those that come along are in configs/")
    if CONFIG.value is None or WORKDIR.value is None:
        raise InputError("give both: --config=configs/tiny.py --workdir=DIR")
    if COORDINATOR.value is None and PROCESSES.value > 1:
        raise InputError("--processes needs --coordinator=HOST:PORT, the address of process 0")
    if PROCESS.value >= PROCESSES.value:
        raise InputError(f"--process is {PROCESS.value}: with --processes={PROCESSES.value} use 0 .. "
                         f"{PROCESSES.value - 1}")
    logging.set_verbosity(logging.WARNING)  # orbax narrates every file it writes
    if COORDINATOR.value is not None:
        join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    train_and_evaluate(CONFIG.value, WORKDIR.value)


def _parse(argv: list[str]) -> list[str]:
    """absl's parsing, with everything a config file or an override can do wrong as one InputError."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, SyntaxError, ImportError) as error:
        raise InputError(f"cannot use the flags or the config file ({error}); see --help and configs/") from error


def run() -> None:
    """Command line with one clear line and exit code 2 for what the user can put right."""
    try:
        app.run(main, flags_parser=_parse)
    except (InputError, OSError) as error:
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
