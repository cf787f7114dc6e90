"""Everything running: senders, the 60 Hz loop, the worker, the page and the log, from the settings of live.py.

    check -> motion, weights, page, ports -> worker warmed up -> log opened -> 60 ticks a second until stopped

The 60 Hz loop is loop.py, what it decides engine.py; all that may be refused is refused here, before it begins.
"""

import asyncio
import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from eqdiff_jax import control, motion, paths, targets
from eqdiff_jax.composer import MOST_CANDIDATES
from eqdiff_jax.conditioning.layout import BPM_RANGE, genre_vector
from eqdiff_jax.errors import InputError
from eqdiff_jax.live import controls, engine, wire
from eqdiff_jax.live.budget import Budget, expected, opening
from eqdiff_jax.live.clock import AHEAD, InnerClock, Reading, StageClock
from eqdiff_jax.live.engine import Settings
from eqdiff_jax.live.inbox import Inbox
from eqdiff_jax.live.loop import Controlled, Loop, Summary
from eqdiff_jax.live.performers import Cast
from eqdiff_jax.live.recorder import Recorder
from eqdiff_jax.live.server import Server
from eqdiff_jax.live.source import Leaving, Source, open_source
from eqdiff_jax.live.worker import Failed, Ready, Worker
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.music import modulation
from eqdiff_jax.training import checkpoint

WEB = paths.WEB
FAREWELL = 0.2  # s for the last message to leave


class Options(NamedTuple):
    """What live.py is asked for; `run` refuses what cannot be."""

    checkpoint: str
    motion: str = "demo"
    mode: str = "diffusion"
    osc: str = "127.0.0.1:39539"
    http: str = "127.0.0.1:8080"
    log: str = "sessions"
    bpm: float = 120.0
    genre: str | None = None
    seed: int = 0
    map: str | None = None  # of OSC addresses, controls.py
    modulation: str | None = None  # of mappings, music/modulation.py
    token: str | None = None
    lookahead: str = "safe"
    candidates: int = 1  # grids that phrases are taken from
    control: float = 1.0  # how strongly the targets of the movement count
    targets: str | None = None  # a file of them, targets.py
    page: str | None = None  # folder whose node_modules hold Strudel, None for the usual one


def check(options: Options) -> None:
    """Raise InputError, one line, for an option that cannot be used."""
    if options.mode not in wire.MODES:
        raise InputError(f"unknown --mode {options.mode!r}: choose one of {', '.join(wire.MODES)}")
    if not BPM_RANGE[0] <= options.bpm <= BPM_RANGE[1]:
        raise InputError(f"--bpm is {options.bpm:g}: use {BPM_RANGE[0]:g} .. {BPM_RANGE[1]:g}")
    if not 0 <= options.seed < 2**31:
        raise InputError(f"--seed is {options.seed}: use 0 .. 2147483647")
    if not 1 <= options.candidates <= MOST_CANDIDATES:
        raise InputError(f"--candidates is {options.candidates}: use 1 .. {MOST_CANDIDATES}")
    control.check(options.control)
    if options.lookahead not in AHEAD:
        raise InputError(f"unknown --lookahead {options.lookahead!r}: choose one of {', '.join(AHEAD)}")
    genre_vector(options.genre)
    folder = Path(options.log).absolute()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError(f"cannot write to --log {options.log}: choose another folder")


