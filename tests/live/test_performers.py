"""The cast: who leads, passages without a jump, restarts, many at once."""

import numpy as np
import pytest
import senders

from eqdiff_jax import motion
from eqdiff_jax.live.performer import FADE, HOLD
from eqdiff_jax.live.performers import BLEND, FORGOTTEN, MOST, RESTART, Cast, Sender
from eqdiff_jax.live.pose import Pose
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME

TICK = 1.0 / 60.0
ONES = np.ones(27)
DANCES = [senders.body(8.0, seed=seed) for seed in range(2)]
WORLDS = [dance.world() for dance in DANCES]
DEMO = motion.demo("groove", 12.0, 3)


def source(port, host="10.0.0.1", kind="vmc"):
    return Sender(kind, 39539, host, port)


def pose(who, now):
    i = min(round(now * 60.0), len(DANCES[who].times) - 1)
    return Pose(WORLDS[who][0][i], WORLDS[who][1][i], ONES, float(now), 1.0)


def demo(now):
    return DEMO[min(round(now * 60.0), len(DEMO) - 1)]


def play(cast, seconds, sending, start=0.0):
    """Frames of the ticks, with what `sending(now)` gives: (source, pose) of those who send."""
    frames, leads = [], []
    for tick in range(round(seconds * 60.0)):
        now = start + tick * TICK
        for who, body in sending(now):
            cast.update(who, now, body)
        frames.append(cast.frame(now + 0.001))
        leads.append(cast.lead)
    return np.stack(frames), leads


def jumps(frames):
    return np.abs(np.diff(frames, axis=0))


def largest_jump(dance=None):
    """Of a feature from frame to frame, in a dance on its own."""
    return jumps(DEMO if dance is None else dance).max((0, 1))


def test_demo_then_a_sender_then_silence_then_demo_is_one_movement():
    cast = Cast(fallback=demo)
    frames, leads = play(cast, 10.0, lambda now: [(source(1), pose(0, now))] if 3.0 <= now < 6.0 else [])
    assert leads[0] is None and leads[250] == "vmc 10.0.0.1" and leads[-1] is None
    alone, _ = play(Cast(), 8.0, lambda now: [(source(1), pose(0, now))])
    own = np.maximum(largest_jump(), largest_jump(alone[60:]))
    apart = 2.0 * np.maximum(np.abs(DEMO).max((0, 1)), np.abs(alone).max((0, 1)))
    # Of a passage in BLEND seconds the steepest part is 1.5 of its mean.
    assert (jumps(frames).max((0, 1)) <= own + 1.5 * apart * TICK / BLEND + 1e-6).all()
    assert jumps(frames)[..., :3].max() < 0.1
    np.testing.assert_array_equal(frames[:170], np.stack([demo(i * TICK + 0.001) for i in range(170)]))
    np.testing.assert_allclose(frames[-60:], np.stack([demo(9.0 + i * TICK + 0.001) for i in range(60)]), atol=1e-6)
    middle = frames[300:355] - alone[300:355]
    assert np.abs(middle[:, 1:, :3]).max() < 2e-3  # the sender alone is seen, once the passage is over


def test_without_a_fallback_the_last_lead_fades_to_rest():
    cast = Cast()
    np.testing.assert_array_equal(cast.frame(0.0), REST_FRAME)
    frames, leads = play(cast, 7.0, lambda now: [(source(1), pose(0, now))] if now < 3.0 else [])
    assert leads[-1] is None
    done = round(60.0 * (3.0 + HOLD + FADE + 0.2))
    np.testing.assert_allclose(frames[done:], np.broadcast_to(REST_FRAME, frames[done:].shape), atol=1e-6)
    assert jumps(frames)[..., :3].max() < 0.08


def test_two_performers_and_the_lead_passes_on():
    cast = Cast()
    one, two = source(1, "10.0.0.1"), source(1, "10.0.0.2")

    def sending(now):
        return ([(one, pose(0, now))] if now < 3.0 or now > 6.0 else []) + ([(two, pose(1, now))] if now > 1.0 else [])

    frames, leads = play(cast, 7.9, sending)
    assert leads[60] == "vmc 10.0.0.1"
    passed = leads.index("vmc 10.0.0.2")
    assert passed * TICK == pytest.approx(3.0 + HOLD, abs=0.05)
    assert leads[-1] == "vmc 10.0.0.2"  # who leads goes on leading
    assert jumps(frames)[..., :3].max() < 0.1
    alone, _ = play(Cast(), 7.9, lambda now: [(two, pose(1, now))] if now > 1.0 else [])
    settled = passed + round(60 * BLEND) + 5
    np.testing.assert_allclose(frames[settled:, 1:], alone[settled:, 1:], atol=1e-5)
    assert cast.active(7.9) == ["vmc 10.0.0.1", "vmc 10.0.0.2"]


