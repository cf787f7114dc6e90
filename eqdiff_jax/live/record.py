"""Files that grow while somebody plays, whole at every moment: lines of text, and limb frames.

Neither raises once it is open: what cannot be written is left out, counted in `lost` and named in `error`, and the
next piece is tried again. Each waits for the disk: keep them out of a loop that keeps time.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME

FRAME = 2 * REST_FRAME.size  # bytes of a frame [27, 8] in float16


class Lines:
    """A text file of lines, each on disk before `append` returns. Opening it cuts off what a crash left of a line."""

    def __init__(self, path: str | Path):
        self.path, self.lost, self.error = Path(path), 0, ""
        self._file = _opened(self.path, "a+")
        with _named(self.path, self._file):
            self._size = _end_of_lines(self._file)
            self._file.truncate(self._size)
        self.resumed = self._size > 0  # there are lines of an earlier time

    def append(self, line: str) -> bool:
        """One line, without its newline; whether it was written."""
        data = line.encode() + b"\n"
        try:
            self._file.truncate(self._size)  # a line that failed half-way
            _write(self._file, data)
            os.fsync(self._file.fileno())
        except OSError as error:
            self.lost, self.error = self.lost + 1, _unwritten(self.path, error)
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            return False
        self._size += len(data)
        return True

    def close(self) -> None:
        """No more lines."""
        self._file.close()


class LimbRecord:
    """Limb frames as they come, kept as float16 [T, 27, 8] in a .npy file: 25.9 kB a second, 1.56 MB a minute.

    Every `chunk` frames go to disk, and then the header counts them: at any moment `motion.load` reads the file.
    Opened again it goes on after the frames that it has. `lost` counts frames.
    """

    def __init__(self, path: str | Path, chunk: int = 60):
        self.path, self.chunk, self.lost, self.error = Path(path), chunk, 0, ""
        self.frames = 0  # on disk
        self._waiting: list[np.ndarray] = []
        # Not in append mode, for the header is written over.
        self._file = _opened(self.path, "r+" if self.path.exists() else "x+")
        with _named(self.path, self._file):
            self.frames = _recorded(self._file, self.path)
            if not self.frames:
                _write(self._file, _header(0))

    def append(self, limbs: np.ndarray) -> None:
        """One frame [27, 8], or some [K, 27, 8], at 60 Hz."""
        self._waiting.extend(np.clip(limbs, -RANGES, RANGES).astype("<f2").reshape(-1, *REST_FRAME.shape))
        if len(self._waiting) >= self.chunk:
            self.flush()

    def flush(self) -> None:
        """Bring what waits to disk."""
        frames, self._waiting = self._waiting, []
        if not frames:
            return
        try:
            self._file.seek(len(_header(0)) + self.frames * FRAME)
            _write(self._file, np.stack(frames).tobytes())
            os.fsync(self._file.fileno())  # the frames are there before the header counts them
            self._file.seek(0)
            _write(self._file, _header(self.frames + len(frames)))
        except OSError as error:
            self.lost, self.error = self.lost + len(frames), _unwritten(self.path, error)
            return
        self.frames += len(frames)

    def close(self) -> None:
        """No more frames. A record without any leaves no file."""
        self.flush()
        self._file.close()
        if not self.frames:
            self.path.unlink(missing_ok=True)


def _opened(path: Path, how: str) -> io.FileIO:
    """The file, unbuffered, in a folder that is made if need be; raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.FileIO(path, how)
    except OSError as error:
        raise InputError(_unwritten(path, error)) from None
    with contextlib.suppress(OSError):  # make the new name last, where the system can
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return file


@contextlib.contextmanager
def _named(path: Path, file: io.FileIO) -> Iterator[None]:
    """What goes wrong in the block closes the file, and an OSError becomes an InputError."""
    try:
        yield
    except OSError as error:
        file.close()
        raise InputError(_unwritten(path, error)) from None
    except BaseException:
        file.close()
        raise


def _unwritten(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written ({error.strerror}); make room there or choose another --log"


def _write(file: io.FileIO, data: bytes) -> None:
    """All of it; a raw file may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view):]


def _end_of_lines(file: io.FileIO) -> int:
    """Where the last whole line ends, in bytes."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - (1 << 16), 0)
        file.seek(start)
        cut = file.read(end - start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0


def _header(frames: int) -> bytes:
    """Of a .npy file; it is equally long for any number of frames."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f2", "fortran_order": False,
                                                "shape": (frames, *REST_FRAME.shape)})
    return head.getvalue()


def _recorded(file: io.FileIO, path: Path) -> int:
    """Whole frames in a record that exists, 0 in an empty one; raises InputError for another kind of file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        return 0
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        if shape[1:] != REST_FRAME.shape or kind != np.dtype("<f2") or file.tell() != len(_header(0)):
            raise ValueError
    except ValueError:
        raise InputError(f"{path}: is no record of limb frames; choose another --log") from None
    file.seek(0)
    return min(shape[0], (size - len(_header(0))) // FRAME)
