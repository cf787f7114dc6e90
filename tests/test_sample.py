"""sample.py as a musician calls it: files, reproducibility, real motion, and one clear line for bad input."""

import json
import shutil
import tarfile
from fractions import Fraction

import jax
import mido
import numpy as np
import pytest
from networks import CAP, SLACK, STORED

from eqdiff_jax import motion, paths, performance
from eqdiff_jax.cli import sample
from eqdiff_jax.composer import MOST_CANDIDATES, compose, music
from eqdiff_jax.conditioning import Encoder
from eqdiff_jax.control import MOST
from eqdiff_jax.denoiser import Roformer
from eqdiff_jax.music import LEGAL, events, song_from_midi
from eqdiff_jax.targets import NAMES as TARGETS
from eqdiff_jax.training import checkpoint

FILES = {"grids.npz", "song.strudel.js", "song.mid", "grids.png", "report.json"}


def export(folder, width=64, conditioning=104, noise=0.1):
    """A weights folder with a small random network."""
    from ml_collections import ConfigDict
    keys = jax.random.split(jax.random.key(0), 3)
    network = Roformer(width=width, depth=1, patch=4).init(
        keys[0], np.zeros((1, 12, 32), np.int32), np.zeros((1, 768), np.float32))["params"]
    leaves = jax.tree.leaves(network)
    split = jax.random.split(keys[2], len(leaves))
    wild = [x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, split, strict=True)]
    params = {"encoder": Encoder().init(keys[1], np.zeros((1, conditioning), np.float32))["params"],
              "denoiser": jax.tree.unflatten(jax.tree.structure(network), wild)}
    checkpoint.export(folder, params, motion.init_params(jax.random.key(0)), ConfigDict({"seed": 0}), "random", STORED)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    paths.CACHE = tmp_path_factory.mktemp("xla")  # not the user's own


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return export(tmp_path_factory.mktemp("checkpoint") / "small")


def run(weights, out, *flags):
    return sample.main(["--checkpoint", str(weights), "--out", str(out), *flags])


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "new" / "folder"
    assert run(weights, out, "--num", "3", "--seed", "5", "--genre", "techno", "--bpm", "126") == 0
    return out


def test_all_files_with_their_contracts(made):
    assert {p.name for p in made.iterdir()} == FILES
    grids = np.load(made / "grids.npz")
    shapes = {"tokens": (3, 12, 32), "conditioning": (3, 104), "z": (3, 32), "confidence": (3,), "steps": (3,),
              "temperature": (3,), "changed": (3,), "budget": (3,)}
    assert {k: grids[k].shape for k in grids.files} == shapes
    assert grids["tokens"].dtype == np.int32 and grids["conditioning"].dtype == grids["z"].dtype == np.float32
    assert LEGAL[np.arange(12)[:, None], grids["tokens"]].all()
    assert grids["changed"][0] == grids["budget"][0] == 384
    hamming = (np.diff(grids["tokens"], axis=0) != 0).sum((1, 2))
    np.testing.assert_array_equal(hamming, grids["changed"][1:])
    assert (grids["changed"] <= grids["budget"]).all()
    np.testing.assert_array_equal(grids["steps"], np.round(50 - 46 * grids["confidence"]))
    np.testing.assert_allclose(grids["temperature"], 1.2 - 0.5 * grids["confidence"], rtol=1e-5)


def test_midi_says_what_the_grids_say(made):
    tokens = np.load(made / "grids.npz")["tokens"]
    back = song_from_midi(mido.MidiFile(made / "song.mid"))
    for grid, read in zip(tokens, back, strict=True):
        assert [e[:4] for e in events(grid)] == [e[:4] for e in events(read)]


def test_strudel_plays_the_song(made, query_strudel):
    tokens = np.load(made / "grids.npz")["tokens"]
    answer, = query_strudel([{"code": (made / "song.strudel.js").read_text(), "cycles": 6}])
    want = [(32 * i + e.onset, e.length, e.sound) for i, grid in enumerate(tokens) for e in events(grid)]
    got = [(float(Fraction(onset) * 16), float(Fraction(length) * 16), value["s"] if "note" not in value else "pitch")
           for onset, length, value in answer["events"]]
    assert sorted(got) == sorted((a, b, c if isinstance(c, str) else "pitch") for a, b, c in want)


