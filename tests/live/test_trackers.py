"""VRChat trackers: angles, who is worn where whatever their numbers, what the rest of the body does, dropouts."""

import numpy as np
import pytest
import senders
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqdiff_jax.live import osc
from eqdiff_jax.live.trackers import GUESSED, SETTLE, Trackers, euler
from eqdiff_jax.motion.skeleton import LIMB, REST, REST_HIPS, forward_kinematics
from eqdiff_jax.motion.skeleton import OFFSETS as HANGING
from eqdiff_jax.motion.skeleton import PARENTS as TREE

WORN = {"head": "head", "1": "r_foot", "2": "l_foot", "3": "root"}
FULL = WORN | {"4": "torso_6", "5": "l_low_arm", "6": "r_low_arm", "7": "r_low_leg", "8": "l_low_leg"}


def standing(turn=0.0, place=(0.0, 0.0), height=1.7, **angles):
    """World pose of a standing body that faces `turn`, with some limbs turned (Euler degrees xyz)."""
    local = np.tile([0.0, 0.0, 0.0, 1.0], (1, 27, 1))
    local[0, 0] = Rotation.from_euler("y", turn).as_quat()
    for limb, angle in angles.items():
        local[0, LIMB[limb]] = Rotation.from_euler("xyz", angle, degrees=True).as_quat()
    bones = height * HANGING
    bones[0] = (place[0], height * REST_HIPS, place[1])
    positions, rotations = forward_kinematics(TREE, bones, local)
    return positions[0], rotations[0]


def send(trackers, positions, rotations, worn, skip=()):
    """A frame, one datagram a message; the poses it gives."""
    poses = []
    for one in senders.tracker_messages(positions, rotations, {name: LIMB[limb] for name, limb in worn.items()}):
        ((address, args),) = osc.decode(one.dgram)
        pose = trackers.take(address, args) if address not in skip else None
        if pose is not None:
            poses.append(pose)
    return poses


def settled(worn=FULL, **how):
    """Trackers that know where they are worn, and the last pose."""
    trackers, poses = Trackers(), []
    for _ in range(SETTLE + 3):
        poses += send(trackers, *standing(**how), worn)
    return trackers, poses[-1]


@given(st.floats(-180, 180), st.floats(-180, 180), st.floats(-180, 180))
@settings(deadline=None)
def test_euler_angles_are_unitys(x, y, z):
    left_handed = Rotation.from_euler("YXZ", [y, x, z], degrees=True).as_quat()
    expected = senders.unity(np.zeros(3), left_handed)[1]
    assert abs(np.dot(euler(x, y, z), expected)) == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(1, 9)), st.floats(-3.0, 3.0), st.floats(-2.0, 2.0), st.floats(1.2, 2.1))
def test_trackers_find_their_limbs_whatever_their_numbers(order, turn, side, height):
    worn = {"head": "head"} | {str(number): limb for number, limb in zip(order, list(FULL.values())[1:], strict=True)}
    _, pose = settled(worn, turn=turn, place=(side, 0.5), height=height)
    truth, turns = standing(turn, (side, 0.5), height)
    for limb in worn.values():
        np.testing.assert_allclose(pose.positions[LIMB[limb]], truth[LIMB[limb]], atol=1e-5)
        assert pose.confidence[LIMB[limb]] == 1.0
        assert abs(pose.rotations[LIMB[limb]] @ turns[LIMB[limb]]) == pytest.approx(1.0, abs=1e-5)
    assert pose.confidence.sum() == 9.0
    assert pose.height == pytest.approx(height, rel=1e-5)


def test_a_raised_left_foot_is_the_left_foot():
    trackers, _ = settled(WORN)
    positions, rotations = standing(l_up_leg=(-80, 0, 0))
    pose = [*send(trackers, positions, rotations, WORN), *send(trackers, positions, rotations, WORN)][-1]
    left, right = pose.positions[LIMB["l_foot"]], pose.positions[LIMB["r_foot"]]
    np.testing.assert_allclose(left, positions[LIMB["l_foot"]], atol=1e-5)
    assert left[1] > right[1] + 0.5 and left[2] > 0.7
    knee = pose.positions[LIMB["l_low_leg"]]  # between hip and foot, and not vouched for
    assert left[1] > knee[1] or knee[1] > right[1]
    assert pose.confidence[LIMB["l_low_leg"]] == 0.0


def test_what_nobody_wears_stands_with_the_rest():
    _, pose = settled(WORN)
    truth, _ = standing()
    assert np.abs(pose.positions - truth).max() < 0.08
    assert pose.confidence.sum() == 4.0


def test_hips_follow_from_the_head_where_they_are_not_worn():
    worn = {"head": "head", "1": "l_foot", "2": "r_foot"}
    _, pose = settled(worn, turn=1.0)
    np.testing.assert_allclose(pose.positions[0], (0.0, 1.7 * REST_HIPS, 0.0), atol=1e-4)
    assert pose.confidence[0] == GUESSED
    for limb in ("l_foot", "r_foot"):
        assert pose.confidence[LIMB[limb]] == 1.0


def test_elbows_are_found_with_the_arms_out_too():
    out = {"l_up_arm": (0, 0, 85), "r_up_arm": (0, 0, -85)}
    _, pose = settled(FULL, **out)
    truth, _ = standing(**out)
    for limb in ("l_low_arm", "r_low_arm", "torso_6"):
        np.testing.assert_allclose(pose.positions[LIMB[limb]], truth[LIMB[limb]], atol=1e-5)


def test_no_pose_before_it_is_known_who_is_worn_where():
    trackers = Trackers()
    for frame in range(SETTLE):
        assert send(trackers, *standing(), WORN) == [], frame


def test_a_dropped_message_holds_its_value():
    trackers, before = settled(WORN)
    positions, rotations = standing(l_up_leg=(-80, 0, 0))
    lost = ("/tracking/trackers/2/position",)
    poses = send(trackers, positions, rotations, WORN, lost) + send(trackers, positions, rotations, WORN, lost)
    np.testing.assert_allclose(poses[0].positions[LIMB["l_foot"]], before.positions[LIMB["l_foot"]])
    assert poses[0].confidence.sum() == 4.0
    poses = [pose for _ in range(12) for pose in send(trackers, positions, rotations, WORN)]
    np.testing.assert_allclose(poses[-1].positions[LIMB["l_foot"]], positions[LIMB["l_foot"]], atol=1e-5)


def test_each_frame_comes_within_itself():
    trackers, _ = settled(FULL)
    for _ in range(20):
        assert len(send(trackers, *standing(), FULL)) == 1


NUMBERS = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1))
NAMES = ["head/position", "head/rotation", "1/position", "3/rotation", "9/position", "1/position/x", "", "2/position"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES),
                          st.lists(st.one_of(NUMBERS, st.text(max_size=2), st.none()), max_size=4)), max_size=200))
def test_whatever_is_said_is_a_finite_pose_or_nothing(messages):
    trackers = Trackers()
    for name, args in messages * 3:
        pose = trackers.take(f"/tracking/trackers/{name}", tuple(args))
        if pose is not None:
            assert np.isfinite(pose.positions).all() and np.isfinite(pose.rotations).all()


def test_rest_is_what_the_roles_were_taken_from():
    truth, _ = standing(height=1.0)
    np.testing.assert_allclose(truth - truth[0], REST, atol=1e-9)
