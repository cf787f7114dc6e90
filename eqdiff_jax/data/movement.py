"""Recordings of movement -> windows of two bars, each with the latent and the dynamics that stand for it.

    source -> recordings [T, 27, 8] -> mirrored, faster and slower -> 60 Hz chain -> windows at several tempi

Splits are by performer as far as a source's names tell: salsa by couple, Bandai by acted style, a folder by
its subfolders (or files), the demo dancer by seed. A window never decides.
"""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from eqdiff_jax import motion
from eqdiff_jax.data import pairs
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.skeleton import LIMB, LIMBS
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means, window_seconds
from eqdiff_jax.music.sections import advance, initial_state
from eqdiff_jax.types import Dynamics

TEMPI = (72.0, 88.0, 104.0, 120.0, 136.0, 152.0)  # bpm at which windows are cut
SHIFTS = (0.0, 0.5)  # windows begin there, in windows
RATES = (0.8, 1.0, 1.25)  # speeds at which a recording is played again
SLOWEST, FASTEST = 0.8, 1.25
FRAME_RATE = 60
SPLITS = ("train", "validation", "test")
DEMO_CLIPS = {"train": 120, "validation": 24, "test": 24}
BANDAI_SPLITS = {"validation": ("musical", "old"), "test": ("active", "tired")}  # by acted style
BANDAI_ARCHIVE = "bandai_namco_dataset1_CCBYNC4.tar.xz"

_OTHER_SIDE = np.array([LIMB[{"l": "r", "r": "l"}[name[0]] + name[1:]] if name[:2] in ("l_", "r_") else i
                        for i, name in enumerate(LIMBS)])
_LATERAL = np.array([-1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0], np.float32)  # x of position and of velocity


class Recording(NamedTuple):
    """One performance of one performer."""

    name: str
    limbs: np.ndarray  # [T, 27, 8]


class MotionSource(NamedTuple):
    """Where recordings come from, and what may be done with them."""

    name: str
    recordings: Callable[[str], Iterator[Recording]]  # split -> its recordings
    shippable: bool  # weights trained on it may be published
    augmented: bool  # its recordings are mirrored, played faster and slower, and cut at SHIFTS
    archive: Callable[[], Path] | None = None  # where its files are; raises InputError where they are not


class MotionWindows(NamedTuple):
    """M windows of two bars; z, velocity and dynamics are means as in motion/windows.py."""

    z: np.ndarray  # float32 [M, 32]
    velocity: np.ndarray  # float32 [M, 32]
    dynamics: Dynamics[np.ndarray]  # float32 [M] each; `phase` is the continuous slot
    section: np.ndarray  # float32 [M, 6] from the Conductor's section machine, run along the recording
    bpm: np.ndarray  # float32 [M]
    clip: np.ndarray  # str [M] recording, and how it was played
    frames: np.ndarray  # int32 [M, 2] the window's first frame in it, and the first after; 0, 0 where there are none
    source: np.ndarray  # str [M]
    split: np.ndarray  # str [M]
    shippable: np.ndarray  # bool [M]


def mirrored(limbs: np.ndarray) -> np.ndarray:
    """Left and right exchanged: limbs swapped, x of positions and velocities negated. [T, 27, 8]

    The frame is yaw-aligned with left = +x, so the mirror image is again such a frame.
    """
    return limbs[:, _OTHER_SIDE] * _LATERAL


def time_scaled(limbs: np.ndarray, rate: float) -> np.ndarray:
    """The movement played `rate` times as fast: y(t) = x(rate t), rates of change times `rate`. [T', 27, 8]

    Everything is interpolated linearly between frames, confidence takes the lesser.
    Raises InputError for a rate outside 0.8 .. 1.25, beyond which a body no longer moves like that.
    """
    if not SLOWEST <= rate <= FASTEST:
        raise InputError(f"a movement played {rate:g} times as fast is no body's: use {SLOWEST:g} .. {FASTEST:g}")
    at = np.arange(int((len(limbs) - 1) / rate + 1e-6) + 1) * rate
    before = np.minimum(at.astype(int), len(limbs) - 1)
    after = np.minimum(before + 1, len(limbs) - 1)
    share = (at - before)[:, None, None]
    scaled = limbs[before] + share * (limbs[after] - limbs[before])
    scaled[..., 3:7] *= rate
    scaled[..., 7] = np.where(share[..., 0] > 1e-6, np.minimum(limbs[before, :, 7], limbs[after, :, 7]),
                              limbs[before, :, 7])
    return motion.clean(scaled)


