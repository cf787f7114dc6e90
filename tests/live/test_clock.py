"""The music's position: a page's clock seen through an unsteady network, and the inner one that steps in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live.clock import AHEAD, FRESH, JUMP, InnerClock, PageClock, StageClock
from eqdiff_jax.live.wire import Clock


def said(heard, *, cps=0.5, state="running", ahead=0.15):
    return Clock(heard, heard + ahead, cps, state, 0.0, 0.0, 0.0)


def test_inner_clock_runs_at_its_tempo_and_goes_on_from_where_it_is_put():
    clock = InnerClock(100.0, 0.5, position=3.0)
    assert clock.position(104.0) == 5.0
    assert clock.frontier(104.0) == 5.0 + AHEAD["safe"] * 0.5
    clock.seek(104.0, 8.0, 1.0)
    assert clock.position(105.5) == 9.5


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 0.3), min_size=25, max_size=60), st.floats(0.2, 1.0))
def test_page_clock_is_never_ahead_and_as_good_as_its_luckiest_message(delays, cps):
    """Each message says where the music was when it left; the estimate errs by the least delay of those it keeps."""
    clock, kept = PageClock(), []
    for i, delay in enumerate(delays):
        left = 50.0 + 0.1 * i
        received = max(left + delay, kept[-1][0] if kept else 0.0)  # one socket keeps the order
        clock.feed(said(cps * left, cps=cps), received)
        kept.append((received, received - left))
        if i > 1:
            now = received + 0.05
            error = cps * now - clock.position(now)
            least = min(late for when, late in kept[1:] if when >= received - 2.0)
            assert -1e-9 <= error <= cps * least + 1e-9
            assert clock.running(now)


def test_page_clock_follows_a_drifting_audio_clock():
    """Two clocks 1 in 1000 apart (far more than real ones): after ten minutes the estimate is off by milliseconds."""
    clock = PageClock()
    for i in range(6000):
        clock.feed(said(0.5 * 1.001 * 0.1 * i), 0.1 * i + 0.002)
    now = 600.0
    assert abs(clock.position(now) - 0.5 * 1.001 * now) < 0.5 * 0.005


def test_page_clock_follows_a_change_of_tempo_at_once():
    clock = PageClock()
    for i in range(20):
        clock.feed(said(0.5 * 0.1 * i), 0.1 * i)
    for i in range(20, 23):
        clock.feed(said(1.0 + 0.7 * (0.1 * i - 2.0), cps=0.7), 0.1 * i)
    assert clock.position(2.5) == pytest.approx(1.0 + 0.7 * 0.5)


def test_a_burst_of_held_up_messages_is_no_jump():
    clock = StageClock(InnerClock(0.0, 0.5))
    for i in range(30):
        clock.feed(said(0.5 * 0.1 * i), 0.1 * i)
        clock.read(0.1 * i)
    epoch = clock.epoch
    for i in range(30, 39):  # 0.9 s of silence, then all at once
        clock.feed(said(0.5 * 0.1 * i), 3.9)
        reading = clock.read(3.9)
        assert reading.epoch == epoch and reading.page
        assert reading.heard == pytest.approx(0.5 * 3.9, abs=0.06)


@pytest.mark.parametrize("message", [said(0.5 * 2.0, state="suspended"), said(0.5 * 1.9)])
def test_a_page_that_stands_still_does_not_stop_the_music(message):
    clock = StageClock(InnerClock(0.0, 0.5))
    for i in range(20):
        clock.feed(said(0.5 * 0.1 * i), 0.1 * i)
    assert clock.read(1.9).page
    clock.feed(message, 2.0)
    reading = clock.read(2.5)
    assert not reading.page
    assert reading.heard == pytest.approx(0.5 * 2.5, abs=0.06)


def test_without_messages_the_inner_clock_goes_on_from_there():
    clock = StageClock(InnerClock(0.0, 0.5))
    for i in range(30):
        clock.feed(said(40.0 + 0.8 * 0.1 * i, cps=0.8), 0.1 * i)
        clock.read(0.1 * i)
    first = clock.epoch
    readings = [clock.read(2.9 + 0.01 * i) for i in range(300)]
    assert [r.page for r in readings] == [i * 0.01 <= FRESH for i in range(300)]
    assert {r.epoch for r in readings} == {first}
    steps = np.diff([r.heard for r in readings])
    np.testing.assert_allclose(steps, 0.008, atol=1e-9)


def test_a_page_that_starts_or_goes_and_comes_is_a_new_epoch():
    clock = StageClock(InnerClock(0.0, 0.5, position=7.0))
    assert clock.read(1.0).epoch == 0
    for i in range(3):
        clock.feed(said(0.5 * 0.1 * i), 1.0 + 0.1 * i)
    reading = clock.read(1.2)
    assert (reading.epoch, reading.page) == (1, True)
    assert reading.heard == pytest.approx(0.1)
    clock.lost()
    assert not clock.read(1.3).page
    for i in range(3):  # loaded again: from the start
        clock.feed(said(0.5 * 0.1 * i), 20.0 + 0.1 * i)
    assert clock.read(20.2).epoch == 2


def test_set_bpm_is_the_inner_clocks_tempo_and_moves_nothing():
    clock = StageClock(InnerClock(0.0, 0.5))
    before = clock.read(4.0).heard
    clock.set_bpm(4.0, 60.0)
    assert clock.read(4.0).heard == before
    assert clock.read(8.0).heard == pytest.approx(before + 1.0)


messages = st.tuples(st.floats(-10.0, 500.0), st.floats(0.0, 2.0), st.sampled_from(["running", "suspended"]),
                     st.floats(0.0, 3.0), st.floats(0.0, 1.5))


@settings(deadline=None)
@given(st.lists(messages, max_size=40))
def test_whatever_a_page_says_nothing_runs_backwards_within_an_epoch(said_so):
    clock, now, before = StageClock(InnerClock(0.0, 0.5)), 0.0, None
    for heard, cps, state, ahead, wait in said_so:
        clock.feed(Clock(heard, heard + ahead, cps, state, 0.0, 0.0, 0.0), now)
        for part in (0.0, 0.5, 1.0):
            reading = clock.read(now + part * wait)
            assert reading.frontier >= reading.heard and reading.cps > 0.0
            if before is not None and before.epoch == reading.epoch:
                assert reading.heard >= before.heard
                assert reading.heard - before.heard < JUMP + 2.0 * wait + 1e-6
            before = reading
        now += wait
