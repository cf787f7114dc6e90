import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live import wire
from eqdiff_jax.live.wire import (
    LOOKAHEADS,
    MODES,
    RANGES,
    Clock,
    Crossfade,
    Error,
    Eval,
    Evaluated,
    Hello,
    Hush,
    Missing,
    MotionModulate,
    Ping,
    Pong,
    Request,
    SetParam,
    State,
    View,
    WireError,
    decode,
    encode,
)
from eqdiff_jax.music.conductor import GENRES
from eqdiff_jax.music.modulation import PARAMETERS

STATE = State("s", 120.0, "diffusion", None, None, None, None, {"pan": 0.0}, "safe", MODES, GENRES, ("KICK",), RANGES)
VIEW = View(np.zeros((27, 3), np.float32), np.ones(27, np.float32), np.zeros(32), {"energy": 0.5}, np.full(6, 1 / 6),
            None, (), 0.3, 0, 12.0)
CLOCK = {"v": 1, "type": "Clock", "heard": 1.5, "frontier": 1.7, "cps": 0.5, "audio_state": "running",
         "audio_time": 3.0, "perf_now": 3000.5, "output_latency": 0.03}

names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("C", "Z")), max_size=64)
cycles, ids = st.floats(-1e9, 1e9), st.integers(0, 2**53 - 1)
page_messages = st.one_of(
    st.builds(Hello, st.just(1), st.from_regex(r"[A-Za-z0-9_.-]{8,64}", fullmatch=True), names,
              st.lists(names, max_size=9).map(tuple)),
    st.builds(Evaluated, ids, cycles),
    st.builds(Error, st.none() | ids, names, names, st.none() | ids),
    st.builds(Missing, st.lists(names, max_size=9).map(tuple)),
    st.builds(Clock, cycles, cycles, st.floats(0, 100), names, st.floats(0, 1e9), st.floats(0, 1e13),
              st.floats(0, 60)),
    st.builds(Pong, ids, st.floats(-1e15, 1e15), st.floats(0, 1e13)),
    st.builds(Request, st.just("bpm"), st.floats(*RANGES["bpm"][:2])),
    st.builds(Request, st.just("volume"), st.floats(0, 1)),
    st.builds(Request, st.just("genre"), st.none() | st.sampled_from(GENRES)),
    st.builds(Request, st.just("mode"), st.sampled_from(MODES)),
    st.builds(Request, st.just("lookahead"), st.sampled_from(LOOKAHEADS)),
    st.builds(Request, st.just("hush"), st.booleans()),
    st.builds(Request, st.just("lead"), st.none() | names))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4), max_leaves=12)


def test_the_four_commands_are_these_objects():
    sent = [encode(m) for m in (Eval('s("bd")'), Crossfade('s("sd")', 8.0), MotionModulate("pan", 0.25, "lr_pan"),
                                SetParam("bpm", 128.0))]
    assert [json.loads(text) for text in sent] == [
        {"v": 1, "type": "Eval", "pattern": 's("bd")', "at": "bar", "bars": 2},
        {"v": 1, "type": "Crossfade", "pattern": 's("sd")', "duration_beats": 8.0},
        {"v": 1, "type": "MotionModulate", "parameter": "pan", "value": 0.25, "source": "lr_pan"},
        {"v": 1, "type": "SetParam", "name": "bpm", "value": 128.0}]


def test_what_is_unknown_is_null_in_state_and_absent_in_eval():
    state = json.loads(encode(STATE))
    assert [state[name] for name in ("genre", "pattern", "id", "tokens")] == [None] * 4
    assert state["ranges"]["bpm"] == [40.0, 240.0, 120.0]
    assert set(json.loads(encode(Eval("x", id=3, section="Build")))) == {
        "v", "type", "pattern", "at", "bars", "id", "section"}


def test_arrays_arrive_as_numbers_and_every_character_as_itself():
    tokens = np.arange(12 * 32, dtype=np.int32).reshape(12, 32)
    message = json.loads(encode(Eval("\u2028'\ud800\"", tokens=tokens, steps=np.int32(9), margin=np.float32(0.5))))
    assert message["tokens"] == tokens.tolist() and message["steps"] == 9 and message["margin"] == 0.5
    assert message["pattern"] == "\u2028'\ud800\""
    assert encode(Hush()).isascii() and encode(message=Eval("\u2028ä")).isascii()


@settings(deadline=None)
@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_no_message_carries_a_number_that_is_not_finite(bad, data):
    limbs = np.array(VIEW.limbs)
    limbs[data.draw(st.integers(0, 26)), data.draw(st.integers(0, 2))] = bad
    spoiled = data.draw(st.sampled_from([
        VIEW._replace(limbs=limbs), VIEW._replace(dynamics={"energy": bad}), VIEW._replace(late_ms=bad),
        MotionModulate("pan", bad, "lr_pan"), SetParam("bpm", bad), Ping(1, bad), Eval("x", margin=bad),
        Crossfade("x", bad), STATE._replace(bpm=np.float32(bad)), STATE._replace(params={"pan": bad})]))
    with pytest.raises(WireError, match=type(spoiled).__name__):
        encode(spoiled)


