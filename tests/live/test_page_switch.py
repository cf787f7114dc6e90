"""Patterns change exactly on a bar line: of the notes handed to the audio clock none is lost and none doubled."""

import json
import random
import shutil
import subprocess
from fractions import Fraction

import pytest
from browser import WEB, beat, due, onsets, played, steady, until, wait, wait_beyond
from grids import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live.code import live_code
from eqdiff_jax.live.wire import Crossfade, Eval, Evaluated, SetParam
from eqdiff_jax.music.grid import BAR, events


@pytest.mark.parametrize(("bars", "switches", "lookahead"), [(2, 8, "safe"), (1, 12, "tight")])
def test_no_note_is_lost_or_doubled_at_a_switch(stage, page, bars, switches, lookahead):
    generator = random.Random(switches)
    page.evaluate("(name) => eqdiff.player.set('lookahead', name === 'tight' ? 1 : 0)", lookahead)
    begins: list[tuple[int, Fraction]] = []
    for number in range(switches + 1):
        at = played(stage, page, Eval(steady(number)[0], number, bars=bars))
        assert at % bars == 0
        if begins and begins[-1][1] == at:
            begins.pop()  # both came before their bar: the later one plays
        begins.append((number, Fraction(at)))
        if number % 4 == 3:  # the tempo may change at any moment
            stage.send(SetParam("bpm", generator.choice([180.0, 200.0, 240.0])))
        wait(page, f"eqdiff.player.frontier > {at} + {bars} * {generator.random()}")
    end = begins[-1][1] + 1
    wait(page, f"eqdiff.player.frontier > {end}")
    notes = sorted((o["id"], beat(o), o["orbit"]) for o in onsets(page) if beat(o) < end)
    assert notes == sorted(due(begins, end))
    assert len(begins) == switches + 1
    times = [o["time"] for o in onsets(page) if o["late"] == 0]
    assert times == sorted(times)
    assert len(stage.heard(Evaluated)) == switches + 1


