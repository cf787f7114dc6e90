"""When a sender's poses were taken, and how far behind the present they can be read without waiting for late ones.

Each pose gets a time on the sender's own line: its time stamp, or, without usable stamps, an even spacing that
follows the arrivals. A pose's trip is its arrival minus that time. Reading at now - lag, with the lag a little over
the longest trip of the last seconds, finds every pose already there; the lag moves slowly, so time never jumps.
"""

from collections import deque

DELAY = (0.03, 0.15)  # s behind the fastest trip, at least and at most
MEMORY = 2.0  # s of trips that the lag is taken from
OUTLIERS = 50  # one trip in so many may be longer
MARGIN = 0.004  # s over the longest trip
JUMP = 1.0  # s: a surprise larger than this is a sender's new start
FASTER, SLOWER = 0.05, 0.25  # how much the reading may gain or lose on the clock
DRIFT, CHECK = 0.05, 1.0  # stamps that twice run this much too fast or slow over so many seconds are no clock
STUCK = 3  # equal stamps in a row are none either
PARDON = 5.0  # s of silence after which stamps are trusted again
PULL = 0.1  # share of an arrival's surprise that the even spacing takes over
USUAL, LONGEST = 1.0 / 60.0, 0.25  # s between poses: at first, and at most without a break


class Timeline:
    """Times of one sender's poses; `now` is the receiver's steady clock, in seconds."""

    def __init__(self) -> None:
        self.lag: float | None = None  # now - lag is the sender's time to read at
        self._trips: deque[tuple[float, float]] = deque()  # (arrival, arrival - time)
        self._wanted = 0.0
        self._period = USUAL
        self._arrived, self._newest = 0.0, 0.0  # when the last pose came; the largest time so far
        self._trusted, self._stamped = True, False  # the stamps are a clock; the last pose had one
        self._jumped, self._stuck, self._strikes = -JUMP - MEMORY, 0, 0
        self._checked: tuple[float, float] | None = None  # when the stamps' speed was looked at, the fastest trip then
        self._read = 0.0  # when it was last read

    def place(self, now: float, stamp: float | None) -> tuple[float, bool]:
        """Time of a pose that arrives now, and whether with it a new line begins, on which older times mean nothing."""
        new = not self._trips
        if now - self._arrived > PARDON and not self._trusted:
            self._trusted, self._stuck, self._strikes, self._checked = True, 0, 0, None
        if stamp is not None and self._trusted and not new:
            new = self._judged(now, stamp)
        stamped = stamp is not None and self._trusted
        if stamp is not None and stamped:
            time, step = stamp, stamp - self._newest
        elif self._stamped and self._trusted and not new:  # one pose whose stamp was lost
            time, step, stamped = now - self._trips[-1][1], self._period, True
        else:
            time, step = (now if new else self._spaced(now)), now - self._arrived
        if new:
            self._trips.clear()
            self._checked, self._newest, self.lag = None, time, None
        else:
            self._period += 0.05 * (min(max(step, 0.0), LONGEST) - self._period)
        self._arrived, self._newest, self._stamped = now, max(time, self._newest), stamped
        self._trips.append((now, now - time))
        while now - self._trips[0][0] > MEMORY:
            self._trips.popleft()
        trips = sorted(trip for _, trip in self._trips)
        spread = trips[-1 - len(trips) // OUTLIERS] - trips[0]
        self._wanted = trips[0] + min(max(spread + self._period + MARGIN, DELAY[0]), DELAY[1])
        if self.lag is None:
            self.lag, self._read = self._wanted, now
        return time, new

    def read(self, now: float) -> float | None:
        """The sender's time to show now; None before the first pose."""
        if self.lag is None:
            return None
        passed = min(max(now - self._read, 0.0), 1.0)
        self._read = now
        change = self._wanted - self.lag
        self.lag += change if abs(change) > JUMP / 2.0 else min(max(change, -FASTER * passed), SLOWER * passed)
        return now - self.lag

    def _spaced(self, now: float) -> float:
        """An even spacing that follows the arrivals; after a break it begins anew."""
        if now - self._arrived > LONGEST:
            return max(now, self._newest)
        expected = self._newest + self._period
        return max(expected + PULL * (now - expected), self._newest + 0.25 * self._period)

    def _judged(self, now: float, stamp: float) -> bool:
        """Whether a stamp begins a new line; stamps that cannot be a clock are trusted no longer."""
        trip = now - stamp
        if self._stamped and abs(trip - self._trips[-1][1]) > JUMP:
            self._trusted = now - self._jumped > MEMORY  # they jump again and again
            self._jumped = now
            return True
        self._stuck = self._stuck + 1 if stamp == self._newest else 0
        if self._checked is None:
            self._checked = now, trip
        elif now - self._checked[0] > CHECK:
            fastest = min([trip, *(trip for arrived, trip in self._trips if arrived > self._checked[0])])
            wrong = abs(fastest - self._checked[1]) > DRIFT * (now - self._checked[0])
            self._strikes = self._strikes + 1 if wrong else 0
            self._checked = now, fastest
        self._trusted = self._stuck < STUCK and self._strikes < 2
        return not self._trusted or not self._stamped
