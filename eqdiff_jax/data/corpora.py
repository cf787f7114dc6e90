"""The sources of real music: where each archive is, what its licence allows, how its pieces are read and split.

Archives lie below EQDIFF_DATA/music, are read in memory and never unpacked; their SHA-256 is checked first.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from eqdiff_jax.data.readers import ROLAND, Piece, read_beats, read_lmms, read_midi
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import TRACKS
from eqdiff_jax.music.midi_tables import DRUM_TRACKS

SPLITS = ("test", "validation", "train")  # in the order in which they keep what several have
TEST, VALIDATION = 0.08, 0.04  # shares of pieces
GROOVE_TEST = ("drummer5", "drummer9")  # whose recordings are the test part
_DRUMS = tuple(DRUM_TRACKS)
_NO_BASS = tuple(name for name in TRACKS if name not in DRUM_TRACKS and name != "BASS")


class Archive(NamedTuple):
    """A file below EQDIFF_DATA/music, with its checksum."""

    file: str
    sha256: str


class Source(NamedTuple):
    """Music of one origin."""

    archives: tuple[Archive, ...]  # the music; lmms: the projects' archive with LICENSES.TXT second
    origin: str  # repository, commit, and what was taken
    licence: str
    shippable: bool | None  # may weights trained on it be published and sold; None: piece by piece
    observed: tuple[str, ...] = TRACKS  # tracks it can speak of


class Item(NamedTuple):
    """One piece before it is read: all that the work on it needs, picklable."""

    source: str
    name: str
    group: str  # pieces of one group stay in one split
    style: str  # words that may say a genre
    shippable: bool
    data: bytes
    beats: bytes = b""  # pop909: the times of its beats
    split: str = ""  # one of SPLITS; empty until `with_splits`


SOURCES = {
    "freedoom": Source(
        (Archive("freedoom_BSD3.tar.xz", "2382f5ba6b968dd755fba22b0bc9f545cfbf7fa935308fe883c2aa3e7abeb1e3"),),
        "freedoom/freedoom @ d14dbbee, musics/", "BSD-3-Clause", True),
    "simutrans": Source(
        (Archive("simutrans_Artistic.tar.xz", "d201fcfb383fad0584afde5f52463d229ef7cb84b02273b1db110b6d0a718b7b"),),
        "simutrans/simutrans @ d8c00ef1, simutrans/music/", "Artistic", True),
    "openmsx": Source(
        (Archive("openmsx_GPL2.tar.xz", "ae91b09a3a76fdd1c029cd6b910806c3840ec24a395d61da114b9f7b1255d894"),),
        "OpenTTD/OpenMSX @ 5ecb59b9, src/", "GPL-2.0", False),
    "lmms": Source(
        (Archive("lmms_flat_json.tar.xz", "7eb4747cc22191805c54d516b0c3d7902a89216444161413e91264c545f8fbac"),
         Archive("lmms_projects_mixed_CC_Artistic.tar.xz",
                 "1b62e14c03d224dd5842eac80e258ec0ae08a100205e28e9745934854ea7d0eb")),
        "LMMS/lmms @ de166c31, data/projects/, notes as flat JSON", "by song", None),
    "mma": Source(
        (Archive("mma_rendered_GPL2.tar.xz", "ceae436cbcdd1fc612b8813634bf5190fb49311c6c513a75b36e56504a814ead"),),
        "Debian mma 21.09-1, its grooves played over eight bars of chords", "GPL-2+", False),
    "groove": Source(
        (Archive("groove_gmd_trainval_CCBY4.tar.xz",
                 "3f88bf62e105ac734318c9d1d0a96e7913b2d6d224b8afc84f73350b49773454"),),
        "Magenta Groove MIDI Dataset from zharry29/drums-with-llm @ 476adbc9, groove/, train and validation",
        "CC-BY-4.0", True, _DRUMS),
    "pop909": Source(
        (Archive("pop909_MIT.tar.xz", "9ba430879705bc0eda936a49992875894a31ae0325e93c9a22a117bc48632ae7"),),
        "music-x-lab/POP909-Dataset @ d83e6edb, POP909/, without versions", "MIT (commercial songs)", False, _NO_BASS),
}
FOLDER = Source((), "a folder of MIDI files", "its owner's", None)

# The first pattern found in a piece's style or name says its genre.
_GENRES = tuple((genre, re.compile(words)) for genre, words in (
    ("breakbeat", r"breakbeat|\bdnb|_dnb|drum ?n ?bass|jungle"),
    ("house", r"house|disco"),
    ("techno", r"techno|trance|rave"),
    ("hiphop", r"hip-?hop|crunk|trip-?hop|_trip\b"),
    ("ambient", r"ambient"),
    ("latin", r"latin|afrocuban|samba|bossa|salsa|mambo|rh?umba|bolero|merengue|chacha|beguine|cuban|_son\b|tango"
              r"|calypso|reggaeton"),
    ("rock", r"rock|punk|metal|_hrk|_mtl"),
    ("pop", r"\bpop|pop\b|_pop|pop\d|ballad|8beat|16beat|dance"),
))


def sources_table() -> str:
    """The sources as a Markdown table: origin, licence, what may ship, tracks, archives."""
    lines = ["| source | origin | licence | shippable | tracks | archive | SHA-256 |", "| --- " * 7 + "|"]
    for name, source in SOURCES.items():
        ship = {True: "yes", False: "no", None: "by song"}[source.shippable]
        tracks = "all" if source.observed == TRACKS else " ".join(source.observed)
        for archive in source.archives:
            lines.append(f"| {name} | {source.origin} | {source.licence} | {ship} | {tracks} | {archive.file} "
                         f"| {archive.sha256[:12]} |")
    return "\n".join(lines)


def genre_of(style: str) -> str:
    """The genre that a style or title speaks of; '' for none of them."""
    return next((genre for genre, words in _GENRES if words.search(style.lower())), "")


def with_splits(found: Sequence[Item]) -> list[Item]:
    """The pieces of one source with their splits: the source's own, else by the hash of their group.

    Groups are put in the order of their hashes; the first 8 % are the test part, the next 4 % the validation part,
    at least one each where there are ten or more.
    """
    groups = {f"{item.source}/{item.group}" for item in found if not item.split}
    order = sorted(groups, key=lambda group: hashlib.blake2b(group.encode(), digest_size=8).digest())
    least = int(len(order) >= 10)
    test, validation = (max(round(share * len(order)), least) for share in (TEST, VALIDATION))
    rank = {group: i for i, group in enumerate(order)}

    def split(item: Item) -> str:
        i = rank[f"{item.source}/{item.group}"]
        return "test" if i < test else "validation" if i < test + validation else "train"
    return [item if item.split else item._replace(split=split(item)) for item in found]


def observed_of(source: str) -> tuple[str, ...]:
    """The tracks that a source can speak of."""
    return SOURCES.get(source, FOLDER).observed


def read(item: Item) -> Piece:
    """The piece; raises InputError for a file that cannot be read."""
    if item.source == "lmms":
        return read_lmms(item.data)
    if item.source == "pop909":
        return read_beats(item.data, item.beats)
    return read_midi(item.data, ROLAND if item.source == "groove" else None)


def items(source: str) -> list[Item]:
    """The pieces of a source, by name. Raises InputError when its archive is absent or not the expected one."""
    if source not in SOURCES:
        raise InputError(f"unknown source {source!r}: choose one of {', '.join(SOURCES)}")
    files = dict(_members(archive_path(SOURCES[source].archives[0])))
    make = {"lmms": _lmms, "groove": _groove, "pop909": _pop909}.get(source, _plain)
    return with_splits(sorted(make(source, files), key=lambda item: item.name))


def folder_items(folder: str | os.PathLike, shippable: bool = False) -> list[Item]:
    """The MIDI files below a folder, each its own group."""
    root = Path(folder)
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
    if not paths:
        raise InputError(f"no MIDI files below {root}: name a folder with .mid files")
    return with_splits([Item("folder", name, name, name, shippable, path.read_bytes())
                        for path in paths for name in [path.relative_to(root).with_suffix("").as_posix()]])


def archive_path(archive: Archive) -> Path:
    """Where an archive is. Raises InputError when it is absent or differs from the expected one."""
    root = os.environ.get("EQDIFF_DATA", "")
    path = Path(root) / "music" / archive.file
    if not root or not path.is_file():
        raise InputError(f"music/{archive.file} is not there: set EQDIFF_DATA to the folder that holds it")
    if _sha256(path, path.stat().st_mtime_ns) != archive.sha256:
        raise InputError(f"{path} is not the archive that is expected, its SHA-256 differs: copy it again")
    return path


@lru_cache(maxsize=64)
def _sha256(path: Path, changed: int) -> str:
    del changed  # part of the key only
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an archive's files. Raises InputError for a broken one."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield member.name, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} is a broken archive ({error}): copy it again") from error


def _plain(source: str, files: dict[str, bytes]) -> list[Item]:
    """One MIDI file, one piece; MMA's LIB_FILE__GROOVE files are grouped by library file."""
    own = bool(SOURCES[source].shippable)
    return [Item(source, stem, stem.split("__")[0], stem, own, data) for name, data in files.items()
            if name.lower().endswith(".mid") for stem in [name.rsplit("/", 1)[-1][:-4]]]


