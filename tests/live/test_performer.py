"""One performer: the same frames as a file gives, through jitter and loss, silence, restarts, and whatever comes."""

import numpy as np
import pytest
import senders
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live.performer import FADE, HOLD, Performer, faded
from eqdiff_jax.live.pose import Pose
from eqdiff_jax.motion.limbs import DECAY, RANGES, REST_FRAME, from_world
from eqdiff_jax.motion.skeleton import LIMB, REST_HIPS

ONES = np.ones(27)
TICK = 1.0 / 60.0
FINE = 16  # phases of a tick at which the truth is known


class Dance:
    """A dance sampled at `fps`, and the limb frames that it has at any time, as limbs.from_world gives them."""

    def __init__(self, seconds=6.0, fps=60.0, height=1.0, **how):
        self.height = height
        self.times = senders.body(seconds, fps, **how).times
        self.positions, self.rotations = senders.body(seconds, fps, **how).world(height)
        fine = senders.body(seconds + 0.1, 60.0 * FINE, **how)
        positions, rotations = fine.world(height)
        # The same standing height as the performer learns, so that the frames can be compared.
        self.frames = [from_world(fine.times[k::FINE], positions[k::FINE], rotations[k::FINE],
                                  np.ones(positions[k::FINE].shape[:2]), height=height, rest_hips=REST_HIPS * height)
                       for k in range(FINE)]

    def at(self, time):
        whole = round(time * 60.0 * FINE)
        return self.frames[whole % FINE][whole // FINE]

    def pose(self, i, stamp=None, height=True):
        return Pose(self.positions[i], self.rotations[i], ONES, stamp, self.height if height else None)


def play(performer, arrivals, pose, seconds, start=0.0, before=None):
    """The frames of 60 Hz ticks while `pose(i)` arrives at arrivals[i]; (now, lag) of each."""
    order, k, frames, when = np.argsort(arrivals, kind="stable"), 0, [], []
    for tick in range(int(seconds * 60.0)):
        now = start + tick * TICK + 0.0004
        while k < len(order) and arrivals[order[k]] <= now:
            performer.update(float(arrivals[order[k]]), pose(order[k]))
            k += 1
        frames.append(performer.frame(now))
        when.append(now)
    return np.stack(frames), np.array(when)


def errors(frames, when, dance, lags, skip=60):
    """Largest error of positions but the hips' height, velocity and angular speed against the dance at now - lag."""
    worst = np.zeros(3)
    for frame, now, lag in list(zip(frames, when, lags, strict=True))[skip:]:
        truth = dance.at(now - lag)
        apart = np.abs(frame - truth)
        apart[0, 1] = 0.0  # its zero is learned from what was seen
        worst = np.maximum(worst, [apart[:, :3].max(), apart[:, 3:6].max(), apart[:, 6].max()])
    return worst


def test_a_stream_and_a_file_agree():
    dance = Dance(4.0)
    performer = Performer()
    performer.update(0.0, dance.pose(0, 0.0))
    frames = []
    for i in range(1, 200):
        performer.update(i * TICK, dance.pose(i, i * TICK))
        lag = performer._time.lag
        frames.append(performer.frame(i * TICK + 0.03 - 2 * TICK))  # reads exactly at a sample: two ticks ago
        assert lag == pytest.approx(0.03)
    truth = from_world(dance.times, dance.positions, dance.rotations, np.ones((len(dance.times), 27)), height=1.0,
                       rest_hips=REST_HIPS)
    found = np.stack(frames)[60:]  # after the passage from rest
    expected = truth[59:59 + len(found)]
    shift = found[:, 0, 1] - expected[:, 0, 1]
    assert np.ptp(shift[30:]) < 0.01  # the standing height that was learned
    found[:, 0, 1] = expected[:, 0, 1]
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(("fps", "jitter", "burst", "bounds"), [
    (60.0, 0.0, 0.0, (2e-3, 0.05, 0.1)),
    (60.0, 0.06, 0.0, (2e-3, 0.05, 0.1)),  # reordered too: 60 ms are nearly four frames
    (60.0, 0.06, 0.05, (2e-3, 0.05, 0.1)),
    (120.0, 0.02, 0.0, (2e-3, 0.05, 0.1)),
    (30.0, 0.02, 0.0, (4e-3, 0.2, 0.3)),
])
def test_jitter_bursts_and_reordering_do_not_show(fps, jitter, burst, bounds):
    """Velocities reach 3 body heights/s and turns 3 rad/s here."""
    dance = Dance(6.0, fps)
    arrivals = dance.times + np.random.default_rng(1).uniform(0.0, jitter, len(dance.times))
    arrivals = np.ceil(arrivals / burst) * burst if burst else arrivals
    assert jitter < 0.05 or (np.diff(np.argsort(arrivals, kind="stable")) < 0).sum() > 20 or burst
    performer, lags = Performer(), []

    class Watched:
        """Notes the lag of each frame."""

        update = staticmethod(performer.update)

        @staticmethod
        def frame(now):
            frame = performer.frame(now)
            lags.append(performer._time.lag)
            return frame

    frames, when = play(Watched, arrivals, lambda i: dance.pose(i, float(dance.times[i])), 5.9)
    assert (errors(frames, when, dance, lags, skip=90) < bounds).all()
    fastest = np.abs(np.stack([dance.at(t) for t in dance.times[:-2]])[..., 3:6]).max()
    assert np.abs(np.diff(frames[90:, :, :3], axis=0)).max() < 1.3 * fastest / 60.0


def test_lost_packets_are_bridged():
    dance = Dance(6.0)
    random = np.random.default_rng(2)
    kept = np.flatnonzero(random.random(len(dance.times)) > 0.1)
    frames, _ = play(Performer(), dance.times[kept], lambda i: dance.pose(kept[i], float(dance.times[kept[i]])), 5.9)
    truth = np.stack([dance.at(t) for t in dance.times[:-2]])
    assert np.abs(np.diff(frames[60:, :, :3], axis=0)).max() < 0.12
    assert np.abs(frames[60:, :, 3:6]).max() < 1.2 * np.abs(truth[..., 3:6]).max()


def test_silence_is_held_and_then_fades_to_rest():
    dance = Dance(2.0)
    frames, when = play(Performer(), dance.times, lambda i: dance.pose(i, float(dance.times[i])), 6.5)
    last = dance.times[-1] + 0.03
    before, held = frames[when < last][-1], frames[(when > last + 0.05) & (when < last + HOLD)]
    np.testing.assert_allclose(held[:, :, :3], np.broadcast_to(before[:, :3], held[:, :, :3].shape), atol=0.06)
    np.testing.assert_array_equal(held[0, :, :3], held[-1, :, :3])
    np.testing.assert_array_equal(held[..., 7], 1.0)
    assert (np.diff(np.abs(held[..., 3:7]), axis=0) <= 1e-6).all()  # rates die away
    np.testing.assert_allclose(frames[when > last + HOLD + FADE + 0.1],
                               np.broadcast_to(REST_FRAME, frames[when > last + HOLD + FADE + 0.1].shape), atol=1e-6)
    jumps = np.abs(np.diff(frames, axis=0))
    moving = (when[1:] > 0.6) & (when[1:] < last)
    assert jumps[when[1:] >= last, :, :3].max() <= jumps[moving][..., :3].max() * 1.05
    assert jumps[when[1:] >= last, :, 3:7].max() <= np.abs(frames[when < last, :, 3:7]).max() * (
        1 - 0.5 ** (1 / DECAY)) + jumps[moving][..., 3:7].max()
    assert jumps[when[1:] >= last, :, 7].max() < 0.015


def test_coming_back_after_silence_does_not_jump():
    dance = Dance(6.0)
    there = np.flatnonzero((dance.times < 2.0) | (dance.times > 4.0))
    frames, when = play(Performer(), dance.times[there],
                        lambda i: dance.pose(there[i], float(dance.times[there[i]])), 5.9)
    jumps = np.abs(np.diff(frames, axis=0))
    assert jumps[60:, :, :3].max() < 0.08
    assert jumps[60:, :, 7].max() < 0.03
    assert np.abs(frames[when > 5.0] - np.stack([dance.at(t - 0.03) for t in when[when > 5.0]]))[:, 1:, :3].max() < 5e-3


def test_after_a_restart_rates_begin_at_zero():
    dance, other = Dance(4.0), Dance(4.0, seed=5)
    performer = Performer()
    frames, _ = play(performer, dance.times[:120], lambda i: dance.pose(i, float(dance.times[i])), 2.0)
    performer.restart()
    more, _ = play(performer, 2.0 + other.times[:120], lambda i: other.pose(i, 90.0 + float(other.times[i])), 2.0, 2.0)
    jumps = np.abs(np.diff(np.concatenate([frames, more])[100:], axis=0))
    assert jumps[..., :3].max() < 0.1  # two bodies apart, passed over in half a second
    # Nothing of the difference between the bodies is taken for speed.
    fastest = np.abs(np.stack([other.at(t) for t in other.times[:-2]])[..., 3:6]).max()
    assert np.abs(more[..., 3:6]).max() < 1.3 * fastest


def test_a_clock_that_begins_again_is_a_restart():
    dance = Dance(4.0)
    stamps = np.where(dance.times < 2.0, 300.0 + dance.times, dance.times)
    frames, _ = play(Performer(), dance.times, lambda i: dance.pose(i, float(stamps[i])), 3.9)
    assert np.abs(np.diff(frames[60:, :, :3], axis=0)).max() < 0.08
    assert np.abs(frames[:, :, 3:6]).max() < 6.0


@pytest.mark.parametrize("height", [0.9, 1.75, 180.0])
def test_the_height_is_learned_whatever_the_unit(height):
    dance = Dance(3.0, height=height, size=0.2)
    frames, when = play(Performer(), dance.times, lambda i: dance.pose(i, float(dance.times[i]), height=False), 2.9)
    truth = np.stack([dance.at(t - 0.03) for t in when[120:]])
    assert np.abs(frames[120:, 1:, :3] - truth[:, 1:, :3]).max() < 5e-3
    assert np.abs(frames[120:, 0, 1] - truth[:, 0, 1]).max() < 0.06  # the zero of the hips: a standing body's
    assert np.abs(frames[120:, 1:, 3:6] - truth[:, 1:, 3:6]).max() < 0.1


def test_poses_that_say_nothing_are_not_taken():
    dance, performer = Dance(1.0), Performer()
    good = dance.pose(0)
    nan = good.positions.copy()
    nan[3, 1] = np.nan
    without_hips = np.ones(27)
    without_hips[0] = 0.0
    for bad in (good._replace(positions=nan), good._replace(confidence=without_hips),
                good._replace(confidence=np.zeros(27)), good._replace(rotations=np.full((27, 4), np.inf))):
        assert not performer.update(0.0, bad)
    assert performer.last == -np.inf
    np.testing.assert_array_equal(performer.frame(0.1), REST_FRAME)
    assert performer.update(0.2, good) and performer.last == 0.2


def test_a_body_in_one_point_is_no_body_until_it_is_one():
    dance, performer = Dance(2.0), Performer()
    point = Pose(np.zeros((27, 3)), dance.rotations[0], ONES)
    for i in range(30):
        performer.update(i * TICK, point)
        np.testing.assert_array_equal(performer.frame(i * TICK), REST_FRAME)
    for i in range(30, 90):
        performer.update(i * TICK, dance.pose(i))
        frame = performer.frame(i * TICK)
    assert frame[LIMB["head"], 1] > 0.2


def test_faded_frames_go_to_rest():
    frame = REST_FRAME + 0.5
    np.testing.assert_allclose(faded(frame, 0.0), frame)
    np.testing.assert_allclose(faded(frame, HOLD + FADE), REST_FRAME, atol=1e-6)
    assert (np.abs(faded(frame, HOLD + FADE / 2) - REST_FRAME)[:, [0, 7]] < 0.26).all()


POSITIONS = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3e38, 1e4])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 0.6), POSITIONS, st.integers(0, 26),
                          st.one_of(st.none(), st.floats(-1e6, 1e6)), st.sampled_from([None, 1.0, 1e-9, 1e30])),
                min_size=1, max_size=50), st.integers(0, 99))
def test_frames_are_always_finite_and_in_range(events, seed):
    dance = senders.body(0.5, seed=seed)
    positions, rotations = dance.world()
    performer, now = Performer(), 0.0
    for i, (passed, value, limb, stamp, height) in enumerate(events):
        now += passed
        place = positions[i % len(positions)].copy()
        place[limb] += value
        performer.update(now, Pose(place, rotations[i % len(positions)], ONES, stamp, height))
        for later in (0.0, 0.01, 0.4):
            frame = performer.frame(now + later)
            assert frame.dtype == np.float32 and np.isfinite(frame).all() and (np.abs(frame) <= RANGES).all()
