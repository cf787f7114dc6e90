"""A page without a browser: says hello, tells an audio clock, and switches patterns where web/player.js would."""

import asyncio
import contextlib
import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

TICK = 0.05  # s between two looks ahead


class PageDouble:
    """`async with PageDouble(port) as page`; `page.start()` is the click that lets the audio clock run.

    refuses(message) says whether an Eval fails here. Everything that comes is kept, with the time it came; with
    `keep`, only so many of each kind, so that a long run's memory is the program's own.
    """

    def __init__(self, port: int, *, session: str = "double-of-a-page", ahead: float = 0.3, token: str | None = None,
                 refuses: Callable[[dict], bool] = lambda message: False, keep: int | None = None):
        self.port, self.session, self.ahead, self.token, self.refuses = port, session, ahead, token, refuses
        self.states: deque[dict] = deque(maxlen=keep)
        self.evals: deque[tuple[float, float, dict]] = deque(maxlen=keep)  # frontier, cycle it starts at, message
        self.params: defaultdict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=keep))
        self.settings: deque[tuple[float, dict]] = deque(maxlen=keep)  # heard, SetParam
        self.views: deque[dict] = deque(maxlen=keep)
        self.hushed = False
        self.cps = 0.5
        self._piece: tuple[float, float] | None = None  # time and cycle of the last change of tempo
        self._frontier = 0.0
        self._looked = 0.0

    async def __aenter__(self) -> "PageDouble":
        here = f"127.0.0.1:{self.port}"
        query = f"?token={self.token}" if self.token else ""
        self._socket = await connect(f"ws://{here}/ws{query}", origin=f"http://{here}", compression=None)
        await self.say("Hello", protocol=1, session=self.session, strudel="double", sounds=[])
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._tell())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()

    async def say(self, kind: str, **fields: object) -> None:
        """One message to the server."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(json.dumps({"v": 1, "type": kind, **fields}))

    def start(self) -> None:
        """Let the audio clock run from cycle 0."""
        self._piece = (time.monotonic() + self.ahead, 0.0)

    @property
    def heard(self) -> float:
        """Cycles."""
        return 0.0 if self._piece is None else max(self._at(time.monotonic()), 0.0)

    @property
    def frontier(self) -> float:
        """Cycles up to which notes are handed out; it moves on every TICK."""
        now = time.monotonic()
        if self._piece is not None and now - self._looked >= TICK:
            self._looked = now
            self._frontier = max(self._frontier, self._at(now + self.ahead))
        return self._frontier

    def _at(self, now: float) -> float:
        assert self._piece is not None
        return self._piece[1] + (now - self._piece[0]) * self.cps

    async def _tell(self) -> None:
        while True:
            await self.say("Clock", heard=self.heard, frontier=self.frontier, cps=self.cps,
                           audio_state="running" if self._piece else "suspended", audio_time=time.monotonic(),
                           perf_now=1000.0 * time.monotonic(), output_latency=0.0)
            await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                await self._take(json.loads(text))

    async def _take(self, message: dict) -> None:
        now = time.monotonic()
        match message["type"]:
            case "State":
                self.states.append(message)
                self.cps = message["bpm"] / 240.0
            case "Eval" | "Crossfade":
                if self.refuses(message):
                    await self.say("Error", id=message["id"], stage="evaluate", message="refused", line=1)
                    return
                frontier, bars = self.frontier, message.get("bars", 2)
                start = math.ceil(max(frontier, message.get("cycle") or 0.0) / bars) * bars
                self.evals.append((frontier, start, message))
                await self.say("Evaluated", id=message["id"], at_cycle=start)
            case "MotionModulate":
                self.params[message["parameter"]].append((now, message["value"]))
            case "SetParam":
                self.settings.append((self.heard, message))
                if message["name"] == "bpm":
                    if self._piece is not None:
                        self._piece = (now, self._at(now))
                    self.cps = message["value"] / 240.0
            case "View":
                self.views.append(message)
            case "Hush":
                self.hushed = True
            case "Ping":
                await self.say("Pong", id=message["id"], t0=message["t0"], perf=1000.0 * now)

    def tokens(self) -> dict[int, np.ndarray]:
        """The grids that came, by their number."""
        return {message["id"]: np.array(message["tokens"]) for _, _, message in self.evals}
