"""What the session leaves behind, written by a thread of its own: whoever keeps time never waits for the disk."""

import contextlib
import queue
import threading
import time
from pathlib import Path

import numpy as np

from eqdiff_jax.live.engine import Bar
from eqdiff_jax.live.log import SessionLog
from eqdiff_jax.live.record import LimbRecord

WAITING = 3600  # pieces that may wait for a slow disk; after that limb frames are left out, bars never
CLOSING = 5.0  # s that the disk gets at the end


class Recorder:
    """The log and the limb record of a session, NAME.jsonl and NAME.limbs.npy in a folder.

    Raises InputError when they cannot be opened; later trouble is told in `error`.
    """

    def __init__(self, folder: str | Path, name: str):
        self.path = Path(folder) / f"{name}.jsonl"
        self._log = SessionLog(self.path)
        self._limbs = LimbRecord(self.path.with_suffix(".limbs.npy"))
        self.bars = self.lost = 0
        self._frames = self._limbs.frames
        self._queue: queue.SimpleQueue[np.ndarray | tuple[Bar, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    @property
    def error(self) -> str:
        """Why something could not be written, one line; empty while all is well."""
        return self._log.error or self._limbs.error

    def frames(self, limbs: np.ndarray) -> None:
        """Limb frames [K, 27, 8]."""
        if self._queue.qsize() < WAITING:
            self._queue.put(limbs)
        else:
            self.lost += len(limbs)

    def bar(self, bar: Bar) -> None:
        """A bar line that has just been crossed."""
        self.bars += 1
        self._queue.put((bar, time.time()))

    def close(self) -> None:
        """Write what waits, and close the files. A session without a bar leaves none."""
        self._queue.put(None)
        self._thread.join(CLOSING)
        if not self.bars:
            for path in (self.path, self.path.with_suffix(".limbs.npy")):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _write(self) -> None:
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, np.ndarray):
                self._limbs.append(piece)
                self._frames += len(piece)
            else:
                bar, when = piece
                self._log.append(bar.playing.job, bar.playing.made, bar=bar.bar, tempo=bar.bpm, timestamp=when,
                                 missed=bar.missed, frame=self._frames)
        self._limbs.close()
        self._log.close()
