"""Pairs of movement and music, phase 1a: the Conductor plays recorded and synthetic motion.

A tfds builder (array_record, no TensorFlow). Each example is one window of two bars: the conditioning
that the chain made of the movement, and the grid that the Conductor chose for it. Splits are by clip (for the
demo dancer) and by couple (for salsa), never by window.
"""

import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from eqdiff_jax import motion
from eqdiff_jax.conditioning import SIZE, assemble
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means
from eqdiff_jax.music.conductor import GENRES, conduct, initial_state, instrument_activations
from eqdiff_jax.music.grid import SHAPE

BPM_LOW, BPM_HIGH = 84.0, 156.0
UNSPECIFIED = 0.25  # share of performances without a genre
# Salsa is danced by couples, file k with file k + 15; a couple stays in one split.
SALSA_SPLITS = {"validation": (4,), "test": (10,)}


class Clip(NamedTuple):
    """One recording and the performances to make of it."""

    name: str
    limbs: np.ndarray  # [T, 27, 8]
    performances: int


class PairsConfig(tfds.core.BuilderConfig):
    """demo: clips of the demo dancer per split; bvh: add the CMU salsa recordings found through EQDIFF_DATA."""

    def __init__(self, *, name: str, clips: dict[str, int], seconds: float, performances: int, bvh: bool,
                 motion_seed: int = 0):
        super().__init__(name=name, version=tfds.core.Version("1.0.0"), description=self.__doc__)
        self.clips, self.seconds, self.performances = clips, seconds, performances
        self.bvh, self.motion_seed = bvh, motion_seed

    def require(self) -> None:
        """Raise InputError for recordings that are not there."""
        if self.bvh:
            salsa_archive()


CONFIGS = {
    "tiny": PairsConfig(name="tiny", clips={"train": 8, "validation": 2, "test": 2}, seconds=20.0,
                        performances=2, bvh=False),
    "demo": PairsConfig(name="demo", clips={"train": 360, "validation": 24, "test": 24}, seconds=64.0,
                        performances=4, bvh=False),
    "demo_salsa": PairsConfig(name="demo_salsa", clips={"train": 360, "validation": 24, "test": 24}, seconds=64.0,
                              performances=4, bvh=True),
}


class ConductorPairs(tfds.core.GeneratorBasedBuilder):
    """Conductor pairs: `tokens` uint8 [12, 32], `conditioning` float32 [104], `clip` its recording's name."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = list(CONFIGS.values())

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "tokens": tfds.features.Tensor(shape=SHAPE, dtype=np.uint8),
            "conditioning": tfds.features.Tensor(shape=(SIZE,), dtype=np.float32),
            "clip": tfds.features.Text(),
        }))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in self.builder_config.clips}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        params = motion.init_params(jax.random.key(config.motion_seed))
        for clip in demo_clips(config, split):
            yield from examples(params, clip)
        if config.bvh:
            for clip in salsa_clips(split):
                yield from examples(params, clip)


def demo_clips(config: PairsConfig, split: str) -> Iterator[Clip]:
    """Clips of the demo dancer: all styles in turn, seeds that no other split uses."""
    first = {"train": 0, "validation": 1_000_000, "test": 2_000_000}[split]
    styles = list(motion.STYLES)
    for i in range(config.clips[split]):
        style = styles[i % len(styles)]
        limbs = motion.demo(style, config.seconds, jax.random.key(first + i))
        yield Clip(f"demo-{style}-{first + i}", limbs, config.performances)


def salsa_archive() -> Path:
    """Where the CMU salsa recordings are; raises InputError when EQDIFF_DATA does not lead to them."""
    root = os.environ.get("EQDIFF_DATA")
    archive = Path(root or "") / "motion" / "cmu_salsa_acrnn_MIT.tar.xz"
    if root is None or not archive.exists():
        raise InputError("the salsa recordings are not there: set EQDIFF_DATA to the folder that holds "
                         "motion/cmu_salsa_acrnn_MIT.tar.xz, or use the data config 'demo'")
    return archive


def salsa_clips(split: str) -> Iterator[Clip]:
    """The CMU salsa recordings of one split."""
    archive = salsa_archive()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        for path in sorted(Path(folder).glob("**/salsa/*.bvh")):
            couple = (int(path.stem) - 1) % 15 + 1
            home = next((s for s, couples in SALSA_SPLITS.items() if couple in couples), "train")
            if home == split:
                yield Clip(f"salsa-{path.stem}", motion.load(path), 24)


def examples(params, clip: Clip) -> Iterator[tuple[str, dict]]:
    """Pairs of one clip: each performance at its own tempo, in its own genre, with its own seed."""
    frames = padded_trajectory(params, clip.limbs)
    for performance in range(clip.performances):
        rng = np.random.default_rng([performance, *clip.name.encode()])
        bpm = float(np.round(rng.uniform(BPM_LOW, BPM_HIGH)))
        genre = None if rng.random() < UNSPECIFIED else GENRES[rng.integers(len(GENRES))]
        edges = boundaries(len(clip.limbs), bpm)
        if len(edges) < 2:
            continue
        z, velocity, dynamics = window_means(frames, edges)
        state, activations = initial_state(int(rng.integers(2**31))), np.zeros(SHAPE[0], np.float32)
        for i in range(len(edges) - 1):
            now = jax.tree.map(lambda x, i=i: float(x[i]), dynamics)
            state, grid, section = conduct(state, now, genre)
            conditioning = assemble(z[i], velocity[i], now, genre=genre, section=section, activations=activations,
                                    bpm=bpm)
            activations = instrument_activations(grid)
            yield f"{clip.name}/{performance}/{i}", {
                "tokens": grid.astype(np.uint8), "conditioning": np.asarray(conditioning, np.float32),
                "clip": clip.name}
