"""train_and_evaluate, as train.py calls it: it learns, resumes exactly, exports, refuses."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny

from eqdiff_jax.errors import InputError
from eqdiff_jax.training import checkpoint, train_and_evaluate
from eqdiff_jax.training.score import score

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    return root, train_and_evaluate(tiny(root / "data"), root / "work")


def test_it_writes_what_it_promises_and_learns(trained):
    root, state = trained
    rows = [json.loads(line) for line in (root / "work" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [2, 4, 6] and int(state.step) == 6
    assert rows[-1]["loss"] < rows[0]["loss"] and "validation_bits" in rows[-1]
    assert json.loads((root / "work" / "config.json").read_text())["width"] == 64
    assert {"checkpoints", "weights"} <= {p.name for p in (root / "work").iterdir()}


def test_resuming_gives_the_same_bits_as_never_stopping(trained, tmp_path):
    root, state = trained
    half = tmp_path / "half"
    config = tiny(root / "data")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(config, half, after=4)
    resumed = train_and_evaluate(config, half)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    logs = [(p / "metrics.jsonl").read_text().splitlines() for p in (root / "work", half)]
    losses = [[(json.loads(x)["step"], json.loads(x)["loss"]) for x in log] for log in logs]
    assert losses[0] == losses[1]


def _interrupted(config, workdir, after):
    """A run killed right after the checkpoint at step `after`."""
    real = checkpoint.save

    def save(checkpoints, state):
        real(checkpoints, state)
        if int(state.step) == after:
            checkpoints.close()
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        train_and_evaluate(config, workdir)


KILLS = 6  # at most
RUN = """
import sys; sys.path.insert(0, "tests")
import jax
from eqdiff_jax.parallel import join
data, workdir, changes, process = sys.argv[1], sys.argv[2], eval(sys.argv[3]), int(sys.argv[4])
if process >= 0:
    join(sys.argv[5], 2, process)