def _groove(source: str, files: dict[str, bytes]) -> list[Item]:
    """Recordings with the style and split of info.csv; two drummers are the test part."""
    header, *lines = (line.split(",") for line in files["info.csv"].decode().splitlines())
    found = []
    for line in lines:
        row = dict(zip(header, line, strict=False))
        if row["midi_filename"] in files:
            split = "test" if row["drummer"] in GROOVE_TEST else row["split"]
            found.append(Item(source, row["id"], row["session"], row["style"], True, files[row["midi_filename"]],
                              split=split))
    return found


def _pop909(source: str, files: dict[str, bytes]) -> list[Item]:
    songs = {name.split("/")[1]: data for name, data in files.items() if name.endswith(".mid")}
    return [Item(source, song, song, "pop", False, data, files.get(f"POP909/{song}/beat_midi.txt", b""))
            for song, data in songs.items()]


def _lmms(source: str, files: dict[str, bytes]) -> list[Item]:
    texts = [data.decode() for name, data in _members(archive_path(SOURCES[source].archives[1]))
             if name.endswith("LICENSES.TXT")]
    free = free_songs(texts)
    return [Item(source, stem, stem, stem, stem in free, data) for name, data in files.items()
            if name.endswith(".json") for stem in [name[:-5]]]


def free_songs(texts: Sequence[str]) -> set[str]:
    """Songs whose licence in LICENSES.TXT is CC-BY, CC0, BSD, MIT or Artistic; not NC, ND, SA or unknown."""
    free = set()
    for text in texts:
        for name, licence in re.findall(r"^\* (.+?)(?:\.mmpz?)?\s*\n\s*- (.+)$", text, re.MULTILINE):
            words = set(re.findall(r"[a-z]+|cc0", licence.lower().replace("creative commons", "cc")))
            if not words & {"nc", "nd", "sa"} and (words & {"artistic", "bsd", "mit"} or {"cc", "by"} <= words
                                                   or "cc0" in licence.lower()):
                free.add(name)
    return free
