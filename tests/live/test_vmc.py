"""VMC frames: sides and signs, agreement with an independent forward kinematics, frame ends, clocks, missing bones."""

import numpy as np
import pytest
import senders
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqdiff_jax.live import osc
from eqdiff_jax.live.vmc import BONES, PREFIX, Vmc
from eqdiff_jax.motion.limbs import body_height
from eqdiff_jax.motion.skeleton import LIMB, REST

BONE = "/VMC/Ext/Bone/Pos"
REST_BONES = [(name, (0.0, 0.9 if name == "Hips" else 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)) for name in BONES]


def take(vmc, packet):
    """The poses that a packet ends."""
    return [pose for one in osc.decode(packet) if (pose := vmc.take(*one)) is not None]


def frame(vmc, bones=REST_BONES, end=("/VMC/Ext/T", (1.0,)), **turned):
    """One frame of bones, some of them turned, and the pose that its end gives."""
    for name, place, turn in bones:
        assert vmc.take(BONE, (name, *place, *turned.get(name, turn))) is None
    return vmc.take(*end)


def euler(axis, degrees):
    return tuple(Rotation.from_euler(axis, degrees, degrees=True).as_quat().tolist())


def same_turns(found, expected, atol):
    """Quaternions [..., 4] up to their sign."""
    assert (1.0 - np.abs((found * expected).sum(-1))).max() < atol


def test_the_t_pose_has_its_left_at_positive_x():
    pose = frame(Vmc())
    assert pose.positions[LIMB["l_hand"], 0] > 0.3 and pose.positions[LIMB["r_hand"], 0] < -0.3
    np.testing.assert_allclose(pose.positions[LIMB["l_hand"], 1], pose.positions[LIMB["l_up_arm"], 1], atol=1e-6)
    np.testing.assert_allclose(pose.positions[LIMB["head"]] - pose.positions[0], REST[LIMB["head"]], atol=1e-6)
    assert pose.positions[LIMB["l_toes"], 2] > pose.positions[LIMB["l_foot"], 2]  # the body faces +z
    assert pose.positions[0, 1] == pytest.approx(0.53) and pose.height == 1.0
    assert pose.stamp == 1.0


def test_a_left_arm_raised_in_unity_is_the_left_arm_raised():
    # In Unity's left-handed world the left arm of one who faces +z points along -x; a positive turn about z takes x
    # to y, so it is the negative one that lifts the left arm.
    up = euler("z", -80)
    pose = frame(Vmc(), LeftUpperArm=up)
    left, right = LIMB["l_hand"], LIMB["r_hand"]
    shoulder = pose.positions[LIMB["l_up_arm"]]
    reach = np.linalg.norm(pose.positions[left] - shoulder)
    assert pose.positions[left, 1] == pytest.approx(shoulder[1] + reach * np.sin(np.radians(80)), abs=1e-6)
    assert pose.positions[left, 0] > shoulder[0]
    assert pose.positions[right, 1] == pytest.approx(pose.positions[LIMB["r_up_arm"], 1], abs=1e-6)
    # and swung forward: about Unity's y the left arm comes forward by a positive turn, from -x to +z
    pose = frame(Vmc(), LeftUpperArm=euler("y", 70))
    assert pose.positions[left, 2] > shoulder[2] + 0.25


def test_unitys_turn_to_its_right_is_ours():
    pose = frame(Vmc(), Hips=euler("y", 90))
    front = pose.positions[LIMB["l_toes"]] - pose.positions[LIMB["l_foot"]]
    np.testing.assert_allclose(front, [-0.1, -0.03, 0.0], atol=1e-6)  # right of one who faced +z is -x


