"""A soak of the live part: bars, misses, lateness, memory, time per step, and how soon an OSC value is in the page.

    python benchmarks/live.py --minutes 30                   in real time, the demo dancer at 120 bpm
    python benchmarks/live.py --minutes 30 --flood           with 20,000 packets a second from one source beside it
    python benchmarks/live.py --minutes 10 --large           an untrained network of configs/roformer_86m.py's size
    python benchmarks/live.py --minutes 30 --accelerated     the music's clock waits for grids, so none can be late
    python benchmarks/live.py --latency 300                  OSC in -> value in the page, and nothing else

The page is a double without sound (tests/page_double.py), with an audio clock of its own. --accelerated runs the same
engine and the same `make` in one process as fast as they go; it shows what a long performance does to memory and to
the grids, and says nothing about misses.
"""

import argparse
import asyncio
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from page_double import PageDouble  # noqa: E402
from pythonosc.udp_client import SimpleUDPClient  # noqa: E402

from configs.roformer_86m import get_config  # noqa: E402
from eqdiff_jax import motion  # noqa: E402
from eqdiff_jax.live import engine, stage, worker  # noqa: E402
from eqdiff_jax.live.budget import Budget, opening, pace  # noqa: E402
from eqdiff_jax.live.clock import InnerClock, Reading  # noqa: E402
from eqdiff_jax.live.source import open_source  # noqa: E402
from eqdiff_jax.paths import CACHE, SHIPPED  # noqa: E402
from eqdiff_jax.training import checkpoint, state  # noqa: E402

FLOOD = """
import random, socket, struct, sys, time
port, rate = int(sys.argv[1]), 20000
packet = b"/VMC/Ext/Blend/Val\\0\\0,sf\\0Joy\\0" + struct.pack(">f", 0.5)
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("127.0.0.1", port))
begun, sent = time.monotonic(), 0
while True:
    due = int((time.monotonic() - begun) * rate)
    while sent < due:
        try:
            out.send(packet)
        except OSError:
            pass
        sent += 1
    time.sleep(0.001)
"""
MAP = '[[row]]\naddress = "/latency"\nargument = 0\nto = "room"\n'


def memory(pid: int | str | None) -> float:
    """Resident memory of a process, MB; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024.0


def row(*cells: object) -> None:
    """One line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def grids_a_minute(args: argparse.Namespace, budget: Budget) -> int:
    """How many are made while all is well."""
    return round(args.bpm / 4 / pace(args.mode, args.bpm, budget))


async def soak(args: argparse.Namespace, folder: str) -> None:
    """Real time: everything that live.py runs, with a page that plays."""
    fader = Path(folder) / "map.toml"
    fader.write_text(MAP)
    stop, opened = asyncio.Event(), asyncio.get_running_loop().create_future()
    running = asyncio.create_task(stage.run(
        stage.Options(args.checkpoint, mode=args.mode, bpm=args.bpm, http="127.0.0.1:0", osc="127.0.0.1:0",
                      log=str(Path(folder) / "log"), map=str(fader), lookahead=args.lookahead),
        say=lambda text: print(text, file=sys.stderr), stop=stop, on_stage=opened.set_result))
    await asyncio.wait([running, opened], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
        return
    on: stage.Loop = opened.result()
    calls: list[float] = []
    steps: list[int] = []
    take = on.worker.poll

    def watched():
        answer = take()
        if isinstance(answer, worker.Made) and answer.calls:
            calls.append(answer.seconds / answer.calls)
            steps.append(answer.steps)
        return answer

    on.worker.poll = watched  # type: ignore[method-assign]
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(on.inbox.port)]) if args.flood and on.inbox else None
    try:
        async with PageDouble(on.server.port, keep=256) as page:
            page.start()
            if args.latency:
                await latency(on, page, args.latency)
            else:
                row("minute", "bars", "misses", "worst late ms", "p99 late ms", "loop MB", "grids MB", "steps",
                    "ms a call")
                row(*["---"] * 9)
                for minute in range(args.minutes + 1):
                    seen = slice(-grids_a_minute(args, on.state.budget), None)
                    row(minute, on.recorder.bars, sum(on.state.misses.values()), f"{1e3 * on.late.worst:.1f}",
                        f"{1e3 * on.late.quantile(0.99):.1f}", f"{memory('self'):.0f}", f"{memory(on.worker.pid):.0f}",
                        f"{statistics.mean(steps[seen]):.1f}" if steps else "-",
                        f"{1e3 * statistics.median(calls[seen]):.1f}" if calls else "-")
                    if minute < args.minutes:
                        await asyncio.sleep(60.0)
    finally:
        if flood is not None:
            flood.kill()
            flood.wait()
        stop.set()
    summary = await running
    assert summary is not None
    print(f"\n{summary.bars} bars, {summary.grids} grids, misses {summary.misses or 'none'}\nthe 60 Hz loop was late "
          f"by at worst {summary.worst_ms:.1f} ms, 99 % within {summary.p99_ms:.1f} ms; {summary.skipped} frames lost")
    if calls:
        print(f"{1e3 * statistics.median(calls):.1f} ms a network call (median; worst {1e3 * max(calls):.1f}), "
              f"{min(steps)} to {max(steps)} steps, mean {statistics.mean(steps):.1f}")
    if on.journeys:
        print(f"server -> page -> server: median {1e3 * statistics.median(on.journeys):.1f} ms")
    if on.inbox is not None:
        print(f"UDP: {on.inbox.packets} packets let in, {on.inbox.dropped} dropped before they were looked at, "
              f"{on.inbox.refused} refused")


