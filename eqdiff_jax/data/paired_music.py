"""Pairs of movement and music, phase 1b: real grids meet the movement that asks for them (data/pairing.py).

A tfds builder (array_record, no TensorFlow) over the grids of `RealGrids` and the windows of data/movement.py. Grids
of one split meet movement of the same split only. Each repeat draws its own windows, and from the second on every
grid is transposed by its own random interval. Session logs (phase 2) join as they were played.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from eqdiff_jax import motion
from eqdiff_jax.conditioning import SIZE, assemble
from eqdiff_jax.conditioning.layout import genre_vector
from eqdiff_jax.data import pairing, sessions
from eqdiff_jax.data.movement import (
    SPLITS,
    MotionSource,
    MotionWindows,
    balanced,
    hashed_split,
    motion_windows,
    source,
    taken,
)
from eqdiff_jax.data.real_grids import CONFIGS as GRID_CONFIGS
from eqdiff_jax.data.real_grids import RealGrids, RealGridsConfig
from eqdiff_jax.music.descriptors import DESCRIPTORS, descriptors
from eqdiff_jax.music.grid import LEGAL, REST, SHAPE
from eqdiff_jax.music.vocabulary import VOCABULARY

SHIFTS = np.arange(-5, 7)  # semitones, an octave of transpositions
MASK = len(VOCABULARY)  # in the tracks that a grid does not observe

_PITCHES = VOCABULARY.ranges["pitch"]
# First and last pitch token that a track may hold.
_LOWEST = np.array([_PITCHES.start + row.argmax() for row in LEGAL[:, list(_PITCHES)]])
_HIGHEST = np.array([_PITCHES.stop - 1 - row[::-1].argmax() for row in LEGAL[:, list(_PITCHES)]])
_FILL = VOCABULARY.ids["fill"]

Rows = Callable[[str], Sequence[dict]]  # split -> rows of RealGrids


class PairedConfig(tfds.core.BuilderConfig):
    """grids: a config of RealGrids or its name, or a function split -> its rows. sources: names of movement.SOURCES, or
    records. logs: session logs. repeats: pairs per grid on average, partial_repeats of one that does not observe all
    tracks. temperature, price: eps and rho of data/pairing.py. leftovers: a grid that no movement asked for comes once,
    with zeros for conditioning and `paired` False, to be learned without conditioning."""

    def __init__(self, *, name: str, grids: str | RealGridsConfig | Rows | None, sources: Sequence[str | MotionSource],
                 logs: Sequence[str | Path] = (), repeats: int = 4, partial_repeats: int = 2,
                 temperature: float = pairing.TEMPERATURE, price: float = pairing.PRICE, transposed: bool = True,
                 leftovers: bool = False, seed: int = 0, motion_seed: int = 0):
        super().__init__(name=name, version=tfds.core.Version("1.1.0"), description=self.__doc__)
        self.grids, self.sources, self.logs = grids, tuple(sources), tuple(logs)
        self.repeats, self.partial_repeats = repeats, partial_repeats
        self.temperature, self.price, self.transposed, self.leftovers = temperature, price, transposed, leftovers
        self.seed, self.motion_seed = seed, motion_seed

    def require(self) -> None:
        """Raise InputError for recordings that are not there."""
        for kind in self.sources:
            archive = (source(kind) if isinstance(kind, str) else kind).archive
            if archive is not None:
                archive()
        grids = GRID_CONFIGS[self.grids] if isinstance(self.grids, str) else self.grids
        if isinstance(grids, RealGridsConfig):
            grids.require()


class Music(NamedTuple):
    """N rows of RealGrids as columns."""

    tokens: np.ndarray  # uint8 [N, 12, 32]
    observed: np.ndarray  # bool [N, 12]
    descriptors: np.ndarray  # float32 [N, 5]
    activations: np.ndarray  # float32 [N, 12] of the window before
    bpm: np.ndarray  # float32 [N]
    genre: np.ndarray  # float32 [N, 8]
    piece: np.ndarray  # str [N]
    source: np.ndarray  # str [N]


PAIRED_CONFIGS = {config.name: config for config in (
    PairedConfig(name="experiment", grids="experiment", sources=("demo", "salsa", "bandai")),
    PairedConfig(name="shippable", grids="shippable", sources=("demo", "salsa")),
)}


class PairedMusic(tfds.core.GeneratorBasedBuilder):
    """`tokens` uint8 [12, 32] (id 81 in tracks not observed), `observed` bool [12], `conditioning` float32 [104],
    `paired` bool (False: the conditioning says nothing), and where they come from: `clip` and its `frames` int32 [2]
    (movement, from and to), `piece` and `source` (music)."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = list(PAIRED_CONFIGS.values())

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "tokens": tfds.features.Tensor(shape=SHAPE, dtype=np.uint8),
            "observed": tfds.features.Tensor(shape=(SHAPE[0],), dtype=np.bool_),
            "conditioning": tfds.features.Tensor(shape=(SIZE,), dtype=np.float32),
            "paired": tfds.features.Scalar(dtype=np.bool_),
            "clip": tfds.features.Text(), "frames": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "piece": tfds.features.Text(), "source": tfds.features.Text(),
        }))

    def _split_generators(self, dl_manager):
        del dl_manager
        homes = {log: hashed_split(Path(log).stem) for log in self.builder_config.logs}
        if "train" not in homes.values():  # a few nights only
            homes = dict.fromkeys(homes, "train")
        parts = {split: (self._rows(split), [log for log, home in homes.items() if home == split]) for split in SPLITS}
        return {split: self._generate_examples(split, *part) for split, part in parts.items() if any(map(len, part))}

    def _rows(self, split: str) -> Sequence[dict]:
        grids = self.builder_config.grids
        if grids is None:
            return []
        return grids(split) if callable(grids) else real_grids(grids, self.data_dir_root, split)

    def _generate_examples(self, split: str, rows: Sequence[dict],
                           logs: Sequence[str | Path]) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        if len(rows):
            params = motion.init_params(jax.random.key(config.motion_seed))
            kinds = [source(kind) if isinstance(kind, str) else kind for kind in config.sources]
            yield from examples(rows, motion_windows(params, kinds, split), config, split)
        for log in logs:
            yield from sessions.session_rows(log)


