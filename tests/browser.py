"""The real page: Chromium, the real Strudel, and the project's server in a thread of its own."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from eqdiff_jax.live.server import Server
from eqdiff_jax.live.wire import MODES, RANGES, Eval, Hello, PageMessage, Range, ServerMessage, State
from eqdiff_jax.music.conductor import GENRES
from eqdiff_jax.music.grid import TRACKS

WEB = Path(__file__).resolve().parents[1] / "web"
PATIENCE = 60.0  # s; other programs may have the cores
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--autoplay-policy=no-user-gesture-required"]
# In the page before anything else: what its security policy has stopped.
WATCH = "window.stopped = []; addEventListener('securitypolicyviolation', (e) => stopped.push(e.blockedURI))"


def chromium() -> str | None:
    """Path of the installed Chromium."""
    return shutil.which("chromium")


def strudel() -> bool:
    """The page's Strudel is installed."""
    return (WEB / "node_modules" / "@strudel" / "web" / "dist" / "index.js").is_file()


def launch(playwright: sync_playwright) -> Browser:
    """The installed Chromium, without a window and without a sound card."""
    return playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


class Stage:
    """The server, and what the page has said to it. Used as a context manager; may be left and entered again."""

    def __init__(self, *, ranges: Mapping[str, Range] = RANGES, bpm: float = 240.0):
        self.ranges, self.port = ranges, 0
        self.said: list[PageMessage] = []
        self.times: list[float] = []  # of arrival, the server's clock
        self.now = State("test", bpm, "diffusion", None, None, None, None, {}, "safe", MODES, GENRES, TRACKS, ranges)

    def __enter__(self) -> "Stage":
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with Server("127.0.0.1", self.port, web=WEB, node_modules=WEB / "node_modules", ranges=self.ranges,
                          state=lambda: self.now) as self.server:
            self.port, self.url = self.server.port, self.server.url
            listener = asyncio.create_task(self._listen())
            ready.set()
            await self._over.wait()
            listener.cancel()

    async def _listen(self) -> None:
        while True:
            message, arrived = await self.server.inbox.get()
            self.said.append(message)
            self.times.append(arrived)

    def send(self, *messages: ServerMessage) -> None:
        """Send to the page; a pattern becomes part of the state too."""
        for message in messages:
            if isinstance(message, Eval):
                self.now = self.now._replace(pattern=message.pattern, id=message.id)
            self._loop.call_soon_threadsafe(self.server.send, message)

    def heard(self, kind: type) -> list:
        """All messages of a type that the page has sent."""
        return [message for message in self.said if isinstance(message, kind)]


def until(page: Page, condition: Callable[[], object], what: str = "") -> None:
    """Let page and server go on until this holds; fails after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what or condition}"
        page.wait_for_timeout(10)


def wait(page: Page, expression: str) -> None:
    """The same for a condition in the page."""
    page.wait_for_function(expression, timeout=1000 * PATIENCE)


def open_page(browser: Browser, stage: Stage, *, start: bool = True, **options) -> Page:
    """The page, connected, and playing if `start`."""
    page = browser.new_page(**options)
    page.troubles, page.expected = [], []  # errors on the console, and parts of those a test expects
    page.on("console", lambda m: page.troubles.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.add_init_script(WATCH)
    page.goto(stage.url)
    wait(page, "window.eqdiff?.link.state === 'connected'")
    if start:
        page.get_by_role("button", name="Start").click()
        wait(page, "eqdiff.player.running")
    return page


def played(stage: Stage, page: Page, message: Eval) -> float:
    """Send an Eval and wait for the answer: the cycle it plays from."""
    stage.send(message)

    def answers():
        return [m.at_cycle for m in stage.said if type(m).__name__ == "Evaluated" and m.id == message.id]

    until(page, answers, f"Evaluated {message.id}")
    return answers()[-1]


def onsets(page: Page, layer: int | None = None) -> list[dict]:
    """The notes handed over to the audio clock, of one Eval or of all."""
    found = page.evaluate("eqdiff.onsets")
    return [o for o in found if layer is None or o["id"] == layer]


def wait_beyond(page: Page, cycle: float) -> None:
    """Wait until a note after this cycle has been handed over."""
    wait(page, f"eqdiff.onsets.at(-1)?.cycle > {cycle}")


def hellos(stage: Stage) -> list[str]:
    """Sessions of the pages that said Hello, in order."""
    return [message.session for message in stage.heard(Hello)]


RMS = "eqdiff.player.mixer.meter().rms"
RATES = (16, 12, 7, 5, 3)  # notes in a bar: also such whose onsets no binary fraction can say


def steady(number: int) -> tuple[str, int]:
    """Code of steady notes on two orbits, and how many of them a bar holds."""
    rate = RATES[number % len(RATES)]
    pitch = 40 + number % 30
    return f'a: s("hh*{rate}").gain(.2).orbit(3)\nb: note("{pitch}*{rate}").s("sine").gain(.1).orbit(5)', rate


def due(begins: list[tuple[int, Fraction]], end: Fraction) -> list[tuple[int, Fraction, int]]:
    """(number, onset, orbit) of every note before `end`, when steady(i) plays from begins[i] on."""
    notes = []
    for (number, begin), (_, over) in zip(begins, [*begins[1:], (0, end)], strict=True):
        rate = steady(number)[1]
        steps = range(-(-begin * rate // 1), -(-over * rate // 1))
        notes += [(number, Fraction(step, rate), orbit) for step in steps for orbit in (3, 5)]
    return notes


def beat(note: dict) -> Fraction:
    """The onset of a note that was handed over, exactly, in bars."""
    return Fraction(note["cycle"]).limit_denominator(1000)
