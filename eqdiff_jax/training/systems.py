"""Held-out movement, and the grids that a network makes of it: what the evaluation compares.

    fresh   : every window from an empty grid
    bounded : each window at most a budget away from the one before, as a performance is played
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from eqdiff_jax.composer import PROCESS, compose, music
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.conditioning.layout import CENTRE, SCALE
from eqdiff_jax.data.movement import source
from eqdiff_jax.data.pairs import BPM_LOW, Clip, PairsConfig, demo_clips, examples, salsa_clips
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.windows import FRAME_RATE, boundaries, window_seconds
from eqdiff_jax.music.conductor import instrument_activations
from eqdiff_jax.music.grid import SHAPE, STEPS
from eqdiff_jax.music.metrics import motion_beats
from eqdiff_jax.types import Array, Params

PERFORMANCES = 24  # of a recording, at most, as Conductor pairs have of salsa
LENGTH = 16  # windows of a performance that are used: a minute at 120 bpm, so that all its sections come


class Movement(NamedTuple):
    """W windows of held-out performances, in order, with what the Conductor plays to them."""

    conditioning: np.ndarray  # float32 [W, 104]
    conducted: np.ndarray  # int32 [W, 12, 32] the Conductor's grids
    performance: np.ndarray  # int [W] which performance a window belongs to, ascending
    beats: list[np.ndarray]  # [W] the beats of the body, in sixteenths of the window


def held_out_clips(config, dancers: Sequence[str] = ()) -> list[Clip]:
    """The test clips of some sources of movement (names of `data.movement.SOURCES`), or the data config's own dancers.

    Those of pairs of real music are their sources of movement. Raises InputError for an unknown source, or recordings
    that are not there.
    """
    if not dancers and isinstance(config, PairsConfig):
        return [*demo_clips(config, "test"), *(salsa_clips("test") if config.bvh else ())]
    sources = [source(name) if isinstance(name, str) else name for name in dancers or config.sources]
    return [Clip(recording.name, recording.limbs, PERFORMANCES)
            for kind in sources for recording in kind.recordings("test")]


def held_out_movement(chain, clips: Sequence[Clip], windows: int, *, genres: bool = True) -> Movement:
    """At most `windows` windows of the clips, in performances of up to 16 with the Conductor's grids.

    chain: the motion parameters. Clips too short for two bars at the slowest tempo are left out, the others evenly
    spaced over the list; each performance has its own tempo and genre, as Conductor pairs have (`data.pairs.examples`).
    genres=False: the conditioning does not say the genre, as pairs of recorded music mostly do not.
    Raises InputError when no clip is long enough.
    """
    clips = [clip for clip in clips if len(clip.limbs) >= window_seconds(BPM_LOW) * FRAME_RATE]
    if not clips:
        raise InputError("no test clip is as long as two bars: use a data config with longer ones, or other --dancers")
    # Round after round, as many clips as the windows to come need: all of them before any one twice.
    each = np.mean([min(LENGTH, len(clip.limbs) / FRAME_RATE / window_seconds(120.0)) for clip in clips])
    found: list = []
    for turn in range(max(clip.performances for clip in clips)):
        count = min(int(np.ceil((windows - len(found)) / each)), len(clips))
        chosen = np.unique(np.linspace(0, len(clips) - 1, count).round().astype(int))
        found += [row for clip in map(clips.__getitem__, chosen) if turn < clip.performances
                  for row in _performances(chain, clip._replace(performances=turn + 1))
                  if row[0].rpartition("/")[2] == str(turn)]
        if len(found) >= windows:
            break
    found = found[:windows]
    names, rows, conducted, beats = zip(*found, strict=True)
    conditioning = np.array(rows)
    conditioning[:, LAYOUT["genre"]] *= genres
    return Movement(conditioning, np.array(conducted, np.int32), _numbered(names), list(beats))


def _numbered(names) -> np.ndarray:
    """Consecutive equal names as 0, 1, 2, ..."""
    return np.cumsum([i > 0 and names[i] != names[i - 1] for i in range(len(names))])


def _performances(chain, clip: Clip):
    """(performance, conditioning, tokens, beats) of the first windows of each performance of a clip."""
    moments = motion_beats(clip.limbs)
    for name, row in examples(chain, clip):
        performance, _, window = name.rpartition("/")
        if int(window) < LENGTH:
            bpm = float(row["conditioning"][LAYOUT["bpm"]][0]) * SCALE["bpm"] + CENTRE["bpm"]
            start, end = boundaries(len(clip.limbs), round(bpm))[int(window):int(window) + 2]
            inside = moments[(moments >= start) & (moments < end)]
            yield performance, row["conditioning"], row["tokens"], STEPS * (inside - start) / (end - start)


def play(key: Array, params: Params, movement: Movement, *, fresh: bool, guidance: float | None = None,
         control: float = 1.0, steps: int = 24, candidates: int = 1, quiet: bool = True) -> np.ndarray:
    """The windows played in order, all performances side by side. int32 [W, 12, 32]

    fresh: every cell of every window is new (full regeneration); else at most a budget of them changes from window to
    window. As in `performance.perform`, the slot of instrument activations says what this system played last. guidance
    0 is the unconditional network where control is 0 too, None what `compose` takes; steps 0 leaves them to the
    commitment rule, which sets the temperature in any case.
    control: how strongly the targets of the movement count, 0 for not at all.
    candidates: grids drawn for each window, from which phrases are taken.
    The key is consumed.
    """
    weights = music(params)
    first = np.flatnonzero(np.diff(movement.performance, prepend=-1))
    lengths = np.diff(np.append(first, len(movement.performance)))
    made = np.zeros((len(movement.performance), *SHAPE), np.int32)
    empty = np.full((len(first), *SHAPE), PROCESS.mask, np.int32)
    grids, before, bucket = empty, None, jnp.zeros(len(first), jnp.int32)
    heard = np.zeros((len(first), SHAPE[0]), np.float32)
    name = f"{'fresh' if fresh else 'bounded'}, guidance {guidance}, control {control:g}"
    for i in tqdm(range(lengths.max()), desc=name, disable=quiet or None):
        rows = first + np.minimum(i, lengths - 1)  # a performance that has ended waits, and is not written
        conditioning = movement.conditioning[rows]
        conditioning[:, LAYOUT["activations"]] = heard
        change = compose(jax.random.fold_in(key, i), weights, jnp.asarray(conditioning),
                         jnp.asarray(empty if fresh else grids), candidates=candidates, steps=steps, bucket=bucket,
                         previous_conditioning=jnp.asarray(conditioning if before is None else before),
                         control=control, guidance=guidance)
        grids, before, bucket = _valid(change), conditioning, change.bucket
        heard = np.stack([instrument_activations(grid) for grid in grids])
        made[rows[i < lengths]] = grids[i < lengths]
    return made


def _valid(change) -> np.ndarray:
    if bool(change.invalid.any()):
        raise InputError("the network gave NaN; its weights are damaged, load another checkpoint")
    return np.asarray(change.tokens)
