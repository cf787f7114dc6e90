import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live.outbox import MODULATION_PERIOD, VIEW_PERIOD, Outbox
from eqdiff_jax.live.wire import Crossfade, Eval, Hush, MotionModulate, Ping, SetParam, View, WireError

RANGES = {"bpm": (40.0, 240.0, 120.0), "pan": (-1.0, 1.0, 0.0), "room": (0.0, 1.0, 0.0)}


def view(bar: float) -> View:
    return View([], [], [], {}, [], None, (), 0.0, 0, bar)


puts = st.one_of(
    st.builds(MotionModulate, st.sampled_from(["pan", "room"]), st.sampled_from([-9.0, -0.5, 0.0, 0.25, 7.0]),
              st.just("energy")),
    st.builds(SetParam, st.sampled_from(["bpm", "pan"]), st.sampled_from([0.0, 0.25, 60.0])),
    st.builds(lambda i: Eval("x", id=i), st.integers(0, 99)),
    st.builds(lambda i: Crossfade("x", 4.0, id=i), st.integers(0, 99)),
    st.builds(Hush), st.builds(lambda i: Ping(i, 0.0), st.integers(0, 99)),
    st.builds(lambda i: view(float(i)), st.integers(0, 99)))
steps = st.lists(puts | st.just("take") | st.floats(0.0, 0.03), max_size=80)


def name_of(message) -> str:
    """What a later message of the same name replaces."""
    match message:
        case MotionModulate():
            return message.parameter
        case SetParam():
            return message.name
        case Crossfade():
            return "Eval"
    return type(message).__name__


def clamped(message):
    field = {MotionModulate: "value", SetParam: "value"}.get(type(message))
    if field is None:
        return message
    low, high, _ = RANGES[name_of(message)]
    return message._replace(value=min(max(message.value, low), high))


@settings(max_examples=500, deadline=None)
@given(steps)
def test_after_any_interleaving_the_newest_of_each_name_was_sent_last(script):
    outbox, now = Outbox(RANGES), 0.0
    put, sent = [], []
    for step in [*script, *[0.1, "take"] * 20]:  # at the end everything leaves
        if step == "take":
            message = outbox.take(now)
            if message is not None:
                sent.append((now, message))
        elif isinstance(step, float):
            now += step
        else:
            outbox.put(step)
            put.append(clamped(step))
        assert len(outbox) <= outbox.bound
    assert len(outbox) == 0 and outbox.wait(now) is None

    newest = {name_of(message): message for message in put}
    last = {name_of(message): message for _, message in sent}
    # A modulation that only repeats what the page has, from the same source, need not be said again.
    assert last == newest
    commands = [m for m in put if not isinstance(m, MotionModulate | View)]
    order = [m for _, m in sent if not isinstance(m, MotionModulate | View)]
    assert is_subsequence(order, commands)
    for kind, period in ((MotionModulate, MODULATION_PERIOD), (View, VIEW_PERIOD)):
        times = defaultdict(list)
        for time, message in sent:
            if isinstance(message, kind):
                times[name_of(message)].append(time)
        for t in times.values():
            assert len(t) <= (t[-1] - t[0]) / period + 2 + 1e-6


def is_subsequence(short: list, long: list) -> bool:
    rest = iter(long)
    return all(any(one == other for other in rest) for one in short)


def test_a_slow_page_gets_the_newest_values_only_and_nothing_grows():
    outbox = Outbox(RANGES)
    for i in range(10_000):
        for message in (MotionModulate("pan", i / 10_000, "lr_pan"), MotionModulate("room", i / 10_000, "energy"),
                        SetParam("bpm", 60 + i / 1000), Eval("x", id=i), Hush(), Ping(i, 0.0), view(i)):
            outbox.put(message)
    assert len(outbox) == 7 <= outbox.bound
    left = [outbox.take(0.0) for _ in range(8)]
    assert left == [SetParam("bpm", 69.999), Eval("x", id=9999), Hush(), Ping(9999, 0.0),
                    MotionModulate("pan", 0.9999, "lr_pan"), MotionModulate("room", 0.9999, "energy"), view(9999), None]


