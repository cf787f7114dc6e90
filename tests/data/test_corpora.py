"""Sources: archives and their checksums, licences, groups, splits, genres."""

import hashlib
import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from songs import band, midi

from eqdiff_jax.data import corpora
from eqdiff_jax.data.corpora import SOURCES, Archive, Item
from eqdiff_jax.data.real_grids import work
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import GENRES, TRACKS


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.xz of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """stage(source, bytes, number): put the archive of a source in place and make its checksum the expected one."""
    monkeypatch.setenv("EQDIFF_DATA", str(tmp_path))
    (tmp_path / "music").mkdir()

    def put(source: str, data: bytes, number: int = 0) -> Path:
        archives = list(SOURCES[source].archives)
        archives[number] = Archive(archives[number].file, hashlib.sha256(data).hexdigest())
        monkeypatch.setitem(SOURCES, source, SOURCES[source]._replace(archives=tuple(archives)))
        path = tmp_path / "music" / archives[number].file
        path.write_bytes(data)
        return path
    return put


def item(source: str, name: str, group: str | None = None, split: str = "") -> Item:
    return Item(source, name, group or name, "", True, b"", split=split)


def test_a_changed_archive_is_refused_and_named(stage):
    path = stage("freedoom", packed({"musics/a.mid": midi(band())}))
    assert [i.name for i in corpora.items("freedoom")] == ["a"]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"freedoom_BSD3\.tar\.xz is not the archive that is expected.*SHA-256"):
        corpora.items("freedoom")


