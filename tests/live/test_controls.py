"""The map file: presets, patterns, ranges, smoothing, and one clear line for each mistake."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.errors import InputError
from eqdiff_jax.live.controls import Controls, OneEuro, load_map, main, parse_map
from eqdiff_jax.live.presets import PRESETS
from eqdiff_jax.motion.skeleton import LIMB
from eqdiff_jax.music.modulation import PARAMETERS

ROW = '[[row]]\naddress = "/1/fader1"\nargument = 0\nto = "density"\n'


def test_an_argument_moves_a_parameter_within_its_range():
    controls = Controls(parse_map(ROW + "low = 1.0\nhigh = 3.0\n"))
    for given_, expected in ((1.0, 0.0), (2, 0.5), (3.0, 1.0), (99.0, 1.0), (-1e38, 0.0)):
        assert controls.take("/1/fader1", (given_, "more"), 0.0) == []
        assert controls.values == {"density": expected}


def test_low_above_high_turns_it_round_and_a_switch_is_a_number():
    controls = Controls(parse_map(ROW + "low = 1.0\nhigh = 0.0\n"))
    for given_, expected in ((True, 0.0), (False, 1.0), (0.25, 0.75)):
        controls.take("/1/fader1", (given_,), 0.0)
        assert controls.values["density"] == expected


@pytest.mark.parametrize("args", [(), ("text",), (None,), (b"blob",)])
def test_arguments_that_are_none_are_ignored(args):
    controls = Controls(parse_map(ROW))
    assert controls.take("/1/fader1", args, 0.0) == [] and controls.values == {}


@pytest.mark.parametrize(("pattern", "matches", "others"), [
    ("/*/accel", ["/phone/accel", "/a b (c)/accel"], ["/accel", "/a/b/accel", "/phone/accel/x", "/phone/accelx"]),
    ("/phone*/accel", ["/phone/accel", "/phone-2/accel"], ["/iphone/accel"]),
    ("/*/*", ["/a/b"], ["/a", "/a/b/c"]),
    ("/a.c", ["/a.c"], ["/abc"]),
])
def test_patterns(pattern, matches, others):
    controls = Controls(parse_map(ROW.replace("/1/fader1", pattern)))
    for i, address in enumerate(matches):
        controls.take(address, (i / 10.0,), 0.0)
        assert controls.values["density"] == i / 10.0
    for address in others:
        controls.take(address, (1.0,), 0.0)
        assert controls.values["density"] < 1.0


def test_many_and_long_addresses_are_no_trouble():
    controls = Controls(load_map("zigsim"))
    for i in range(5000):
        controls.take(f"/{i}/accelx", (0.0,) * 3, 0.0)
    assert controls.take("/" + "a/" * 30000 + "accel", (0.0,) * 3, 0.0) == []
    assert len(controls._matching) <= 1024 and max(map(len, controls._matching)) <= 257
    assert len(controls.take("/x/accel", (0.0,) * 3, 0.0)) == 1


def test_readings_of_limbs():
    controls = Controls(parse_map(
        '[[row]]\naddress = "/a"\nargument = 1\nto = "limb.l_hand.accel"\nscale = [1.0, -1.0, 2.0]\n'
        '[[row]]\naddress = "/a"\nargument = 0\nto = "limb.head.quaternion"\n'
        '[[row]]\naddress = "/a"\nargument = 2\nto = "limb.l_foot.gyro.z"\nscale = [1.0, 1.0, 0.5]\n'
        '[[row]]\naddress = "/a"\nargument = 3\nto = "limb.l_foot.confidence"\n'))
    readings = controls.take("/a", (1.0, 2.0, 3, 4.0), 0.0)
    assert [(r.limb, r.component, r.axis, r.values) for r in readings] == [
        (LIMB["l_hand"], "accel", None, (2.0, -3.0, 8.0)), (LIMB["head"], "quaternion", None, (1.0, 2.0, 3.0, 4.0)),
        (LIMB["l_foot"], "gyro", 2, (1.5,)), (LIMB["l_foot"], "confidence", None, (4.0,))]
    assert [r.component for r in controls.take("/a", (1.0, 2.0, 3.0), 0.0)] == ["gyro"]  # too short for the others


def test_one_euro_rests_and_follows():
    """At rest it filters at min_cutoff, in movement at more."""
    random = np.random.default_rng(0)
    noisy = 0.5 + 0.02 * random.standard_normal(1200)
    smooth = OneEuro(1.0, 0.0)
    still = np.array([smooth(i / 60.0, x) for i, x in enumerate(noisy)])
    assert still[120:].std() < 0.3 * noisy.std() and abs(still[120:].mean() - 0.5) < 0.005
    ramp = np.clip((np.arange(240) - 60) / 30.0, 0.0, 1.0)
    lags = []
    for beta in (0.0, 2.0):
        follow = OneEuro(1.0, beta)
        lags.append(np.abs(np.array([follow(i / 60.0, x) for i, x in enumerate(ramp)]) - ramp).max())
    assert lags[1] < 0.6 * lags[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.5, 5.0), st.floats(0.0, 1.0)), min_size=1, max_size=40), st.floats(1e-3, 100.0),
       st.floats(0.0, 100.0))
def test_one_euro_stays_between_what_came(samples, min_cutoff, beta):
    smooth, now, seen = OneEuro(min_cutoff, beta), 0.0, []
    for passed, value in samples:
        now += passed
        seen.append(value)
        assert min(seen) - 1e-9 <= smooth(now, value) <= max(seen) + 1e-9


def test_smoothing_acts_on_the_parameter():
    controls = Controls(parse_map(ROW + "smooth = {min_cutoff = 0.5, beta = 0.0}\n"))
    controls.take("/1/fader1", (0.0,), 0.0)
    controls.take("/1/fader1", (1.0,), 1.0 / 60.0)
    assert 0.0 < controls.values["density"] < 0.2


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_map_and_so_is_what_it_prints(name, capsys):
    rows = load_map(name)
    assert len(rows) == len(PRESETS[name])
    main([name])
    assert parse_map(capsys.readouterr().out) == rows
    for row in rows:
        assert row.limb is not None or row.to in PARAMETERS


def test_a_preset_can_be_worn_elsewhere():
    rows = parse_map('[[preset]]\nname = "zigsim"\nlimb = "l_foot"\ndevice = "abc"\n' + ROW)
    assert {row.limb for row in rows[:-1]} == {LIMB["l_foot"]} and rows[-1].to == "density"
    assert [row.address for row in rows[:2]] == ["/abc/accel", "/abc/gravity"]


def test_a_file_comes_before_a_preset_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load_map("zigsim")) == 4
    (tmp_path / "zigsim").write_text(ROW)
    assert len(load_map("zigsim")) == 1


def test_other_parameters_can_be_given():
    text = ROW.replace("density", "wind")
    assert parse_map(text, parameters=("wind",))[0].to == "wind"


@pytest.mark.parametrize(("text", "words"), [
    (ROW.replace("argument =", "argumnt ="), "line 3: the key 'argumnt' is unknown; did you mean 'argument'?"),
    (ROW.replace("density", "densty"), "line 4: the parameter 'densty' is unknown; did you mean 'density'?"),
    (ROW + ROW.replace("density", "rnge"), "line 8: the parameter 'rnge' is unknown; did you mean 'range'?"),
    (ROW.replace("density", "limb.left_hand.accel"), "line 4: the limb 'left_hand' is unknown; did you mean 'l_hand'?"),
    (ROW.replace('"density"', '"limb.l_hand.acel"'), "line 4: the component 'acel' is unknown; did you mean 'accel'?"),
    (ROW.replace("density", "limb.l_hand.accel.w"), "has no such axis; write limb.l_hand.accel or one of .x, .y, .z"),
    (ROW.replace('"density"', '"limb.l_hand.confidence.x"'), "has no such axis; write limb.l_hand.confidence"),
    (ROW.replace('"density"', '"limb.l_hand.accel.x.y"'), "has no such axis"),
    (ROW.replace('"density"', "3"), "line 4: to = 3 is no text; put it in quotes"),
    (ROW.replace("/1/fader1", "1/fader1"), "line 2: address '1/fader1' does not start with /; write '/1/fader1'"),
    (ROW.replace("/1/fader1", "/*a*/x"), "line 2: address '.*' has two \\* between slashes"),
    (ROW.replace("= 0", "= -1"), "line 3: argument = -1 is no number from 0 to 1023"),
    (ROW.replace("= 0", "= 0.5"), "line 3: argument = 0.5 is no whole number"),
    (ROW.replace("= 0", '= "first"'), "line 3: argument = 'first' is no number"),
    (ROW + "low = 1.0\n", "line 5: low and high are both 1"),
    (ROW + "high = nan\n", "line 5: high = nan is no number"),
    (ROW + "scale = [1, 2]\n", "line 5: scale = \\[1, 2\\] is no number"),
    (ROW + "smooth = 1.0\n", "line 5: smooth is no table"),
    (ROW + "smooth = {cutoff = 1.0}\n", "line 5: the key 'cutoff' is unknown; did you mean 'min_cutoff'?"),
    (ROW + "smooth = {min_cutoff = 0}\n", "line 5: min_cutoff = 0 is no number from 0.001 on"),
    ('[[row]]\naddress = "/a"\nto = "density"\n', "line 1: a row needs 'argument'"),
    ('[[preset]]\nname = "zigsm"\n', "line 2: the preset 'zigsm' is unknown; did you mean 'zigsim'?"),
    ('[[preset]]\nname = "zigsim"\nlimb = "hand"\n', "line 3: the limb 'hand' is unknown"),
    ('[[preset]]\nlimb = "head"\n', "line 1: a preset needs 'name'"),
    ("[[rows]]\n", "line 1: the table 'rows' is unknown; did you mean 'row'?"),
    ("\nbpm = 3\n", "line 2: the table 'bpm' is unknown"),
    ("[row]\naddress = 1\n", "line 1: row is no list of tables; write \\[\\[row\\]\\]"),
    ("[[row]\n", "not TOML .*line 1"),
    (ROW + "low 1.0\n", "not TOML .*line 5"),
])
def test_a_mistake_is_one_line_that_names_it(tmp_path, text, words):
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_map(tmp_path / "map.toml")
    assert "map.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match="cannot be read .*give a map file or one of zigsim, gyrosc"):
        load_map(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        load_map(tmp_path / "bad.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_map(tmp_path)


def test_printing_an_unknown_preset():
    with pytest.raises(SystemExit, match="give one preset: zigsim"):
        main(["zig"])


def test_numbers_stay_numbers():
    controls = Controls(load_map("wek_inputs"))
    for value in (3e38, -3e38, 2**63 - 1, 1e-45):
        controls.take("/wek/inputs", (value,) * 5, 0.0)
        assert all(math.isfinite(x) and 0.0 <= x <= 1.0 for x in controls.values.values())
    assert len(controls.values) == 5