def test_values_keep_their_pace():
    outbox = Outbox(RANGES)
    for now, leaves in ((0.0, True), (0.01, False), (MODULATION_PERIOD, True), (0.03, False), (0.034, True)):
        value = MotionModulate("pan", now, "lr_pan")
        outbox.put(value)
        assert outbox.take(now) == (value if leaves else None), now
    for now, leaves in ((1.0, True), (1.04, False), (1.0 + VIEW_PERIOD, True), (1.09, False), (1.11, True)):
        outbox.put(view(now))
        assert outbox.take(now) == (view(now) if leaves else None), now
        assert leaves or outbox.wait(now) == pytest.approx(1.0 + VIEW_PERIOD * (1 + (now > 1.05)) - now)


def test_a_value_that_moves_seldom_does_not_wait_for_one_that_always_moves():
    outbox = Outbox(RANGES)
    outbox.put(MotionModulate("pan", 0.1, "lr_pan"))
    assert outbox.take(0.0) is not None
    outbox.put(MotionModulate("pan", 0.2, "lr_pan"))
    outbox.put(MotionModulate("room", 0.3, "energy"))
    assert outbox.wait(0.005) == 0.0
    assert [outbox.take(0.005), outbox.take(0.005)] == [MotionModulate("room", 0.3, "energy"), None]
    assert outbox.wait(0.005) == pytest.approx(MODULATION_PERIOD - 0.005)
    assert outbox.take(MODULATION_PERIOD) == MotionModulate("pan", 0.2, "lr_pan")


def test_a_crossfade_and_an_eval_replace_each_other():
    outbox = Outbox(RANGES)
    outbox.put(Eval("a", id=1))
    outbox.put(Crossfade("b", 4.0, id=2))
    assert [outbox.take(0.0), outbox.take(0.0)] == [Crossfade("b", 4.0, id=2), None]
    outbox.put(Crossfade("c", 4.0, id=3))
    outbox.put(Eval("d", id=4))
    assert [outbox.take(0.0), outbox.take(0.0)] == [Eval("d", id=4), None]


def test_a_command_overtakes_values_and_what_it_sets_is_not_unset_by_an_older_one():
    outbox = Outbox(RANGES)
    outbox.put(MotionModulate("pan", 0.5, "lr_pan"))
    outbox.put(view(1.0))
    outbox.put(SetParam("pan", -1.0))
    outbox.put(Eval("x"))
    assert [outbox.take(0.0) for _ in range(4)] == [SetParam("pan", -1.0), Eval("x"), view(1.0), None]


def test_a_value_is_repeated_only_when_something_else_was_said_between():
    outbox, value = Outbox(RANGES), MotionModulate("pan", 0.5, "lr_pan")
    outbox.put(value)
    assert outbox.take(0.0) == value
    outbox.put(value)
    assert outbox.take(1.0) is None
    outbox.put(value._replace(value=0.6))
    outbox.put(value)  # back before anyone heard of 0.6
    assert outbox.take(2.0) is None
    outbox.put(SetParam("pan", 0.1))
    outbox.put(value)
    assert [outbox.take(3.0), outbox.take(3.0)] == [SetParam("pan", 0.1), value]


@pytest.mark.parametrize("message", [MotionModulate("nothing", 0.0, "energy"), SetParam("nothing", 0.0),
                                     MotionModulate("pan", float("nan"), "energy"), SetParam("bpm", float("inf"))])
def test_a_parameter_that_is_unknown_or_not_finite_is_refused(message):
    outbox = Outbox(RANGES)
    with pytest.raises(WireError):
        outbox.put(message)
    assert len(outbox) == 0


def test_next_waits_for_a_message_and_for_its_time():
    async def scenario():
        outbox = Outbox(RANGES)
        reader = asyncio.create_task(outbox.next())
        await asyncio.sleep(0)
        assert not reader.done()
        outbox.put(MotionModulate("pan", 0.1, "lr_pan"))
        assert await reader == MotionModulate("pan", 0.1, "lr_pan")
        outbox.put(MotionModulate("pan", 0.2, "lr_pan"))
        reader = asyncio.create_task(outbox.next())
        await asyncio.sleep(0)
        outbox.put(MotionModulate("pan", 0.3, "lr_pan"))  # while the reader waits for the time of 0.2
        assert await reader == MotionModulate("pan", 0.3, "lr_pan")
        reader = asyncio.create_task(outbox.next())
        outbox.put(Hush())
        assert await reader == Hush()
    asyncio.run(asyncio.wait_for(scenario(), 120))
