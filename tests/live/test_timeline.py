"""A sender's time: stamps through a bad network, none at all, clocks that are none, breaks and new starts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live.timeline import DELAY, Timeline


def played(stamps, arrivals, ticks=60.0):
    """A Timeline that poses come to; times given, which of them were there when read, and lags at each tick."""
    line, times, lags, fresh = Timeline(), [], [], []
    order, k = np.argsort(arrivals, kind="stable"), 0
    for now in np.arange(arrivals.min(), arrivals.max(), 1.0 / ticks):
        while k < len(order) and arrivals[order[k]] <= now:
            i = order[k]
            time, new = line.place(float(arrivals[i]), None if stamps is None else float(stamps[i]))
            times = [] if new else times
            times.append(time)
            k += 1
        read = line.read(float(now))
        if read is not None:
            lags.append(line.lag)
            fresh.append(read <= max(times))
    return line, np.array(times), np.array(lags), np.array(fresh)


def test_a_steady_sender_is_read_30_ms_late():
    sent = np.arange(0.0, 5.0, 1.0 / 60.0)
    line, times, lags, fresh = played(sent + 500.0, sent + 0.01)
    assert fresh.all()
    np.testing.assert_allclose(lags + 500.0, 0.01 + DELAY[0], atol=1e-9)
    np.testing.assert_allclose(times, sent[:len(times)] + 500.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.03, 0.06, 0.1]), st.sampled_from([30.0, 60.0, 120.0]))
def test_the_delay_follows_the_jitter_and_no_pose_is_too_late(seed, jitter, fps):
    sent = np.arange(0.0, 8.0, 1.0 / fps)
    arrivals = sent + np.random.default_rng(seed).uniform(0.0, jitter, len(sent))
    _, _, lags, fresh = played(sent, arrivals)
    late = len(lags) // 4
    assert fresh[late:].mean() > 0.98
    assert lags[late:].max() <= max(DELAY[0], jitter + 1.0 / fps + 0.01) + 0.005
    assert (np.diff(lags) <= 0.25 / 60.0 + 1e-9).all() and (np.diff(lags) >= -0.05 / 60.0 - 1e-9).all()


def test_the_delay_has_a_limit():
    sent = np.arange(0.0, 6.0, 1.0 / 60.0)
    arrivals = sent + np.random.default_rng(0).uniform(0.0, 0.6, len(sent))
    assert played(sent, arrivals)[2].max() < DELAY[1] + 0.05


def test_without_stamps_the_spacing_is_even_through_bursts():
    sent = np.arange(0.0, 8.0, 1.0 / 60.0)
    _, times, _, fresh = played(None, np.ceil(sent / 0.05) * 0.05)  # three come at once every 50 ms
    steps = np.diff(times)[120:]
    assert steps.min() > 0.008 and steps.max() < 0.025 and steps.mean() == pytest.approx(1.0 / 60.0, rel=0.01)
    assert fresh[120:].all()


@pytest.mark.parametrize("clock", [lambda t: 1000.0 * t, lambda t: 0.0 * t, lambda t: 0.8 * t, lambda t: -t,
                                   lambda t: np.floor(t)])
def test_stamps_that_are_no_clock_are_not_used(clock):
    sent = np.arange(0.0, 12.0, 1.0 / 60.0)
    _, times, _, fresh = played(clock(sent), sent)
    np.testing.assert_allclose(np.diff(times)[-300:], 1.0 / 60.0, rtol=1e-3)
    assert fresh[-300:].all()


def test_stamps_are_trusted_again_after_a_pause():
    line = Timeline()
    for i in range(60):
        line.place(i / 60.0, 7.0)
    for i in range(60):
        time, new = line.place(20.0 + i / 60.0, 7.1 + i / 60.0)
        assert time == 7.1 + i / 60.0 and new == (i == 0)


def test_a_stall_does_not_discredit_the_stamps():
    sent = np.arange(0.0, 9.0, 1.0 / 60.0)
    arrivals = np.where((sent > 3.0) & (sent < 3.7), 3.7, sent) + 0.002
    _, times, lags, _ = played(sent + 7.0, arrivals)
    np.testing.assert_allclose(times, sent[:len(times)] + 7.0)
    assert lags[-1] + 7.0 == pytest.approx(0.002 + DELAY[0], abs=2e-3)


def test_a_new_start_of_the_clock_is_a_new_line():
    line = Timeline()
    news = [line.place(0.1 * i, 50.0 + 0.1 * i)[1] for i in range(10)]
    assert news == [True] + [False] * 9
    time, new = line.place(1.0, 0.0)
    assert (time, new) == (0.0, True)
    assert line.place(1.1, 0.1) == (0.1, False)
    assert line.read(1.1) == pytest.approx(0.1 - 0.03, abs=0.1)


def test_a_pause_with_a_clock_that_runs_on_is_none():
    line = Timeline()
    for i in range(60):
        line.place(i / 60.0, 5.0 + i / 60.0)
    assert line.place(4.0, 9.0) == (9.0, False)


def test_a_pose_whose_stamp_was_lost_stays_on_the_line():
    line = Timeline()
    for i in range(60):
        line.place(i / 60.0 + 0.005, 5.0 + i / 60.0)
    time, new = line.place(1.0 + 0.005, None)
    assert not new and time == pytest.approx(6.0, abs=1e-9)
    assert line.place(61 / 60.0 + 0.005, 5.0 + 61 / 60.0)[1] is False


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.one_of(st.none(), st.floats(-1e9, 1e9), st.floats(0.0, 3.0))),
                min_size=1, max_size=60))
def test_reading_never_runs_backwards_on_a_line(events):
    line, now, before = Timeline(), 0.0, None
    for passed, stamp in events:
        now += passed
        _, new = line.place(now, stamp)
        read = line.read(now)
        assert read is not None and np.isfinite(read)
        if before is not None and not new and passed < 0.3 and abs(read - before) < 0.4:
            assert read >= before - 1e-6 * abs(before) - 1e-9
        before = read