def test_report_and_picture(made):
    report = json.loads((made / "report.json").read_text())
    assert report["legal"] and report["within_budget"] and len(report["windows"]) == 3
    assert sum(report["histogram"].values()) == 3 * 384
    rows = {row["stage"]: row for row in report["cascade"]}
    assert len(rows) == 13 + len(TARGETS)
    assert {row["kind"] for row in rows.values()} == {"proved", "estimated", "range bound only"}
    for row in rows.values():
        assert all(np.isfinite(row[name]) for name in ("bound", "measured", "offset")) and row["method"]
        assert row["measured"] <= row["bound"] * (1 + 1e-4) or row["stage"] == "limbs -> grid"
    assert rows["conditioning -> grid"]["offset"] == SLACK and rows["limbs -> grid"]["offset"] == CAP
    assert (made / "grids.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_same_seed_same_bytes_other_seed_other_grids(weights, made, tmp_path):
    flags = ("--num", "3", "--genre", "techno", "--bpm", "126", "--seed")
    run(weights, tmp_path / "again", *flags, "5")
    run(weights, tmp_path / "other", *flags, "6")
    for name in FILES - {"report.json"}:
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    a, b = (np.load(p / "grids.npz") for p in (made, tmp_path / "other"))
    assert (a["tokens"] != b["tokens"]).any() and (a["conditioning"] != b["conditioning"]).any()
    stripped = [json.loads((p / "report.json").read_text()) for p in (made, tmp_path / "again")]
    for report in stripped:
        del report["timing"]
    assert stripped[0] == stripped[1]


def test_explicit_steps_and_temperature_are_used(weights, tmp_path):
    run(weights, tmp_path, "--num", "2", "--steps", "7", "--temperature", "0.9")
    grids = np.load(tmp_path / "grids.npz")
    assert (grids["steps"] == 7).all()
    np.testing.assert_allclose(grids["temperature"], 0.9, rtol=1e-6)


def test_a_file_of_targets_is_what_is_played(weights, tmp_path):
    """The same movement, asked for silence and for everything."""
    notes, flags = {}, ("--num", "3", "--seed", "5", "--steps", "4")
    for name, rank in (("silence", 0.0), ("everything", 1.0)):
        path = tmp_path / f"{name}.toml"
        path.write_text("".join(f"[{target}]\nlow = {rank}\nhigh = {rank}\nweight = 3\n"
                                for target in ("layers", "intensity", "density")))
        assert run(weights, tmp_path / name, *flags, "--targets", str(path)) == 0
        notes[name] = sum(len(events(grid)) for grid in np.load(tmp_path / name / "grids.npz")["tokens"])
        assert json.loads((tmp_path / name / "report.json").read_text())["settings"]["targets"] == str(path)
    assert notes["silence"] < 0.5 * notes["everything"]


def test_without_control_no_target_is_read(weights, tmp_path):
    silence = tmp_path / "silence.toml"
    silence.write_text("[layers]\nlow = 0\nhigh = 0\n[intensity]\nlow = 0\nhigh = 0\n")
    flags = ("--num", "2", "--steps", "4", "--control", "0")
    assert run(weights, tmp_path / "a", *flags) == run(weights, tmp_path / "b", *flags, "--targets", str(silence)) == 0
    np.testing.assert_array_equal(*(np.load(tmp_path / name / "grids.npz")["tokens"] for name in "ab"))


def test_threshold_mode_records_no_steps(weights, tmp_path):
    assert run(weights, tmp_path, "--num", "4", "--mode", "threshold", "--motion", "demo:groove") == 0
    grids = np.load(tmp_path / "grids.npz")
    assert not grids["steps"].any() and not grids["temperature"].any() and (grids["tokens"] != 0).any()
    stages = [row["stage"] for row in json.loads((tmp_path / "report.json").read_text())["cascade"]]
    assert "limbs -> z, real time" in stages and not any("grid" in stage or "embedding" in stage for stage in stages)


def test_still_body_has_no_nan(weights, tmp_path):
    assert run(weights, tmp_path, "--num", "3", "--motion", "demo:rest") == 0
    grids = np.load(tmp_path / "grids.npz")
    assert all(np.isfinite(grids[name]).all() for name in grids.files)
    assert (grids["confidence"] > 0.9).all()


def adversarial(name):
    """Eight seconds of a dance that no dancer survives."""
    rng = np.random.default_rng(0)
    limbs = motion.demo("groove", 8.0, 1).copy()
    if name == "teleport":
        limbs[::7, :, :3] += rng.normal(size=(len(limbs[::7]), 27, 3)) * 1e4
    elif name == "nan bursts":
        limbs[rng.random(limbs.shape[:2]) < 0.3] = np.nan
        limbs[100:160] = np.inf
    elif name == "ten times speed":
        limbs[..., 3:7] *= 10.0
    elif name == "dropped limbs":
        limbs[60:, 5:, 7] = 0.0
    return limbs


@pytest.mark.parametrize("name", ["teleport", "nan bursts", "ten times speed", "dropped limbs"])
def test_adversarial_motion_stays_within_its_budget(weights, tmp_path, name):
    np.savez(tmp_path / "wild.npz", limbs=adversarial(name))
    assert run(weights, tmp_path / "out", "--motion", str(tmp_path / "wild.npz")) == 0
    grids = np.load(tmp_path / "out" / "grids.npz")
    assert all(np.isfinite(grids[k]).all() for k in grids.files)
    assert (np.diff(grids["tokens"], axis=0) != 0).sum((1, 2)).max() <= CAP
    assert (grids["changed"] <= grids["budget"]).all()


def test_perturbed_motion_stays_within_the_sum_of_budgets(weights):
    """From one grid with one seed: two motions, at most m_A + m_B cells apart."""
    params = checkpoint.load(weights)
    limbs = motion.demo("flow", 8.0, 4)
    settings = performance.Settings(num=2)
    rng = np.random.default_rng(1)
    plain, _ = performance.perform(params, limbs, np.array([0, 240, 480]), settings)
    for size in (1e-3, 1e-2, 1e-1):
        shaken = motion.clean(limbs + size * rng.normal(size=limbs.shape).astype(np.float32))
        other, _ = performance.perform(params, shaken, np.array([0, 240, 480]), settings)
        assert (plain.conditioning[1] != other.conditioning[1]).any()
        a, b = (compose(jax.random.key(2), music(params), p.conditioning[1], plain.tokens[0],
                        previous_conditioning=plain.conditioning[0]) for p in (plain, other))
        assert (np.asarray(a.tokens) != b.tokens).sum() <= int(a.budget) + int(b.budget)


@pytest.fixture(scope="module")
def salsa(eqdiff_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("salsa")
    with tarfile.open(eqdiff_data / "motion" / "cmu_salsa_acrnn_MIT.tar.xz") as tar:
        members = [m for m in tar.getmembers() if m.name.endswith(("salsa/01.bvh", "salsa/05.bvh"))]
        tar.extractall(folder, members, filter="data")
    return sorted(folder.rglob("*.bvh"))


def test_two_real_motions_give_different_conditioning_and_grids(weights, salsa, tmp_path):
    made = []
    for path in salsa:
        assert run(weights, tmp_path / path.stem, "--motion", str(path)) == 0
        made.append(np.load(tmp_path / path.stem / "grids.npz"))
    a, b = made
    assert len(a["tokens"]) == int(len(motion.load(salsa[0])) / 240)
    assert np.abs(a["conditioning"][0] - b["conditioning"][0]).max() > 0.05
    assert (a["tokens"][0] != b["tokens"][0]).mean() > 0.01


BVH = """HIERARCHY
ROOT {root}
{{
 OFFSET 0 90 0
 CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
 JOINT Blob
 {{
  OFFSET 0 10 0
  CHANNELS 3 Zrotation Xrotation Yrotation
  End Site
  {{
   OFFSET 0 5 0
  }}
 }}
}}
MOTION
Frames: 400
Frame Time: 0.0166667
"""


def bad_inputs(tmp_path, weights):
    """name -> (flags, what the line must say)"""
    strange = tmp_path / "strange.bvh"
    strange.write_text(BVH.format(root="Wheel") + "0 0 0 0 0 0 0 0 0\n" * 400)
    cut = tmp_path / "cut.bvh"
    cut.write_text(BVH.format(root="Hips") + "0 0 0 0 0 0 0 0 0\n" * 200 + "0 0 0 0")
    nan = tmp_path / "nan.npz"
    np.savez(nan, limbs=np.full((600, 27, 8), np.nan, np.float32))
    short = tmp_path / "short.npz"
    np.savez(short, limbs=motion.demo("groove", 2.0, 0))
    shape = tmp_path / "shape.npz"
    np.savez(shape, limbs=np.zeros((600, 26, 8), np.float32))
    squeezed = tmp_path / "squeezed.npz"
    np.savez_compressed(squeezed, limbs=motion.demo("groove", 8.0, 0))
    damaged = bytearray(squeezed.read_bytes())
    damaged[len(damaged) // 2:len(damaged) // 2 + 2000] = bytes(2000)
    squeezed.write_bytes(damaged)
    (tmp_path / "file").write_text("not a folder")
    truncated = tmp_path / "truncated"
    shutil.copytree(weights, truncated)
    victim = max((p for p in (truncated / "weights").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    other = export(tmp_path / "other", conditioning=74)
    edited = tmp_path / "edited"
    shutil.copytree(weights, edited)
    model = json.loads((edited / "model.json").read_text())
    model["shapes"]["denoiser/null"] = [[7], "bfloat16"]
    (edited / "model.json").write_text(json.dumps(model))
    def written(text):
        path = tmp_path / f"targets{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return str(path)

    half = tmp_path / "half"
    half.mkdir()
    (half / "model.json").write_text("{")
    return {
        "missing file": (["--motion", str(tmp_path / "nobody.bvh")], "nobody.bvh"),
        "unknown suffix": (["--motion", str(tmp_path / "file")], "file"),
        "cut file": (["--motion", str(cut)], "cut.bvh"),
        "unknown skeleton": (["--motion", str(strange)], "strange.bvh"),
        "too short": (["--motion", str(short)], "too short"),
        "NaN throughout": (["--motion", str(nan)], "nan.npz"),
        "wrong shape": (["--motion", str(shape)], "shape.npz"),
        "damaged numpy": (["--motion", str(squeezed)], "squeezed.npz"),
        "unknown style": (["--motion", "demo:polka"], "polka"),
        "unknown genre": (["--genre", "polka"], "polka"),
        "no windows": (["--num", "0"], "--num"),
        "not a number": (["--num", "many"], "--num"),
        "unknown flag": (["--tempo", "3"], "--tempo"),
        "silly tempo": (["--bpm", "nan"], "--bpm"),
        "silly steps": (["--steps", "-3"], "--steps"),
        "no candidates": (["--candidates", "0"], f"use 1 .. {MOST_CANDIDATES}"),
        "many candidates": (["--candidates", str(MOST_CANDIDATES + 1)], f"use 1 .. {MOST_CANDIDATES}"),
        "negative control": (["--control", "-1"], f"--control is -1: use 0 .. {MOST:g}"),
        "control of nan": (["--control", "nan"], f"use 0 .. {MOST:g}"),
        "no targets file": (["--targets", str(tmp_path / "wishes.toml")], "wishes.toml: cannot be read"),
        "targets in a folder": (["--targets", str(tmp_path)], "give a file of targets"),
        "targets not text": (["--targets", str(nan)], "not UTF-8 text"),
        "targets not TOML": (["--targets", written("[layers\n")], "not TOML"),
        "misspelt target": (["--targets", written("[layer]\nlow = 0.1\n")], "did you mean layers?"),
        "target out of range": (["--targets", written("[density]\nhigh = 1.5\n")], "write a number from 0 to 1"),
        "falling target": (["--targets", written("[range]\nlow = 0.8\nhigh = 0.2\n")], "exchange them"),
        "silly seed": (["--seed", "-1"], "--seed"),
        "unknown sampler": (["--sampler", "magic"], "magic"),
        "unknown mode": (["--mode", "joint"], "joint"),
        "no checkpoint": (["--checkpoint", str(tmp_path / "nothing")], "nothing"),
        "truncated checkpoint": (["--checkpoint", str(truncated)], "truncated"),
        "other shape": (["--checkpoint", str(other)], "another shape"),
        "shapes that do not fit": (["--checkpoint", str(edited)], "another shape"),
        "damaged model.json": (["--checkpoint", str(half)], "model.json"),
        "NaN weights": (["--checkpoint", str(export(tmp_path / "nan", noise=np.nan))], "NaN"),
        "unwritable out": (["--out", str(tmp_path / "file" / "out")], "--out"),
    }


NAMES = ("missing file", "unknown suffix", "cut file", "unknown skeleton", "too short", "NaN throughout", "wrong shape",
         "damaged numpy",
         "unknown style", "unknown genre", "no windows", "not a number", "unknown flag", "silly tempo", "silly steps",
         "no candidates", "many candidates", "negative control", "control of nan", "no targets file",
         "targets in a folder", "targets not text", "targets not TOML", "misspelt target", "target out of range",
         "falling target", "silly seed", "unknown sampler", "unknown mode", "no checkpoint",
         "truncated checkpoint", "other shape",
         "shapes that do not fit", "damaged model.json", "NaN weights", "unwritable out")


@pytest.fixture(scope="module")
def bad(tmp_path_factory, weights):
    inputs = bad_inputs(tmp_path_factory.mktemp("bad"), weights)
    assert set(inputs) == set(NAMES)
    return inputs


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(name, bad, weights, tmp_path, capfd):
    flags, says = bad[name]
    out = tmp_path / "out"
    try:
        code = run(weights, out, *flags)
    except SystemExit as exit_:
        code = exit_.code
    printed = capfd.readouterr()
    assert code == 2
    assert printed.err.count("\n") == 1 and printed.err.startswith("sample.py: ") and says in printed.err
    assert printed.out == "" and not list(tmp_path.iterdir())
