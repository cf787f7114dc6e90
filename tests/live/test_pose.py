"""Bodies from parts: frames that arrive piece by piece, limbs nobody reports, bodies of points."""

import numpy as np
import pytest
import senders
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqdiff_jax.live import pose
from eqdiff_jax.live.pose import FORGET, HANGING, Gather, complete, from_points
from eqdiff_jax.motion.skeleton import LIMB, OFFSETS, PARENTS, REST

UNIT = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1).map(
    lambda q: tuple((np.array(q) / np.linalg.norm(q)).tolist()))
VECTOR = st.tuples(*[st.floats(-3, 3)] * 3)


@given(UNIT, UNIT, VECTOR)
def test_quaternions_agree_with_scipy(p, q, v):
    first, second = Rotation.from_quat(p), Rotation.from_quat(q)
    assert abs(np.dot(pose.product(p, q), (first * second).as_quat())) == pytest.approx(1.0)
    np.testing.assert_allclose(pose.rotated(p, v), first.apply(v), atol=1e-9)
    np.testing.assert_allclose(pose.rotated(pose.inverse(p), pose.rotated(p, v)), v, atol=1e-9)
    place, turn = pose.mirrored(v, p)
    flip = np.diag([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(Rotation.from_quat(turn).as_matrix(), flip @ first.as_matrix() @ flip, atol=1e-9)
    np.testing.assert_allclose(place, flip @ v)


def test_unusable_rotations_are_told():
    assert pose.normalised((0.0, 0.0, 0.0, 0.0)) is None and pose.normalised((1e30, 0.0, 0.0, 1.0)) is None
    np.testing.assert_allclose(pose.normalised((0.0, 0.0, 3.0, 4.0)), (0.0, 0.0, 0.6, 0.8))


def test_a_frame_ends_with_a_repetition_and_later_with_its_last_part():
    parts = Gather()
    assert not any([parts.add("a", 1), parts.complete, parts.add("b", 2), parts.complete])
    assert parts.add("a", 3) == {"a": 1, "b": 2}
    assert not parts.complete
    parts.add("b", 4)
    assert parts.complete and parts.end() == {"a": 3, "b": 4}


def test_a_lost_part_keeps_its_value_and_is_then_forgotten():
    parts = Gather()
    parts.add("a", 1), parts.add("b", 2), parts.end()
    ends = [parts.add("b", i) for i in range(FORGET + 3)]
    assert ends[1] == {"a": 1, "b": 0} and ends[FORGET] == {"a": 1, "b": FORGET - 1}
    assert ends[-1] == {"b": FORGET + 1}


def test_known_limbs_stay_and_the_others_lie_between():
    known = {0: (0.0, 1.0, 0.0), LIMB["l_foot"]: (0.3, 0.5, 0.4), LIMB["head"]: (0.0, 1.4, 0.1)}
    places, turns = complete(known, {0: (0.0, 1.0, 0.0, 0.0)}, offsets=HANGING)
    for limb, place in known.items():
        np.testing.assert_array_equal(places[limb], place)
    line = places[[0, 19, 20, 21]] - places[0]
    assert np.linalg.matrix_rank(line, tol=1e-9) == 1
    lengths = np.linalg.norm(OFFSETS[19:22], axis=1)
    assert np.linalg.norm(line[2]) / np.linalg.norm(line[3]) == pytest.approx(lengths[:2].sum() / lengths.sum())
    np.testing.assert_array_equal(turns[LIMB["l_toes"]], (0.0, 0.0, 0.0, 1.0))  # turns with the known foot
    np.testing.assert_array_equal(turns[LIMB["r_toes"]], (0.0, 1.0, 0.0, 0.0))  # turns with the hips
    np.testing.assert_allclose(places[LIMB["r_foot"]] - places[0], REST[LIMB["r_foot"]] * (-1, 1, -1), atol=1e-12)


def points_of(positions):
    parts = ("up_arm", "low_arm", "hand", "up_leg", "low_leg", "foot", "toes")
    limbs = [LIMB["head"], *(LIMB[f"{side}_{part}"] for side in "lr" for part in parts)]
    return {limb: tuple(positions[limb]) for limb in limbs}


def test_a_body_of_points_has_its_limbs_there_and_turns_with_them():
    positions, _ = senders.body(1.0, size=0.2).world()
    poses = [from_points(points_of(frame), {LIMB["l_hand"]: 0.3}) for frame in positions]
    for found, frame in zip(poses, positions, strict=True):
        for limb, place in points_of(frame).items():
            np.testing.assert_allclose(found.positions[limb], place)
        np.testing.assert_allclose(found.positions[0], frame[[19, 23]].mean(0), atol=1e-9)
        assert found.confidence[LIMB["l_hand"]] == 0.3 and found.confidence[0] == 1.0
        assert found.confidence[LIMB["torso_3"]] == 0.0
        np.testing.assert_allclose(np.linalg.norm(found.rotations, axis=-1), 1.0, atol=1e-9)
        for limb in (LIMB["l_up_arm"], LIMB["r_low_leg"]):
            child = PARENTS.tolist().index(limb)
            aim = Rotation.from_quat(found.rotations[limb]).apply(OFFSETS[child])
            bone = frame[child] - frame[limb]
            np.testing.assert_allclose(aim / np.linalg.norm(aim), bone / np.linalg.norm(bone), atol=1e-6)


def test_a_turned_body_of_points_turns_all_its_limbs():
    rest = {limb: tuple(place) for limb, place in points_of(REST).items()}
    yaw = Rotation.from_euler("y", 1.0)
    turned = {limb: tuple(yaw.apply(place)) for limb, place in rest.items()}
    before, after = from_points(rest, {}), from_points(turned, {})
    angles = (Rotation.from_quat(before.rotations).inv() * Rotation.from_quat(after.rotations)).magnitude()
    np.testing.assert_allclose(angles, 1.0, atol=1e-6)


def test_no_body_without_hips():
    assert from_points({LIMB["head"]: (0.0, 1.0, 0.0)}, {}) is None


def test_points_that_coincide_are_still_a_pose():
    found = from_points(dict.fromkeys(points_of(REST), (0.0, 0.0, 0.0)), {})
    assert np.isfinite(found.positions).all() and np.isfinite(found.rotations).all()