from tiny import tiny
from eqdiff_jax.training import train_and_evaluate
train_and_evaluate(tiny(data, **changes), workdir)
"""


def start(data_dir, workdir, *, devices=1, process=-1, address="", **changes):
    """The tiny run in a process of its own; process 0 or 1 of two that meet at the address. Compiles what is new."""
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu",
           "JAX_COMPILATION_CACHE_DIR": str(data_dir.parent / "cache"),
           "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(data_dir), str(workdir), repr(changes), str(process),
                             address], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def losses(workdir):
    return [json.loads(line)["loss"] for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def test_the_trace_is_that_of_one_device_on_eight_on_two_processes_of_four_and_in_pieces(trained, tmp_path):
    root, _ = trained
    expected = losses(root / "work")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    runs = [start(root / "data", tmp_path / "eight", devices=8)]
    runs += [start(root / "data", tmp_path / "two", devices=4, process=i, address=address) for i in (0, 1)]
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors[-2000:]
    train_and_evaluate(tiny(root / "data", accumulate=4, remat=True), tmp_path / "pieces")
    for name in ("eight", "two", "pieces"):
        np.testing.assert_allclose(losses(tmp_path / name), expected, rtol=1e-4)
    assert (tmp_path / "two" / "weights" / "model.json").is_file()


def test_killed_at_random_moments_the_trace_is_the_same_to_the_bit(trained, tmp_path):
    """kill -9 while importing, compiling, stepping, saving: whatever is there at the next start is gone on from."""
    root, _ = trained
    changes = {"steps": 40, "log_every": 1, "checkpoint_every": 1, "validate_every": 40}
    train_and_evaluate(tiny(root / "data", **changes), tmp_path / "whole")
    rng, kills = np.random.default_rng(0), 0
    while True:
        run = start(root / "data", tmp_path / "cut", **changes)
        try:
            _, errors = run.communicate(timeout=float(rng.uniform(4.0, 10.0)) if kills < KILLS else 300)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.communicate()
            kills += 1
            continue
        assert run.returncode == 0, errors[-2000:]
        break
    assert kills > 0
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_goes_on(trained, tmp_path, capsys):
    root, state = trained
    shutil.copytree(root / "work", tmp_path / "work", ignore=shutil.ignore_patterns("weights"))
    newest = tmp_path / "work" / "checkpoints" / "6"
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    flipped = bytearray(victim.read_bytes())
    flipped[len(flipped) // 2] ^= 1  # one bit, which orbax does not notice
    victim.write_bytes(flipped)
    resumed = train_and_evaluate(tiny(root / "data"), tmp_path / "work")
    assert "checkpoint 6 is damaged" in capsys.readouterr().err
    assert losses(tmp_path / "work") == losses(root / "work")
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert list((tmp_path / "work" / "damaged").iterdir())


def test_a_disk_that_takes_no_more_loses_nothing(trained, tmp_path):
    """A limit on the size of files stands for the full disk: the run ends in one line, the old checkpoint goes on."""
    root, _ = trained
    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tiny(root / "data"), half, after=4)
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
    limited = RUN.replace("from tiny", limit + "from tiny")
    run = subprocess.run([sys.executable, "-c", limited, str(root / "data"), str(half), "{}", "-1"], cwd=ROOT,
                         capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert run.returncode != 0 and "InputError" in run.stderr and "could not be written" in run.stderr, run.stderr
    train_and_evaluate(tiny(root / "data"), half)
    assert losses(half) == losses(root / "work")


def test_a_broken_record_is_named(trained, tmp_path):
    root, _ = trained
    shutil.copytree(root / "data", tmp_path / "data")
    victim = next((tmp_path / "data").rglob("*train.array_record*"))
    broken = bytearray(victim.read_bytes())
    for i in range(1000, len(broken) - 1000, 500):
        broken[i] ^= 255
    victim.write_bytes(broken)
    with pytest.raises(InputError, match="the train split cannot be read .*delete that folder"):
        train_and_evaluate(tiny(tmp_path / "data"), tmp_path / "work")


def test_previews_are_drawn_and_written(trained, tmp_path):
    root, _ = trained
    train_and_evaluate(tiny(root / "data", steps=2, sample_every=2), tmp_path / "work")
    assert {p.name for p in (tmp_path / "work" / "samples").iterdir()} == {"0000002.png", "0000002.mid"}


def test_a_workdir_of_another_config_is_refused(trained):
    root, _ = trained
    with pytest.raises(InputError, match="belongs to another run .width differ.: use another --workdir"):
        train_and_evaluate(tiny(root / "data", width=128), root / "work")


@pytest.mark.parametrize(("change", "says"), [
    ({"data": "nosuch"}, "unknown data config"), ({"width": 100}, "width 100"), ({"patch": 3}, "patch 3"),
    ({"dtype": "int8"}, "int8"), ({"steps": 0}, "steps is 0"),
    ({"loss": "mse"}, "unknown loss .mse.: choose one of score_"),
    ({"solver": "newton"}, "unknown solver .newton.: choose one of anderson"),
    ({"accumulate": 3}, "batch 8 is not a positive multiple of 3"), ({"checkpoint_every": 3}, "checkpoint_every 3")])
def test_a_config_that_cannot_work_is_refused_before_anything_is_written(tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        train_and_evaluate(tiny(tmp_path / "data", **change), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_torn_log_row_is_dropped(tmp_path):
    from eqdiff_jax.training.loop import _drop_rows_after
    (tmp_path / "m.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"step": 2')
    _drop_rows_after(tmp_path / "m.jsonl", 15)
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 10}\n'


def test_batch_that_does_not_split_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(InputError, match="batch 8 is not a positive multiple of 3"):
        train_and_evaluate(tiny(tmp_path), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_weights_folder_and_unfinished_workdir_load_to_the_same_network(trained, tmp_path):
    root, state = trained
    for name in ("checkpoints", "config.json", "statistics.json"):
        (tmp_path / name).symlink_to(root / "work" / name)
    small, full = checkpoint.load(root / "work" / "weights"), checkpoint.load(tmp_path)
    assert jax.tree.structure(small) == jax.tree.structure(full)
    for a, b, c in zip(jax.tree.leaves(small["denoiser"]), jax.tree.leaves(full["denoiser"]),
                       jax.tree.leaves(state.ema["denoiser"]), strict=True):
        np.testing.assert_array_equal(b, c)
        np.testing.assert_allclose(a, b, rtol=2**-8)  # bfloat16 keeps 8 bits
    np.testing.assert_array_equal(small["motion"].dell.w_in, full["motion"].dell.w_in)
    (tmp_path / "statistics.json").unlink()
    with pytest.raises(InputError, match="statistics.json cannot be read"):
        checkpoint.load(tmp_path)


def test_scoring_counts_every_example_once(trained):
    root, state = trained
    rng = np.random.default_rng(0)
    columns = {"tokens": np.zeros((12, 12, 32), np.int32), "conditioning": np.float32(rng.normal(size=(12, 104)))}
    whole = score(jax.random.key(0), state.ema, columns, draws=2, batch=4)
    short = score(jax.random.key(0), state.ema, {name: x[:11] for name, x in columns.items()}, draws=2, batch=4)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(short, whole[:11], rtol=1e-6)  # the last batch is padded, then cut