@pytest.mark.parametrize("wrong", [Eval("x", tokens={1, 2}), Eval(b"x"), Hush, ("Eval", "x"), None, {"type": "Eval"}])
def test_what_json_has_no_word_for_is_refused(wrong):
    with pytest.raises(WireError):
        encode(wrong)


@settings(deadline=None)
@given(page_messages)
def test_a_page_s_message_is_read_as_it_was_written(message):
    assert decode(encode(message)) == message


@settings(deadline=None)
@given(page_messages, st.dictionaries(names, st.none() | st.booleans() | st.floats(-1, 1) | names, max_size=3))
def test_fields_of_a_newer_page_are_ignored(message, more):
    known = json.loads(encode(message))
    optional = set(message._fields) - set(known)
    more = {k: v for k, v in more.items() if k not in optional}
    assert decode(json.dumps({**more, **known})) == message


def assert_strict(text: str) -> None:
    """The text is a message whose fields are what they claim to be, or a WireError; never anything else."""
    try:
        message = decode(text)
    except WireError:
        return
    assert decode(encode(message)) == message
    for value in message:
        for one in value if isinstance(value, tuple) else [value]:
            assert one is None or isinstance(one, str | bool | int | float)
            assert not isinstance(one, float) or math.isfinite(one)
            assert not isinstance(one, str) or one.isprintable()


@settings(max_examples=300, deadline=None)
@given(anything)
def test_random_json_is_a_message_or_a_wire_error(value):
    assert_strict(json.dumps(value))


@settings(max_examples=400, deadline=None)
@given(page_messages, st.sampled_from(["v", "type", "new", *Clock._fields, *Hello._fields, *Error._fields, "value"]),
       anything)
def test_a_message_with_one_wrong_field_is_a_message_or_a_wire_error(message, field, value):
    assert_strict(json.dumps({**json.loads(encode(message)), field: value}))


@settings(max_examples=400, deadline=None)
@given(page_messages, st.data())
def test_mutated_text_is_a_message_or_a_wire_error(message, data):
    text = encode(message)
    for _ in range(data.draw(st.integers(1, 4))):
        at, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        filling = data.draw(st.sampled_from(["", "9" * 400, "1e999", "NaN", "[", "{", '"', "\\ud800", "\x00", ",", "-"])
                            | st.text(max_size=5))
        text = text[:at] + filling + text[min(end, at + 6):]
    assert_strict(text)


def with_clock(**fields: Any) -> str:
    return json.dumps({**CLOCK, **fields})


