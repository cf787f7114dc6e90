"""The limb tree, forward kinematics and the mapping of foreign joint names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import skeleton
from eqdiff_jax.motion.skeleton import LIMB, LIMBS, OFFSETS, PARENTS, REST


def _words(text):
    return text.split()


UNITY = _words(
    "Hips Spine Chest UpperChest Neck Head LeftShoulder LeftUpperArm LeftLowerArm LeftHand"
    " RightShoulder RightUpperArm RightLowerArm RightHand LeftUpperLeg LeftLowerLeg LeftFoot"
    " LeftToes RightUpperLeg RightLowerLeg RightFoot RightToes"
)
UNITY_EXTRA = _words("LeftEye RightEye Jaw LeftThumbProximal RightLittleProximal")
MIXAMO = _words(
    "Hips Spine Spine1 Spine2 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand RightShoulder"
    " RightArm RightForeArm RightHand LeftUpLeg LeftLeg LeftFoot LeftToeBase RightUpLeg RightLeg"
    " RightFoot RightToeBase"
)
CMU = MIXAMO + _words("LHipJoint RHipJoint LowerBack Neck1 LeftFingerBase LeftHandIndex1 LThumb")
BANDAI = _words(
    "joint_Root Hips Spine Chest Neck Head Shoulder_L UpperArm_L LowerArm_L Hand_L Shoulder_R"
    " UpperArm_R LowerArm_R Hand_R UpperLeg_L LowerLeg_L Foot_L Toes_L UpperLeg_R LowerLeg_R Foot_R"
    " Toes_R"
)
POSER = _words(
    "hip abdomen chest neck head leftEye rightEye rCollar rShldr rForeArm rHand rThumb1 lCollar"
    " lShldr lForeArm lHand lIndex1 rButtock rThigh rShin rFoot lButtock lThigh lShin lFoot"
)
_BIPED = _words(
    "Pelvis Spine Spine1 Neck Head L_Clavicle L_UpperArm L_Forearm L_Hand R_Clavicle R_UpperArm"
    " R_Forearm R_Hand L_Thigh L_Calf L_Foot L_Toe0Nub L_Toe R_Thigh R_Calf R_Foot R_Toe"
)
BIPED = ["Bip01", *(f"Bip01 {name.replace('_', ' ')}" for name in _BIPED)]
SMPL = _words(
    "Pelvis L_Hip R_Hip Spine1 L_Knee R_Knee Spine2 L_Ankle R_Ankle Spine3 L_Foot R_Foot Neck"
    " L_Collar R_Collar Head L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hand R_Hand"
)
UNREAL = _words(
    "root pelvis spine_01 spine_02 spine_03 neck_01 head clavicle_l upperarm_l lowerarm_l hand_l"
    " clavicle_r upperarm_r lowerarm_r hand_r thigh_l calf_l foot_l ball_l thigh_r calf_r foot_r"
    " ball_r ik_foot_root ik_foot_l ik_hand_l upperarm_twist_01_l thumb_01_l"
)
SKELETONS = {
    "mocopi": (list(LIMBS), 27),
    "unity": (UNITY + UNITY_EXTRA, 22),
    "mixamo": (["mixamorig:" + name for name in MIXAMO], 22),
    "cmu": (CMU, 24),
    "bandai": (BANDAI, 21),
    "poser": (POSER, 19),
    "biped": (BIPED, 21),
    "smpl": (SMPL, 22),
    "unreal": (UNREAL, 22),
}


def named(names):
    """Limb name -> joint name."""
    joints = skeleton.match(names)
    return {limb: names[joint] for limb, joint in zip(LIMBS, joints, strict=True) if joint >= 0}


def test_the_limbs_are_the_27_in_mocopi_order():
    assert len(LIMBS) == 27
    assert LIMBS[:3] == ("root", "torso_1", "torso_2")
    assert LIMBS[11:15] == ("l_shoulder", "l_up_arm", "l_low_arm", "l_hand")
    assert LIMBS[23:] == ("r_up_leg", "r_low_leg", "r_foot", "r_toes")
    for limb, name in enumerate(LIMBS):
        assert PARENTS[limb] < limb
        if name[:2] in ("l_", "r_") and PARENTS[limb] not in (0, 7):
            assert LIMBS[PARENTS[limb]][:2] == name[:2]


def test_the_rest_body_is_upright_symmetric_and_one_body_high():
    left = [limb for limb, name in enumerate(LIMBS) if name.startswith("l_")]
    right = [LIMB["r" + LIMBS[limb][1:]] for limb in left]
    np.testing.assert_allclose(REST[left] * [-1, 1, 1], REST[right])
    heights = REST[:, 1] + skeleton.REST_HIPS
    assert 0.85 < heights.max() < 1.0
    assert 0.0 < heights.min() < 0.05


@pytest.mark.parametrize("kind", SKELETONS)
def test_known_skeletons_map_fully_and_to_the_right_side(kind):
    names, count = SKELETONS[kind]
    limbs = named(names)
    assert len(limbs) == count
    assert len(set(limbs.values())) == count
    for limb, name in limbs.items():
        bare = name.split(":")[-1].removeprefix("Bip01 ").lower()
        if limb.startswith("l_"):
            assert bare.startswith("l") or bare.endswith("l"), (limb, name)
        elif limb.startswith("r_"):
            assert bare.startswith("r") or bare.endswith("r"), (limb, name)


def test_mocopi_maps_onto_itself():
    np.testing.assert_array_equal(skeleton.match(LIMBS), np.arange(27))


def test_names_that_could_be_two_limbs():
    assert named(BANDAI)["root"] == "Hips"  # joint_Root is the world's origin there
    cmu = named(CMU)
    assert (cmu["l_up_leg"], cmu["l_low_leg"]) == ("LeftUpLeg", "LeftLeg")  # not LHipJoint
    assert (cmu["l_shoulder"], cmu["l_up_arm"]) == ("LeftShoulder", "LeftArm")
    assert (cmu["torso_1"], cmu["torso_7"]) == ("LowerBack", "Spine2")
    smpl = named(SMPL)
    assert (smpl["r_shoulder"], smpl["r_up_arm"]) == ("R_Collar", "R_Shoulder")
    assert (smpl["r_foot"], smpl["r_toes"], smpl["r_hand"]) == ("R_Ankle", "R_Foot", "R_Wrist")
    assert named(UNREAL)["l_foot"] == "foot_l"  # not ik_foot_l
    assert named(["Hip", "LeftShoulder", "LeftElbow", "LeftHip"])["l_up_leg"] == "LeftHip"


def test_short_spines_spread_over_the_torso_in_order():
    unity = named(UNITY)
    assert [unity[f"torso_{i}"] for i in (1, 4, 7)] == ["Spine", "Chest", "UpperChest"]
    assert named(["Hips", "Chest"])["torso_4"] == "Chest"
    long = [f"Spine{i}" for i in range(1, 12)]
    spine = [named(["Hips", *long])[f"torso_{i}"] for i in range(1, 8)]
    assert spine[0] == "Spine1"
    assert spine[-1] == "Spine11"
    assert spine == sorted(spine, key=long.index)


_STYLES = {
    "lower": str.lower,
    "upper": str.upper,
    "namespace": lambda name: f"Actor:{name}",
    "prefix": lambda name: f"Character1_{name}",
    "dashes": lambda name: name.replace("Left", "Left-").replace("Right", "Right-"),
    "initials": lambda name: name.replace("Left", "L_").replace("Right", "R_"),
    "suffix": lambda name: (
        f"{name[4:]}.L" if name[:4] == "Left" else f"{name[5:]}.R" if name[:5] == "Right" else name
    ),
    "vroid": lambda name: (
        f"J_Bip_L_{name[4:]}"
        if name[:4] == "Left"
        else f"J_Bip_R_{name[5:]}"
        if name[:5] == "Right"
        else f"J_Bip_C_{name}"
    ),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([UNITY, MIXAMO]), st.sampled_from(sorted(_STYLES)), st.randoms())
def test_case_separators_prefixes_and_order_do_not_matter(names, style, random):
    order = random.sample(range(len(names)), len(names))
    written = [_STYLES[style](names[place]) for place in order]
    expected = skeleton.match(names)
    joints = skeleton.match(written)
    np.testing.assert_array_equal([order[j] if j >= 0 else -1 for j in joints], expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=40))
def test_any_names_map_to_distinct_joints_or_none(names):
    joints = skeleton.match(names)
    found = joints[joints >= 0]
    assert joints.shape == (27,)
    assert len(set(found.tolist())) == len(found)
    assert (joints < max(len(names), 1)).all()


def test_a_skeleton_without_hips_or_with_six_limbs_is_refused():
    six = ["Hips", "Spine", "Neck", "Head", "LeftHand", "RightHand"]
    with pytest.raises(InputError, match=r"dance\.bvh: only 6 .* 7 are needed"):
        skeleton.require(skeleton.match(six), six, "dance.bvh")
    seven = [*six, "LeftFoot"]
    skeleton.require(skeleton.match(seven), seven, "dance.bvh")
    with pytest.raises(InputError, match="no joint is named like the hips"):
        skeleton.require(skeleton.match(seven[1:]), seven[1:], "dance.bvh")


def test_forward_kinematics_of_the_unrotated_body_is_the_rest_pose():
    still = np.tile([0.0, 0.0, 0.0, 1.0], (3, 27, 1))
    positions, rotations = skeleton.forward_kinematics(PARENTS, OFFSETS, still)
    np.testing.assert_allclose(positions - positions[:, :1], np.tile(REST, (3, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(rotations, still)


def test_forward_kinematics_equals_products_of_4x4_matrices():
    rng = np.random.default_rng(0)
    local = Rotation.random(2 * 27, random_state=0)
    quaternions = local.as_quat().reshape(2, 27, 4)
    translations = rng.normal(size=(2, 27, 3))
    positions, rotations = skeleton.forward_kinematics(PARENTS, translations, quaternions)
    matrices = local.as_matrix().reshape(2, 27, 3, 3)
    for frame in range(2):
        world = []
        for limb, parent in enumerate(PARENTS):
            here = np.eye(4)
            here[:3, :3], here[:3, 3] = matrices[frame, limb], translations[frame, limb]
            world.append(here if parent < 0 else world[parent] @ here)
            np.testing.assert_allclose(positions[frame, limb], world[-1][:3, 3], atol=1e-12)
            turned = Rotation.from_quat(rotations[frame, limb]).as_matrix()
            np.testing.assert_allclose(turned, world[-1][:3, :3], atol=1e-12)
