"""The RealGrids builder: splits, duplicates, determinism, counts, Beam, a page; on made files and on one source."""

import hashlib
import importlib.util
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow_datasets as tfds
from songs import band, midi

from eqdiff_jax.data import corpora, page
from eqdiff_jax.data.corpora import SOURCES, Archive
from eqdiff_jax.data.pieces import REASONS, fingerprint
from eqdiff_jax.data.real_grids import CONFIGS, RealGrids, counts, counts_table, folder_config
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import GENRES, LEGAL, VOCABULARY, descriptors, events

SPLITS = ("train", "validation", "test")


def write_songs(folder) -> dict[str, str]:
    """Songs that all differ, copies and transposed copies of four, broken files; returns name -> split."""
    folder.mkdir()
    songs, copies = [f"song{i}" for i in range(60)], [f"copy{i}" for i in range(20)]
    names = [*songs, *copies, "broken", "waltz"]
    splits = {i.name: i.split for i in corpora.with_splits(
        [corpora.Item("folder", name, name, "", False, b"") for name in names])}
    tests, trains = ([i for i, n in enumerate(songs) if splits[n] == s] for s in ("test", "train"))
    in_train, in_test = ([c for c in copies if splits[c] == s] for s in ("train", "test"))
    files = {name: midi(band(seed)) for seed, name in enumerate([*songs, *copies])} | {
        in_train[0]: midi(band(tests[0])), in_train[1]: midi(band(tests[1], up=3)),
        in_test[0]: midi(band(trains[0], up=-2)), in_train[2]: midi(band(trains[1], up=2)),
        "broken": b"MThd nothing", "waltz": midi(band(99), meters=[(0, 3, 4)])}
    for name, data in files.items():
        (folder / f"{name}.mid").write_bytes(data)
    return splits


def build(folder, where, beam: bool = False) -> RealGrids:
    builder = RealGrids(config=folder_config(folder, beam=beam), data_dir=str(where), file_format="array_record")
    options = {}
    if beam:
        import apache_beam
        options["download_config"] = tfds.download.DownloadConfig(
            beam_options=apache_beam.options.pipeline_options.PipelineOptions(["--runner=DirectRunner"]))
    builder.download_and_prepare(**options)
    return builder


def rows_of(builder) -> dict[str, list[dict]]:
    sources = {split: builder.as_data_source(split=split) for split in builder.info.splits}
    return {split: [source[i] for i in range(len(source))] for split, source in sources.items()}


def check_rows(rows: dict[str, list[dict]]) -> None:
    """What holds for every row of every config."""
    prints = [row["fingerprint"] for mine in rows.values() for row in mine]
    assert len(prints) == len(set(prints))  # neither within a split nor between two
    pieces = [{row["piece"] for row in mine} for mine in rows.values()]
    assert sum(map(len, pieces)) == len(set.union(*pieces))
    for row in (row for mine in rows.values() for row in mine):
        tokens, seen = row["tokens"], row["observed"]
        assert tokens.shape == (12, 32) and seen.dtype == bool
        assert (tokens[~seen] == VOCABULARY.mask).all()
        assert LEGAL[np.flatnonzero(seen)[:, None], tokens[seen]].all()
        grid = np.where(seen[:, None], tokens, 0)
        assert fingerprint(events(grid)) == row["fingerprint"].decode()
        np.testing.assert_array_equal(row["descriptors"], np.array(descriptors(grid), np.float32))
        assert np.isfinite(row["activations"]).all() and (row["activations"] >= 0).all()
        assert (row["activations"] <= 1).all() and not row["activations"][~seen].any()
        assert 60 <= row["bpm"] <= 180 and 0.6 <= row["confidence"] <= 1
        assert row["genre"].decode() in (*GENRES, "")


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs") / "midi"
    return folder, write_songs(folder)


@pytest.fixture(scope="module")
def builder(songs, tmp_path_factory):
    return build(songs[0], tmp_path_factory.mktemp("built"))


def test_rows_are_sound_and_pieces_stay_in_their_split(builder, songs):
    rows = rows_of(builder)
    assert set(rows) == set(SPLITS) and sum(map(len, rows.values())) == 152
    check_rows(rows)
    for split, mine in rows.items():
        assert {songs[1][row["piece"].decode().removeprefix("folder/")] for row in mine} == {split}
        assert all(row["full"] and not row["shippable"] and row["source"] == b"folder" for row in mine)


def test_copies_and_transposed_copies_are_dropped_and_all_is_counted(builder, songs):
    found = counts(builder)["folder"]
    # Two copies of test songs in train, one of a train song in test, each of two windows; one within train.
    assert found["duplicate across splits"] == 6 and found["duplicate"] == 2
    assert found["unreadable"] == 1 and found["not 4/4"] == 2 and found["pieces"] == 81
    assert found["windows"] == found["kept"] + sum(found.get(r, 0) for r in REASONS if r != "unreadable")
    kept = {row["piece"].decode() for mine in rows_of(builder).values() for row in mine}
    tests = sorted(n for n, split in songs[1].items() if split == "test" and n.startswith("song"))
    assert {f"folder/{name}" for name in tests} <= kept  # the test part keeps its own
    table = counts_table(counts(builder))
    assert table.count("\n") == 3 and "| unreadable |" in table


