"""Real music as grids, a tfds builder (array_record, no TensorFlow): two-bar windows of MIDI archives.

Splits are by piece. Equal music, in whatever key, is kept once: in the test part if that has it, else in the
validation part. Work on a piece is one pure function; it runs here, or under Apache Beam when the config says so.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from eqdiff_jax.data import corpora
from eqdiff_jax.data.corpora import SOURCES, SPLITS, Item
from eqdiff_jax.data.pieces import REASONS, windows
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.descriptors import DESCRIPTORS
from eqdiff_jax.music.grid import SHAPE, TRACKS


class RealGridsConfig(tfds.core.BuilderConfig):
    """Which sources, or the folder of a person's own MIDI files; whether to leave out what weights may not ship."""

    def __init__(self, *, name: str, sources: tuple[str, ...] = (), folder: str | None = None, shippable: bool = False,
                 beam: bool = False):
        super().__init__(name=name, version=tfds.core.Version("1.0.0"), description=self.__doc__)
        self.sources, self.folder, self.shippable, self.beam = sources, folder, shippable, beam

    def require(self) -> None:
        """Raise InputError for archives that are not there, or differ from the expected ones."""
        for name in self.sources:
            for archive in SOURCES[name].archives:
                corpora.archive_path(archive)


CONFIGS = {config.name: config for config in (
    RealGridsConfig(name="experiment", sources=tuple(SOURCES)),
    RealGridsConfig(name="shippable", sources=tuple(n for n, s in SOURCES.items() if s.shippable is not False),
                    shippable=True),
    *(RealGridsConfig(name=name, sources=(name,)) for name in SOURCES),
)}


def folder_config(folder: str | os.PathLike, *, shippable: bool = False, beam: bool = False) -> RealGridsConfig:
    """A person's own MIDI files; the name follows from them, so that other files are another data set.

    `shippable`: weights trained on them may be published. Raises InputError for a folder without MIDI files.
    """
    digest = hashlib.blake2b(digest_size=4)
    for item in corpora.folder_items(folder, shippable):
        digest.update(repr((item.name, item.shippable, beam, item.data)).encode())
    return RealGridsConfig(name=f"folder-{digest.hexdigest()}", folder=str(folder), shippable=shippable, beam=beam)


class Row(NamedTuple):
    """A window as the data set holds it, with what decides whether it stays."""

    order: tuple[int, str, str, int]  # rank of the split, source, piece, window: the first of equal music stays
    key: str  # unique in the data set
    fingerprint: str
    features: dict


