"""train.py as a researcher calls it: one clear line and exit code 2 for what cannot work."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("flags", "says"), [
    (["--config=configs/tiny.py"], "give both"),
    (["--config=configs/nothing.py"], "configs/nothing.py: no such config file"),
    (["--config=tiny"], "give both"),
    (["--config=tyny", "--workdir={dir}"], "those that come along are default, roformer_86m, tiny"),
    (["--config=configs/tiny.py", "--config.nosuch=1"], "nosuch"),
    (["--config=configs/tiny.py", "--config.width=100", "--workdir={dir}"], "width 100"),
    (["--config=configs/tiny.py", "--workdir={dir}", "stray"], "stray"),
])
def test_bad_flags(flags, says, tmp_path):
    flags = [flag.format(dir=tmp_path / "run") for flag in flags]
    run = subprocess.run([sys.executable, "train.py", *flags], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("train.py: ") and says in run.stderr
    assert not list(tmp_path.iterdir())
