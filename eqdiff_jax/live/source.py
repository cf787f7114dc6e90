"""What moves while nobody sends: the demo dancer, a recorded motion, or a session that is played again."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eqdiff_jax import motion
from eqdiff_jax.errors import InputError
from eqdiff_jax.live.engine import Scripted
from eqdiff_jax.live.log import replay
from eqdiff_jax.live.performer import mixed
from eqdiff_jax.live.performers import Cast
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.resample import RATE

DANCE = 128.0  # s until the demo dancer begins again
SEAM = 60  # frames in which the end of a motion passes into its beginning

Frames = Callable[[float], np.ndarray]  # now, in seconds -> limb frame [27, 8]


class Source(NamedTuple):
    """Limb frames for any moment, and whether senders take their place."""

    frames: Frames
    text: str  # for people
    stays: bool = True  # comes back when the last sender has gone; else there is rest
    script: tuple[Scripted, ...] | None = None  # grids of a session that is played again: nobody else may play


def open_source(text: str, seed: int) -> Source:
    """The source that --motion names. Raises InputError, one line.

    demo[:STYLE]: the demo dancer, until a sender comes and after it has gone. osc: the dancer until the first sender
    comes, and after that rest while nobody sends. A .bvh, .npy or .npz file: that motion, again and again, likewise
    with senders before it. SESSION.jsonl: that session's grids, with its limbs if they were recorded.
    """
    if text == "osc" or text == "demo" or text.startswith("demo:"):
        style = text.partition(":")[2] or "show"
        limbs = motion.demo(style, DANCE + SEAM / RATE, seed)
        who = f"the demo dancer ({style})"
        return Source(looped(limbs), who + (" until a sender comes" if text == "osc" else ""), text != "osc")
    if Path(text).suffix.lower() == ".jsonl":
        script = tuple(Scripted(played.job, played.bars, played.tempo) for played in replay(text))
        if not script:
            raise InputError(f"{text}: holds no grid; give a log of a session that played")
        record = Path(text).with_suffix(".limbs.npy")
        frames = once(motion.load(record)) if record.is_file() else still
        return Source(frames, f"the session {Path(text).name}, {len(script)} grids", script=script)
    limbs = motion.clean(motion.load(text))
    return Source(looped(limbs), f"{Path(text).name}, {len(limbs) / RATE:.0f} s again and again")


def looped(limbs: np.ndarray) -> Frames:
    """A motion [T, 27, 8] for ever: its last second passes into its first. Time begins with the first call."""
    seam = min(SEAM, len(limbs) // 4)
    period = len(limbs) - seam
    shares = np.arange(1, seam + 1) / (seam + 1)
    joined = np.array([mixed(limbs[period + i], limbs[i], share) for i, share in enumerate(shares)], np.float32)
    start: list[float] = []

    def frame(now: float) -> np.ndarray:
        start[:] = start or [now]
        i = round((now - start[0]) * RATE)
        return joined[i % period] if i >= period and i % period < seam else limbs[i % period]

    return frame


def once(limbs: np.ndarray) -> Frames:
    """A motion [T, 27, 8] played once; then its last frame."""
    start: list[float] = []

    def frame(now: float) -> np.ndarray:
        start[:] = start or [now]
        return limbs[min(round((now - start[0]) * RATE), len(limbs) - 1)]

    return frame


def still(now: float) -> np.ndarray:
    """A body at rest."""
    del now
    return REST_FRAME


class Leaving:
    """A fallback that goes for good once somebody has led: the music then rests with the performer."""

    def __init__(self, frames: Frames, cast: Cast, *, after: float = 2.0, fade: float = 2.0):
        self.frames, self.cast, self.after, self.fade = frames, cast, after, fade
        self.since: float | None = None

    def __call__(self, now: float) -> np.ndarray:
        if self.since is None and self.cast.lead is not None:
            self.since = now
        if self.since is None:
            return self.frames(now)
        # Still there for the passage to the one who leads, and then faded.
        return mixed(self.frames(now), REST_FRAME, (now - self.since - self.after) / self.fade)
