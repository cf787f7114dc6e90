"""Everything running for real: senders on UDP, a page on its socket, grids from another process, a log on disk.

Only the page is a double. Nothing here depends on how fast the machine is: what came late is accounted for.
"""

import asyncio
import json
import os
import signal

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from page_double import PageDouble
from senders import body, bundle, message, vmc_messages
from test_sample import export

from eqdiff_jax import motion
from eqdiff_jax.composer import MOST_CANDIDATES
from eqdiff_jax.control import MOST
from eqdiff_jax.live import stage
from eqdiff_jax.live.budget import RESERVE, Budget, lead, opening, pace
from eqdiff_jax.live.clock import InnerClock
from eqdiff_jax.live.log import BAR_SCHEMA, replay
from eqdiff_jax.live.loop import REPEAT, Lateness
from eqdiff_jax.live.performers import Cast
from eqdiff_jax.live.source import Leaving, looped, open_source
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME
from eqdiff_jax.music.modulation import PARAMETERS

BPM = 240.0  # two bars in two seconds
FADERS = '[[row]]\naddress = "/1/fader1"\nargument = 0\nto = "room"\n'


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return export(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module", autouse=True)
def _strudel(tmp_path_factory):
    """A page's files for the server: what they hold does not matter here."""
    web = tmp_path_factory.mktemp("web")
    (web / "index.html").write_text("page")
    dist = web / "node_modules" / "@strudel" / "web" / "dist"
    dist.mkdir(parents=True)
    (dist / "index.js").write_text("")
    before, stage.WEB = stage.WEB, web
    yield
    stage.WEB = before


def play(scenario, **options):
    """Run a stage and a scenario(stage) beside it; returns (summary, what was said to people)."""
    said = []

    async def both():
        stop, opened = asyncio.Event(), asyncio.get_running_loop().create_future()
        running = asyncio.create_task(stage.run(
            stage.Options(**{"http": "127.0.0.1:0", "osc": "127.0.0.1:0", "bpm": BPM} | options), say=said.append,
            stop=stop, on_stage=opened.set_result))
        await asyncio.wait([running, opened], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await scenario(opened.result())
            stop.set()
        return await running

    return asyncio.run(both()), said


async def until(condition):
    """Wait for it; the time limit is the test run's."""
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def evening(weights, tmp_path_factory):
    """One performance with all that may happen, and what was seen of it."""
    folder = tmp_path_factory.mktemp("evening")
    (folder / "faders.toml").write_text(FADERS)
    (folder / "targets.toml").write_text('[range]\nsource = "tension"\n')
    seen = {}

    async def scenario(on):
        loop = asyncio.get_running_loop()
        seen["stage"] = on
        await until(lambda: on.state.playing is not None)  # music without a page
        async with PageDouble(on.server.port) as page:
            seen["first"] = page
            await until(lambda: len(page.evals) >= 1)
            page.start()
            await until(lambda: on.clock.epoch == 1)
            await until(lambda: len(page.evals) >= 4)
            # A fader.
            udp, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", on.inbox.port))
            udp.sendto(message("/1/fader1", 0.5).dgram)
            await until(lambda: any(abs(value - 0.4) < 1e-6 for _, value in page.params.get("room", [])))
            # A body.
            dance = body(seconds=2.0)
            packets = [bundle(vmc_messages(dance, i)) for i in range(0, 120, 2)]
            for packet in packets:
                udp.sendto(packet)
                await asyncio.sleep(1 / 30)
            await until(lambda: page.views[-1]["lead"] is not None)
            seen["lead"] = page.views[-1]["lead"]
            udp.close()
            # A person: another mode and tempo, and the rules' grids come.
            await page.say("Request", name="mode", value="modulate")
            await page.say("Request", name="bpm", value=200)
            await until(lambda: any(m["type"] == "Crossfade" for _, _, m in page.evals))
            await until(lambda: len(page.settings) > 0)
            await page.say("Request", name="mode", value="diffusion")
            await page.say("Request", name="lookahead", value="tight")
            await until(lambda: any(m["name"] == "lookahead" for _, m in page.settings))
            seen["lead gone"] = len(page.views)
            await until(lambda: page.views[-1]["lead"] is None)
            # The process of the grids dies.
            seen["bar of death"], seen["epoch"] = on.state.bar, on.clock.epoch
            os.kill(on.worker.pid, signal.SIGKILL)
            await until(lambda: on.worker.starts == 2 and on.worker.idle)
            count = len(page.evals)
            await until(lambda: len(page.evals) >= count + 2)
        await until(lambda: not on.server.player)
        bar = on.state.bar
        await until(lambda: on.state.bar >= bar + 4)  # the page has gone, the music has not
        async with PageDouble(on.server.port, session="another-page", refuses=lambda m: m["id"] % 2 == 1) as page:
            seen["second"] = page
            page.start()
            await until(lambda: len(page.evals) >= 3)
            seen["state"] = on.state

    summary, said = play(scenario, checkpoint=str(weights), log=str(folder / "log"), map=str(folder / "faders.toml"),
                         targets=str(folder / "targets.toml"), candidates=2, control=0.5, seed=11)
    lines = [json.loads(line) for line in summary.log.read_text().splitlines()]
    return summary, said, seen, lines


def test_the_page_is_told_all_and_plays_what_it_is_sent(evening):
    _, _, seen, _ = evening
    state = seen["first"].states[0]
    assert state["bpm"] == BPM and state["mode"] == "diffusion" and state["pattern"] and len(state["tokens"]) == 12
    assert set(PARAMETERS) <= set(state["params"]) and len(state["tracks"]) == 12
    begun = [(start, message) for _, start, message in seen["first"].evals if message.get("cycle") is not None]
    starts = [start for start, _ in begun]
    assert starts == sorted(set(starts))
    rules = [start for start, message in begun if message["bars"] == 2]
    assert rules and all(start % 2 == 0 for start in rules)  # of the rules' grids; the network's have their bar
    assert all(message["bars"] == 1 for _, message in begun if message.get("steps"))
    views = seen["first"].views
    assert all(np.abs(np.array(v["limbs"])).max() <= 3.0 and len(v["z"]) == 32 for v in views)
    assert {len(v["dynamics"]) for v in views} == {15}


def test_a_page_that_comes_later_gets_what_plays(evening):
    _, _, seen, lines = evening
    state = seen["second"].states[0]
    assert state["id"] >= seen["first"].evals[-1][2]["id"]
    assert state["tokens"] == next(line["tokens"] for line in lines if line["window"] == state["id"])


def test_each_grid_differs_from_the_one_before_by_at_most_its_budget(evening):
    _, _, seen, _ = evening
    messages = [m for _, _, m in seen["first"].evals]
    for before, after in zip(messages, messages[1:], strict=False):
        changed = (np.array(before["tokens"]) != after["tokens"]).sum()
        if after["type"] == "Eval" and after["steps"] and after["id"] == before["id"] + 1:
            assert changed == len(after["changed"]) <= after["cascade"]["budget"]


def test_the_mode_of_the_rules_came_and_went(evening):
    _, _, seen, lines = evening
    messages = [m for _, _, m in seen["first"].evals]
    fades = [m for m in messages if m["type"] == "Crossfade"]
    assert len(fades) == 2 and messages[0]["steps"] > 0 and messages[-1]["steps"] > 0  # there, and back
    assert {"diffusion", "modulate"} <= {line["mode"] for line in lines}
    assert "param(" in next(line["activePattern"] for line in lines if line["mode"] == "modulate")


def test_tempo_changed_at_an_even_bar(evening):
    _, _, seen, lines = evening
    heard = next(heard for heard, message in seen["first"].settings if message["name"] == "bpm")
    assert heard % 2 < 1.0  # the message travels at the bar line
    changes = [line["bar"] for before, line in zip(lines, lines[1:], strict=False) if line["tempo"] != before["tempo"]]
    assert len(changes) == 1 and changes[0] % 2 == 0


def test_someone_led_and_then_the_dancer_came_back(evening):
    _, said, seen, _ = evening
    assert seen["lead"].startswith("vmc 127.0.0.1")
    assert any("leads" in line for line in said)


def test_a_dead_process_costs_grids_not_bars(evening):
    summary, said, seen, lines = evening
    assert summary.starts == 2 and any("died" in line for line in said)
    missed = sum((line["missed"] for line in lines), [])
    assert summary.misses.get("worker", 0) >= 1 and sorted(set(missed)) == sorted(summary.misses)
    assert seen["epoch"] == 1
    bars = [line["bar"] for line in lines]
    jumps = [i for i, (a, b) in enumerate(zip(bars, bars[1:], strict=False)) if b != a + 1]
    assert len(jumps) <= 2  # the two pages that began to count anew


def test_a_grid_that_the_page_refused_is_not_in_the_log(evening):
    summary, _, seen, lines = evening
    taken = {m["id"] for page in (seen["first"], seen["second"]) for _, _, m in page.evals}
    after = seen["second"].states[0]["id"]
    assert summary.misses["page"] >= 1
    assert all(line["window"] % 2 == 0 for line in lines if line["window"] > after + 1)
    assert taken


def test_the_log_is_whole_and_its_limbs_are_recorded(evening):
    summary, _, _, lines = evening
    validator = Draft202012Validator(BAR_SCHEMA)
    for line in lines:
        validator.validate(line)
    assert len(lines) == summary.bars
    assert {(line["candidates"], line["control"], line["rules"]["range"][0]) for line in lines} == {(2, 0.5, "tension")}
    assert {line["bars"] for line in lines if line["mode"] == "modulate"} == {2}
    limbs = motion.load(summary.log.with_suffix(".limbs.npy"))
    assert lines[-1]["frame"] <= len(limbs) and np.isfinite(limbs).all()


def test_the_same_trouble_is_told_now_and_then(evening):
    summary, said, _, _ = evening
    trouble = [line for line in said if "plays on" in line]
    assert trouble and all(trouble.count(line) <= 1 + summary.seconds / REPEAT for line in trouble)


def test_a_session_played_again_gives_its_grids(evening, weights, tmp_path):
    """The log as --motion: same tokens in the same order, at its tempos, and then the end by itself."""
    summary, _, _, lines = evening
    short = tmp_path / "short.jsonl"
    short.write_text("".join(json.dumps(line) + "\n" for line in lines[:24]))
    want = [played.tokens for played in replay(short)]
    pages = []

    async def scenario(on):
        async with PageDouble(on.server.port) as page:
            pages.append(page)
            await page.say("Request", name="mode", value="threshold")  # refused: the session has its own
            await until(lambda: page.hushed)

    again, _ = play(scenario, checkpoint=str(weights), log=str(tmp_path / "log"), motion=str(short))
    got = [json.loads(line) for line in again.log.read_text().splitlines()]
    grids = [line["tokens"] for before, line in zip([None, *got], got, strict=False)
             if before is None or before["window"] != line["window"]]
    # One that came too late on a slow machine is missing, none is another.
    made = {line["window"] for line in got}
    windows = [played.job.window for played in replay(short)]
    assert len(made) + sum(again.misses.values()) >= len(windows) and made <= set(windows)
    for window, grid in zip(sorted(made), grids, strict=True):
        np.testing.assert_array_equal(grid, want[windows.index(window)])
    assert pages[0].hushed and {line["mode"] for line in got} <= {line["mode"] for line in lines[:24]}


# What moves while nobody sends.

def test_a_looped_motion_has_no_seam():
    limbs = motion.demo("groove", 8.0, 0)
    frames = looped(limbs)
    seen = np.stack([frames(100.0 + i / 60) for i in range(1200)])
    within = np.abs(np.diff(limbs[..., :3], axis=0)).max()
    assert np.abs(np.diff(seen[..., :3], axis=0)).max() < 3.0 * within
    assert (np.abs(seen) <= RANGES).all()
    np.testing.assert_array_equal(seen[:420], limbs[:420])
    np.testing.assert_array_equal(seen[500:900], seen[80:480])


def test_after_a_performer_the_dancer_of_motion_osc_is_gone():
    cast = Cast()
    cast.fallback = leaving = Leaving(lambda now: REST_FRAME + 0.5, cast)

    class Someone:
        last = 10.0

        def frame(self, now):
            return REST_FRAME

    assert np.allclose(cast.frame(0.0), np.clip(REST_FRAME + 0.5, -RANGES, RANGES))
    cast.join("someone", Someone())
    frames = [cast.frame(10.0 + i / 60) for i in range(600)]
    assert np.allclose(frames[-1], REST_FRAME) and np.allclose(leaving(20.0), REST_FRAME)
    assert np.abs(np.diff([f[:, 0] for f in frames], axis=0)).max() < 0.05


def test_sources_say_what_they_are():
    assert open_source("demo:sway", 0).stays and not open_source("osc", 0).stays
    np.testing.assert_array_equal(open_source("demo", 3).frames(7.0), motion.demo("show", 129.0, 3)[0])


# The clock's part in the opening.

@pytest.mark.parametrize("bpm", [40.0, 120.0, 240.0])
@pytest.mark.parametrize(("mode", "call", "bars"), [
    ("diffusion", 0.02, 1), ("diffusion", 1.0, 2), ("modulate", 0.02, 2)])
def test_the_first_grid_is_for_cycle_zero(bpm, mode, call, bars):
    budget = Budget(call, (), 0.05)
    assert pace(mode, bpm, budget) == bars
    inner = InnerClock(0.0, bpm / 240.0, position=opening(mode, bpm, budget, 0.3), ahead=0.3)
    cut = bars * 240.0 / bpm - 1.5 / 60.0
    left = (0.0 - inner.frontier(cut)) * 240.0 / bpm - RESERVE
    assert left == pytest.approx(lead(mode, bpm, budget))


# What may be asked for.

@pytest.mark.parametrize(("options", "says"), [
    ({"candidates": 0}, f"--candidates is 0: use 1 .. {MOST_CANDIDATES}"),
    ({"candidates": MOST_CANDIDATES + 1}, f"--candidates is {MOST_CANDIDATES + 1}: use 1 .. {MOST_CANDIDATES}"),
    ({"control": -0.5}, f"--control is -0.5: use 0 .. {MOST:g}"),
    ({"control": 2 * MOST}, f"--control is {2 * MOST:g}: use 0 .. {MOST:g}"),
    ({"control": float("nan")}, f"--control is nan: use 0 .. {MOST:g}"),
])
def test_how_grids_are_made_is_checked(options, says, tmp_path):
    with pytest.raises(stage.InputError) as error:
        stage.check(stage.Options("nowhere", log=str(tmp_path), **options))
    assert str(error.value) == says
    for most in ({"candidates": MOST_CANDIDATES, "control": MOST}, {"candidates": 1, "control": 0.0}):
        stage.check(stage.Options("nowhere", log=str(tmp_path), **most))


@pytest.mark.parametrize(("text", "says"), [
    (None, "cannot be read"),
    ('[rage]\nsource = "tension"\n', "'rage' is unknown; did you mean range"),
    ('[range]\nsource = "tensio"\n', "'tensio' is unknown; did you mean tension"),
    ("[range]\nlow = 2\n", "low is 2; write a number from 0 to 1"),
    ("[range]\nlow = 0.8\nhigh = 0.2\n", "exchange them"),
    ("[range\n", "not TOML"),
])
def test_targets_are_checked_before_anything_begins(text, says, weights, tmp_path):
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(stage.InputError) as error:
        play(None, checkpoint=str(weights), log=str(tmp_path / "log"), targets=str(tmp_path / "mine.toml"))
    assert says in str(error.value) and "mine.toml" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "log").exists()


def test_lateness_is_counted():
    late = Lateness()
    for i in range(100):
        late.add(0.001 * i - 0.01)
    assert late.worst == pytest.approx(0.089) and late.quantile(0.5) == pytest.approx(0.039, abs=2e-4)
    assert late.quantile(1.0) == pytest.approx(late.worst, abs=2e-4)


@pytest.mark.parametrize("text", ["8080", "host:", ":1", "host:port", "host:70000", "host:-1"])
def test_addresses_are_checked(text):
    with pytest.raises(stage.InputError, match="--http"):
        stage.address("--http", text)
    assert stage.address("--http", "[::1]:80") == ("::1", 80)
