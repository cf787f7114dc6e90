"""Inertial recordings: orientation and gravity of known turns, leaky integrals, fusion, real phones."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from eqdiff_jax.data import imu
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.skeleton import LIMB

HEADER = ",".join(f"{name}.{axis}" for name in imu.PHONE for axis in "xyz")


def write(path: Path, header: str, rows: np.ndarray) -> Path:
    path.write_text(header + "\n" + "\n".join(",".join(f"{x:.6f}" for x in row) for row in rows) + "\n")
    return path


def rolling(seconds=12.0, rate=100.0, turn=0.7):
    """A sensor that rolls about its own x axis at `turn` rad/s: orientations (north, west, up), gyroscope, force."""
    angle = np.arange(int(seconds * rate)) / rate * turn
    rotations = Rotation.from_rotvec(np.outer(angle, [1.0, 0.0, 0.0]))
    return rotations, np.tile([turn, 0.0, 0.0], (len(angle), 1)), rotations.inv().apply([0.0, 0.0, 1.0])


def test_orientation_of_a_steady_roll_and_no_gravity_left():
    pytest.importorskip("imufusion")
    rotations, gyroscope, force = rolling()
    found, acceleration = imu.orientation(gyroscope, force, 100.0)
    up = found.inv().apply([0.0, 1.0, 0.0])  # our world's up, in the sensor
    angles = np.degrees(np.arccos(np.clip((up * force).sum(1), -1, 1)))
    assert angles[300:].max() < 1.5
    assert np.abs(acceleration[300:]).max() < 0.3
    turns = (found[300:-1].inv() * found[301:]).magnitude() * 100.0
    np.testing.assert_allclose(turns, 0.7, atol=0.02)


def test_upward_acceleration_is_found_upwards():
    pytest.importorskip("imufusion")
    rotations, gyroscope, force = rolling()
    shaken = force + rotations.inv().apply([0.0, 0.0, 0.2])
    shaken[:600] = force[:600]
    _, acceleration = imu.orientation(gyroscope, shaken, 100.0)
    np.testing.assert_allclose(acceleration[605:620].mean(0), [0.0, 0.2 * imu.GRAVITY, 0.0], atol=0.15)


def test_limb_frames_speak_of_one_limb_only():
    turned = Rotation.from_rotvec(np.outer(np.arange(101) * 0.02, [0.0, 1.0, 0.0]))
    push = np.zeros((101, 3))
    push[0:51, 1] = 1.0
    limbs = imu.limb_frames("l_hand", turned, push, 50.0)
    assert limbs.shape == (121, 27, 8) and limbs.dtype == np.float32
    others = np.arange(27) != LIMB["l_hand"]
    np.testing.assert_array_equal(limbs[:, others], np.broadcast_to(REST_FRAME[others], (121, 26, 8)))
    hand = limbs[:, LIMB["l_hand"]]
    assert (hand[:, 7] == 1.0).all()
    np.testing.assert_allclose(hand[:, 6], 1.0, atol=1e-3)
    # v' = 1 - v/LEAK from rest: v = LEAK (1 - exp(-t/LEAK))
    assert hand[60, 4] == pytest.approx(imu.LEAK * (1 - np.exp(-1 / imu.LEAK)), rel=0.05)
    assert hand[120, 4] < 0.2 * hand[60, 4]


def test_fusion_weighs_by_confidence():
    still = Rotation.identity(61)
    left, right = (imu.limb_frames(name, still, np.zeros((61, 3)), 60.0) for name in ("l_hand", "r_hand"))
    both = imu.fused([left, right])
    assert (both[:, [LIMB["l_hand"], LIMB["r_hand"]], 7] == 1.0).all() and both[..., 7].sum() == 2 * 61
    other = left.copy()
    other[:, LIMB["l_hand"], 3], other[:, LIMB["l_hand"], 7] = 3.0, 0.5
    np.testing.assert_allclose(imu.fused([left, other])[:, LIMB["l_hand"], 3], 1.0, atol=1e-6)
    with pytest.raises(InputError, match="no device"):
        imu.fused([])


def test_phone_file_with_a_cut_line(tmp_path):
    pytest.importorskip("imufusion")
    rows = np.tile([0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0], (100, 1))
    path = write(tmp_path / "phone.csv", HEADER, rows)
    path.write_text(path.read_text() + "0.1,0.2")
    limbs = imu.load_imu(path)
    assert limbs.shape == (119, 27, 8)
    thigh = limbs[:, LIMB["r_up_leg"]]
    np.testing.assert_allclose(thigh[:, 3:7], 0.0, atol=1e-3)


def test_hand_file_without_its_errors(tmp_path):
    rows = np.stack([np.linspace(0, 90, 91), np.zeros(91), np.zeros(91)], 1)
    rows[40] = 3e7
    limbs = imu.load_imu(write(tmp_path / "hand.csv", ",".join(imu.EULER), rows), rate=30.0, limb="l_hand")
    assert np.median(limbs[:, LIMB["l_hand"], 6]) == pytest.approx(np.radians(30.0), rel=1e-2)


@pytest.mark.parametrize(("text", "words"), [
    ("a,b\n1,2\n3,4\n", "no two samples|neither columns"),
    ("yaw_hand,pitch_hand,roll_hand\n1,2,3\n", "1 samples are no recording"),
    ("yaw_hand,pitch_hand,roll_hand\nx,2,3\ny,1,2\n", "no two samples with all of their numbers"),
])
def test_bad_files_are_named(tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        imu.load_imu(tmp_path / "bad.csv")
    assert "bad.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_unknown_limb_and_rate(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        imu.load_imu(tmp_path / "none.csv")
    with pytest.raises(InputError, match="must be positive"):
        imu.load_imu(tmp_path / "none.csv", rate=0.0)
    with pytest.raises(InputError, match="unknown limb 'pocket'"):
        imu.limb_frames("pocket", Rotation.identity(3), np.zeros((3, 3)), 50.0)


def test_real_phone_agrees_with_its_own_gravity(eqdiff_data, tmp_path):
    pytest.importorskip("imufusion")
    with tarfile.open(eqdiff_data / "imu" / "motionsense_subset_MIT.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    paths = {kind: next(tmp_path.glob(f"**/{kind}/sub_2.csv")) for kind in ("std_6", "wlk_7", "jog_9")}
    speeds = {}
    for kind, path in paths.items():
        columns = imu._columns(path)
        gyroscope, gravity = (np.stack([columns[f"{n}.{a}"] for a in "xyz"], 1) for n in imu.PHONE[:2])
        turned, _ = imu.orientation(gyroscope, -gravity, 50.0)
        down = turned.inv().apply([0.0, -1.0, 0.0])
        tilt = np.degrees(np.arccos(np.clip((down * gravity).sum(1), -1, 1)))
        assert np.median(tilt) < 3.0 and np.quantile(tilt, 0.95) < 8.0, kind
        limbs = imu.load_imu(path)
        assert np.isfinite(limbs).all() and (limbs[..., 7].sum(1) == 1.0).all()
        speeds[kind] = np.linalg.norm(limbs[:, LIMB["r_up_leg"], 3:6], axis=1).mean()
    assert speeds["std_6"] < speeds["wlk_7"] < speeds["jog_9"]
