"""What a person sees of the page and does with it: keys, sizes of screen, names, pictures of what plays."""

import json

import pytest
from browser import RMS, WEB, onsets, open_page, played, until, wait

from eqdiff_jax.live.wire import RANGES, Eval, Hello, MotionModulate, Request, View
from eqdiff_jax.motion import skeleton
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.music.grid import TRACKS
from eqdiff_jax.music.modulation import PARAMETERS
from eqdiff_jax.music.sections import SECTIONS
from eqdiff_jax.music.vocabulary import VOCABULARY

SAW = 'x: note("c3*4").s("sawtooth").gain(.8).orbit(5)'
VIEW = View(skeleton.REST, [1.0] * 27, [0.1 * i for i in range(32)], {n: r.rest for n, r in TABLE._asdict().items()},
            [0.1, 0.5, 0.1, 0.1, 0.1, 0.1], "10.0.0.7:39540", ["10.0.0.7:39540", "10.0.0.8:39540"], 1.25, 3, 4.0)


def last_request(stage) -> tuple | None:
    requests = stage.heard(Request)
    return requests[-1][:] if requests else None


def test_its_tables_are_those_of_the_package(stage, page):
    pinned = json.loads((WEB / "package.json").read_text())["dependencies"]["@strudel/web"]
    assert stage.heard(Hello)[0].strudel == f"@strudel/web {pinned}"
    assert {"bd", "perc", "sawtooth", "triangle"} <= set(stage.heard(Hello)[0].sounds)
    tables = page.evaluate("import('/vocabulary.js').then((m) => ({ ...m }))")
    assert [t["name"] for t in tables["TOKENS"]] == list(VOCABULARY.names)
    assert [t["group"] for t in tables["TOKENS"]] == [VOCABULARY.group(i) for i in range(len(VOCABULARY))]
    assert tables["TRACKS"] == list(TRACKS)
    assert tables["SECTIONS"] == list(SECTIONS)
    assert tables["PARENTS"] == skeleton.PARENTS.tolist()
    assert tables["DYNAMICS"] == {name: [row.low, row.high] for name, row in TABLE._asdict().items()}
    routes = page.evaluate("import('/mixer.js').then((m) => m.ROUTES)")
    assert routes == {n: [p.control, list(p.tracks)] for n, p in PARAMETERS.items() if p.kind == "bus"}


def test_a_bus_parameter_reaches_its_tracks_and_no_others(stage, page):
    read = """(control) => Object.fromEntries(
        Object.entries({ ...eqdiff.player.mixer.buses, '': eqdiff.player.mixer.master })
            .map(([track, bus]) => [track, bus[control]?.value ?? 0]))"""
    for name, row in PARAMETERS.items():
        if row.kind != "bus":
            continue
        before, moved = page.evaluate(read, row.control), set(row.tracks or [""])
        for value in (row.low if row.low != row.default else row.high, row.default):
            stage.send(MotionModulate(name, value, "energy"))
            expected = pytest.approx({t: value if t in moved else old for t, old in before.items()}, rel=0.01, abs=0.01)
            until(page, lambda row=row, expected=expected: page.evaluate(read, row.control) == expected, name)


def test_a_bus_parameter_is_heard_without_evaluation(stage, page):
    played(stage, page, Eval('x: note("c5").s("sawtooth").sustain(1).gain(.3).orbit(5)', 1, at="now"))
    wait(page, f"{RMS} > 0.02")
    for _ in range(20):
        page.evaluate(f"window.before = Math.max(window.before ?? 0, {RMS})")
        page.wait_for_timeout(20)
    stage.send(MotionModulate("bass_gain", 0.5, "grounding"))
    wait(page, f"{RMS} < 0.65 * before && {RMS} > 0.35 * before")
    stage.send(MotionModulate("bass_gain", 1.0, "grounding"))
    wait(page, f"{RMS} > 0.9 * before")
    stage.send(MotionModulate("master_lpf", PARAMETERS["master_lpf"].low, "speed"))
    wait(page, f"{RMS} < 0.9 * before")
    assert len({o["id"] for o in onsets(page)}) == 1


def test_everything_can_be_done_from_the_keyboard(browser, stage):
    page = open_page(browser, stage, start=False)
    stage.send(Eval(SAW, 1))
    page.keyboard.press("Space")
    wait(page, f"eqdiff.player.running && {RMS} > 0.01")
    for key, request in (("ArrowUp", ("bpm", 240.0)), ("ArrowDown", ("bpm", 239.0)),
                         ("Shift+ArrowDown", ("bpm", 230.0)), ("1", ("mode", "threshold")),
                         ("2", ("mode", "modulate")), ("l", ("lookahead", "tight")), ("l", ("lookahead", "safe"))):
        page.keyboard.press(key)
        until(page, lambda request=request: last_request(stage) == request, f"{key} -> {request}")
    page.keyboard.press("Space")
    wait(page, f"{RMS} < 1e-4")
    until(page, lambda: last_request(stage) == ("hush", True))
    page.keyboard.press("Space")
    wait(page, f"{RMS} > 0.01")
    until(page, lambda: last_request(stage) == ("hush", False))
    page.get_by_label("tempo").focus()
    page.keyboard.press("Home")  # keys in a field stay there
    page.keyboard.press("1")
    assert last_request(stage) == ("hush", False)
    page.close()


