"""The package outside its checkout: a wheel, installed into a folder of its own, used from another one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("eqdiff_jax", "configs", "checkpoints", "web", "setup.py", "pyproject.toml", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the wheel is installed. Built from a copy, since a build leaves files behind; without its dependencies,
    which are those of this interpreter."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        ignore = {"ignore": shutil.ignore_patterns("node_modules", "__pycache__")} if (ROOT / name).is_dir() else {}
        (folder / "source").mkdir(exist_ok=True)
        copy(ROOT / name, folder / "source" / name, **ignore)
    subprocess.run([*PIP, "wheel", "--no-deps", "-w", str(folder), str(folder / "source")], check=True, cwd=folder)
    wheel, = folder.glob("eqdiff_jax-*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True, cwd=folder)
    return folder / "site"


@pytest.fixture
def call(site, tmp_path):
    """Run an installed command in an empty folder."""
    def run(*command):
        installed = command[0].startswith("eqdiff-")
        program = [str(site / "bin" / command[0]) if installed else sys.executable, *command[installed:]]
        env = os.environ | {"PYTHONPATH": str(site), "XDG_DATA_HOME": str(tmp_path / "share")}
        return subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True,
                              check=False)
    return run


def test_it_holds_what_a_player_needs_and_nothing_else(site):
    shipped = site / "eqdiff_jax" / "shipped"
    for name in ("checkpoints/default/model.json", "checkpoints/default/MODEL_CARD.md", "configs/tiny.py",
                 "web/index.html", "web/player.js", "web/LICENSE", "web/package-lock.json"):
        assert (shipped / name).is_file(), name
    assert (site / "eqdiff_jax" / "py.typed").is_file()
    names = {path.name for path in site.rglob("*")}
    assert not names & {"node_modules", "test_wheel.py", "conftest.py"}
    licences = {path.read_text()[:60].split()[0] for path in site.glob("eqdiff_jax-*.dist-info/**/LICENSE")}
    assert licences == {"Apache", "GNU"}  # ours and the page's
    metadata = next(site.glob("eqdiff_jax-*.dist-info/METADATA")).read_text()
    assert "Apache-2.0 AND AGPL-3.0-or-later" in metadata


def test_the_shipped_weights_play_from_anywhere(site, call, tmp_path):
    where = call("-c", "import eqdiff_jax.paths as p; print(p.INSTALLED, p.SHIPPED)")
    assert where.stdout.split() == ["True", str(site / "eqdiff_jax" / "shipped" / "checkpoints" / "default")]
    played = call("eqdiff-sample", "--mode", "threshold", "--num", "1", "--out", "made")
    assert played.returncode == 0, played.stderr
    assert json.loads((tmp_path / "made" / "report.json").read_text())["legal"]


@pytest.mark.parametrize(("command", "says"), [
    (("eqdiff-sample", "--motion", "none.bvh"), "eqdiff-sample: none.bvh"),
    (("eqdiff-train", "--config=tiny", "--config.width=100", "--workdir=run"), "eqdiff-train: width 100"),
    (("eqdiff-train", "--config=tyny", "--workdir=run"), "default, roformer_86m, tiny"),
    (("eqdiff-evaluate", "--draws", "0"), "eqdiff-evaluate: --draws is 0"),
    (("eqdiff-live", "--http", "127.0.0.1:0", "--osc", "127.0.0.1:0", "--no-browser", "--page", "nowhere"),
     "run `eqdiff-live --fetch-page`"),
])
def test_what_is_wrong_is_one_line_with_the_name_of_the_command(call, command, says):
    run = call(*command)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1), run.stderr
    assert says in run.stderr


def test_strudel_is_fetched_once(call, need, tmp_path):
    need(shutil.which("npm") is not None, "no npm: install Node.js")
    fetched = call("eqdiff-live", "--fetch-page")
    assert fetched.returncode == 0, fetched.stderr
    assert "AGPL" in fetched.stdout and fetched.stdout.rstrip().endswith("play with: eqdiff-live")
    found = call("-c", "from eqdiff_jax import paths; from eqdiff_jax.live.gate import Files; "
                       "print(Files(paths.WEB, paths.node_modules()).find('/vendor/strudel/index.js'))")
    assert found.stdout.strip() == str(tmp_path / "share/eqdiff_jax/page/node_modules/@strudel/web/dist/index.js")