async def latency(on: stage.Loop, page: PageDouble, count: int) -> None:
    """OSC in -> the value in the page: `count` values at random moments."""
    client, rng, passed = SimpleUDPClient("127.0.0.1", on.inbox.port), random.Random(0), []
    await asyncio.sleep(3.0)
    for i in range(count):
        value, sent = 0.1 + 0.8 * (i % 2) + 1e-4 * (i % 500), time.monotonic()
        want = 0.8 * value
        client.send_message("/latency", value)
        while not (came := [t for t, v in page.params.get("room", []) if abs(v - want) < 1e-4 and t >= sent]):
            await asyncio.sleep(0.0005)
        passed.append(1e3 * (came[0] - sent))
        await asyncio.sleep(rng.uniform(0.03, 0.09))
    passed.sort()
    row("OSC in -> value in the page, ms", "min", "p50", "p95", "max")
    row(*["---"] * 5)
    row(f"{count} values", *(f"{passed[min(int(q * count), count - 1)]:.1f}" for q in (0.0, 0.5, 0.95, 1.0)))


def accelerated(args: argparse.Namespace) -> None:
    """The engine under a clock that waits for the grids, as fast as they come."""
    params = worker.load(args.checkpoint)
    ready = worker.warm_up(params)
    settings, budget = engine.Settings(args.mode, None, args.bpm), Budget(ready.per_call, (), ready.overhead)
    inner = InnerClock(0.0, args.bpm / 240.0, position=opening(args.mode, args.bpm, budget, 0.3))
    current, dancer = engine.init(settings, 0, budget), open_source("demo", 0)
    answer, calls, bars, begun = None, [], 0, time.perf_counter()
    row("minute", "bars", "grids", "MB", "ms a call", "times real time")
    row(*["---"] * 6)
    for tick in tqdm(range(args.minutes * 3600 + 1), disable=None):
        now = tick / 60.0
        reading = Reading(inner.position(now), inner.frontier(now), inner.cps, False, 0)
        current, info = engine.tick(params["weights"], current, dancer.frames(now)[None], reading, answer=answer)
        answer = None if info.job is None else worker.make(params, info.job)
        if isinstance(answer, worker.Made) and answer.calls:
            calls.append(answer.seconds / answer.calls)
        bars += len(info.bars)
        if tick % 3600 == 0:
            row(tick // 3600, bars, current.window, f"{memory('self'):.0f}",
                f"{1e3 * statistics.median(calls[-grids_a_minute(args, current.budget):]):.1f}" if calls else "-",
                f"{now / (time.perf_counter() - begun):.1f}")


def large(folder: str) -> str:
    """Fresh weights of configs/roformer_86m.py, as a checkpoint."""
    config: ConfigDict = get_config()
    path = Path(folder) / "large"
    params = state.init_params(jax.random.key(0), config)
    checkpoint.export(path, params, motion.init_params(jax.random.key(0)), config, "untrained, to measure time")
    count = sum(np.size(x) for x in jax.tree.leaves(params["denoiser"]))
    print(f"untrained network of {count / 1e6:.1f} M parameters", file=sys.stderr)
    return str(path)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--bpm", type=float, default=120.0)
    parser.add_argument("--mode", default="diffusion")
    parser.add_argument("--lookahead", default="safe")
    parser.add_argument("--checkpoint", default=str(SHIPPED))
    parser.add_argument("--large", action="store_true", help="an untrained network of 86 M parameters instead")
    parser.add_argument("--flood", action="store_true")
    parser.add_argument("--accelerated", action="store_true")
    parser.add_argument("--latency", type=int, default=0, metavar="N", help="measure N values instead of minutes")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, "
          f"JAX {jax.__version__}, {args.mode}, {args.bpm:g} bpm", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        if args.large:
            args.checkpoint = large(folder)
        if args.accelerated:
            accelerated(args)
        else:
            asyncio.run(soak(args, folder))


if __name__ == "__main__":
    main()
