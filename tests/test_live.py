"""live.py as a musician calls it: it plays until Ctrl-C, and bad input is one clear line before anything happens."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from test_sample import export

from eqdiff_jax.cli import live
from eqdiff_jax.composer import MOST_CANDIDATES
from eqdiff_jax.control import MOST
from eqdiff_jax.live import stage
from eqdiff_jax.live.log import BAR_SCHEMA

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return export(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture
def _page(tmp_path, monkeypatch):
    """Files for the server, so that what is wrong is what the test says."""
    web = tmp_path / "web"
    dist = web / "node_modules" / "@strudel" / "web" / "dist"
    dist.mkdir(parents=True)
    (web / "index.html").write_text("page")
    (dist / "index.js").write_text("")
    monkeypatch.setattr(stage, "WEB", web)


def test_it_plays_and_ctrl_c_ends_it(weights, tmp_path, need):
    need((stage.WEB / "node_modules" / "@strudel" / "web").is_dir(), "no Strudel: run `npm ci --prefix web`")
    program = subprocess.Popen(
        [sys.executable, str(ROOT / "live.py"), "--checkpoint", str(weights), "--log", str(tmp_path / "log"), "--http",
         "127.0.0.1:0", "--osc", "127.0.0.1:0", "--bpm", "240", "--no-browser", "--motion", "demo:groove"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    said = []
    for line in program.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    banner = "".join(said)
    for part in ("http://127.0.0.1:", "OSC ", "demo dancer (groove)", "diffusion, 240 bpm", str(weights), "log "):
        assert part in banner, program.stderr.read()
    log = next(Path(line.split()[1]) for line in said if line.startswith("log "))
    while not log.read_bytes().count(b"\n") >= 3:
        assert program.poll() is None
    program.send_signal(signal.SIGINT)
    out, err = program.communicate()
    assert program.returncode == 0 and err == ""
    assert "bars" in out and "60 Hz" in out
    lines = log.read_text().splitlines()
    for line in lines:
        Draft202012Validator(BAR_SCHEMA).validate(json.loads(line))
    assert log.with_suffix(".limbs.npy").is_file()


def taken(kind):
    """A port of this computer that another program has."""
    other = socket.socket(socket.AF_INET, kind)
    other.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        other.listen()
    return other


def bad_inputs(folder, weights):
    """name -> (flags, what the line must say)"""
    (folder / "file").write_text("not a folder")
    (folder / "typo.toml").write_text('[[row]]\naddress = "/1/fader1"\nargument = 0\nto = "rom"\n')
    (folder / "mappings.toml").write_text('density = { source = "energie", low = 0.5, high = 1.0 }\n')
    (folder / "targets.toml").write_text('[range]\nsource = "tensio"\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "other.jsonl").write_text('{"timestamp": 1}\n')
    np.savez(folder / "nan.npz", limbs=np.full((600, 27, 8), np.nan, np.float32))
    truncated = folder / "truncated"
    shutil.copytree(weights, truncated)
    victim = max((p for p in (truncated / "weights").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    return {
        "unknown mode": (["--mode", "joint"], "joint"),
        "unknown genre": (["--genre", "polka"], "polka"),
        "silly tempo": (["--bpm", "nan"], "--bpm"),
        "silly seed": (["--seed", "-1"], "--seed"),
        "unknown lookahead": (["--lookahead", "far"], "far"),
        "no candidates": (["--candidates", "0"], f"1 .. {MOST_CANDIDATES}"),
        "silly control": (["--control", "nan"], f"0 .. {MOST:g}"),
        "targets with a typo": (["--targets", str(folder / "targets.toml")], "did you mean tension"),
        "missing targets": (["--targets", str(folder / "nobody.toml")], "nobody.toml"),
        "unknown flag": (["--tempo", "3"], "--tempo"),
        "no port": (["--http", "localhost"], "HOST:PORT"),
        "no such address": (["--http", "192.0.2.1:0"], "192.0.2.1"),
        "no such OSC address": (["--osc", "192.0.2.1:0"], "192.0.2.1"),
        "token unfit": (["--token", "a b"], "--token"),
        "missing file": (["--motion", str(folder / "nobody.bvh")], "nobody.bvh"),
        "unknown style": (["--motion", "demo:polka"], "polka"),
        "NaN throughout": (["--motion", str(folder / "nan.npz")], "nan.npz"),
        "missing session": (["--motion", str(folder / "nobody.jsonl")], "nobody.jsonl"),
        "empty session": (["--motion", str(folder / "empty.jsonl")], "empty.jsonl"),
        "another log": (["--motion", str(folder / "other.jsonl")], "line 1"),
        "map with a typo": (["--map", str(folder / "typo.toml")], "did you mean 'room'"),
        "missing map": (["--map", str(folder / "nobody.toml")], "nobody.toml"),
        "mappings with a typo": (["--modulation", str(folder / "mappings.toml")], "did you mean energy"),
        "no checkpoint": (["--checkpoint", str(folder / "nothing")], "nothing"),
        "truncated checkpoint": (["--checkpoint", str(truncated)], "truncated"),
        "unwritable log": (["--log", str(folder / "file" / "log")], "--log"),
    }


NAMES = ("unknown mode", "unknown genre", "silly tempo", "silly seed", "unknown lookahead", "no candidates",
         "silly control", "targets with a typo", "missing targets", "unknown flag", "no port", "no such address",
         "no such OSC address", "token unfit", "missing file", "unknown style", "NaN throughout", "missing session",
         "empty session", "another log", "map with a typo", "missing map", "mappings with a typo", "no checkpoint",
         "truncated checkpoint", "unwritable log")


@pytest.fixture(scope="module")
def bad(tmp_path_factory, weights):
    inputs = bad_inputs(tmp_path_factory.mktemp("bad"), weights)
    assert set(inputs) == set(NAMES)
    return inputs


def refused(flags, weights, log, capfd):
    """The one line that live.py says; no grid is made, and nothing is written."""
    try:
        code = live.main(["--no-browser", "--http", "127.0.0.1:0", "--osc", "127.0.0.1:0", "--checkpoint",
                          str(weights), "--log", str(log), *flags])
    except SystemExit as exit_:
        code = exit_.code
    printed = capfd.readouterr()
    assert code == 2
    assert printed.err.count("\n") == 1 and printed.err.startswith("live.py: ")
    assert printed.out == "" and not log.exists()
    return printed.err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("_page")
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(name, bad, weights, tmp_path, capfd):
    flags, says = bad[name]
    assert says in refused(flags, weights, tmp_path / "log", capfd)


@pytest.mark.parametrize(("flag", "kind"), [("--http", socket.SOCK_STREAM), ("--osc", socket.SOCK_DGRAM)])
@pytest.mark.usefixtures("_page")
def test_a_port_that_is_taken_is_named(flag, kind, weights, tmp_path, capfd):
    with taken(kind) as other:
        port = str(other.getsockname()[1])
        said = refused([flag, f"127.0.0.1:{port}"], weights, tmp_path / "log", capfd)
    assert port in said and "taken" in said and flag in said


def test_without_strudel_it_says_how_to_install_it(weights, tmp_path, capfd, monkeypatch):
    (tmp_path / "index.html").write_text("page")
    monkeypatch.setattr(stage, "WEB", tmp_path)
    assert "npm ci --prefix web" in refused([], weights, tmp_path / "log", capfd)


@pytest.mark.usefixtures("_page")
def test_a_process_of_grids_that_cannot_start_is_named(weights, tmp_path, capfd, monkeypatch):
    """The checkpoint is there when it is checked, and gone when the process reads it."""
    class Gone(stage.Worker):
        def __init__(self, folder, cache, candidates):
            super().__init__(tmp_path / "gone", cache, candidates)

    monkeypatch.setattr(stage, "Worker", Gone)
    code = live.main(["--no-browser", "--http", "127.0.0.1:0", "--osc", "127.0.0.1:0", "--checkpoint", str(weights),
                      "--log", str(tmp_path / "log")])
    printed = capfd.readouterr()
    assert code == 2 and printed.err.count("\n") == 1 and "gone" in printed.err and not (tmp_path / "log").exists()