def cut(params, recording: Recording, bpms: Sequence[float] = TEMPI, shifts: Sequence[float] = (0.0,), *,
        source: str = "", split: str = "", shippable: bool = False) -> MotionWindows:
    """All whole windows of one recording, at each tempo and from each shift (in windows). M may be 0."""
    frames = jax.tree.map(np.asarray, padded_trajectory(params, recording.limbs))
    parts = []
    for bpm in bpms:
        for shift in shifts:
            start = round(shift * window_seconds(bpm) * FRAME_RATE)
            edges = boundaries(len(recording.limbs) - start, bpm)
            if len(edges) < 2:
                continue
            z, velocity, dynamics = window_means(jax.tree.map(lambda x, s=start: x[s:], frames), edges)
            count = len(z)
            parts.append(MotionWindows(
                z, velocity, dynamics, sections(dynamics), np.full(count, bpm, np.float32),
                np.full(count, recording.name), start + np.stack([edges[:-1], edges[1:]], axis=1).astype(np.int32),
                np.full(count, source), np.full(count, split), np.full(count, shippable)))
    return concatenated(parts)


def sections(dynamics: Dynamics[np.ndarray]) -> np.ndarray:
    """Section probabilities of consecutive windows, as the Conductor gives them. float32 [N, 6]"""
    state, rows = initial_state(), []
    for i in range(len(dynamics.energy)):
        state, probabilities = advance(state, Dynamics(*(float(x[i]) for x in dynamics)))
        state = state._replace(bars=state.bars + 2, total=state.total + 2)
        rows.append(probabilities)
    return np.stack(rows)


def concatenated(parts: Sequence[MotionWindows]) -> MotionWindows:
    """The windows of all parts, in order; none for no parts."""
    if parts:
        return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)
    none, word, latent = np.zeros(0, np.float32), np.zeros(0, "U1"), np.zeros((0, 32), np.float32)
    return MotionWindows(latent, latent, Dynamics(*[none] * len(Dynamics._fields)), np.zeros((0, 6), np.float32),
                         none, word, np.zeros((0, 2), np.int32), word, word, np.zeros(0, bool))


def taken(windows: MotionWindows, rows: np.ndarray) -> MotionWindows:
    """The windows of these row numbers (or of a mask)."""
    return jax.tree.map(lambda column: column[rows], windows)


def balanced(rng: np.random.Generator, windows: MotionWindows) -> MotionWindows:
    """As many windows of each source at each tempo as the smallest source there has, chosen at random, in order.

    Without it the demo dancer, of which there is as much as one likes, outweighs people.
    """
    kept = []
    for bpm in np.unique(windows.bpm):
        here = [np.flatnonzero((windows.bpm == bpm) & (windows.source == s)) for s in np.unique(windows.source)]
        least = min(len(rows) for rows in here if len(rows))
        kept += [rng.permutation(rows)[:least] for rows in here]
    return taken(windows, np.sort(np.concatenate(kept)))


def played(source: MotionSource, split: str) -> Iterator[Recording]:
    """The recordings of a split, and for an augmented source of any split their mirror images, slower and faster."""
    for recording in source.recordings(split):
        if not source.augmented:
            yield recording
            continue
        for rate in RATES:
            limbs = recording.limbs if rate == 1.0 else time_scaled(recording.limbs, rate)
            yield Recording(f"{recording.name}@{rate:g}", limbs)
            yield Recording(f"{recording.name}@{rate:g}-mirrored", mirrored(limbs))


