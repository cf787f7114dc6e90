"""Where the music is, in cycles (one cycle is one bar): by the page's audio clock, or by an inner one without a page.

Nothing here asks the time: every call says what `now` is, in seconds of one steady clock.
"""

from collections import deque
from typing import NamedTuple

from eqdiff_jax.live.wire import Clock

AHEAD = {"safe": 0.3, "tight": 0.07}  # s that a page schedules before it is heard, by its lookahead setting
FRESH = 1.0  # s after which a page that says nothing is no longer believed
MEMORY = 2.0  # s of messages that a page's position is estimated from
JUMP = 0.25  # cycles: a larger surprise is a new start, not jitter


class Reading(NamedTuple):
    """The music's position at one moment."""

    heard: float  # cycles
    frontier: float  # cycles up to which notes are handed out already; nothing can change before it
    cps: float  # cycles per second, above 0
    page: bool  # told by a page
    epoch: int  # counts the jumps; within one epoch nothing runs backwards


class InnerClock:
    """A clock that needs nobody: cycles run on at `cps`."""

    def __init__(self, now: float, cps: float, *, position: float = 0.0, ahead: float = AHEAD["safe"]):
        self.cps, self.ahead = cps, ahead
        self._now, self._position = now, position

    def position(self, now: float) -> float:
        """Cycles heard at `now`."""
        return self._position + (now - self._now) * self.cps

    def frontier(self, now: float) -> float:
        """Cycles that a page with this lookahead would have handed out."""
        return self.position(now) + self.ahead * self.cps

    def seek(self, now: float, position: float, cps: float) -> None:
        """Go on from here."""
        self._now, self._position, self.cps = now, position, cps


class PageClock:
    """A page's audio clock, from what it says of it ten times a second.

    heard = cps t + offset, and a message is late by its journey, so the largest offset of the last two seconds is the
    truest. Old ones are forgotten, so the audio clock may drift against ours. A page that stands still is not running.
    """

    def __init__(self) -> None:
        self.cps = 0.0
        self._offsets: deque[tuple[float, float]] = deque()  # (received, cycles)
        self._ahead: deque[tuple[float, float]] = deque()  # (received, cycles of frontier over heard)
        self._last: tuple[float, float] | None = None  # (received, heard)
        self._running = False

    def feed(self, message: Clock, received: float) -> None:
        """One message of the page, and when it came."""
        moved = self._last is not None and message.heard > self._last[1]
        ahead = message.heard - self.position(received) if self._offsets else 0.0
        # A message held up on its way seems to lie behind; only one ahead, or further behind than that, has jumped.
        jumped = ahead > JUMP or ahead < -message.cps * MEMORY
        if jumped or message.cps != self.cps or not self._running:
            self._offsets.clear()
            self._ahead.clear()
        self._running = message.audio_state == "running" and message.cps > 0.0 and moved
        self.cps, self._last = message.cps, (received, message.heard)
        self._offsets.append((received, message.heard - message.cps * received))
        self._ahead.append((received, max(message.frontier - message.heard, 0.0)))
        for queue in (self._offsets, self._ahead):
            while queue[0][0] < received - MEMORY:
                queue.popleft()

    def running(self, now: float) -> bool:
        """Whether it plays and has said so lately."""
        return self._running and self._last is not None and now - self._last[0] <= FRESH

    def position(self, now: float) -> float:
        """Cycles heard at `now`. Only after a message."""
        return self.cps * now + max(offset for _, offset in self._offsets)

    def frontier(self, now: float) -> float:
        """Cycles handed out at `now`, if anything too many. Only after a message."""
        return self.position(now) + max(ahead for _, ahead in self._ahead)


class StageClock:
    """The page's clock while it runs, else the inner one, which takes over where the page was last."""

    def __init__(self, inner: InnerClock):
        self.inner, self.page = inner, PageClock()
        self.epoch, self._heard = 0, float("-inf")

    def feed(self, message: Clock, received: float) -> None:
        """A message of the page that plays."""
        self.page.feed(message, received)

    def lost(self) -> None:
        """The page has gone."""
        self.page = PageClock()

    def set_bpm(self, now: float, bpm: float) -> None:
        """Another tempo for the inner clock; a page takes its own from the message sent to it."""
        self.inner.seek(now, self.inner.position(now), bpm / 240.0)

    def read(self, now: float) -> Reading:
        """Where the music is. Without a page this is the inner clock, which has followed the page so far."""
        page = self.page.running(now)
        if page:
            heard, frontier, cps = self.page.position(now), self.page.frontier(now), self.page.cps
            if abs(heard - self.inner.position(now)) > JUMP:
                self.epoch, self._heard = self.epoch + 1, float("-inf")
            self.inner.seek(now, heard, cps)
        else:
            heard, frontier, cps = self.inner.position(now), self.inner.frontier(now), self.inner.cps
        self._heard = max(heard, self._heard)
        return Reading(self._heard, max(frontier, self._heard), cps, page, self.epoch)
