"""What waits to be sent to one page: the newest message of each name, never a queue of old ones."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from eqdiff_jax.live.wire import RANGES, Crossfade, MotionModulate, Range, ServerMessage, SetParam, View, clamp

MODULATION_PERIOD, VIEW_PERIOD = 1 / 60, 1 / 20  # seconds between two values of one name


class Outbox:
    """What waits to be sent to one page, at most one message of each name.

    Commands (State, Eval or Crossfade, Hush, SetParam of each name, Ping) leave at once and in the order they were
    last put; MotionModulate of each parameter and View are values, of which the newest leaves, at most every
    1/60 and 1/20 s. A parameter has a beat of its own: one that moves seldom never waits for those that always move.
    A message replaces an unsent one of its name, so no more than `bound` wait, however slow the page is.
    """

    def __init__(self, ranges: Mapping[str, Range] = RANGES, *, clock: Callable[[], float] = time.monotonic):
        self.ranges, self.clock = ranges, clock
        self.bound = 2 * len(ranges) + 5
        self._commands: dict[tuple[str, ...], ServerMessage] = {}  # in the order of leaving
        self._values: dict[str, MotionModulate] = {}
        self._sent: dict[str, MotionModulate] = {}
        self._due: dict[str, float] = {}  # when the next value of a name may leave
        self._view: View | None = None
        self._view_due = float("-inf")
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._commands) + len(self._values) + (self._view is not None)

    def put(self, message: ServerMessage) -> None:
        """Let it leave as soon as it may. Raises WireError for a parameter that is unknown or not finite."""
        match message:
            case MotionModulate():
                name = message.parameter
                message = message._replace(value=clamp(name, message.value, self.ranges))
                if self._sent.get(name) == message:
                    self._values.pop(name, None)  # the page has it
                else:
                    self._values[name] = message
            case View():
                self._view = message
            case _:
                if isinstance(message, SetParam):
                    message = message._replace(value=clamp(message.name, message.value, self.ranges))
                    self._values.pop(message.name, None)  # it is older
                    self._sent.pop(message.name, None)  # and the same value after this one says something new
                key = _slot(message)
                self._commands.pop(key, None)
                self._commands[key] = message
        self._wake.set()

    def take(self, now: float) -> ServerMessage | None:
        """The message that leaves at `now`, or None while nothing may."""
        if self._commands:
            return self._commands.pop(next(iter(self._commands)))
        for name, value in self._values.items():
            if now >= self._due.get(name, now):
                del self._values[name]
                self._due[name], self._sent[name] = now + MODULATION_PERIOD, value
                return value
        if self._view is not None and now >= self._view_due:
            view, self._view, self._view_due = self._view, None, now + VIEW_PERIOD
            return view
        return None

    def wait(self, now: float) -> float | None:
        """Seconds until `take` may give something without another put; None: never."""
        dues = [self._due.get(name, now) for name in self._values]
        if self._view is not None:
            dues.append(self._view_due)
        return max(min(dues) - now, 0.0) if dues else None

    async def next(self) -> ServerMessage:
        """The next message, as soon as one may leave. For one reader."""
        while True:
            self._wake.clear()
            now = self.clock()
            message = self.take(now)
            if message is not None:
                return message
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.wait(now))


def _slot(message: ServerMessage) -> tuple[str, ...]:
    if isinstance(message, SetParam):
        return ("SetParam", message.name)
    return ("Eval",) if isinstance(message, Crossfade) else (type(message).__name__,)
