"""train_and_evaluate, as train.py calls it: it learns, resumes exactly, exports, refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from eqdiff_jax.errors import InputError
from eqdiff_jax.training import checkpoint, evaluate_nelbo, train_and_evaluate
from eqdiff_jax.training.evaluate import code_length, mixture_bits, nearest, unigram

ROOT = Path(__file__).parents[2]


def tiny(data_dir, **changes):
    spec = importlib.util.spec_from_file_location("tiny", ROOT / "configs" / "tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.update({"data_dir": str(data_dir), "steps": 6, "batch": 8, "log_every": 2, "checkpoint_every": 2,
                   "validate_every": 6, "validate_size": 8, "warmup_steps": 2, "depth": 1, **changes})
    return config


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


def test_eight_devices_follow_the_same_law(trained, tmp_path):
    """The same program on 8 forced host devices runs, and the loss falls as on one."""
    root, _ = trained
    code = ("import json, sys, importlib.util\n"
            "import jax\n"
            "sys.path.insert(0, 'tests/training')\n"
            "from test_loop import tiny\n"
            "from eqdiff_jax.training import train_and_evaluate\n"
            "assert jax.local_device_count() == 8\n"
            "state = train_and_evaluate(tiny(sys.argv[1]), sys.argv[2])\n"
            "assert int(state.step) == 6\n")
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code, str(root / "data"), str(tmp_path / "eight")], cwd=ROOT, env=env,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "eight" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_workdir_of_another_config_is_refused(trained):
    root, _ = trained
    with pytest.raises(InputError, match="belongs to another run .width differ.: use another --workdir"):
        train_and_evaluate(tiny(root / "data", width=128), root / "work")


@pytest.mark.parametrize(("change", "says"), [
    ({"data": "nosuch"}, "unknown data config"), ({"width": 100}, "width 100"), ({"patch": 3}, "patch 3"),
    ({"dtype": "int8"}, "int8"), ({"steps": 0}, "steps is 0")])
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
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    with pytest.raises(InputError, match="batch 8 is not a positive multiple of 3"):
        train_and_evaluate(tiny(tmp_path), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_weights_folder_and_unfinished_workdir_load_to_the_same_network(trained, tmp_path):
    root, state = trained
    for name in ("checkpoints", "config.json"):
        (tmp_path / name).symlink_to(root / "work" / name)
    small, full = checkpoint.load(root / "work" / "weights"), checkpoint.load(tmp_path)
    assert jax.tree.structure(small) == jax.tree.structure(full)
    for a, b, c in zip(jax.tree.leaves(small["denoiser"]), jax.tree.leaves(full["denoiser"]),
                       jax.tree.leaves(state.ema["denoiser"]), strict=True):
        np.testing.assert_array_equal(b, c)
        np.testing.assert_allclose(a, b, rtol=2**-8)  # bfloat16 keeps 8 bits
    np.testing.assert_array_equal(small["motion"].dell.w_in, full["motion"].dell.w_in)


def test_evaluation_counts_every_example_once(trained):
    root, state = trained
    rng = np.random.default_rng(0)
    columns = {"tokens": np.zeros((11, 12, 32), np.int32), "conditioning": np.float32(rng.normal(size=(11, 104)))}
    got = evaluate_nelbo(jax.random.key(0), state.ema, columns, draws=2, batch=4)
    assert got.per_example.shape == (11,) and np.isfinite(got.per_example).all()
    assert got.nats == pytest.approx(got.per_example.mean())


def test_unigram_is_a_law_and_its_code_length_is_the_cross_entropy():
    tokens = np.zeros((10, 12, 32), np.int64)
    tokens[:5, 0, 0] = 50  # bd on half of the kick's first cells
    law = unigram(tokens)
    np.testing.assert_allclose(law.sum(-1), 1.0)
    bits = code_length(law, tokens)
    assert bits[0, 0, 0] == pytest.approx(-np.log2(law[0, 0, 50])) and 0.9 < bits[0, 0, 0] < 1.6
    assert (law[0, 0, 1:50] == 0).all()  # a kick plays no pitch


def test_neighbour_mixture_limits():
    rng = np.random.default_rng(0)
    tokens = np.zeros((4, 12, 32), np.int64)
    law = unigram(tokens)
    flat = code_length(law, tokens).reshape(4, -1).mean(1)
    np.testing.assert_allclose(mixture_bits(0.0, law, tokens, tokens), flat)
    assert (mixture_bits(0.9, law, tokens, tokens) < flat).all()
    rows = rng.normal(size=(20, 5))
    np.testing.assert_array_equal(nearest(rows, rows[3:6] + 1e-6), [3, 4, 5])
