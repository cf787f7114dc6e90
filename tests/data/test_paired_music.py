"""Grids and movement together: shapes, splits, transposition, what an unobserved track holds, session logs."""

import json
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import COUNTS, TINY, made_grids
from songs import band, midi

from eqdiff_jax import data, motion
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.data import movement, paired_music, pairing, sessions
from eqdiff_jax.data.paired_music import MASK, PairedConfig, PairedMusic, legal_shifts, of_observed, transposed
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL, TRACKS, VOCABULARY, descriptors, events
from eqdiff_jax.types import Dynamics


@pytest.fixture(scope="module")
def grids(random_grid):
    return made_grids(random_grid)


def config(grids, **changes):
    return PairedConfig(**({"name": "tiny_real", "grids": grids, "sources": (TINY,), "leftovers": True} | changes))


def built(config, folder):
    builder = PairedMusic(config=config, data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return {split: [source[i] for i in range(len(source))] for split in builder.info.splits
            for source in [builder.as_data_source(split=split)]}


@pytest.fixture(scope="module")
def rows(grids, tmp_path_factory):
    return built(config(grids), tmp_path_factory.mktemp("paired"))


@pytest.fixture(scope="module")
def windows():
    return movement.motion_windows(motion.init_params(jax.random.key(0)), [TINY], "train", (88.0, 120.0))


def test_every_pair_is_legal_finite_and_masked_where_nothing_was_observed(rows):
    for split, found in rows.items():
        assert len(found) >= 3 * COUNTS[split]
        for row in found:
            assert row["tokens"].shape == (12, 32) and row["conditioning"].shape == (104,)
            assert np.isfinite(row["conditioning"]).all() and np.abs(row["conditioning"]).max() < 20
            assert (row["tokens"][~row["observed"]] == MASK).all()
            seen = row["observed"]
            assert LEGAL[np.flatnonzero(seen)[:, None], row["tokens"][seen]].all()


def test_grids_meet_movement_of_their_own_split(rows):
    for split, found in rows.items():
        assert all(row["piece"].decode().startswith(split) for row in found)
        assert all(row["clip"].decode().startswith(split) for row in found if row["paired"])


def test_each_grid_comes_at_least_once_and_leftovers_say_so(rows, grids):
    def key(row):
        return (row["piece"], row["observed"].tobytes(), np.where(row["tokens"] < VOCABULARY.ranges["pitch"].stop,
                                                                  0, row["tokens"]).tobytes())
    for split, found in rows.items():
        assert {key(row) for row in found} == {key(row) for row in grids(split)}
        for row in found:
            assert row["paired"] == bool(row["clip"]) == bool(row["conditioning"].any())


def test_conditioning_is_the_windows_and_the_grids(rows):
    first = next(row for row in rows["train"] if row["paired"])
    tempi = {round(float(row["conditioning"][LAYOUT["bpm"]][0]) * 60 + 120) for row in rows["train"] if row["paired"]}
    assert tempi <= set(movement.TEMPI) and len(tempi) > 2
    assert first["conditioning"][LAYOUT["section"]].sum() == pytest.approx(1.0, abs=1e-5)
    assert {float(row["conditioning"][LAYOUT["genre"]].sum()) for row in rows["train"] if row["paired"]} == {0.0, 1.0}


def test_building_twice_gives_the_same_rows(rows, grids, tmp_path):
    again = built(config(grids), tmp_path)
    for split, found in rows.items():
        for a, b in zip(found, again[split], strict=True):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


def test_the_pairs_follow_what_the_movement_asks_for(rows):
    found = [row for row in rows["train"] if row["paired"] and row["observed"].all()]
    asked = np.stack([[row["conditioning"][LAYOUT[name]][0] for name in pairing.ASKED] for row in found])
    measured = np.stack([of_observed(row["tokens"]) for row in found])
    assert (pairing.spearman(measured, asked) > 0.4).all()


def test_first_repeat_keeps_the_key_and_partial_grids_come_less_often(grids, windows):
    pairs = dict(paired_music.examples(grids("train"), windows, config(grids, leftovers=False, price=np.inf), "train"))
    original = {row["tokens"].tobytes() for row in grids("train")}
    first = [row for key, row in pairs.items() if key.split("/")[1] == "0"]
    assert len(first) == 90 and all(row["tokens"].tobytes() in original for row in first)
    full = [bool(row["observed"].all()) for row in pairs.values()]
    assert sum(full) == 4 * 60 and len(full) - sum(full) == 2 * 30
    assert any(row["tokens"].tobytes() not in original for row in pairs.values())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_transposition_is_legal_and_moves_pitches_only(random_grid, seed):
    grid = random_grid(np.random.default_rng(seed))
    shifts = legal_shifts(grid)
    assert 0 in shifts and (np.diff(shifts) == 1).all() and len(shifts) <= 12
    for shift in shifts[[0, -1]]:
        moved = transposed(grid, shift)
        assert LEGAL[np.arange(12)[:, None], moved].all()
        np.testing.assert_array_equal(transposed(moved, -shift), grid)
        for a, b in zip(events(grid), events(moved), strict=True):
            assert b._replace(sound=a.sound) == a
            assert b.sound == (a.sound if isinstance(a.sound, str) else a.sound + shift)
        old, new = descriptors(grid), descriptors(moved)
        np.testing.assert_allclose(np.delete(old, 3), np.delete(new, 3), atol=1e-6)  # all but the bass weight


def test_a_fill_of_a_pitched_track_forbids_transposition():
    grid = np.zeros((12, 32), np.int32)
    grid[TRACKS.index("LEAD"), 0] = VOCABULARY.ids["C5"]
    assert len(legal_shifts(grid)) == 12
    grid[TRACKS.index("LEAD"), 8] = VOCABULARY.ids["fill"]
    np.testing.assert_array_equal(legal_shifts(grid), [0])
    grid[:] = MASK
    np.testing.assert_array_equal(legal_shifts(grid), [0])


def test_no_tensorflow_at_run_time(rows):
    assert "tensorflow" not in sys.modules


def snapshot(i, **changes):
    rng = np.random.default_rng(i)
    return {"timestamp": i * 4.0, "z": rng.normal(size=32).tolist(), "velocity": rng.normal(size=32).tolist(),
            "dynamics": dict.fromkeys(Dynamics._fields, 0.5), "activePattern": "x", "section": "Build",
            "instrumentActivations": [0.25] * 12, "genre": "house", "bpm": 126.0,
            "tokens": np.zeros((12, 32), int).tolist()} | changes


def write(path, bars, tail=""):
    path.write_text("".join(json.dumps(bar) + "\n" for bar in bars) + tail)
    return path


def test_a_session_log_becomes_rows_and_windows(tmp_path):
    silent = snapshot(1, tokens=None, section=None, velocity=None, genre="")
    log = write(tmp_path / "night.jsonl", [snapshot(0), silent], tail='{"timestamp": 8.0, "z": [0.1, 0.')
    found = dict(sessions.session_rows(log))
    assert list(found) == ["night/0"]
    row = found["night/0"]
    assert row["paired"] and row["observed"].all() and row["source"] == "session"
    np.testing.assert_allclose(row["conditioning"][LAYOUT["z"]], snapshot(0)["z"], rtol=1e-6)
    np.testing.assert_allclose(row["conditioning"][LAYOUT["section"]], [0, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(row["conditioning"][LAYOUT["bpm"]], 0.1, atol=1e-6)
    windows = sessions.session_windows(log, split="train")
    assert windows.z.shape == (2, 32) and windows.section[1].sum() == 0.0 and not windows.shippable.any()


def test_a_log_joins_the_split_of_its_name(tmp_path):
    logs = [write(tmp_path / f"night{i}.jsonl", [snapshot(i)]) for i in range(12)]
    rows = built(PairedConfig(name="logs", grids=None, sources=(), logs=logs), tmp_path)
    homes = {row["clip"].decode(): split for split, found in rows.items() for row in found}
    assert homes == {log.stem: movement.hashed_split(log.stem) for log in logs}


def test_logs_of_a_folder_are_a_dataset_and_a_part_of_a_mixture(tmp_path):
    held = next(name for name in map("night{}".format, range(99)) if movement.hashed_split(name) == "test")
    write(tmp_path / f"{held}.jsonl", [snapshot(0), snapshot(1)])
    name, where = f"logs:{tmp_path}", tmp_path / "data"
    data.check(name)
    alone = data.mixture(name, where, "train")  # one night, whatever its hash says: there is nothing else to learn from
    np.testing.assert_array_equal(alone.columns["tokens"], np.zeros((2, 12, 32)))
    with pytest.raises(InputError, match="too few .* validation split; add some, or mix"):
        data.mixture(name, where, "validation")
    both = data.mixture(f"tiny+{name}", where, "train")
    assert both.sizes[1] == 2 and both.shares == (1, 1)
    assert data.mixture(f"tiny+{name}", where, "validation").sizes == data.mixture("tiny", where, "validation").sizes
    before = data.config_of(name).name
    write(tmp_path / "another.jsonl", [snapshot(2)])
    assert data.config_of(name).name != before  # other files, another dataset


def test_midi_files_of_a_folder_are_a_dataset(tmp_path, monkeypatch):
    for i in range(8):
        (tmp_path / f"song{i}.mid").write_bytes(midi(band(i)))
    monkeypatch.setitem(paired_music.PAIRED_CONFIGS, "shippable", PairedConfig(name="x", grids=None, sources=(TINY,)))
    columns = data.mixture(f"midi:{tmp_path}", tmp_path / "data", "train").columns
    assert set(columns["source"]) == {b"folder"} and len(columns["tokens"]) >= 8


@pytest.mark.parametrize(("name", "says"), [
    ("logs:nowhere", "no session logs"), ("midi:nowhere", "nowhere"), ("midi", "unknown data config 'midi'")])
def test_a_folder_without_them(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        data.check(name)


@pytest.mark.parametrize(("change", "words"), [
    ({"z": [0.0] * 31}, "line 2: not a bar's snapshot .z is not 32 finite numbers"),
    ({"genre": "polka"}, "unknown genre 'polka'"),
    ({"section": "Bridge"}, "unknown section 'Bridge'"),
    ({"bpm": float("nan")}, "dynamics or bpm"),
    ({"dynamics": {"energy": 1.0}}, "it lacks 'curvature'"),
    ({"tokens": [[99] * 32] * 12}, "no grid"),
])
def test_a_bad_line_is_named(tmp_path, change, words):
    log = write(tmp_path / "bad.jsonl", [snapshot(0), snapshot(1, **change), snapshot(2)])
    with pytest.raises(InputError, match=words) as caught:
        list(sessions.snapshots(log))
    assert "bad.jsonl, line 2" in str(caught.value) and "\n" not in str(caught.value)


def test_a_torn_line_in_the_middle_and_a_missing_log(tmp_path):
    log = tmp_path / "torn.jsonl"
    log.write_text(json.dumps(snapshot(0))[:50] + "\n" + json.dumps(snapshot(1)) + "\n")
    with pytest.raises(InputError, match="line 1"):
        list(sessions.snapshots(log))
    with pytest.raises(InputError, match="cannot be read"):
        list(sessions.snapshots(tmp_path / "none.jsonl"))


def test_real_grids_meet_real_movement(eqdiff_data, monkeypatch, tmp_path):
    monkeypatch.setenv("EQDIFF_DATA", str(eqdiff_data))
    rows = paired_music.real_grids("openmsx", tmp_path, "train")
    once = movement.source("salsa")._replace(augmented=False)
    found = movement.motion_windows(motion.init_params(jax.random.key(0)), [once], "validation")
    assert len(rows) > 200 and len(found.z) > 20
    alone = config(None, transposed=False, repeats=2)
    pairs = [row for _, row in paired_music.examples(rows, found, alone, "train") if row["paired"]]
    asked = np.stack([[row["conditioning"][LAYOUT[name]][0] for name in pairing.ASKED] for row in pairs])
    measured = np.stack([of_observed(row["tokens"]) for row in pairs])
    # A hundred grids of a tempo hold few that ask for one couple's movement (docs/pairing.md has the whole set).
    assert (pairing.spearman(measured, asked) > 0.3).all()