def motion_windows(params, sources: Sequence[MotionSource], split: str,
                   bpms: Sequence[float] = TEMPI) -> MotionWindows:
    """The windows of one split of several sources, source after source.

    Raises InputError when they hold none.
    """
    parts = [cut(params, recording, bpms, SHIFTS if source.augmented else (0.0,), source=source.name, split=split,
                 shippable=source.shippable)
             for source in sources for recording in played(source, split)]
    windows = concatenated(parts)
    if not len(windows.z):
        names = ", ".join(source.name for source in sources)
        raise InputError(f"no window of two bars in the {split} movement of {names or 'no source'}: give longer "
                         "recordings, or more of them")
    return windows


def demo_recordings(split: str, clips: int | None = None) -> Iterator[Recording]:
    """The demo dancer: the styles and seeds of data/pairs.py, the first `clips` of the split."""
    for clip in islice(pairs.demo_clips(pairs.CONFIGS["demo"], split), clips or DEMO_CLIPS[split]):
        yield Recording(clip.name, clip.limbs)


def salsa_recordings(split: str) -> Iterator[Recording]:
    """The CMU salsa recordings; a couple stays in one split."""
    for clip in pairs.salsa_clips(split):
        yield Recording(clip.name, clip.limbs)


def bandai_recordings(split: str) -> Iterator[Recording]:
    """Bandai Namco's dataset 1 (CC-BY-NC): an acted style stays in one split, for its files do not name the actor."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(bandai_archive()) as tar:
        tar.extractall(folder, filter="data")
        for path in sorted(Path(folder).glob("**/*.bvh")):
            style = path.stem.split("_")[2]
            if next((s for s, styles in BANDAI_SPLITS.items() if style in styles), "train") == split:
                yield Recording(f"bandai-{path.stem.partition('_')[2]}", motion.load(path))


def bandai_archive() -> Path:
    """Where the recordings of Bandai Namco are; raises InputError when EQDIFF_DATA does not lead to them."""
    root = os.environ.get("EQDIFF_DATA")
    archive = Path(root or "") / "motion" / BANDAI_ARCHIVE
    if root is None or not archive.exists():
        raise InputError("the recordings of Bandai Namco are not there: set EQDIFF_DATA to the folder that holds "
                         f"motion/{BANDAI_ARCHIVE}, or leave 'bandai' out")
    return archive


def folder_source(folder: str | Path, *, shippable: bool = False) -> MotionSource:
    """Your own recordings: every .bvh, .npy and .npz under a folder.

    A subfolder holds one performer and stays in one split; files at the top count as a performer each.
    Raises InputError when the folder is missing or holds none.
    """
    root = Path(folder)
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".bvh", ".npy", ".npz"))
    if not paths:
        raise InputError(f"{root}: no .bvh, .npy or .npz file under it; give a folder of recordings")

    def recordings(split: str) -> Iterator[Recording]:
        for path in paths:
            inside = path.relative_to(root)
            if hashed_split(inside.parts[0] if len(inside.parts) > 1 else inside.stem) == split:
                yield Recording(f"{root.name}-{inside.with_suffix('').as_posix()}", motion.load(path))

    return MotionSource(root.name, recordings, shippable, augmented=True)


def hashed_split(performer: str) -> str:
    """The split of a performer known by name alone: a tenth each to validation and test, by SHA-256."""
    share = int.from_bytes(hashlib.sha256(performer.encode()).digest()[:4], "big") / 2**32
    return "validation" if share < 0.1 else "test" if share < 0.2 else "train"


SOURCES = {source.name: source for source in (
    MotionSource("demo", demo_recordings, shippable=True, augmented=False),
    MotionSource("salsa", salsa_recordings, shippable=True, augmented=True, archive=pairs.salsa_archive),
    MotionSource("bandai", bandai_recordings, shippable=False, augmented=True, archive=bandai_archive),
)}


def source(name: str) -> MotionSource:
    """The source of that name; raises InputError for an unknown one."""
    if name not in SOURCES:
        raise InputError(f"unknown motion source {name!r}: choose one of {', '.join(SOURCES)}, or give a folder")
    return SOURCES[name]