@pytest.mark.parametrize("metres", [None, 1.2])
def test_agrees_with_forward_kinematics(metres):
    dance = senders.body(1.0)
    size = 1.7 if metres is None else metres
    positions, rotations = dance.world(1.0 if metres is None else size)
    vmc, poses = Vmc(), []
    for i in range(len(dance.times)):
        poses += take(vmc, senders.vmc_packet(dance, i, metres=metres))
    np.testing.assert_allclose([pose.stamp for pose in poses[1:]], dance.times[:-1], atol=1e-6)  # OK comes before T
    found = np.stack([pose.positions for pose in poses])
    if metres is None:  # the first height of the hips is taken for that of one who stands
        assert found[0, 0, 1] == pytest.approx(0.53)
        np.testing.assert_allclose(found[:, 0], positions[:, 0] * 0.53 / positions[0, 0, 1], atol=2e-6)
        found, positions = found - found[:, :1], positions - positions[:, :1]
    np.testing.assert_allclose(found, positions, atol=2e-6)
    same_turns(np.stack([pose.rotations for pose in poses]), rotations, 1e-6)
    named = [LIMB[limb] for limb in senders.BONES.values()]
    for pose in poses:
        assert pose.height == (1.0 if metres is None else None)
        np.testing.assert_array_equal(pose.confidence[named], 1.0)
        assert pose.confidence.sum() == len(named)
    if metres is not None:
        tracked = poses[0].confidence > 0.0
        stack = np.stack([pose.positions for pose in poses])
        assert body_height(stack, tracked) == pytest.approx(metres, rel=1e-4)


def test_missing_bones_go_with_their_parent_without_confidence():
    dance = senders.body(0.5)
    missing = ("UpperChest", "LeftShoulder", "RightShoulder", "LeftToes", "Neck")
    few = tuple(bone for bone in senders.BONES if bone not in missing)
    for name in missing:
        dance.local[:, LIMB[senders.BONES[name]]] = (0.0, 0.0, 0.0, 1.0)
    for metres in (None, 1.5):
        positions, rotations = dance.world(metres or 1.0)
        vmc = Vmc()
        poses = [pose for i in range(len(dance.times))
                 for pose in take(vmc, senders.vmc_packet(dance, i, metres=metres, bones=few))]
        for pose, truth, turns in zip(poses, positions, rotations, strict=True):
            found = pose.positions - pose.positions[0]
            for name in few + ("LeftToes",):
                limb = LIMB[senders.BONES[name]]
                np.testing.assert_allclose(found[limb], truth[limb] - truth[0], atol=2e-6)
            for limb in ("torso_6", "neck_1", "l_shoulder", "l_toes"):
                assert pose.confidence[LIMB[limb]] == 0.0
                assert np.abs(found[LIMB[limb]] - (truth[LIMB[limb]] - truth[0])).max() < 0.03 * (metres or 1.0)
            same_turns(pose.rotations[LIMB["l_toes"]], turns[LIMB["l_foot"]], 1e-6)


def test_no_pose_without_hips():
    assert frame(Vmc(), [bone for bone in REST_BONES if bone[0] != "Hips"]) is None


def test_root_places_and_turns_the_body():
    vmc = Vmc()
    turn = euler("y", -90)
    vmc.take("/VMC/Ext/Root/Pos", ("root", 1.0, 0.0, 2.0, *turn, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0))  # v2.1 says more
    placed, plain = frame(vmc), frame(Vmc())
    unit = 0.53 / 0.9
    np.testing.assert_allclose(placed.positions[0], [-unit, 0.53, 2.0 * unit], atol=1e-6)
    across = placed.positions[LIMB["l_up_arm"]] - placed.positions[LIMB["r_up_arm"]]
    before = plain.positions[LIMB["l_up_arm"]] - plain.positions[LIMB["r_up_arm"]]
    np.testing.assert_allclose(across, [0.0, 0.0, -before[0]], atol=1e-6)  # Unity's left turn: the left goes back


@pytest.mark.parametrize(("args", "usable"), [
    ((1,), True), ((0,), False), ((1, 3), True), ((1, 0, 0), False), ((1, 2, 0), False), ((1, 3, 2, 1), True),
    ((1, 3, 0, 0), False), ((1, 3, 0, 1, 5, "more"), True), ((), False), (("yes",), False)])
def test_ok_says_whether_the_pose_is_worth_anything(args, usable):
    vmc = Vmc()
    vmc.take("/VMC/Ext/OK", args)
    pose = frame(vmc)
    assert (pose.confidence.sum() > 0.0) == usable
    vmc.take("/VMC/Ext/OK", (1,))
    assert frame(vmc, end=("/VMC/Ext/T", (2.0,))).confidence.sum() == len(BONES)