def test_a_broken_archive_is_refused_and_named(stage):
    whole = packed({"musics/a.mid": midi(band(bars=40)), "musics/b.mid": bytes(range(256)) * 40})
    for data in (whole[:len(whole) // 2], b"no archive at all"):
        stage("freedoom", data)
        with pytest.raises(InputError, match=r"freedoom_BSD3\.tar\.xz is a broken archive"):
            corpora.items("freedoom")


def test_absent_archives_say_what_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("EQDIFF_DATA", raising=False)
    with pytest.raises(InputError, match="openmsx_GPL2.tar.xz is not there: set EQDIFF_DATA"):
        corpora.items("openmsx")
    monkeypatch.setenv("EQDIFF_DATA", str(tmp_path))
    with pytest.raises(InputError, match="set EQDIFF_DATA"):
        corpora.items("pop909")
    with pytest.raises(InputError, match="unknown source 'lakh': choose one of freedoom"):
        corpora.items("lakh")


@pytest.mark.parametrize(("pieces", "parts"), [
    (3, {"train": 3}), (10, {"train": 8, "validation": 1, "test": 1}),
    (900, {"train": 792, "validation": 36, "test": 72})])
def test_splits_have_the_shares_promised(pieces, parts):
    given = [item("pop909", f"{n:03d}") for n in range(pieces)]
    found = corpora.with_splits(given)
    assert Counter(i.split for i in found) == parts
    assert {i.name: i.split for i in corpora.with_splits(given[::-1])} == {i.name: i.split for i in found}


def test_groups_stay_together_and_given_splits_stay():
    given = [item("mma", f"lib{g}__{n}", f"lib{g}") for g in range(40) for n in range(g % 5 + 1)]
    found = corpora.with_splits([*given, item("mma", "x", split="validation")])
    by_group: dict[str, set] = {}
    for i in found[:-1]:
        by_group.setdefault(i.group, set()).add(i.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert Counter(min(s) for s in by_group.values()) == {"train": 35, "validation": 2, "test": 3}
    assert found[-1].split == "validation"


def test_library_files_of_mma_are_groups(stage):
    stage("mma", packed({f"{lib}__{groove}.mid": b"" for lib in ("stdlib_ska", "zoom_dnb") for groove in "ABC"}))
    found = corpora.items("mma")
    assert Counter(i.group for i in found) == {"stdlib_ska": 3, "zoom_dnb": 3} and not any(i.shippable for i in found)
    assert {corpora.genre_of(i.style) for i in found if i.group == "zoom_dnb"} == {"breakbeat"}


def test_groove_has_its_own_splits_but_two_drummers_are_the_test_part(stage):
    rows = [("drummer1", "1", "rock", "train"), ("drummer1", "2", "jazz", "validation"),
            ("drummer5", "3", "latin/samba", "train"), ("drummer9", "4", "hiphop", "validation")]
    header = "drummer,session,id,style,bpm,beat_type,time_signature,midi_filename,audio_filename,duration,split"
    lines = [f"{d},{d}/s,{d}/s/{n},{style},120,beat,4-4,{d}/s/{n}.mid,x.wav,9,{split}" for d, n, style, split in rows]
    lines.append("drummer1,drummer1/s,drummer1/s/9,rock,120,beat,4-4,absent.mid,x.wav,9,test")
    files = {f"{d}/s/{n}.mid": midi([band()[0]]) for d, n, _, _ in rows}
    stage("groove", packed({"info.csv": "\n".join([header, *lines]).encode(), **files}))
    found = {i.name: i for i in corpora.items("groove")}
    assert [(i.split, corpora.genre_of(i.style)) for i in found.values()] == [
        ("train", "rock"), ("validation", ""), ("test", "latin"), ("test", "hiphop")]
    rows_found, _ = work(found["drummer5/s/3"])
    observed = {TRACKS[i] for i in rows_found[0].features["observed"].nonzero()[0]}
    assert observed == {"KICK", "SNARE", "HH", "CLAP", "FX"}


def test_pop909_is_read_by_its_beats(stage):
    beats = "\n".join(f"{0.6 * i} 0 {i % 4 == 0:.0f}" for i in range(40)).encode()  # 100 bpm, MIDI says 120
    music = midi([("MELODY", 0, 0, [(4.8 * i, 2, 60 + i % 7, 80) for i in range(30)])])
    stage("pop909", packed({"POP909/001/001.mid": music, "POP909/001/beat_midi.txt": beats,
                            "POP909/002/002.mid": music}))
    (rows, counts), (_, broken) = map(work, corpora.items("pop909"))
    assert counts["pieces"] == 1 and len(rows) == 3 and broken == {"unreadable": 1}
    assert rows[0].features["confidence"] == 1.0 and rows[0].features["bpm"] == pytest.approx(100)
    assert not rows[0].features["observed"][TRACKS.index("BASS")]


LICENSES = """* One.mmpz
  - CC (by)
  - https://a

* Two-Song.mmp
  - Artistic 2.0
  - https://b

* Three.mmpz
  - Creative Commons (by-nc-sa)
* Four (Remix)
  - CC (by-sa)
* Five.mmpz
  - Yellow openmusic
* Six.mmpz
  - BSD
* Seven.mmpz
  - CC BY-SA 4.0
* Eight.mmpz
  - CC0
* Nine.mmpz
  - CC (by-nc)
* Ten - Eleven
  - CC-BY 4.0
"""


def test_only_free_songs_may_ship(stage):
    assert corpora.free_songs([LICENSES]) == {"One", "Two-Song", "Six", "Eight", "Ten - Eleven"}
    stage("lmms", packed({"One.json": b"{}", "Three.json": b"{}", "Unknown.json": b"{}"}))
    stage("lmms", packed({"data/LICENSES.TXT": LICENSES.encode()}), 1)
    assert {i.name: i.shippable for i in corpora.items("lmms")} == {"One": True, "Three": False, "Unknown": False}


def test_shippable_sources():
    assert {name for name, s in SOURCES.items() if s.shippable} == {"freedoom", "simutrans", "groove"}
    assert {name for name, s in SOURCES.items() if s.shippable is None} == {"lmms"}


def test_the_page_lists_the_sources():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"<!-- table: sources -->\n{corpora.sources_table()}\n<!-- end -->" in text


@pytest.mark.parametrize(("style", "genre"), [
    ("casio_latinhouse__A", "house"), ("stdlib_bossanova__B", "latin"), ("rock/halftime", "rock"), ("punk", "rock"),
    ("dance/breakbeat", "breakbeat"), ("dance/disco", "house"), ("casio_trance1__X", "techno"), ("pop", "pop"),
    ("casio_triphop__X", "hiphop"), ("zoom_ambient__X", "ambient"), ("sv-DnB-Startup", "breakbeat"),
    ("jazz", ""), ("stdlib_polka__POLKA", ""), ("Oglsdl-PpTrip", ""), ("stdlib_hymn__A", "")])
def test_genres(style, genre):
    assert corpora.genre_of(style) == genre
    assert genre in (*GENRES, "")


def test_a_folder_of_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "One.MID").write_bytes(midi(band()))
    (tmp_path / "two.midi").write_bytes(b"no music")
    (tmp_path / "notes.txt").write_text("")
    found = corpora.folder_items(tmp_path)
    assert [i.name for i in found] == ["sub/One", "two"] and not found[0].shippable
    assert [work(i)[1]["unreadable"] for i in found] == [0, 1]
    with pytest.raises(InputError, match="no MIDI files below"):
        corpora.folder_items(tmp_path / "nowhere")