def test_counts_are_kept_with_the_data(builder):
    again = RealGrids(config=builder.builder_config, data_dir=builder.data_dir_root, file_format="array_record")
    assert counts(again) == counts(builder) and counts(again)["folder"]["kept"] == 152


def test_building_twice_gives_the_same_rows_in_the_same_order(builder, songs, tmp_path):
    for split, mine in rows_of(build(songs[0], tmp_path)).items():
        for a, b in zip(mine, rows_of(builder)[split], strict=True):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


def test_other_files_are_another_data_set(tmp_path):
    (tmp_path / "a.mid").write_bytes(midi(band(0)))
    first = folder_config(tmp_path).name
    assert folder_config(tmp_path).name == first
    (tmp_path / "a.mid").write_bytes(midi(band(1)))
    assert folder_config(tmp_path).name != first


def test_no_tensorflow_at_run_time(builder):
    assert "tensorflow" not in sys.modules


def test_beam_gives_the_same_rows(builder, songs, tmp_path, need):
    need(importlib.util.find_spec("apache_beam"), "no Apache Beam: pip install -e '.[beam]'")
    def by_print(rows):
        return {split: {row["fingerprint"]: row for row in mine} for split, mine in rows.items()}
    beam, here = by_print(rows_of(build(songs[0], tmp_path, beam=True))), by_print(rows_of(builder))
    assert beam.keys() == here.keys()
    for split in here:
        assert beam[split].keys() == here[split].keys()
        for key, row in here[split].items():
            for name in row:
                np.testing.assert_array_equal(row[name], beam[split][key][name])


def test_a_page_is_written(builder, tmp_path):
    page.page(builder, tmp_path, number=3)
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert (tmp_path / "page.strudel.js").read_text().count("arrange(") > 2
    assert (tmp_path / "counts.md").read_text() == counts_table(counts(builder)) + "\n"


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("EQDIFF_DATA", raising=False)
    with pytest.raises(InputError, match="no MIDI files below"):
        folder_config(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        page.main(["--data", "shippable", "--data_dir", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "set EQDIFF_DATA" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "midi").mkdir()
    (tmp_path / "midi" / "waltz.mid").write_bytes(midi(band(), meters=[(0, 3, 4)]))
    with pytest.raises(InputError, match="no two bars of the 1 pieces can be used"):
        build(tmp_path / "midi", tmp_path)


def test_a_wrong_archive_stops_the_build(tmp_path, monkeypatch):
    monkeypatch.setenv("EQDIFF_DATA", str(tmp_path))
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / SOURCES["openmsx"].archives[0].file).write_bytes(b"something else")
    with pytest.raises(InputError, match=r"openmsx_GPL2\.tar\.xz is not the archive"):
        RealGrids(config="openmsx", data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    assert not list((tmp_path / "real_grids").rglob("*.array_record*"))


def test_shippable_holds_no_piece_that_may_not_ship(tmp_path, monkeypatch):
    assert CONFIGS["experiment"].sources == tuple(SOURCES)
    assert CONFIGS["shippable"].sources == ("freedoom", "simutrans", "lmms", "groove")
    assert CONFIGS["shippable"].shippable and not CONFIGS["experiment"].shippable
    items = [corpora.Item("lmms", name, name, "", free, b"") for name, free in (("a", True), ("b", False))]
    monkeypatch.setattr(corpora, "items", lambda source: items if source == "lmms" else [])
    from eqdiff_jax.data import real_grids
    assert [i.name for i in real_grids._items(CONFIGS["shippable"])] == ["a"]
    assert [i.name for i in real_grids._items(CONFIGS["experiment"])] == ["a", "b"]


def test_openmsx(eqdiff_data, monkeypatch, tmp_path):
    monkeypatch.setenv("EQDIFF_DATA", str(eqdiff_data))
    builder = RealGrids(config="openmsx", data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    rows = rows_of(builder)
    check_rows(rows)
    found = counts(builder)["openmsx"]
    assert found["pieces"] == 31 and found.get("unreadable", 0) == 0
    assert found["kept"] == sum(map(len, rows.values())) > 550 and found["full"] > 400
    assert found["lost"] < 0.1 * found["notes"]
    tracks = Counter(t for mine in rows.values() for row in mine for t in np.flatnonzero(row["tokens"].any(1)))
    assert len(tracks) >= 11  # all but CLAP, which General MIDI kits seldom play


def test_every_archive_is_the_one_that_is_expected(eqdiff_data):
    for source in SOURCES.values():
        for archive in source.archives:
            data = (eqdiff_data / "music" / archive.file).read_bytes()
            assert archive == Archive(archive.file, hashlib.sha256(data).hexdigest())
