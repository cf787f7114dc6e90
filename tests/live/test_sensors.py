"""Inertial sensors live: the same limb frames as a recording gives, whichever messages an app sends."""

import importlib.util

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from eqdiff_jax.data import imu
from eqdiff_jax.errors import InputError
from eqdiff_jax.live import sensors
from eqdiff_jax.live.controls import Controls, load_map, parse_map
from eqdiff_jax.live.performer import FADE, HOLD
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME
from eqdiff_jax.motion.skeleton import LIMB

RATE = 100.0
HAND = LIMB["r_hand"]


def movement(seconds=12.0):
    """A phone that rolls and is shaken: orientations (to north, west, up), gyroscope rad/s, acceleration g (world)."""
    times = np.arange(int(seconds * RATE)) / RATE
    angle = 0.8 * np.sin(1.3 * times)
    turned = Rotation.from_rotvec(np.outer(angle, [1.0, 0.0, 0.0]))
    gyroscope = np.outer(0.8 * 1.3 * np.cos(1.3 * times), [1.0, 0.0, 0.0])
    shaken = np.zeros((len(times), 3))
    shaken[:, 2] = np.where(times > 4.0, 0.3 * np.sin(7.0 * times), 0.0)
    return times, turned, gyroscope, shaken


def run(rows, messages, times, port_rate=60.0, seconds=None):
    """Frames [T, 27, 8] at 60 Hz while `messages(i)` gives (address, args) at times[i]."""
    controls, body, frames, k = Controls(rows), sensors.Sensors(), [], 0
    for tick in range(int((seconds or times[-1]) * port_rate)):
        now = tick / port_rate + 1e-4
        while k < len(times) and times[k] <= now:
            for address, args in messages(k):
                for reading in controls.take(address, tuple(map(float, args)), times[k]):
                    assert body.update("phone", times[k], reading)
            k += 1
        frames.append(body.frame(now))
    return np.stack(frames)


def offline(turned, acceleration):
    return imu.limb_frames("r_hand", turned, imu.GRAVITY / imu.BODY_HEIGHT * acceleration, RATE)


def compare(live, recorded, after=3.0, lag=0.03):
    """Largest difference of place, velocity and angular speed of the hand, the recording read `lag` later."""
    ticks = np.arange(int(after * 60.0), len(live) - 5)
    at = ticks / 60.0 + 1e-4 - lag
    past = np.stack([np.interp(at, np.arange(len(recorded)) / 60.0, recorded[:, HAND, f]) for f in range(8)], -1)
    apart = np.abs(live[ticks, HAND] - past)
    return apart[:, :3].max(), apart[:, 3:6].max(), apart[:, 6].max()


def test_gyroscope_and_acceleration_agree_with_a_recording():
    times, turned, gyroscope, shaken = movement()
    force = turned.inv().apply(shaken + [0.0, 0.0, 1.0])
    found, acceleration = imu.orientation(gyroscope, force, RATE)
    live = run(parse_map('[[row]]\naddress = "/a"\nargument = 0\nto = "limb.r_hand.accel"\n'
                         '[[row]]\naddress = "/g"\nargument = 0\nto = "limb.r_hand.gyro"\n'),
               lambda i: [("/a", force[i]), ("/g", gyroscope[i])], times)
    place, velocity, turn = compare(live, offline(found, acceleration / imu.GRAVITY))
    assert place < 0.01 and velocity < 0.1 and turn < 0.1
    assert np.abs(live[360:, HAND, 4]).max() > 0.15  # it was shaken up and down


@pytest.mark.parametrize(("preset", "address"), [("zigsim", "/phone"), ("gyrosc", "/gyrosc")])
def test_an_iphones_signs(preset, address):
    """iOS counts gravity and acceleration the other way round; the sender's quaternion, where there is one, is used."""
    times, turned, gyroscope, shaken = movement()
    quaternions, down = turned.as_quat(), turned.inv().apply([0.0, 0.0, -1.0])
    user = -turned.inv().apply(shaken)

    def messages(i):
        if preset == "gyrosc":
            return [("/gyrosc/rrate", gyroscope[i]), ("/gyrosc/grav", down[i]), ("/gyrosc/accel", user[i])]
        return [("/phone/accel", user[i]), ("/phone/gravity", down[i]), ("/phone/gyro", gyroscope[i]),
                ("/phone/quaternion", quaternions[i])]

    live = run(load_map(preset), messages, times)
    truth = Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]]) * turned
    world = shaken[:, [1, 2, 0]]
    place, velocity, turn = compare(live, offline(truth, world))
    loose = 1.0 if preset == "zigsim" else 3.0
    assert place < 0.01 * loose and velocity < 0.06 * loose and turn < 0.1 * loose


