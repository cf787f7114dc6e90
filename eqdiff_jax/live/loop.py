"""The 60 Hz loop: everything that came in, one tick of the engine, everything that goes out.

It keeps time: no call in it waits for the worker, the disk or the network. What a tick decides is decided by engine.py.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eqdiff_jax import motion
from eqdiff_jax.diffusion.schedule import STEPS_MAX
from eqdiff_jax.live import engine, wire
from eqdiff_jax.live.clock import AHEAD, Reading, StageClock
from eqdiff_jax.live.inbox import Inbox
from eqdiff_jax.live.performers import Cast
from eqdiff_jax.live.recorder import Recorder
from eqdiff_jax.live.server import Server
from eqdiff_jax.live.worker import Failed, Job, Made, Ready, Worker
from eqdiff_jax.motion.resample import RATE
from eqdiff_jax.motion.windows import window_seconds
from eqdiff_jax.music import modulation
from eqdiff_jax.music.conductor import GENRES
from eqdiff_jax.music.grid import TRACKS
from eqdiff_jax.music.modulation import PARAMETERS
from eqdiff_jax.types import Dynamics

CATCH_UP = 30  # frames that a late tick takes in at once; what is older is left out
VIEW_TICKS = 3  # between two pictures for the page
PING_TICKS = 60
STEP = 1 / 512  # of a parameter's range: smaller movements are not sent
HUNG = 4  # windows, or times the seconds it should take, after which a worker that says nothing is replaced
LONGEST_WAIT = 30.0  # s between two attempts to start a worker
REPEAT = 30.0  # s before the same trouble is told again

_MOVES: dict[str, tuple[str, ...]] = {"modulate": ("event", "bus"), "diffusion": ("bus",), "threshold": ()}
_MISSES = {
    "late": "a grid came too late and was thrown away: the last one plays on",
    "slow": "this computer is too slow for a grid in each two bars with this checkpoint: the last one plays on",
    "worker": "no process makes grids at the moment: the last one plays on",
    "network": "the network gave no grid: the last one plays on",
    "page": "the page did not take a grid in time: the last one plays on",
}


class Summary(NamedTuple):
    """How a performance went."""

    seconds: float
    grids: int
    bars: int
    misses: dict[str, int]  # grids that were not there in time, by reason
    worst_ms: float  # lateness of the 60 Hz loop
    p99_ms: float
    skipped: int  # limb frames left out because the loop was too late
    starts: int  # of the worker
    log: Path


class Lateness:
    """How late ticks began, in bins of 0.1 ms."""

    def __init__(self) -> None:
        self._counts, self.worst, self.last = np.zeros(10_000, int), 0.0, 0.0

    def add(self, seconds: float) -> None:
        """One tick."""
        self.last = max(seconds, 0.0)
        self.worst = max(self.last, self.worst)
        self._counts[min(int(self.last * 1e4), len(self._counts) - 1)] += 1

    def quantile(self, q: float) -> float:
        """Seconds that a share q of all ticks did not exceed."""
        total = self._counts.sum()
        return float(np.searchsorted(np.cumsum(self._counts), q * total) + 1) / 1e4 if total else 0.0


class Controlled(Inbox):
    """An inbox that calls `moved` after each packet in which there were controls."""

    moved: Callable[[], None] | None = None

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """One packet from the network. Nothing is raised."""
        before = self.messages
        super().datagram_received(data, address)
        if self.moved is not None and self.controls and self.messages > before:
            self.moved()


class Loop:
    """What runs between the first tick and the last: `play` calls `tick` 60 times a second."""

    def __init__(self, weights: motion.MotionWeights, state: engine.State, clock: StageClock, frames: Callable[
            [float], np.ndarray], *, server: Server, cast: Cast, inbox: Controlled | None, worker: Worker,
            recorder: Recorder, mappings: tuple[modulation.Mapping, ...], lookahead: str, session: str,
            say: Callable[[str], None] = print, now: Callable[[], float] = time.monotonic):
        self.weights, self.state, self.clock, self.frames = weights, state, clock, frames
        self.server, self.cast, self.inbox, self.worker, self.recorder = server, cast, inbox, worker, recorder
        self.mappings, self.lookahead, self.session = mappings, lookahead, session
        self.say, self.now = say, now
        self.late, self.skipped, self.ticks = Lateness(), 0, 0
        self.params = {name: low_high[2] for name, low_high in wire.RANGES.items() if name not in ("bpm", "lookahead")}
        self.journeys: deque[float] = deque(maxlen=600)  # s, there and back
        self._modulation = modulation.initial_state(mappings)
        self._sources = {m.parameter: m.source for m in mappings}
        self._moved = now()
        self._submitted = self._retry = now()
        self._starting: asyncio.Future[None] | None = None
        self._failures = 0
        self._told: dict[str, float] = {}
        self._playing = False
        self._reading: Reading = clock.read(now())
        self._led: str | None = None
        server.state = self.snapshot
        server.send(self.snapshot())  # to a page that has waited for us
        if inbox is not None:
            inbox.moved = self.hurry

    def snapshot(self) -> wire.State:
        """All that a page needs that comes now."""
        newest, wanted = self.state.newest, self.state.wanted
        return wire.State(
            self.session, self.state.settings.bpm, wanted.mode, wanted.genre,
            newest.made.code if newest else None, newest.made.window if newest else None,
            newest.made.tokens.tolist() if newest else None, dict(self.params), self.lookahead, wire.MODES, GENRES,
            TRACKS, wire.RANGES)

    async def play(self, stop: asyncio.Event) -> None:
        """Tick until `stop` is set, or a session that is played again is over."""
        begun, done = self.now(), 0
        while not stop.is_set() and not engine.over(self.state):
            await asyncio.sleep(max(begun + done / RATE - self.now(), 0.0))
            now = self.now()
            waiting = int((now - begun) * RATE) + 1 - done
            if waiting < 1:  # woken a little early
                continue
            self.late.add(now - begun - done / RATE)
            taken = min(waiting, CATCH_UP)
            self.skipped += waiting - taken
            done += waiting
            limbs = np.stack([self.frames(begun + i / RATE) for i in range(done - taken, done)])
            self.tick(limbs.astype(np.float32), self.now())

    def tick(self, limbs: np.ndarray, now: float) -> None:
        """One turn: what came in, the engine, what goes out. limbs [K, 27, 8] since the turn before."""
        self._listen(now)
        reading = self._reading = self.clock.read(now)
        answer = self._attend(now)
        self.state, info = engine.tick(self.weights, self.state, limbs, reading, answer=answer,
                                       idle=self.worker.idle and self._starting is None)
        if info.job is not None:
            self.worker.submit(info.job)
            self._submitted = now
        for message in info.messages:
            if isinstance(message, wire.SetParam):  # the tempo
                self.clock.set_bpm(now, message.value)
            self.server.send(message)
        for bar in info.bars:
            self.recorder.bar(bar)
            for reason in bar.missed:
                self._tell(f"missed {reason}", _MISSES[reason])
        self.recorder.frames(limbs)
        dynamics = Dynamics(*map(float, info.frame[64:79]))
        self._modulate(dynamics, now)
        self.ticks += 1
        if self.server.player and self.ticks % VIEW_TICKS == 0:
            self.server.send(self._view(limbs[-1], info.frame, dynamics, reading, now))
        if self.server.player and self.ticks % PING_TICKS == 0:
            self.server.send(wire.Ping(self.ticks, now))
        if self.recorder.error:
            self._tell("disk", self.recorder.error)
        if self.cast.lead != self._led:
            self._led = self.cast.lead
            self._tell(f"lead {self._led}", f"{self._led} leads" if self._led else "nobody sends any more")

    # The page.

    def _listen(self, now: float) -> None:
        """Everything the page has said since the last turn."""
        if self._playing and not self.server.player:
            self.clock.lost()
            self._tell("page", "the page has gone; the music's clock goes on without it")
        self._playing = self.server.player
        while not self.server.inbox.empty():
            message, received = self.server.inbox.get_nowait()
            match message:
                case wire.Clock():
                    self.clock.feed(message, received)
                case wire.Evaluated() if self._reading.page:
                    self.state = engine.evaluated(self.state, message.id, message.at_cycle)
                case wire.Error():
                    if message.id is not None and message.stage in ("evaluate", "query"):
                        self.state = engine.refused(self.state, message.id)
                    self._tell("error", f"the page says: {message.message[:200]} ({message.stage})")
                case wire.Missing():
                    self._tell("missing", f"the page has no sound called {', '.join(message.sounds)[:200]}")
                case wire.Pong():
                    self.journeys.append(max(received - message.t0, 0.0))
                case wire.Request():
                    self._asked(message.name, message.value, now)

    def _asked(self, name: str, value: float | str | bool | None, now: float) -> None:
        """What a person wants; bpm, mode and genre begin with the next grid."""
        wanted = self.state.wanted
        if name in ("bpm", "mode", "genre") and self.state.script is not None:
            self._tell("script", "a session is played again: its tempo, mode and genre are its own")
        elif name == "bpm":
            wanted = wanted._replace(bpm=float(value or wanted.bpm))
        elif name == "mode":
            wanted = wanted._replace(mode=str(value))
        elif name == "genre":
            wanted = wanted._replace(genre=None if value is None else str(value))
        elif name == "lookahead":
            self.lookahead = str(value)
            self.clock.inner.ahead = AHEAD[self.lookahead]
            self.server.send(wire.SetParam("lookahead", float(self.lookahead == "tight")))
        elif name == "lead":
            self.cast.choose(None if value is None else str(value))
        elif name == "volume":
            self.params["volume"] = float(value or 0.0)
        self.state = self.state._replace(wanted=wanted)

    def _modulate(self, dynamics: Dynamics[float], now: float) -> None:
        """Parameters that move, to the page: all in mode modulate, those of the buses in mode diffusion. What an OSC
        control moves, no movement does; what nothing moves goes back to its default."""
        self._modulation, moved = modulation.step(self._modulation, dynamics, now - self._moved, self.mappings)
        self._moved = now
        playing = self.state.playing
        kinds = _MOVES[playing.made.mode if playing else self.state.settings.mode]
        held = self.inbox.controls if self.inbox is not None else {}
        for name, row in PARAMETERS.items():
            if name not in held:
                follows = name in moved and row.kind in kinds
                self._set(name, moved[name] if follows else row.default, self._sources[name] if follows else "default")
        self.hurry()

    def hurry(self) -> None:
        """Send what OSC controls moved, without waiting for the next tick."""
        for name, place in self.inbox.controls.items() if self.inbox is not None else ():
            row = PARAMETERS[name]
            self._set(name, row.low + place * (row.high - row.low), "osc")

    def _set(self, name: str, value: float, source: str) -> None:
        row = PARAMETERS[name]
        if abs(value - self.params[name]) > STEP * (row.high - row.low):
            self.params[name] = value
            self.server.send(wire.MotionModulate(name, value, source))

    def _view(self, limbs: np.ndarray, frame: np.ndarray, dynamics: Dynamics[float], reading: Reading,
              now: float) -> wire.View:
        playing = self.state.playing
        section = playing.made.section if playing else np.zeros(6)
        return wire.View(
            np.round(limbs[:, :3], 3).tolist(), np.round(limbs[:, 7], 2).tolist(), np.round(frame[:32], 3).tolist(),
            {name: round(x, 4) for name, x in dynamics._asdict().items()}, np.round(section, 3).tolist(),
            self.cast.lead, self.cast.active(now), round(1000.0 * self.late.last, 2),
            sum(self.state.misses.values()), round(reading.heard, 3))

    # The worker.

    def _attend(self, now: float) -> Made | Ready | Failed | None:
        """What the worker says. One that died or hangs is replaced, at longer and longer intervals."""
        answer: Made | Ready | Failed | None = None
        if self._starting is not None:
            if not self._starting.done():
                return None
            if error := self._starting.exception():
                answer = Failed(None, f"no process for grids could be started ({error})")
            self._starting = None
        answer = answer or self.worker.poll()
        if self.worker.busy is not None and now - self._submitted > self._patience(self.worker.busy):
            self.worker.kill()
            answer = Failed(None, "the process that makes grids hangs")
        if isinstance(answer, Failed):
            self._tell(f"worker {answer.reason}", answer.reason + ": the last grid plays on")
        if isinstance(answer, Failed) and answer.window is None:
            self._retry = now + min(2.0**self._failures - 1.0, LONGEST_WAIT)
            self._failures += 1
        elif isinstance(answer, Made):
            self._failures = 0
        if not self.worker.running and now >= self._retry:
            self._starting = asyncio.get_running_loop().run_in_executor(None, self.worker.start)
        return answer

    def _patience(self, job: Job) -> float:
        """Seconds that a grid may take before its process counts as hanging."""
        return HUNG * max(window_seconds(self.state.settings.bpm), self.state.budget.seconds(job.most or STEPS_MAX))

    # People.

    def _tell(self, key: str, text: str) -> None:
        """A line for people, the same trouble only now and then."""
        now = self.now()
        self._told = {old: when for old, when in self._told.items() if now - when < REPEAT}
        if key not in self._told:
            self._told[key] = now
            self.say(text)

    def summary(self, seconds: float) -> Summary:
        """How it went so far."""
        newest = self.state.newest
        return Summary(seconds, newest.made.window + 1 if newest else 0, self.recorder.bars, dict(self.state.misses),
                       1000.0 * self.late.worst, 1000.0 * self.late.quantile(0.99), self.skipped, self.worker.starts,
                       self.recorder.path)