def address(flag: str, text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, port 0 for any free one; raises InputError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(f"{flag} is {text!r}: write HOST:PORT, such as 127.0.0.1:8080")
    return host, int(port)


async def run(options: Options, *, say: Callable[[str], None] = print, stop: asyncio.Event | None = None,
              on_stage: Callable[[Loop], None] | None = None) -> Summary | None:
    """Everything live.py does, until `stop` is set or Ctrl-C; None when that was before it played.

    on_stage is called once it plays. Raises InputError before anything is written.
    """
    check(options)
    stop = stop or asyncio.Event()
    osc, http = address("--osc", options.osc), address("--http", options.http)
    rows = controls.load_map(options.map) if options.map else ()
    mappings = modulation.load(options.modulation) if options.modulation else modulation.DEFAULT_MAPPINGS
    rules = targets.load(options.targets)
    source = open_source(options.motion, options.seed)
    weights = jax.jit(motion.prepare)(checkpoint.load(options.checkpoint)["motion"])
    settings = Settings(options.mode, options.genre, options.bpm)
    making = engine.Making(options.candidates, options.control, rules)
    if source.script:
        first = source.script[0]
        settings = Settings(first.job.mode, first.job.genre, first.tempo)
        making = engine.Making(first.job.candidates, first.job.control, first.job.rules)
    cast = Cast()
    cast.fallback = source.frames if source.stays else Leaving(source.frames, cast)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(
            *http, web=WEB, node_modules=paths.node_modules(WEB, options.page), token=options.token,
            clock=time.monotonic))
        inbox = Controlled(cast, *osc, map=rows, clock=time.monotonic) if source.script is None else None
        if inbox is not None:
            await stack.enter_async_context(inbox)
        worker = Worker(options.checkpoint, jax.config.values["jax_compilation_cache_dir"], making.candidates)
        stack.callback(worker.close)
        _on_signals(stack, stop)
        say("warming up ...")
        ready = await _warm(worker, weights, stop)
        if ready is None:
            return None
        session = time.strftime("%Y-%m-%d_%H-%M-%S")
        recorder = Recorder(options.log, session)
        stack.callback(recorder.close)
        begun = time.monotonic()
        budget = expected(ready)
        inner = InnerClock(begun, settings.bpm / 240.0, ahead=AHEAD[options.lookahead],
                           position=opening(settings.mode, settings.bpm, budget, AHEAD[options.lookahead]))
        start = engine.init(settings, options.seed, budget, source.script, making)
        loop = Loop(weights, start, StageClock(inner),
                    cast.frame if source.script is None else source.frames, server=server, cast=cast, inbox=inbox,
                    worker=worker, recorder=recorder, mappings=mappings, lookahead=options.lookahead,
                    session=session, say=say)
        say(banner(options, settings, source, server, inbox, ready, recorder.path))
        if on_stage is not None:
            on_stage(loop)
        gc.collect()
        gc.freeze()  # what is there now stays; looking through it again would hold up a tick
        stack.callback(gc.unfreeze)
        await loop.play(stop)
        if engine.over(loop.state):  # else the page plays on by itself, for a server that comes back
            server.send(wire.Hush())
            await asyncio.sleep(FAREWELL)
        return loop.summary(time.monotonic() - begun)


def banner(options: Options, settings: Settings, source: Source, server: Server, inbox: Inbox | None, ready: Ready,
           log: Path) -> str:
    """What a person needs to know at the start."""
    lines = [f"page      {server.url}  (open it and press start)"]
    if inbox is not None:
        also = f", {options.map}" if options.map else ""
        lines.append(f"OSC       {inbox.host}:{inbox.port}  VMC, mocopi, trackers{also}")
    lines += [
        f"motion    {source.text}",
        f"mode      {', '.join(filter(None, (settings.mode, settings.genre, f'{settings.bpm:g} bpm')))}",
        f"network   {options.checkpoint}, {1000.0 * ready.per_call:.0f} ms a step",
        f"log       {log}",
        "Ctrl-C stops."]
    return "\n".join(lines)


async def _warm(worker: Worker, weights: motion.MotionWeights, stop: asyncio.Event) -> Ready | None:
    """Compile on both sides; None when `stop` is set before. Raises InputError where the worker cannot."""
    worker.start()

    def ticks() -> None:
        state, before = engine.init(Settings(), 0, Budget()), Reading(-9.0, -9.0, 0.5, False, 0)
        for _ in range(2):
            state, _ = engine.tick(weights, state, REST_FRAME[None], before)

    await asyncio.to_thread(ticks)
    while not stop.is_set():
        answer = worker.poll()
        if isinstance(answer, Failed):
            raise InputError(answer.reason)
        if isinstance(answer, Ready):
            ticks()  # what is compiled is looked up anew in each thread
            return answer
        await asyncio.sleep(0.05)
    return None


def _on_signals(stack: contextlib.AsyncExitStack, stop: asyncio.Event) -> None:
    """Ctrl-C and a polite kill set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, nor in a thread
            loop.add_signal_handler(number, stop.set)
            stack.callback(loop.remove_signal_handler, number)
