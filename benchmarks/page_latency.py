"""Latency and switches of the live page, in the real browser with the real Strudel and the real server, in one run.

    python benchmarks/page_latency.py [--values 60] [--switches 100]

For each lookahead, with sixteenths at 120 bpm: from the moment a value reaches the page to the first note that has
it, when that note is handed to the audio clock and when it is due there (that is, heard, less the delay of the
computer's audio output, which is printed). Then a bus parameter, from the message to the first window of 256 samples
whose level has moved by 15 %, before and behind the limiter. Then from server to page and back. Last, switches at
bar lines: which notes of each pattern were handed over, against those that its code has. Values come at random moments.
"""

import argparse
import random
import statistics
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Stage, beat, due, launch, open_page, played, steady, until, wait, wait_beyond
from playwright.sync_api import Page, sync_playwright

from eqdiff_jax.live.wire import RANGES, Eval, MotionModulate, Ping, Pong, SetParam

# Counts what a message did: the note that carries the value, or the level at the master.
NOTE = """(name) => {
  const { player, link } = eqdiff;
  window.results = [];
  link.addEventListener('message', ({ detail }) => {
    if (detail.type !== 'MotionModulate' || detail.parameter !== name) return;
    const at = player.context.currentTime, perf = performance.now(), seen = player.onsets.length;
    const look = setInterval(() => {
      const note = player.onsets.slice(-64).find((o) => o.value.cutoff === detail.value);
      if (!note) return;
      clearInterval(look);
      results.push({ scheduled: performance.now() - perf, heard: 1000 * (note.time - at) });
    }, 1);
  });
}"""
BUS = """() => {
  const { player, link } = eqdiff, { context, mixer } = player, samples = new Float32Array(256);
  const taps = { strudel: mixer.muteNode, master: mixer.analyser };  // before and behind the limiter
  for (const [name, node] of Object.entries(taps)) {
    node.connect(taps[name] = new AnalyserNode(context, { fftSize: samples.length }));
  }
  const level = (name) => { taps[name].getFloatTimeDomainData(samples); return Math.hypot(...samples); };
  window.results = [];
  link.addEventListener('message', ({ detail }) => {
    if (detail.parameter !== 'master_gain') return;
    const perf = performance.now(), goal = detail.value < 0.6 ? 0.85 : 1.15, found = {};
    const before = { strudel: level('strudel'), master: level('master') };
    const look = setInterval(() => {
      for (const name of Object.keys(before)) {
        const share = level(name) / before[name];
        if (goal < 1 ? share < goal : share > goal) found[name] ??= performance.now() - perf;
      }
      if (!found.strudel || !found.master) return;
      clearInterval(look);
      results.push(found);
    }, 1);
  });
}"""
# The page remembers its last notes only.
KEEP = "() => { eqdiff.kept = []; setInterval(() => eqdiff.kept.push(...eqdiff.onsets.splice(0)), 500); }"


def spread(values: list[float]) -> str:
    """Smallest, median, 95th percentile and largest, in milliseconds."""
    ordered = sorted(values)
    worst = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{ordered[0]:6.1f} {statistics.median(ordered):6.1f} {worst:6.1f} {ordered[-1]:6.1f}   n = {len(ordered)}"


def collect(stage: Stage, page: Page, count: int, message) -> list[dict]:
    """Send so many messages at random moments, each after the last has shown its effect."""
    for number in range(count):
        page.wait_for_timeout(random.uniform(150, 400))
        stage.send(message(number))
        wait(page, f"results.length === {number + 1}")
    return page.evaluate("results")


def latencies(browser, values: int) -> None:
    ranges = {**RANGES, "cut": (100.0, 10000.0, 800.0)}
    print(f"{'ms':44s}    min    p50    p95    max")
    for lookahead in ("safe", "tight"):
        with Stage(ranges=ranges, bpm=120.0) as stage:
            page = open_page(browser, stage)
            stage.send(SetParam("lookahead", float(lookahead == "tight")))
            played(stage, page, Eval("""x: note("c3*16").s("sawtooth").lpf(param('cut', 800)).orbit(5)""", 1, at="now"))
            wait_beyond(page, 2)
            page.evaluate(NOTE, "cut")
            found = collect(stage, page, values, lambda i: MotionModulate("cut", 1000.0 + i, "speed"))
            for what in ("scheduled", "heard"):
                print(f"{'value -> note ' + what + ', ' + lookahead:44s} {spread([f[what] for f in found])}")
            late, notes = page.evaluate("[eqdiff.player.late, eqdiff.onsets.length]")
            print(f"  notes handed over late: {late} of {notes}")
            page.close()
    with Stage(ranges=ranges, bpm=120.0) as stage:
        page = open_page(browser, stage)
        played(stage, page, Eval('x: note("c6").s("sawtooth").sustain(1).orbit(5)', 1, at="now"))
        wait_beyond(page, 1)
        page.evaluate(BUS)
        found = collect(stage, page, values, lambda i: MotionModulate("master_gain", 1.0 if i % 2 else 0.4, "energy"))
        print(f"{'bus parameter -> analyser before the limiter':44s} {spread([f['strudel'] for f in found])}")
        print(f"{'bus parameter -> analyser at the output':44s} {spread([f['master'] for f in found])}")
        for number in range(values):
            stage.send(Ping(number, stage.server.clock()))
            until(page, lambda number=number: len(stage.heard(Pong)) > number)
        answers = [pair for pair in zip(stage.said, stage.times, strict=True) if isinstance(pair[0], Pong)]
        trips = [1000 * (time - pong.t0) for pong, time in answers]
        print(f"{'server -> page -> server':44s} {spread(trips)}")
        print(f"audio output adds {1000 * page.evaluate('eqdiff.player.context.outputLatency'):.0f} ms")
        page.close()


def switches(browser, count: int) -> None:
    """Random switches; every note that should be handed over, and those that were."""
    for lookahead in ("safe", "tight"):
        with Stage() as stage:
            page = open_page(browser, stage)
            stage.send(SetParam("lookahead", float(lookahead == "tight")))
            page.evaluate(KEEP)
            begins = []
            for number in range(count // 2 + 1):
                at = played(stage, page, Eval(steady(number)[0], number))
                begins = [b for b in begins if b[1] < at] + [(number, Fraction(at))]
                wait(page, f"eqdiff.player.frontier > {at} + {random.uniform(0, 1.9)}")
            end = begins[-1][1] + 1
            wait(page, f"eqdiff.player.frontier > {end + 1}")
            made = page.evaluate("[...eqdiff.kept, ...eqdiff.onsets]")
            got = sorted((o["id"], beat(o), o["orbit"]) for o in made if beat(o) < end)
            want = sorted(due(begins, end))
            print(f"{len(begins) - 1} switches, {lookahead}: {len(want)} notes expected, "
                  f"{len(set(want) - set(got))} lost, {len(got) - len(set(got))} doubled, "
                  f"{len(set(got) - set(want))} others, {page.evaluate('eqdiff.player.late')} handed over late")
            page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=60)
    parser.add_argument("--switches", type=int, default=100)
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        print(f"Chromium {browser.version}")
        latencies(browser, args.values)
        switches(browser, args.switches)
        browser.close()


if __name__ == "__main__":
    main()