@pytest.mark.parametrize(("text", "why"), [
    ("", "not JSON"), ("{", "not JSON"), ("\ud800", "not JSON"), ("[" * 60000, "not JSON"),
    ('{"a":' * 9000, "not JSON"),
    ("9" * 5000, "not JSON"), ("null", "object"), ("[]", "object"), ('"Hush"', "object"), ("{}", "v is not"),
    (with_clock(v=2), "v is not 1: reload the page"), (with_clock(v="1"), "v is not"), (with_clock(v=True), "v is not"),
    (with_clock(type="Boo"), "unknown type 'Boo'"), (with_clock(type=["Clock"]), "unknown type"),
    (with_clock(type=None), "unknown type"), (json.dumps({k: v for k, v in CLOCK.items() if k != "cps"}), "lacks cps"),
    (with_clock(heard="1"), "Clock.heard is not a number"), (with_clock(heard=True), "not a number"),
    (with_clock(heard=math.nan), "not a number"), (with_clock(heard=10**400), "not a number"),
    (with_clock(heard=9).replace("9,", "1e999,", 1), "Clock.heard is not a number"),
    (with_clock(heard=None), "not a number"),
    (with_clock(cps=-1), "0 .. 100"), (with_clock(audio_state="x" * 65), "at most 64"),
    (with_clock(audio_state="a\nb"), "not a name"), (with_clock(audio_state=1), "not a name"),
    (with_clock(extra={"a": 1}), "nested"), (with_clock(extra=[[1]]), "nested"), (with_clock(heard=[1]), "number"),
    (with_clock(**{f"x{i}": 0 for i in range(30)}), "at most 32 fields"),
    ('{"v":1,"v":1,"type":"Missing","sounds":[]}', "twice"),
    (json.dumps({"v": 1, "type": "Missing", "sounds": ["a"] * 3000}), "at most 2048"),
    (json.dumps({"v": 1, "type": "Missing", "sounds": [["a"]]}), "nested"),
    (json.dumps({"v": 1, "type": "Missing", "sounds": [1]}), "not a name"),
    (json.dumps({"v": 1, "type": "Missing", "sounds": "bd"}), "not a list"),
    (json.dumps({"v": 1, "type": "Missing", "sounds": ["x" * 60] * 1500}), "at most 65536 characters"),
    (json.dumps({"v": 1, "type": "Evaluated", "id": 1.5, "at_cycle": 0}), "whole number"),
    (json.dumps({"v": 1, "type": "Evaluated", "id": -1, "at_cycle": 0}), "whole number"),
    (json.dumps({"v": 1, "type": "Evaluated", "id": 2**53, "at_cycle": 0}), "whole number"),
    (json.dumps({"v": 1, "type": "Error", "id": 1, "stage": "eval", "message": 4}), "not text"),
    (json.dumps({"v": 1, "type": "Hello", "protocol": 2, "session": "abcdefgh"}), "reload the page"),
    (json.dumps({"v": 1, "type": "Hello", "protocol": 1, "session": "short"}), "8 to 64"),
    (json.dumps({"v": 1, "type": "Hello", "protocol": 1, "session": "<script>abc"}), "8 to 64"),
    *((json.dumps({"v": 1, "type": "Request", "name": name, "value": value}), why) for name, value, why in (
        ("code", "s('bd')", "Request.name is none of"), ("bpm", "120", "not a number"),
        ("bpm", math.inf, "not a number"),
        ("bpm", None, "not a number"), ("volume", True, "not a number"), ("genre", "polka", "none of house"),
        ("genre", 3, "none of house"), ("mode", "joint", "none of threshold"), ("mode", None, "none of"),
        ("lookahead", 1, "none of safe, tight"), ("hush", 1, "true or false"), ("lead", 5, "not a name"),
        ("lead", "x" * 65, "at most 64"), ("lead", ["a"], "is a list"))),
])
def test_what_a_page_may_not_say(text, why):
    with pytest.raises(WireError) as raised:
        decode(text)
    assert why in str(raised.value) and len(str(raised.value)) < 300 and str(raised.value).isprintable()


@pytest.mark.parametrize("message", [STATE, Eval("s('bd')"), Crossfade("x", 4.0), MotionModulate("pan", 0.0, "me"),
                                     SetParam("bpm", 120.0), Hush(), Ping(1, 0.0), VIEW])
def test_a_page_may_not_speak_as_the_server(message):
    with pytest.raises(WireError, match=f"unknown type '{type(message).__name__}'"):
        decode(encode(message))


@pytest.mark.parametrize(("name", "value", "clamped"), [
    ("bpm", 1, 40.0), ("bpm", 1e9, 240.0), ("bpm", 90, 90.0), ("volume", -3, 0.0), ("volume", 1.01, 1.0),
    ("hush", None, True), ("hush", False, False), ("genre", None, None), ("lead", None, None)])
def test_requests_arrive_clamped(name, value, clamped):
    assert decode(json.dumps({"v": 1, "type": "Request", "name": name, "value": value})) == Request(name, clamped)


def test_browsers_that_do_not_say_their_output_latency():
    silent = json.dumps({k: v for k, v in CLOCK.items() if k != "output_latency"})
    for text in (with_clock(output_latency=None), silent):
        assert decode(text) == Clock(1.5, 1.7, 0.5, "running", 3.0, 3000.5, 0.0)


def test_a_page_s_error_cannot_paint_over_the_terminal():
    message = "\x1b[2Ja\nb\u202e" + "x" * 9999
    text = json.dumps({"v": 1, "type": "Error", "id": None, "stage": "eval", "message": message})
    assert decode(text) == Error(None, "eval", " [2Ja b " + "x" * (2000 - 8), None)


def test_every_parameter_has_a_range_its_default_lies_in():
    assert set(RANGES) == {"bpm", "lookahead", "volume", *PARAMETERS}
    assert len(RANGES) == 3 + len(PARAMETERS)  # no name means two things
    assert all(low <= default <= high and low < high for low, high, default in RANGES.values())


@settings(deadline=None)
@given(st.sampled_from(sorted(RANGES)), st.floats(allow_nan=False, allow_infinity=False))
def test_clamp_gives_the_nearest_value_of_the_range(name, value):
    low, high, _ = RANGES[name]
    clamped = wire.clamp(name, value)
    assert clamped == (low if value < low else high if value > high else value)


@pytest.mark.parametrize(("name", "value"), [("pan", math.nan), ("pan", math.inf), ("nothing", 0.0)])
def test_clamp_refuses_what_has_no_place(name, value):
    with pytest.raises(WireError, match=name):
        wire.clamp(name, value)
