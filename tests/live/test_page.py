"""The page in a real browser, real Strudel and real server: what it plays, and what it does when others fail."""

import json

import pytest
from browser import PATIENCE, RMS, Stage, hellos, onsets, open_page, played, until, wait, wait_beyond

from eqdiff_jax.live.wire import (
    RANGES,
    Clock,
    Crossfade,
    Error,
    Eval,
    Evaluated,
    Hush,
    Missing,
    MotionModulate,
    Request,
    SetParam,
)
from eqdiff_jax.music.drums import DRUMS as PRINTED

DRUMS = ("bd", "sd", "hh", "oh", "cp", "rim", "tom", "perc")
SAW = 'x: note("c3*4").s("sawtooth").gain(.8).orbit(5)'


def test_it_sounds_after_the_start_click_and_asks_no_other_server(browser, stage):
    asked = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(stage.url)
    wait(page, "window.eqdiff?.link.state === 'connected'")
    stage.send(Eval(SAW, 1))
    until(page, lambda: stage.heard(Evaluated))
    assert page.evaluate(RMS) == 0
    until(page, lambda: stage.heard(Clock))
    assert {clock.audio_state for clock in stage.heard(Clock)} == {"suspended"}
    page.get_by_role("button", name="Start").click()
    wait(page, f"{RMS} > 0.01")
    for drum in DRUMS:
        stage.send(Hush())
        wait(page, f"eqdiff.player.silenced && {RMS} < 1e-3")
        stage.send(Eval(f'x: s("{drum}*8").gain(.8).orbit(1)', 10 + DRUMS.index(drum), at="now"))
        wait(page, f"{RMS} > 0.01")
        assert onsets(page)[-1]["sound"] == drum
    page.close()
    assert asked and all(url.startswith((stage.url, "data:")) for url in asked)
    assert not stage.heard(Missing)


def test_its_drums_are_those_of_a_printed_song(page):
    ours = """(names) => Object.fromEntries(names.map((name) => {
        const { node } = strudel.getSound(name).onTrigger(eqdiff.player.context.currentTime + 9, {}, () => {});
        return [name, [...node.buffer.getChannelData(0)]];
    }))"""
    first = page.evaluate(ours, list(DRUMS))
    page.evaluate("(code) => Function(code)()", PRINTED)
    second = page.evaluate(ours, list(DRUMS))
    for name in DRUMS:
        length = min(len(first[name]), len(second[name]))
        a, b = first[name][:length], second[name][:length]
        assert sum(x * x for x in a) == pytest.approx(sum(x * x for x in b), rel=0.25), name
        if name in ("bd", "rim", "tom", "perc"):  # the others hold noise
            assert a == pytest.approx(b, abs=1e-6), name


def test_what_cannot_be_played_leaves_the_old_pattern(stage, page):
    page.expected.append("Error: ")
    played(stage, page, Eval(SAW, 1, at="now"))
    bad = {
        'x: note("c3").s(': "evaluate", "nosuch()": "evaluate", "42": "evaluate", 'x: note("c3 [e3")': "evaluate",
        'x: note("c3").fmap(() => { throw new Error("boom") })': "query", 'x: note("h9")': "query", '"1 2 3"': "query",
    }
    for number, (code, stage_name) in enumerate(bad.items(), 10):
        stage.send(Eval(code, number, at="now"))
        until(page, lambda n=number: [e for e in stage.heard(Error) if e.id == n], code)
        error = next(e for e in stage.heard(Error) if e.id == number)
        assert (error.stage, bool(error.message)) == (stage_name, True), code
    assert next(e for e in stage.heard(Error) if e.id == 10).line == 1
    wait_beyond(page, page.evaluate("eqdiff.player.frontier") + 2)
    assert {o["id"] for o in onsets(page)} == {1}
    assert [e.id for e in stage.heard(Evaluated)] == [1]
    assert "the last pattern plays on" in page.get_by_role("status").inner_text()


