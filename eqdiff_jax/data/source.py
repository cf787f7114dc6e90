"""Prepared datasets as arrays, and the order in which training sees them: a function of (seed, step) alone.

A dataset is the name of a config, `logs:FOLDER` (session logs, as they were played), `midi:FOLDER` (a person's own MIDI
files, paired as recorded music is), or a mixture: "shippable*3+demo" takes three rows of the one for each of the other.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from eqdiff_jax.data.paired_music import PAIRED_CONFIGS, PairedConfig, PairedMusic
from eqdiff_jax.data.pairs import ConductorPairs, PairsConfig
from eqdiff_jax.data.real_grids import folder_config
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import SHAPE

CONFIGS = {config.name: config for builder in (ConductorPairs, PairedMusic) for config in builder.BUILDER_CONFIGS}
FIELDS = ("tokens", "observed", "conditioning", "paired")  # what training reads


class Part(NamedTuple):
    """One dataset of a mixture."""

    name: str
    config: PairsConfig | PairedConfig
    share: int  # rows it gives to every round


class Mixture(NamedTuple):
    """The rows of all parts in one array per field, part after part, and how training goes through them."""

    columns: dict[str, np.ndarray]  # FIELDS, as `arrays` gives them; all fields, if there is one part
    sizes: tuple[int, ...]  # rows of each part
    shares: tuple[int, ...]


def config_of(name: str) -> PairsConfig | PairedConfig:
    """The config of that name. Raises InputError for an unknown one, or a folder that holds nothing of the kind.

    The config of a folder is called after what is in its files, so other files are another dataset.
    """
    kind, colon, folder = name.partition(":")
    if kind == "logs" and colon:
        logs = sorted(Path(folder).glob("**/*.jsonl"))
        if not logs:
            raise InputError(f"{name}: there are no session logs (.jsonl) in that folder; live.py --log writes them")
        digest = hashlib.blake2b(digest_size=4)
        for log in logs:
            digest.update(repr((log.name, log.read_bytes())).encode())
        return PairedConfig(name=f"logs-{digest.hexdigest()}", grids=None, sources=(), logs=logs)
    if kind == "midi" and colon:
        grids = folder_config(folder)
        return PairedConfig(name=f"midi-{grids.name}", grids=grids, sources=PAIRED_CONFIGS["shippable"].sources)
    if name not in CONFIGS:
        raise InputError(f"unknown data config {name!r}: choose one of {', '.join(CONFIGS)}, logs:FOLDER, midi:FOLDER, "
                         "or a mixture such as shippable*3+demo")
    return CONFIGS[name]


def parts(name: str) -> list[Part]:
    """The parts of a mixture "a*3+b". Raises InputError for a share that is no positive number, or an unknown name."""
    found = []
    for term in name.split("+"):
        part, _, share = term.strip().partition("*")
        config = config_of(part)
        if share and (not share.isdecimal() or int(share) < 1):
            raise InputError(f"{term!r} is no part of a mixture: write NAME or NAME*SHARE, a whole share from 1")
        found.append(Part(part, config, int(share or 1)))
    return found


def check(name: str) -> None:
    """Raise InputError for datasets that nobody knows, or whose recordings are not there."""
    for part in parts(name):
        part.config.require()


def prepare(name: str, data_dir: str | Path) -> tfds.core.GeneratorBasedBuilder:
    """Build the dataset `name` (no mixture) under data_dir unless it is there already.

    Raises InputError for an unknown name, or recordings that are not there.
    """
    config = config_of(name)
    kind = PairedMusic if isinstance(config, PairedConfig) else ConductorPairs
    builder = kind(config=config, data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return builder


def arrays(builder: tfds.core.GeneratorBasedBuilder, split: str) -> dict[str, np.ndarray]:
    """A whole split in memory, one column per field.

    tokens int32 [N, 12, 32], conditioning float32 [N, 104], observed bool [N, 12] (tracks that the source can speak of,
    the others hold masks), paired bool [N] (False: the conditioning says nothing); both all True where the builder does
    not say. Texts such as clip, piece, source: bytes [N].
    Raises InputError for a split without rows, or when a record cannot be read.
    """
    if split not in builder.info.splits:
        raise InputError(f"{builder.data_path}: too few pieces or performances for a {split} split; add some, or mix "
                         "it with another dataset")
    try:
        source = builder.as_data_source(split=split)
        rows = source.__getitems__(list(range(len(source))))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{builder.data_path}: the {split} split cannot be read ({reason}); delete that folder, and "
                         "it is built again") from error
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    columns["tokens"] = columns["tokens"].astype(np.int32)
    for name, shape in (("observed", (len(rows), SHAPE[0])), ("paired", (len(rows),))):
        columns[name] = columns.get(name, np.ones(shape)).astype(bool)
    return columns


def mixture(name: str, data_dir: str | Path, split: str) -> Mixture:
    """One split of a mixture, built under data_dir where it is not there already.

    A part may lack a split that is held out. Raises InputError where training, or all parts, would be without rows.
    """
    builders = [(part, prepare(part.name, data_dir)) for part in parts(name)]
    if split != "train":  # where none has it, the first says so
        builders = [found for found in builders if split in found[1].info.splits] or builders[:1]
    columns = [arrays(builder, split) for _, builder in builders]
    fields = FIELDS if len(columns) > 1 else tuple(columns[0])
    return Mixture({field: np.concatenate([column[field] for column in columns]) for field in fields},
                   tuple(len(column["tokens"]) for column in columns), tuple(part.share for part, _ in builders))


def motion_seed(name: str) -> int:
    """The seed of the motion chain that made a mixture's conditioning. Raises InputError where its parts differ."""
    seeds = {part.config.motion_seed for part in parts(name)}
    if len(seeds) > 1:
        raise InputError(f"{name}: its parts were made by chains of different seeds, {sorted(seeds)}: mix others")
    return seeds.pop()


def batch_rows(seed: int, step: int, batch: int, sizes: Sequence[int], shares: Sequence[int] = (1,)) -> np.ndarray:
    """Row numbers of the batch at `step`: every part in a fresh permutation each epoch of its own. int [batch]

    Of every sum(shares) rows in order, part c gives shares[c]. Nothing is carried from step to step, so a run that
    resumes at `step` sees what it would have seen.
    """
    slots = np.repeat(np.arange(len(sizes)), shares)
    turn, slot = np.divmod(np.arange(step * batch, (step + 1) * batch), len(slots))
    part = slots[slot]
    within = slot - np.concatenate([[0], np.cumsum(shares)])[part]
    own = turn * np.asarray(shares)[part] + within  # how many rows of its part came before
    epoch, place = np.divmod(own, np.asarray(sizes)[part])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    orders = {key: np.random.default_rng([seed, *key]).permutation(sizes[key[0]])
              for key in set(zip(part.tolist(), epoch.tolist(), strict=True))}
    return np.array([starts[c] + orders[c, e][p] for c, e, p in zip(part, epoch, place, strict=True)])