def test_of_a_grid_that_comes_at_an_odd_bar_the_second_bar_sounds(stage, page):
    """Grids of two bars, one in place of the other at each bar line, as the server sends them in mode diffusion."""
    first = grid_of(KICK="bd ~ bd ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ bd", BASS="C2 ~ ~ ~ E2 ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ G2 ~ A2")
    second = grid_of(SNARE="sd sd ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ sd", BASS="C3 ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ D2")
    at = 2 * int(page.evaluate("eqdiff.player.frontier") // 2) + 6
    for number, (grid, start) in enumerate(((first, at), (second, at + 1), (first, at + 4))):
        assert played(stage, page, Eval(live_code(grid, "diffusion"), number, bars=1, cycle=float(start))) == start
    wait_beyond(page, at + 6)
    bars = [first, second, second, second, first, first]
    due = sorted((at + i + Fraction(e.onset % BAR, BAR), e.track + 1) for i, grid in enumerate(bars)
                 for e in events(grid) if e.onset // BAR == i % 2)
    assert sorted((beat(o), o["orbit"]) for o in onsets(page) if at <= o["cycle"] < at + 6) == due


def test_a_crossfade_begins_at_a_multiple_of_its_bars(stage, page):
    played(stage, page, Eval(steady(0)[0], 0))
    at = 2 * int(page.evaluate("eqdiff.player.frontier") // 2) + 7
    stage.send(Crossfade(steady(1)[0], 4.0, 1, cycle=float(at), bars=1))
    until(page, lambda: len(stage.heard(Evaluated)) == 2)
    assert stage.heard(Evaluated)[1].at_cycle == at  # an odd one
    stage.send(Crossfade(steady(2)[0], 4.0, 2, cycle=float(at + 2)))
    until(page, lambda: len(stage.heard(Evaluated)) == 3)
    assert stage.heard(Evaluated)[2].at_cycle == at + 3


def test_an_eval_may_ask_for_a_later_cycle_and_the_last_of_two_wins(stage, page):
    assert played(stage, page, Eval(steady(0)[0], 0, at="now")) < 2
    at = 2 * (page.evaluate("eqdiff.player.frontier") // 2) + 6
    assert played(stage, page, Eval(steady(1)[0], 1, cycle=at - 0.5)) == at
    assert played(stage, page, Eval(steady(2)[0], 2, cycle=at - 1)) == at
    wait_beyond(page, at + 1)
    assert {o["id"] for o in onsets(page)} == {0, 2}
    assert min(o["cycle"] for o in onsets(page, 2)) == at


NODE = """
import { createInterface } from 'node:readline';
const { Tempo, Layers, border, level, nextBar } = await import(process.argv[1]);
for await (const line of createInterface({ input: process.stdin })) {
  const tempo = new Tempo(0.5), layers = new Layers(), said = [];
  let frontier = 0;
  for (const [what, number, length] of JSON.parse(line)) {
    if (what === 'tempo') tempo.change(frontier, number);
    if (what === 'switch') {
      said.push({ frontier, length, ...layers.switchTo({ id: number }, nextBar(frontier, length)) });
    }
    if (what === 'fade') layers.fadeTo({ id: number }, nextBar(frontier, 2), length);
    if (what === 'clear') layers.clear();
    if (what !== 'play') continue;
    const end = border(frontier + number);
    for (const p of layers.within(frontier, end)) {
      said.push({ ...p, layer: p.layer.id, levels: [level(p.layer, p.begin), level(p.layer, p.end)] });
    }
    said.push({ frontier, end, time: tempo.timeOf(end), again: tempo.cycleAt(tempo.timeOf(end)) });
    frontier = end;
    layers.prune(frontier);
  }
  process.stdout.write(JSON.stringify(said) + '\\n');
}
"""


@pytest.fixture(scope="module")
def timeline(need):
    """A list of steps -> what timeline.js plays, in one Node process."""
    node = shutil.which("node")
    need(node, "no node: install Node.js 20 or newer")
    process = subprocess.Popen([node, "--input-type=module", "-e", NODE, (WEB / "timeline.js").as_uri()],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def play(steps: list) -> list[dict]:
        print(json.dumps(steps), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())
    with process:
        yield play
        process.stdin.close()


STEPS = st.lists(st.one_of(
    st.tuples(st.just("play"), st.floats(0.001, 3.0), st.none()),
    st.tuples(st.just("tempo"), st.floats(0.15, 1.0), st.none()),
    st.tuples(st.just("switch"), st.integers(0, 9), st.integers(1, 4)),
    st.tuples(st.just("fade"), st.integers(0, 9), st.floats(0.1, 6.0)),
    st.tuples(st.just("clear"), st.none(), st.none())), max_size=40)


@given(STEPS)
@settings(deadline=None)
def test_whatever_comes_each_moment_is_played_once(timeline, steps):
    said = timeline(steps)
    for switch in (s for s in said if "from" in s):
        assert switch["from"] % switch["length"] == 0 <= switch["from"] - switch["frontier"] < switch["length"]
    ticks = [s for s in said if "time" in s]
    for tick, after in zip(ticks, ticks[1:], strict=False):
        assert after["frontier"] == tick["end"]
        assert after["time"] >= tick["time"]  # time never runs backwards, whatever the tempo does
    for tick in ticks:
        assert tick["again"] == pytest.approx(tick["end"], abs=1e-9)
    pieces = [s for s in said if "layer" in s]
    for piece in pieces:
        assert piece["begin"] < piece["end"]
        assert 1024 * piece["begin"] % 1 == 1024 * piece["end"] % 1 == 0  # such borders are exact
        assert all(-1e-9 <= level <= 1 for level in piece["levels"])
    if not any(step[0] == "fade" for step in steps):  # then one pattern plays at a time
        spans = [(p["begin"], p["end"]) for p in pieces]
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert all(p["levels"] == [1, 1] for p in pieces)