def test_a_pattern_that_fails_later_gives_way_to_the_one_before(stage, page):
    page.expected.append("boom")
    played(stage, page, Eval(SAW, 1, at="now"))
    code = """x: new Pattern((state) => {
        if (state.span.begin.valueOf() >= %d) throw new Error('boom');
        return note("c4*4").s("sine").orbit(6).query(state);
    })"""
    frontier = page.evaluate("eqdiff.player.frontier")
    fails = 2 * int(frontier // 2) + 6
    begins = played(stage, page, Eval(code % fails, 2))
    until(page, lambda: stage.heard(Error))
    assert stage.heard(Error)[0][:2] == (2, "query")
    wait_beyond(page, fails + 1)
    heard = [o for o in onsets(page) if o["cycle"] >= begins]
    assert [o["cycle"] for o in heard] == [begins + i / 4 for i in range(len(heard))]  # none lost, none twice
    assert [o["id"] for o in heard] == sorted((o["id"] for o in heard), reverse=True)
    assert {o["id"] for o in heard if o["cycle"] < fails - 1} == {2}
    assert {o["id"] for o in heard if o["cycle"] > fails} == {1}


def test_an_unknown_sound_is_reported_before_its_time(stage, page):
    begins = played(stage, page, Eval('x: s("bd nosuch*2").orbit(1)\ny: s("bd").bank("RolandTR909").orbit(2)', 1))
    until(page, lambda: stage.heard(Missing))
    assert stage.heard(Missing)[0].sounds == ("RolandTR909_bd", "nosuch")
    assert stage.said.index(stage.heard(Missing)[0]) < stage.said.index(stage.heard(Evaluated)[0])
    assert "nosuch" in page.get_by_role("status").inner_text()
    wait_beyond(page, begins + 2)
    assert len(stage.heard(Missing)) == 1
    assert not stage.heard(Error)
    # One that is outside the two bars that are looked at before the switch.
    at = 2 * int(page.evaluate("eqdiff.player.frontier") // 2) + 4
    bars = " ".join("gone" if bar == at + 3 else "bd" for bar in range(at + 10))
    assert played(stage, page, Eval(f'x: s("<{bars}>").orbit(1)', 2, cycle=at)) == at
    until(page, lambda: len(stage.heard(Missing)) == 2)
    assert stage.heard(Missing)[1].sounds == ("gone",)
    before = [m for m in stage.said[:stage.said.index(stage.heard(Missing)[1])] if isinstance(m, Clock)]
    assert before[-1].heard < at + 3


def test_a_crossfade_keeps_the_power(stage, page):
    played(stage, page, Eval('x: note("c3*16").s("sine").orbit(5)', 1))
    stage.send(Crossfade('y: note("e3*16").s("sine").velocity(.5).orbit(6)', 8.0, 2))
    until(page, lambda: len(stage.heard(Evaluated)) == 2)
    begins = stage.heard(Evaluated)[1].at_cycle
    assert begins % 2 == 0
    wait_beyond(page, begins + 3)
    old = {o["cycle"]: o["velocity"] for o in onsets(page, 1) if o["cycle"] >= begins}
    new = {o["cycle"]: o["velocity"] for o in onsets(page, 2) if o["cycle"] < begins + 2.5}
    steps = [begins + i / 16 for i in range(32)]  # 8 beats are 2 bars
    assert sorted(old) == steps
    assert sorted(new) == [begins + i / 16 for i in range(40)]
    for step in steps:
        assert old[step] ** 2 + (2 * new[step]) ** 2 == pytest.approx(1)
    assert [old[s] for s in steps] == sorted(old.values(), reverse=True) and old[begins] == 1
    assert new[begins + 1] == pytest.approx(0.5 * 0.5 ** 0.5)
    assert new[begins + 2] == 0.5


def test_a_parameter_moves_without_evaluation(browser):
    with Stage(ranges={**RANGES, "cut": (100.0, 5000.0, 800.0)}) as stage:
        page = open_page(browser, stage)
        played(stage, page, Eval("""x: note("c3*16").s("sawtooth").lpf(param('cut', 800)).orbit(5)""", 1, at="now"))
        wait(page, "eqdiff.onsets.at(-1)?.value.cutoff === 800")
        stage.send(MotionModulate("cut", 300.0, "speed"))
        wait(page, "eqdiff.onsets.at(-1).value.cutoff === 300")
        stage.send(MotionModulate("cut", 1e9, "speed"))
        wait(page, "eqdiff.onsets.at(-1).value.cutoff === 5000")
        assert len(stage.heard(Evaluated)) == 1
        page.close()


def test_the_tempo_changes_by_command_only_and_in_time(stage, page):
    played(stage, page, Eval('setcpm(30)\nx: note("c3*8").s("sine").orbit(5)', 1, at="now"))
    for bpm in (240, 200, 100, 240):
        stage.send(SetParam("bpm", bpm))
        until(page, lambda bpm=bpm: stage.heard(Clock)[-1].cps == bpm / 240)
        wait_beyond(page, page.evaluate("eqdiff.player.frontier") + 1)
    made = onsets(page)
    steps = [b["time"] - a["time"] for a, b in zip(made, made[1:], strict=False)]
    lengths = [1 / 8 / (bpm / 240) for bpm in (240, 200, 100)]
    assert [b["cycle"] - a["cycle"] for a, b in zip(made, made[1:], strict=False)] == [1 / 8] * len(steps)
    assert all(min(lengths) - 1e-9 <= step <= max(lengths) + 1e-9 for step in steps)
    assert {min(lengths, key=lambda length: abs(step - length)) for step in steps} == set(lengths)
    heard = page.evaluate("""() => { const p = eqdiff.player, o = eqdiff.onsets.at(-3), late = p.context.outputLatency;
        return [p.heard(o.time + late), o.cycle]; }""")
    assert heard[0] == pytest.approx(heard[1], abs=1e-9)


def test_music_goes_on_without_the_server_and_the_page_comes_back(stage, page):
    played(stage, page, Eval(SAW, 7, at="now"))
    wait(page, f"{RMS} > 0.01")
    page.expected.append("ERR_CONNECTION_REFUSED")
    stage.__exit__()
    wait(page, "eqdiff.link.state === 'away'")
    since = onsets(page)[-1]["cycle"]
    wait(page, f"eqdiff.onsets.at(-1).cycle > {since} + 4 && {RMS} > 0.01")
    wait(page, "document.getElementById('status').textContent.startsWith('Server away')")
    stage.said.clear()
    stage.now = stage.now._replace(bpm=120.0, mode="modulate", params={"bass_gain": 0.5})
    stage.__enter__()
    wait(page, "eqdiff.link.state === 'connected' && eqdiff.player.tempo.cps === 0.5")
    until(page, lambda: hellos(stage))
    assert page.get_by_label("modulate").is_checked()
    wait(page, "Math.abs(eqdiff.player.mixer.buses.BASS.gain.value - 0.5) < 1e-3")
    wait(page, "document.getElementById('status').textContent === 'Playing'")
    cycles = [o["cycle"] for o in onsets(page)]
    assert cycles == [cycles[0] + i / 4 for i in range(len(cycles))]  # no gap, nothing twice
    assert not stage.heard(Evaluated)  # what plays already is not evaluated again
    stage.send(Eval(SAW.replace("c3", "e3"), 8))
    until(page, lambda: stage.heard(Evaluated))


def test_a_hush_is_remembered_while_the_server_is_away(stage, page):
    page.expected.append("ERR_CONNECTION_REFUSED")
    played(stage, page, Eval(SAW, 1, at="now"))
    stage.__exit__()
    wait(page, "eqdiff.link.state === 'away'")
    page.keyboard.press("Space")
    wait(page, "eqdiff.player.held")
    stage.__enter__()
    until(page, lambda: [r[:] for r in stage.heard(Request)] == [("hush", True)])


def test_a_page_that_is_held_up_looks_further_ahead_and_loses_no_note(stage, page):
    stage.send(SetParam("lookahead", 1.0))
    wait(page, "eqdiff.player.ahead < 0.1")
    begins = played(stage, page, Eval('x: note("c3*16").s("sine").orbit(5)', 1, at="now"))
    usual = page.evaluate("eqdiff.player.ahead")
    stop = "() => { for (const end = performance.now() + 150; performance.now() < end;); }"
    until(page, lambda: page.evaluate(stop) or page.evaluate("eqdiff.player.ahead") > usual + 0.05)
    wait_beyond(page, page.evaluate("eqdiff.player.frontier") + 1)
    cycles = [o["cycle"] for o in onsets(page)]
    assert cycles == [cycles[0] + i / 16 for i in range(len(cycles))]
    assert cycles[0] - begins <= 1 / 16
    assert page.evaluate("eqdiff.player.late") > 0


def test_a_second_page_is_told_so_and_the_first_plays_on(browser, stage, page):
    played(stage, page, Eval(SAW, 1, at="now"))
    second = browser.new_page()
    second.goto(stage.url)
    wait(second, "window.eqdiff?.link.state === 'taken'")
    assert "Another page plays" in second.get_by_role("status").inner_text()
    second.close()
    assert len(set(hellos(stage))) == 1
    played(stage, page, Eval(SAW.replace("c3", "e3"), 2))


def test_code_that_is_evaluated_reaches_no_other_server(stage, page):
    page.expected += ["https://example.org", "Failed to fetch"]
    stage.send(Eval("await fetch('https://example.org/')\nx: s('bd')", 1))
    until(page, lambda: stage.heard(Error))
    assert any(s.startswith("https://example.org") for s in page.evaluate("stopped"))


def test_hush_is_silent_and_play_on_plays(stage, page):
    played(stage, page, Eval(SAW, 1, at="now"))
    wait(page, f"{RMS} > 0.01")
    page.get_by_role("button", name="Hush").click()
    wait(page, f"{RMS} < 1e-4")
    until(page, lambda: stage.heard(Request))
    played(stage, page, Eval(SAW.replace("c3", "e3"), 2, at="now"))
    assert page.evaluate(RMS) < 1e-3
    page.get_by_role("button", name="Play on").click()
    wait(page, f"{RMS} > 0.01")
    until(page, lambda: len(stage.heard(Request)) == 2)
    assert [r[:] for r in stage.heard(Request)] == [("hush", True), ("hush", False)]
    stage.send(Hush())
    wait(page, f"{RMS} < 1e-4")
    played(stage, page, Eval(SAW, 3))
    wait(page, f"{RMS} > 0.01")


def test_a_note_that_fails_to_sound_is_reported_once(stage, page):
    played(stage, page, Eval('x: s("sine").note(60).vowel("q").orbit(1)\ny: note("c3*4").s("sine").orbit(5)', 1))
    wait_beyond(page, 2)
    assert len([e for e in stage.heard(Error) if e.stage == "sound"]) <= 1 + PATIENCE / 5
    assert json.dumps(page.evaluate("eqdiff.player.clock()"))