def streamed(order, count=12):
    """(frame whose arm it shows, its stamp, frame during which it came) of each pose, from a sender of this order."""
    vmc, poses = Vmc(), []
    for i in range(count):
        angle = 0.1 * i
        lifted = euler("z", -np.degrees(angle))
        bones = [(BONE, (name, *place, *(lifted if name == "LeftUpperArm" else turn)))
                 for name, place, turn in REST_BONES]
        parts = {"T": [("/VMC/Ext/T", (i / 60.0,))], "OK": [("/VMC/Ext/OK", (1,))], "bones": bones,
                 "blend": [("/VMC/Ext/Blend/Val", ("Joy", 0.5)), ("/VMC/Ext/Blend/Apply", ())]}
        for part in order:
            for one in parts[part]:
                pose = vmc.take(*one)
                if pose is not None:
                    turn = pose.rotations[LIMB["l_up_arm"]]
                    poses.append((round(2.0 * np.arcsin(turn[2]) / 0.1), pose.stamp, i))
    return poses


@pytest.mark.parametrize("order", [("bones", "T"), ("bones", "blend", "OK", "T"), ("T", "bones"), ("OK", "T", "bones"),
                                   ("T", "OK", "bones"), ("bones", "T", "OK"), ("bones", "OK"), ("OK", "bones"),
                                   ("bones",), ("blend", "bones")])
def test_each_order_gives_each_frame_once_and_in_time(order):
    poses = streamed(order)
    shown = [number for number, _, _ in poses]
    assert shown == sorted(set(shown)) and set(range(1, 11)) <= set(shown)
    assert all(came == number for number, _, came in poses[2:])  # from then on within its own frame
    stamps = [stamp for _, stamp, _ in poses[2:]]
    if "T" in order:  # the time of this frame or of the one before, always the same one
        late = {round(60.0 * stamp) - number for (number, _, _), stamp in zip(poses[2:], stamps, strict=True)}
        assert late in ({0}, {-1})
    else:
        assert stamps == [None] * len(stamps)


def test_a_lost_bone_keeps_its_turn_and_then_is_missing():
    vmc, arm = Vmc(), LIMB["l_up_arm"]
    up = euler("z", -80)
    held = frame(vmc, LeftUpperArm=up)
    rest = [bone for bone in REST_BONES if bone[0] != "LeftUpperArm"]
    pose = frame(vmc, rest, ("/VMC/Ext/T", (1.1,)))
    np.testing.assert_allclose(pose.positions[LIMB["l_hand"]], held.positions[LIMB["l_hand"]], atol=1e-9)
    assert pose.confidence[arm] == 1.0
    poses = [pose for i in range(30) for name, place, turn in [*rest, ("T", (1.2 + i,), ())]
             if (pose := vmc.take("/VMC/Ext/T", place) if name == "T" else vmc.take(BONE, (name, *place, *turn)))]
    assert poses[-1].confidence[arm] == 0.0 and poses[0].confidence[arm] == 1.0
    assert poses[-1].positions[LIMB["l_hand"], 1] == pytest.approx(poses[-1].positions[LIMB["l_up_arm"], 1], abs=0.05)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from([BONE, "/VMC/Ext/Root/Pos", "/VMC/Ext/OK", "/VMC/Ext/T", PREFIX + "Blend/Val", PREFIX, "/other"]),
    st.lists(st.one_of(st.sampled_from([*BONES, "LeftIndexProximal"]), st.integers(-(2**63), 2**63 - 1), st.booleans(),
                       st.floats(allow_nan=False, allow_infinity=False, width=32), st.none(), st.binary(max_size=4)),
             max_size=10)), max_size=40))
def test_whatever_is_said_is_a_finite_pose_or_nothing(messages):
    vmc = Vmc()
    for address, args in messages:
        pose = vmc.take(address, tuple(args))
        if pose is not None:
            assert np.isfinite(pose.positions).all() and np.isfinite(pose.rotations).all()


def test_fingers_and_faces_are_ignored():
    vmc = Vmc()
    plain = frame(Vmc())
    for address, args in (("/VMC/Ext/Blend/Val", ("Joy", 1.0)), (BONE, ("LeftIndexProximal", *[0.1] * 6, 1.0)),
                          (BONE, ("LastBone", *[0.0] * 7)), ("/VMC/Ext/Hmd/Pos", ("x", *[1.0] * 7)),
                          (BONE, ("Hips", 0.0)),
                          (BONE, ("Head", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)), (BONE, ()), ("/VMC/Ext/Cam", (3,))):
        assert vmc.take(address, args) is None
    np.testing.assert_array_equal(frame(vmc).positions, plain.positions)