def test_a_person_chooses_the_lead():
    cast = Cast()
    one, two = source(1, "10.0.0.1"), source(1, "10.0.0.2")
    both = lambda now: [(one, pose(0, now)), (two, pose(1, now))]  # noqa: E731
    assert play(cast, 1.0, both)[1][-1] == "vmc 10.0.0.1"
    cast.choose("vmc 10.0.0.2")
    frames, leads = play(cast, 2.0, both, 1.0)
    assert set(leads) == {"vmc 10.0.0.2"} and jumps(frames)[..., :3].max() < 0.1
    assert play(cast, 1.5, lambda now: [(one, pose(0, now))], 3.0)[1][-1] == "vmc 10.0.0.1"  # the wish is away
    assert play(cast, 0.5, both, 4.5)[1][-1] == "vmc 10.0.0.2"
    cast.choose("nobody of this name")
    assert play(cast, 0.5, both, 5.0)[1][-1] == "vmc 10.0.0.2"
    cast.choose(None)
    assert play(cast, 0.5, both, 5.5)[1][-1] == "vmc 10.0.0.2"


def test_changes_in_the_middle_of_a_passage_do_not_jump():
    cast = Cast(fallback=demo)
    one, two = source(1, "10.0.0.1"), source(1, "10.0.0.2")
    names, frames = ["vmc 10.0.0.1", "vmc 10.0.0.2"], []
    for i in range(24):
        cast.choose(names[i % 2])
        frames.append(play(cast, 0.25, lambda now: [(one, pose(0, now)), (two, pose(1, now))], 0.25 * i)[0])
    assert jumps(np.concatenate(frames))[60:, :, :3].max() < 0.1


def test_a_new_port_of_a_silent_host_is_the_same_performer_begun_anew():
    cast = Cast()
    play(cast, 2.0, lambda now: [(source(5000), pose(0, now))])
    start = 2.0 + RESTART + 0.05
    frames, leads = play(cast, 1.0, lambda now: [(source(5001), pose(1, now))], start)
    assert set(leads) == {"vmc 10.0.0.1"} and cast.active(start + 1.0) == ["vmc 10.0.0.1"]
    own = np.abs(np.diff(WORLDS[1][0], axis=0)).max() * 60.0
    assert np.abs(frames[..., 3:6]).max() < 1.5 * own  # the way from one body to the other is no speed


def test_a_second_port_of_a_host_that_sends_is_another_performer():
    cast = Cast()
    play(cast, 1.0, lambda now: [(source(5000), pose(0, now)), (source(5001), pose(1, now)),
                                 (source(5000, kind="mocopi"), pose(1, now))])
    assert cast.active(1.0) == ["vmc 10.0.0.1", "vmc 10.0.0.1 2", "mocopi 10.0.0.1"]


def test_performers_are_bounded_and_the_silent_make_room():
    cast = Cast()
    for i in range(MOST):
        assert cast.update(source(i, f"10.0.1.{i}"), 0.0, pose(0, 0.0))
    assert not cast.update(source(9, "10.0.2.9"), 1.0, pose(0, 1.0))
    assert cast.update(source(9, "10.0.2.9"), FORGOTTEN + 1.0, pose(0, 1.0))
    assert cast.active(FORGOTTEN + 1.0) == ["vmc 10.0.2.9"]


def test_a_joined_player_can_lead():
    class Still:
        """Always there."""

        last = 5.0

        def frame(self, now):
            return np.full((27, 8), 0.25, np.float32)

    cast = Cast()
    cast.join("sensors", Still())
    assert cast.active(5.2) == ["sensors"] and cast.lead is None
    np.testing.assert_array_equal(cast.frame(5.2), 0.25)
    assert cast.lead == "sensors"


def test_frames_are_in_range_whatever_a_player_gives():
    cast = Cast(fallback=lambda now: np.full((27, 8), 1e6))
    assert (np.abs(cast.frame(0.0)) <= RANGES).all()