def test_every_control_asks_the_server(stage, page):
    before = len(stage.heard(Request))
    page.get_by_label("genre").select_option("techno")
    until(page, lambda: last_request(stage) == ("genre", "techno"))
    page.get_by_label("genre").select_option("any")
    until(page, lambda: last_request(stage) == ("genre", None))
    stage.send(VIEW)
    wait(page, "document.getElementById('leads').length === 3")
    page.get_by_label("lead").select_option("10.0.0.8:39540")
    until(page, lambda: last_request(stage) == ("lead", "10.0.0.8:39540"))
    page.get_by_label("tempo").fill("999")
    page.get_by_label("tempo").press("Enter")
    until(page, lambda: last_request(stage) == ("bpm", RANGES["bpm"][1]))
    page.get_by_label("volume").fill("0.25")
    until(page, lambda: last_request(stage) == ("volume", 0.25))
    page.get_by_text("tight").click()
    until(page, lambda: last_request(stage) == ("lookahead", "tight"))
    wait(page, "eqdiff.player.lookahead === 'tight'")
    page.keyboard.press("Space")  # wherever the last click was
    until(page, lambda: last_request(stage) == ("hush", True))
    assert [request[:] for request in stage.heard(Request)[before:]] == [
        ("genre", "techno"), ("genre", None), ("lead", "10.0.0.8:39540"), ("bpm", RANGES["bpm"][1]), ("volume", 0.25),
        ("lookahead", "tight"), ("hush", True)]  # each once, and nothing else


def test_it_shows_what_plays(stage, page):
    tokens = [[0] * 32 for _ in range(12)]
    tokens[4][0], tokens[4][1], tokens[0][4] = VOCABULARY.ids["C3"], VOCABULARY.ids["legato"], VOCABULARY.ids["bd"]
    code = 'kick: s("~ bd ~ ~").orbit(1)\nbass: note("c3").s("sawtooth").orbit(5)'
    stage.send(VIEW)
    played(stage, page, Eval(code, 1, at="now", tokens=tokens, changed=[[0, 4], [4, 0]], steps=17, temperature=0.84,
                             confidence=0.72, seconds=0.4, margin=0.31, cascade={"budget": 44, "wanted": 20}))
    wait(page, "document.getElementById('steps').textContent === '17'")
    for node, text in {"section": "Groove", "confidence": "0.72", "temperature": "0.84", "margin": "0.31",
                       "misses": "3", "lead": "10.0.0.7:39540 and 1 more", "lateness": "1.3 ms",
                       "seconds": "0.40 s"}.items():
        assert page.locator(f"#{node}").inner_text() == text
    assert page.locator("#code").inner_text().replace("\n", "") == code.replace("\n", "")
    assert page.locator("#score-title").inner_text().startswith("Grid 2 of 44 cells changed")
    assert page.locator("#now").inner_text().count("steps of 20") == 1
    assert "KICK 2, BASS 2" in page.locator("#grid").get_attribute("aria-label")
    light = """([x, y]) => { const c = document.getElementById('grid'), pen = c.getContext('2d');
        return pen.getImageData(c.width * x, c.height * y, 1, 1).data.slice(0, 3).reduce((a, b) => a + b); }"""
    kick, empty = page.evaluate(light, [4.5 / 32, 0.5 / 12]), page.evaluate(light, [13.5 / 32, 7.5 / 12])
    assert kick > 2 * empty
    wait(page, "document.querySelectorAll('#tracks li')[4].classList.contains('on')")
    body = page.evaluate("""() => { const c = document.getElementById('body');
        const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
        return data.filter((v, i) => i % 4 === 0 && v > 200).length / (c.width * c.height); }""")
    assert 0.002 < body < 0.3
    assert page.locator("#dynamics dt").count() == 15


@pytest.mark.parametrize(("width", "height"), [(375, 812), (320, 640), (1440, 900)])
def test_it_fits_the_screen(browser, stage, width, height):
    page = open_page(browser, stage, viewport={"width": width, "height": height}, reduced_motion="reduce")
    stage.send(VIEW)
    code = "\n".join(f'{t.lower()}: note("{"c3 " * 40}").s("sine").orbit({i + 1})' for i, t in enumerate(TRACKS))
    played(stage, page, Eval(code, 1, at="now", tokens=[[0] * 32] * 12, steps=50, temperature=1.15, confidence=0.02))
    wait(page, "document.getElementById('steps').textContent === '50'")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate("""(width) => [...document.querySelectorAll('body *')].filter((node) => {
        const box = node.getBoundingClientRect();
        return box.width && (box.left < -1 || box.right > width + 1) && !node.closest('pre');
    }).map((node) => node.id || node.tagName)""", width)
    assert outside == []
    small = page.evaluate("""() => [...document.querySelectorAll('button, select, input[type=number]')]
        .filter((node) => node.getBoundingClientRect().height < 28).map((node) => node.id)""")
    assert small == []
    page.close()


def test_the_source_and_licence_are_linked(page):
    page.get_by_role("link", name="AGPL-3.0-or-later").wait_for()
    for name in ("the page", "Strudel"):
        address = page.get_by_role("link", name=name, exact=True).get_attribute("href")
        assert page.evaluate("(address) => fetch(address).then((answer) => answer.ok)", address)
