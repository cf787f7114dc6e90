"""Limb features: invariances, resampling, gaps, cleaning and recorded frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import limbs as limbs_module
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME, clean, from_world, headings, load
from eqdiff_jax.motion.resample import RATE, resample
from eqdiff_jax.motion.skeleton import LIMB, OFFSETS, PARENTS, REST, forward_kinematics

ARMS = slice(11, 19)


def world(fps=60.0, seconds=2.0, height=1.0, still=False):
    """Times [F], poses and full confidence of a smooth walk in a circle with waving limbs."""
    times = np.arange(int(round(fps * seconds)) + 1) / fps
    clock = np.zeros_like(times) if still else times
    rates = np.random.default_rng(0).uniform(2.0, 6.0, (27, 3))
    angles = 0.3 * np.sin(rates * clock[:, None, None])
    angles[:, 0] = np.stack([0 * clock, 0.8 * clock, 0.05 * np.sin(4.0 * clock)], axis=-1)
    local = Rotation.from_rotvec(angles.reshape(-1, 3)).as_quat().reshape(-1, 27, 4)
    translations = np.tile(OFFSETS, (len(times), 1, 1))
    translations[:, 0, 0] += np.sin(clock)
    translations[:, 0, 2] += np.cos(clock)
    positions, rotations = forward_kinematics(PARENTS, height * translations, local)
    return times, positions, rotations, np.ones(positions.shape[:2])


def moved(poses, turn=0.0, shift=(0.0, 0.0, 0.0)):
    """The same performance after turning the world about y and shifting it."""
    times, positions, rotations, confidence = poses
    yaw = Rotation.from_euler("y", turn)
    turned = (yaw * Rotation.from_quat(rotations.reshape(-1, 4))).as_quat().reshape(rotations.shape)
    positions = yaw.apply(positions.reshape(-1, 3)).reshape(positions.shape) + np.asarray(shift)
    return times, positions, turned, confidence


def test_features_of_the_rest_pose():
    local = np.tile([0.0, 0.0, 0.0, 1.0], (4, 27, 1))
    positions, rotations = forward_kinematics(PARENTS, OFFSETS, local)
    limbs = from_world(np.arange(4) / RATE, positions, rotations, np.ones((4, 27)))
    assert limbs.shape == (4, 27, 8)
    assert limbs.dtype == np.float32
    np.testing.assert_allclose(limbs[:, :, :3], np.tile(REST, (4, 1, 1)), atol=1e-6)
    np.testing.assert_array_equal(limbs[..., 3:7], 0.0)
    np.testing.assert_array_equal(limbs[..., 7], 1.0)


@settings(max_examples=25, deadline=None)
@given(
    turn=st.floats(-10.0, 10.0),
    x=st.floats(-50.0, 50.0),
    y=st.floats(-2.0, 2.0),
    z=st.floats(-50.0, 50.0),
)
def test_turning_and_shifting_the_world_change_nothing(turn, x, y, z):
    poses = world(seconds=0.5)
    before, after = from_world(*poses), from_world(*moved(poses, turn, (x, y, z)))
    np.testing.assert_allclose(after, before, atol=2e-5)


@pytest.mark.parametrize("unit", [1.0, 1.7, 170.0, 67.0])
def test_the_length_unit_does_not_matter(unit):
    np.testing.assert_allclose(from_world(*world(height=unit)), from_world(*world()), atol=1e-5)


def test_velocity_is_the_worlds_seen_from_the_heading():
    """A statue carried along at 2 body heights/s in the world, facing 90 degrees to its left."""
    times, positions, rotations, confidence = moved(world(still=True), turn=np.pi / 2)
    positions = positions + 2.0 * times[:, None, None] * np.array([1.0, 0.0, 0.0])
    limbs = from_world(times, positions, rotations, confidence)
    # it faces +x now, so it travels forwards: +z in its own frame, every limb alike
    expected = np.tile([0.0, 0.0, 2.0], (*limbs.shape[:2], 1))
    np.testing.assert_allclose(limbs[..., 3:6], expected, atol=1e-4)
    np.testing.assert_allclose(limbs[..., 6], 0.0, atol=1e-4)


def test_angular_speed_of_a_spinning_statue():
    times, positions, rotations, confidence = world(still=True)
    spin = Rotation.from_euler("y", 3.0 * times[:, None])
    for limb in range(27):
        positions[:, limb] = spin.apply(positions[:, limb])
        rotations[:, limb] = (spin * Rotation.from_quat(rotations[:, limb])).as_quat()
    limbs = from_world(times, positions, rotations, confidence)
    np.testing.assert_allclose(limbs[..., 6], 3.0, atol=1e-4)
    np.testing.assert_allclose(limbs[:, 1:, :3] - limbs[0, 1:, :3], 0.0, atol=1e-5)


def test_a_still_body_has_no_rates():
    limbs = from_world(*world(still=True))
    np.testing.assert_allclose(limbs[..., 3:7], 0.0, atol=1e-6)


def test_the_hips_slot_is_the_height_above_rest():
    times, positions, rotations, confidence = world(still=True)
    rest = from_world(times, positions, rotations, confidence, height=1.0, rest_hips=0.53)
    lower = positions - np.array([0.0, 0.1, 0.0])
    limbs = from_world(times, lower, rotations, confidence, height=1.0, rest_hips=0.53)
    change = limbs[:, 0, :3] - rest[:, 0, :3]
    np.testing.assert_allclose(change, [[0.0, -0.1, 0.0]] * len(limbs), atol=1e-6)
    np.testing.assert_allclose(limbs[:, 1:], rest[:, 1:], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_signs_of_quaternions_do_not_matter(seed):
    times, positions, rotations, confidence = world(fps=30.0, seconds=0.5)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (*rotations.shape[:2], 1))
    flipped = from_world(times, positions, signs * rotations, confidence)
    plain = from_world(times, positions, rotations, confidence)
    np.testing.assert_allclose(flipped, plain, atol=1e-5)


@pytest.mark.parametrize("fps", [30.0, 50.0, 120.0, 1000.0 / 7.0])
def test_frame_rates_agree(fps):
    exact, other = from_world(*world(fps=60.0)), from_world(*world(fps=fps))
    frames = min(len(exact), len(other))
    assert abs(len(exact) - len(other)) <= 1
    gap = np.abs(other[:frames] - exact[:frames]).max(axis=1)  # [T, 8]
    assert gap[:, :3].max() < 3e-3
    assert gap[8:-8, 3:6].max() < 0.03
    assert gap[:, 3:6].max() < 0.15  # a spline's ends are freer
    # slerp turns at a constant speed between samples: at 30 fps angular speed goes in stairs
    assert gap[:, 6].max() < (1.0 if fps < 50.0 else 0.25)


def test_resampling_at_60_hz_is_the_identity_and_keeps_uneven_time():
    poses = world(seconds=1.0)
    for given_, resampled in zip(poses[1:], resample(*poses), strict=True):
        np.testing.assert_allclose(np.abs(resampled), np.abs(given_), atol=1e-9)
    times = np.sort(np.concatenate([[0.0, 1.0], np.random.default_rng(1).uniform(0, 1, 60)]))
    line = times[:, None, None] * np.ones((1, 27, 3))
    turned = Rotation.from_euler("x", times[:, None]).as_quat()[:, None] * np.ones((1, 27, 1))
    positions, rotations, _ = resample(times, line, turned, np.ones((62, 27)))
    clock = np.arange(61) / 60.0
    np.testing.assert_allclose(positions, np.tile(clock[:, None, None], (1, 27, 3)), atol=1e-9)
    angle = Rotation.from_quat(rotations[:, 5]).as_rotvec()[:, 0]
    np.testing.assert_allclose(angle, clock, atol=1e-9)


def test_a_frame_depends_on_itself_and_the_one_before():
    times, positions, rotations, confidence = world()
    options = {"height": 1.0, "rest_hips": 0.53}
    whole = from_world(times, positions, rotations, confidence, **options)
    pair = [array[40:42] for array in (times, positions, rotations, confidence)]
    np.testing.assert_allclose(from_world(*pair, **options)[1], whole[41], atol=1e-5)


def rolling(times):
    """A body that rolls sideways over the floor: its left-right axis is vertical twice a turn."""
    _, positions, rotations, confidence = world(still=True, seconds=times[-1])
    roll = Rotation.from_euler("z", np.pi * times[:, None])
    positions = np.stack([roll.apply(positions[:, limb]) for limb in range(27)], axis=1)
    return times, positions, rotations, confidence


def test_the_heading_is_continuous_when_the_body_rolls():
    times = np.arange(241) / RATE
    _, positions, _, _ = rolling(times)
    heading = headings(positions, np.ones(27, bool))
    assert np.abs(np.diff(heading)).max() <= limbs_module.TURN / RATE + 1e-9
    lying = np.abs(np.cos(np.pi * times)) < 0.05  # the axis is nearly vertical
    assert np.abs(np.diff(heading))[lying[1:]].max() < 0.02


def test_the_heading_follows_a_spin_without_wrapping():
    times, positions, _, _ = world(still=True)
    spin = Rotation.from_euler("y", 12.0 * times[:, None])  # nearly two turns per second
    turned = np.stack([spin.apply(positions[:, limb]) for limb in range(27)], axis=1)
    heading = headings(turned, np.ones(27, bool))
    np.testing.assert_allclose(np.diff(heading), 12.0 / RATE, atol=1e-9)


def test_without_left_and_right_there_is_no_heading():
    _, positions, _, _ = world()
    tracked = np.ones(27, bool)
    tracked[[LIMB["l_up_leg"], LIMB["r_up_arm"], LIMB["l_shoulder"]]] = False
    np.testing.assert_array_equal(headings(positions, tracked), 0.0)


def test_unreported_limbs_stand_at_rest_with_confidence_zero():
    times, positions, rotations, confidence = world()
    confidence[:, ARMS] = 0.0
    positions[:, ARMS] = np.nan
    limbs = from_world(times, positions, rotations, confidence)
    np.testing.assert_array_equal(limbs[:, ARMS], np.tile(REST_FRAME[ARMS], (len(limbs), 1, 1)))
    assert (limbs[:, 19:, 7] == 1.0).all()


def test_a_gap_is_bridged_without_a_jolt():
    times, positions, rotations, confidence = world()
    whole = from_world(times, positions, rotations, confidence)
    hand = LIMB["l_hand"]
    positions[30:36, hand] = np.nan
    limbs = from_world(times, positions, rotations, confidence)
    np.testing.assert_array_equal(limbs[30:36, hand, 7], 0.0)
    np.testing.assert_array_equal(limbs[30:36, hand, :3], np.tile(limbs[29, hand, :3], (6, 1)))
    assert np.abs(limbs[:, hand, 3:6]).max() < 1.5 * np.abs(whole[:, hand, 3:6]).max() + 0.1
    others = np.arange(27) != hand
    np.testing.assert_allclose(limbs[:, others], whole[:, others], atol=1e-6)


def test_a_frame_without_hips_shows_nothing():
    times, positions, rotations, confidence = world()
    positions[50, 0] = np.inf
    limbs = from_world(times, positions, rotations, confidence)
    np.testing.assert_array_equal(limbs[50, :, 7], 0.0)
    assert (limbs[51, :, 7] == 1.0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.full((121, 27, 3), np.nan)}, "no frame shows the hips"),
        ({"positions": np.zeros((121, 27, 3))}, "all limbs lie in one point"),
        ({"positions": np.zeros((121, 26, 3))}, r"positions has shape \[121, 26, 3\]"),
        ({"times": np.zeros(121)}, "strictly increasing"),
        ({"times": np.linspace(0, 1e6, 121)}, "longer than 7200 s"),
        ({"times": np.zeros(0)}, "shape"),
    ],
)
def test_poses_that_are_refused(change, message):
    poses = dict(zip(("times", "positions", "rotations", "confidence"), world(), strict=True))
    with pytest.raises(InputError, match=message):
        from_world(**{**poses, **change})


anything = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, st.sampled_from([(1, 27, 8), (4, 27, 8)]), elements=anything))
def test_clean_is_finite_in_range_and_idempotent(limbs):
    if not np.isfinite(limbs).all(axis=-1).any():
        with pytest.raises(InputError, match="no limb is finite"):
            clean(limbs)
        return
    cleaned = clean(limbs)
    assert cleaned.dtype == np.float32
    assert (np.abs(cleaned) <= RANGES).all()
    assert (cleaned[..., 6:] >= 0.0).all()
    bad = ~np.isfinite(limbs).all(axis=-1)
    np.testing.assert_array_equal(cleaned[bad][:, 7], 0.0)
    np.testing.assert_array_equal(clean(cleaned), cleaned)


def test_clean_holds_the_last_good_frame_while_its_rates_fade():
    limbs = from_world(*world())
    broken = limbs.copy()
    broken[10:16, 3, 5] = np.nan
    broken[:2, 4, 0] = np.inf
    cleaned = clean(broken)
    for age in range(1, 7):
        np.testing.assert_array_equal(cleaned[9 + age, 3, :3], limbs[9, 3, :3])
        faded = limbs[9, 3, 3:7] * 0.5 ** (age / limbs_module.DECAY)
        np.testing.assert_allclose(cleaned[9 + age, 3, 3:7], faded, rtol=1e-5)
    np.testing.assert_array_equal(cleaned[:2, 4], np.tile(REST_FRAME[4], (2, 1)))
    untouched = np.ones((len(limbs), 27), bool)
    untouched[10:16, 3], untouched[:2, 4] = False, False
    np.testing.assert_array_equal(cleaned[untouched], limbs[untouched])


def test_a_limb_that_stays_broken_for_minutes_comes_to_rest():
    limbs = np.tile(from_world(*world())[60:61], (20000, 1, 1))
    limbs[1:, 3] = np.inf
    limbs[:, 4] = -np.inf
    cleaned = clean(limbs)
    np.testing.assert_array_equal(cleaned[-1, 3, :3], limbs[0, 3, :3])
    np.testing.assert_array_equal(cleaned[-1, 3, 3:], 0.0)
    np.testing.assert_array_equal(cleaned[-1, 4], REST_FRAME[4])


@pytest.mark.parametrize(
    "limbs",
    [np.zeros((27, 8)), np.zeros((0, 27, 8)), np.zeros((3, 8, 27)), [["no"]], np.zeros((2, 27, 7))],
)
def test_clean_refuses_wrong_shapes(limbs):
    with pytest.raises(InputError, match="limb frames"):
        clean(limbs)


def test_recorded_frames_load_from_npy_and_npz(tmp_path):
    limbs = from_world(*world())
    np.save(tmp_path / "a.npy", limbs)
    np.savez(tmp_path / "b.NPZ", limbs=limbs)
    (tmp_path / "b.NPZ.npz").rename(tmp_path / "b.NPZ")
    np.testing.assert_array_equal(load(tmp_path / "a.npy"), limbs)
    np.testing.assert_array_equal(load(str(tmp_path / "b.NPZ")), limbs)


def test_recorded_frames_that_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    np.save(tmp_path / "shape.npy", np.zeros((4, 27)))
    np.save(tmp_path / "nan.npy", np.full((4, 27, 8), np.nan))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "complex.npy", np.zeros((4, 27, 8), complex))
    np.save(tmp_path / "cut.npy", np.zeros((4, 27, 8)))
    for name in ("cut.npy", "other.npz"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"half_{name}").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "dance.fbx").write_bytes(b"Kaydara")
    (tmp_path / "folder.npy").mkdir()
    for name, message in {
        "other.npz": "no array named 'limbs'",
        "shape.npy": "shape",
        "nan.npy": "no limb is finite",
        "pickle.npy": "cannot be read",
        "complex.npy": "real numbers",
        "half_cut.npy": "cannot be read",
        "half_other.npz": "cannot be read",
        "empty.npz": "cannot be read",
        "dance.fbx": "unknown kind of motion file",
        "folder.npy": "no such file",
        "absent.npz": "no such file",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            load(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