def test_acceleration_alone_gives_tilt_and_shaking():
    times, turned, _, shaken = movement(8.0)
    raw = -turned.inv().apply(shaken + [0.0, 0.0, 1.0])
    live = run(load_map("touchosc"), lambda i: [("/accxyz", raw[i])], times)
    assert np.abs(live[300:, HAND, 4]).max() > 0.1
    assert np.abs(live[300:, HAND, 3:6]).max() < 1.5 and np.isfinite(live).all()
    axes = run(load_map("oschook"), lambda i: [(f"/accelerometer/raw/{axis}", [9.80665 * -raw[i][j]])
                                               for j, axis in enumerate("xyz")], times)
    np.testing.assert_allclose(axes[120:], live[120:], atol=0.05)


def test_another_sample_rate_gives_the_same_movement():
    times, turned, gyroscope, shaken = movement()
    every = slice(None, None, 2)
    force = turned.inv().apply(shaken + [0.0, 0.0, 1.0])
    rows = parse_map('[[row]]\naddress = "/a"\nargument = 0\nto = "limb.r_hand.accel"\n'
                     '[[row]]\naddress = "/g"\nargument = 0\nto = "limb.r_hand.gyro"\n')
    fast = run(rows, lambda i: [("/a", force[i]), ("/g", gyroscope[i])], times)
    slow = run(rows, lambda i: [("/a", force[every][i]), ("/g", gyroscope[every][i])], times[every])
    difference = np.abs(fast[:len(slow)] - slow)[240:-5, HAND]
    assert difference[:, :3].max() < 0.03 and difference[:, 3:6].max() < 0.25 and difference[:, 6].max() < 0.15


def test_only_the_limb_that_is_worn_is_known_and_silence_fades():
    times, turned, gyroscope, _ = movement(3.0)
    live = run(parse_map('[[row]]\naddress = "/q"\nargument = 0\nto = "limb.r_hand.quaternion"\n'),
               lambda i: [("/q", turned.as_quat()[i])], times, seconds=7.0)
    others = np.arange(27) != HAND
    np.testing.assert_array_equal(live[:, others], np.broadcast_to(REST_FRAME[others], live[:, others].shape))
    assert (live[10:180, HAND, 7] == 1.0).all()
    done = round(60 * (3.0 + HOLD + FADE + 0.2))
    np.testing.assert_allclose(live[done:], np.broadcast_to(REST_FRAME, live[done:].shape), atol=1e-6)
    assert np.abs(np.diff(live[10:, HAND, 7])).max() < 0.02


def test_two_phones_on_two_limbs_and_two_on_one():
    rows = parse_map('[[preset]]\nname = "zigsim"\nlimb = "l_hand"\ndevice = "left"\n'
                     '[[preset]]\nname = "zigsim"\ndevice = "right"\n')
    controls, body = Controls(rows), sensors.Sensors()
    for i in range(60):
        turned = Rotation.from_euler("z", 0.05 * i).as_quat().tolist()
        for host, device, args in (("a", "left", turned), ("b", "right", turned), ("c", "right", [0.0, 0.0, 0.0, 1.0])):
            for reading in controls.take(f"/{device}/quaternion", args, i / 60.0):
                body.update(host, i / 60.0, reading)
    frame = body.frame(59 / 60.0)
    assert frame[LIMB["l_hand"], 6] == pytest.approx(3.0, rel=0.02)
    assert frame[HAND, 6] == pytest.approx(1.5, rel=0.02)  # one turns, one is still
    assert frame[..., 7].sum() == 2.0


def test_frames_stay_finite_and_in_range():
    random, controls, body = np.random.default_rng(0), Controls(load_map("zigsim")), sensors.Sensors()
    for i in range(600):
        kind, size = ("accel", 3) if i % 2 else ("quaternion", 4)
        values = (random.standard_normal(size) * 10.0 ** random.integers(-30, 30)).tolist()
        for reading in controls.take(f"/x/{kind}", values, i / 100.0):
            body.update("x", i / 100.0, reading)
        frame = body.frame(i / 100.0)
        assert np.isfinite(frame).all() and (np.abs(frame) <= RANGES).all()


def test_the_number_of_sensors_is_bounded():
    controls, body = Controls(load_map("zigsim")), sensors.Sensors()
    (reading,) = controls.take("/x/gyro", (0.0, 0.0, 0.0), 0.0)
    assert all(body.update(f"host {i}", 0.0, reading) for i in range(sensors.MOST))
    assert not body.update("one more", 0.0, reading)
    assert body.update("one more", sensors.FORGOTTEN + 1.0, reading)


def test_a_missing_imufusion_is_one_line_and_only_where_it_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="limb.r_hand.accel in the map needs the package imufusion: pip install"):
        sensors.require(load_map("touchosc"))
    sensors.require(load_map("mediapipe"))
    sensors.require(load_map("wek_inputs"))