class RealGrids(tfds.core.GeneratorBasedBuilder):
    """Two-bar grids of real music with their descriptors; tokens are the mask id in tracks not observed."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = list(CONFIGS.values())

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        metadata = tfds.core.MetadataDict()  # of the counts
        return tfds.core.DatasetInfo(builder=self, metadata=metadata, features=tfds.features.FeaturesDict({
            "tokens": tensor(shape=SHAPE, dtype=np.uint8),
            "observed": tensor(shape=(len(TRACKS),), dtype=np.bool_),
            "activations": tensor(shape=(len(TRACKS),), dtype=np.float32),
            "descriptors": tensor(shape=(len(DESCRIPTORS),), dtype=np.float32),
            "confidence": tensor(shape=(), dtype=np.float32),
            "bpm": tensor(shape=(), dtype=np.float32),
            "genre": tfds.features.Text(),
            "source": tfds.features.Text(),
            "piece": tfds.features.Text(),
            "shippable": tensor(shape=(), dtype=np.bool_),
            "full": tensor(shape=(), dtype=np.bool_),
            "fingerprint": tfds.features.Text(),
        }))

    def _split_generators(self, dl_manager):
        del dl_manager
        items = sorted(_items(self.builder_config), key=_item_order)
        if self.builder_config.beam:
            used = {item.split for item in items}
            return {split: self._generate_examples(_beam_rows(items, split)) for split in SPLITS[::-1] if split in used}
        rows, tally = kept_rows(tqdm(items, desc="pieces", unit="piece"))
        self.info.metadata["counts"] = tally
        print(counts_table(tally))
        if not any(rows.values()):
            raise InputError(f"no two bars of the {len(items)} pieces can be used: the counts above say why")
        return {split: self._generate_examples(rows[split]) for split in SPLITS[::-1] if rows[split]}

    def _generate_examples(self, rows):
        """Keys and features of rows; a Beam transform makes its own."""
        return ((row.key, row.features) for row in rows) if isinstance(rows, list) else rows


def work(item: Item) -> tuple[list[Row], Counter]:
    """The windows of one piece and what became of the others; a file that cannot be read is counted, not fatal."""
    try:
        piece = corpora.read(item)
    except InputError:
        return [], Counter(unreadable=1)
    found, counts = windows(piece, corpora.observed_of(item.source))
    rank, genre = SPLITS.index(item.split), corpora.genre_of(item.style)
    rows = [Row((rank, item.source, item.name, w.number), f"{item.source}/{item.name}/{w.number}", w.fingerprint, {
        "tokens": w.tokens, "observed": w.observed, "activations": w.activations, "descriptors": w.descriptors,
        "confidence": np.float32(w.confidence), "bpm": np.float32(w.bpm), "genre": genre, "source": item.source,
        "piece": f"{item.source}/{item.name}", "shippable": item.shippable, "full": w.full,
        "fingerprint": w.fingerprint}) for w in found]
    return rows, counts + Counter(pieces=1)


def kept_rows(items: Iterable[Item]) -> tuple[dict[str, list[Row]], dict[str, dict[str, int]]]:
    """Rows by split, each music once, and counts by source. Items come in the order of `_item_order`."""
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    tally: dict[str, Counter] = {}
    first: dict[str, int] = {}  # fingerprint -> rank of the split that has it
    for item in items:
        found, counted = work(item)
        count = tally.setdefault(item.source, Counter())
        count.update(counted)
        for row in found:
            rank = row.order[0]
            if row.fingerprint in first:
                count["duplicate" if first[row.fingerprint] == rank else "duplicate across splits"] += 1
                continue
            first[row.fingerprint] = rank
            rows[SPLITS[rank]].append(row)
            count.update(kept=1, full=int(row.features["full"]))
    return rows, {source: dict(count) for source, count in tally.items()}


def counts(builder: RealGrids) -> dict[str, dict[str, int]]:
    """By source: pieces, windows, those kept, full ones among them, and dropped ones by reason (see REASONS).

    Empty for a data set built under Beam, whose runner shows the counters instead.
    """
    return dict((builder.info.metadata or {}).get("counts", {}))


def counts_table(by_source: dict[str, dict[str, int]]) -> str:
    """The counts as a Markdown table, a line per source and their sum."""
    columns = ("pieces", "windows", "kept", "full", *REASONS, "notes lost")
    total: Counter = Counter()
    lines = [f"| source | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for count in by_source.values():
        total.update(count)
    for name, count in (*by_source.items(), ("all", total)):
        lost = f"{100 * count.get('lost', 0) / max(count.get('notes', 0), 1):.1f} %"
        lines.append(f"| {name} | {' | '.join([*(str(count.get(c, 0)) for c in columns[:-1]), lost])} |")
    return "\n".join(lines)


def _items(config: RealGridsConfig) -> list[Item]:
    """The pieces of a config."""
    found = corpora.folder_items(config.folder, config.shippable) if config.folder else []
    found += [item for source in config.sources for item in corpora.items(source)]
    return [item for item in found if item.shippable or not config.shippable]


def _item_order(item: Item) -> tuple[int, str, str]:
    return SPLITS.index(item.split), item.source, item.name


def _beam_rows(items: list[Item], split: str):
    """The rows of one split as a Beam transform; pieces of splits that come before are read to know their music."""
    import apache_beam as beam

    rank = SPLITS.index(split)
    within = [item for item in items if _item_order(item)[0] <= rank]

    def rows_of(item: Item) -> list[tuple[str, Row]]:
        found, counted = work(item)
        for name, number in counted.items():
            beam.metrics.Metrics.counter(item.source, name).inc(number)
        return [(row.fingerprint, row) for row in found]

    def first_of(equal: tuple[str, Iterable[Row]]) -> list[tuple[str, dict]]:
        row = min(equal[1], key=lambda row: row.order)
        return [(row.key, row.features)] if row.order[0] == rank else []

    return beam.Create(within) | beam.FlatMap(rows_of) | beam.GroupByKey() | beam.FlatMap(first_of)