def real_grids(name: str | RealGridsConfig, data_dir: str | Path, split: str) -> Sequence[dict]:
    """The rows of one split of RealGrids/<name>, or of a config; built under data_dir unless it is there."""
    builder = RealGrids(config=name, data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    if split not in builder.info.splits:
        return []
    rows = builder.as_data_source(split=split)
    return rows.__getitems__(list(range(len(rows))))


def examples(rows: Sequence[dict], windows: MotionWindows, config: PairedConfig,
             split: str) -> Iterator[tuple[str, dict]]:
    """The pairs of one split, repeat after repeat: a function of the rows, the windows, the config and its seed."""
    music = _music(rows)
    unmet = np.ones(len(rows), bool)
    for repeat in range(max(config.repeats, config.partial_repeats)):
        rng = np.random.default_rng([config.seed, SPLITS.index(split), repeat])
        full = music.observed.all(1)
        here = np.flatnonzero(np.where(full, config.repeats, config.partial_repeats) > repeat)
        grids = _taken(music, here)
        if config.transposed and repeat:
            grids = varied(rng, grids)
        pool = balanced(rng, windows)
        asked = np.stack([getattr(pool.dynamics, name) for name in pairing.ASKED], axis=-1)
        pairs = pairing.pair(grids.descriptors, grids.observed, grids.bpm, asked, pool.bpm,
                             seed=int(rng.integers(2**31)), temperature=config.temperature, price=config.price)
        unmet[here[pairs.grids]] = False
        grids, met = _taken(grids, pairs.grids), taken(pool, pairs.windows)
        conditioning = np.asarray(assemble(met.z, met.velocity, met.dynamics, genre=grids.genre, section=met.section,
                                           activations=grids.activations, bpm=met.bpm), np.float32)
        for i, clip in enumerate(met.clip.tolist()):
            yield f"{split}/{repeat}/{i}", _example(grids, i, conditioning[i], clip, met.frames[i])
    if config.leftovers:
        for i in np.flatnonzero(unmet).tolist():
            yield f"{split}/left/{i}", _example(music, i, np.zeros(SIZE, np.float32), "", np.zeros(2, np.int32))


def _music(rows: Sequence[dict]) -> Music:
    columns = {name: np.stack([row[name] for row in rows])
               for name in ("tokens", "observed", "descriptors", "activations", "bpm")}
    text = {name: np.array([_text(row[name]) for row in rows]) for name in ("piece", "source")}
    genre = np.stack([genre_vector(_text(row["genre"]) or None) for row in rows])
    return Music(**columns, **text, genre=genre)


def _taken(music: Music, rows: np.ndarray) -> Music:
    return Music(*(column[rows] for column in music))


def _example(music: Music, i: int, conditioning: np.ndarray, clip: str, frames: np.ndarray) -> dict:
    return {"frames": frames,
            "tokens": music.tokens[i].astype(np.uint8), "observed": music.observed[i].astype(bool),
            "conditioning": conditioning, "paired": bool(clip), "clip": clip, "piece": str(music.piece[i]),
            "source": str(music.source[i])}


def varied(rng: np.random.Generator, music: Music) -> Music:
    """Each grid transposed by an interval of its own, any legal one as likely.

    Transposition changes no descriptor but the bass weight, which is measured again where it counts.
    """
    shifts = np.array([rng.choice(legal_shifts(grid)) for grid in music.tokens])
    tokens = np.stack([transposed(grid, shift) for grid, shift in zip(music.tokens, shifts, strict=True)])
    counts = pairing.says(music.observed)[:, DESCRIPTORS.index("bass_weight")]
    measured = [of_observed(grid) if again else old
                for grid, again, old in zip(tokens, counts & (shifts != 0), music.descriptors, strict=True)]
    return music._replace(tokens=tokens, descriptors=np.stack(measured))


def legal_shifts(grid: np.ndarray) -> np.ndarray:
    """The transpositions of SHIFTS that leave every pitch of a grid [12, 32] legal in its track; 0 is one.

    A pitched track's `fill` plays set pitches, so a grid that has one stays where it is.
    """
    pitch = (grid >= _PITCHES.start) & (grid < _PITCHES.stop) & pairing.PITCHED.reshape(-1, 1)
    if not pitch.any() or (grid[pairing.PITCHED] == _FILL).any():
        return np.array([0])
    down = np.where(pitch, grid.astype(int) - _LOWEST[:, None], MASK).min()
    up = np.where(pitch, _HIGHEST[:, None] - grid.astype(int), MASK).min()
    return SHIFTS[(np.clip(SHIFTS, -down, up) == SHIFTS) | (SHIFTS == 0)]


def transposed(grid: np.ndarray, semitones: int) -> np.ndarray:
    """The grid [12, 32] with every pitch moved by `semitones`; drums and all other tokens stay."""
    pitch = (grid >= _PITCHES.start) & (grid < _PITCHES.stop) & pairing.PITCHED.reshape(-1, 1)
    return np.where(pitch, grid.astype(int) + semitones, grid).astype(grid.dtype)


def of_observed(grid: np.ndarray) -> np.ndarray:
    """The five descriptors of a grid [12, 32], tracks not observed taken as silent. float32 [5]"""
    return np.array(descriptors(np.where(grid == MASK, REST, grid).astype(np.int32)), np.float32)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
