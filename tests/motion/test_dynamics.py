"""The 15 scalars against motions whose answer is known, at rest, and under small changes."""

import chex
import jax
import numpy as np
import pytest

from eqdiff_jax.motion import dynamics
from eqdiff_jax.motion.skeleton import LIMB, LIMBS, REST
from eqdiff_jax.types import Dynamics

RATE = 60


def standing(frames):
    """Limbs [T, 27, 8] of a body at rest, every limb tracked."""
    frame = np.concatenate([REST, np.zeros((27, 4)), np.ones((27, 1))], axis=1)
    return np.repeat(np.float32(frame)[None], frames, 0)


def moving(speed, axis=2):
    """A body all of whose limbs move along one axis with speed [T]."""
    limbs = standing(len(speed))
    limbs[:, :, 3 + axis] = np.asarray(speed, np.float32)[:, None]
    return limbs


@jax.jit
def _scan(limbs, latents):
    def body(state, inputs):
        frame, latent = inputs
        return dynamics.step(state, frame, *latent)

    return jax.lax.scan(body, dynamics.init_state(), (limbs, latents))[1]


def run(limbs, **latents):
    """Dynamics [T] of limbs [T, 27, 8]; latent signals [T, 32] are zero unless given."""
    frames = len(limbs)
    names = ("z", "velocity", "acceleration", "x_fast", "y_slow")
    zeros = np.zeros((frames, 32))
    signals = [limbs, *(latents.get(name, zeros) for name in names)]
    padded = [np.resize(np.float32(x), (3900, *x.shape[1:])) for x in signals]  # compile once
    return jax.tree.map(lambda x: np.asarray(x)[:frames], _scan(padded[0], tuple(padded[1:])))


def in_plane(x, y):
    """[T, 32] path in the first two latent dimensions."""
    return np.concatenate([np.stack([x, y], axis=1), np.zeros((len(x), 30))], axis=1)


def test_table_is_consistent():
    for name, row in dynamics.TABLE._asdict().items():
        assert row.low <= row.rest <= row.high, name
        assert row.seconds > 0, name
        assert row.unit, name
    assert set(dynamics.DISCONTINUOUS) <= set(Dynamics._fields)


@pytest.mark.parametrize("limbs", [standing(300), np.zeros((300, 27, 8), np.float32)])
def test_still_body_has_exactly_the_rest_values(limbs):
    constant = np.full((300, 32), 0.3)
    values = run(limbs, z=constant, x_fast=constant, y_slow=-constant)
    for name, row in dynamics.TABLE._asdict().items():
        np.testing.assert_allclose(getattr(values, name), row.rest, atol=1e-6, err_msg=name)


def test_rest_values_return_after_movement():
    time = np.arange(5 * RATE) / RATE
    speed = np.concatenate([0.6 + 0.4 * np.cos(2 * np.pi * 2 * time), np.zeros(60 * RATE)])
    limbs = moving(speed, axis=1)
    path = np.cumsum(limbs[:, :1, 4], axis=0) / RATE * np.ones(32)
    values = run(limbs, z=path, velocity=np.gradient(path, axis=0) * RATE, x_fast=path, y_slow=path)
    for name, row in dynamics.TABLE._asdict().items():
        if name not in dynamics.DISCONTINUOUS:
            last = getattr(values, name)[-1]
            np.testing.assert_allclose(last, row.rest, atol=0.02, err_msg=name)
    phase = np.asarray(values.phase)
    assert abs(phase[-1] - phase[-RATE]) < 0.02  # stands still
    assert abs(values.internal_tempo[-1] - 120) < 6  # keeps what it heard


@pytest.mark.parametrize("radius", [0.2, 1.0, 3.0])
def test_curvature_of_a_circle_is_one_over_its_radius(radius):
    angle = np.arange(200) / RATE * 8
    velocity = radius * 8 * in_plane(-np.sin(angle), np.cos(angle))
    acceleration = -radius * 64 * in_plane(np.cos(angle), np.sin(angle))
    kappa = dynamics.curvature(velocity, acceleration, floor=1e-6)
    np.testing.assert_allclose(kappa, 1 / radius, rtol=1e-5)
    values = run(standing(200), velocity=velocity, acceleration=acceleration)
    bend = dynamics.CURVE_LENGTH / radius
    np.testing.assert_allclose(values.curvature[-1], bend / (1 + bend), rtol=0.06)
    np.testing.assert_allclose(values.curvature_rate[-1], 0, atol=1e-3)


def test_curvature_of_a_line_and_of_a_standstill_is_zero():
    line = in_plane(np.linspace(0.1, 5, 50), np.zeros(50))
    np.testing.assert_allclose(dynamics.curvature(line, 3 * line), 0, atol=1e-5)
    np.testing.assert_array_equal(dynamics.curvature(np.zeros((4, 32)), np.ones((4, 32))), 0)


def test_curvature_matches_the_wedge_formula():
    v, a = np.random.default_rng(0).normal(size=(2, 20, 32))
    wedge = np.sqrt((v**2).sum(1) * (a**2).sum(1) - (v * a).sum(1) ** 2)
    expected = wedge / (v**2).sum(1) ** 1.5
    np.testing.assert_allclose(dynamics.curvature(v, a, floor=1e-6), expected, rtol=1e-4)


@pytest.mark.parametrize("bpm", [36, 50, 72, 97, 120, 133, 160, 200, 230])
def test_sinusoidal_speed_has_its_tempo(bpm):
    beats = np.arange(20 * RATE) / RATE * bpm / 60
    values = run(moving(0.5 + 0.3 * np.cos(2 * np.pi * beats)))
    np.testing.assert_allclose(values.internal_tempo[-5 * RATE :], bpm, rtol=0.025)
    assert (np.asarray(values.periodicity)[-5 * RATE :] > 0.85).all()
    # the phase has locked on: 0 where the speed peaks
    lag = (np.asarray(values.phase) - beats + 0.5) % 1 - 0.5
    assert np.abs(lag[-5 * RATE :]).max() < 0.12


def test_noise_is_less_periodic_than_a_beat():
    noise = np.abs(np.random.default_rng(1).normal(size=20 * RATE))
    assert np.median(run(moving(noise)).periodicity[-600:]) < 0.4


def test_drift_has_no_period():
    assert run(moving(np.linspace(0, 2, 20 * RATE))).periodicity[-1] < 0.2


def test_phase_slot_is_continuous_across_the_wrap():
    time = np.arange(20 * RATE) / RATE
    phase = np.asarray(run(moving(0.5 + 0.4 * np.cos(2 * np.pi * 3 * time))).phase)
    assert (np.diff(phase) < -0.5).sum() > 20  # it did wrap
    assert ((phase >= 0) & (phase < 1)).all()
    fastest = np.pi * (240 / 60 + 0.4) / RATE
    assert np.abs(np.diff(dynamics.phase_slot(phase))).max() <= fastest
    np.testing.assert_allclose(dynamics.phase_slot(np.array([0, 0.5, 1])), [0, 1, 0], atol=1e-6)


def one_sided(side):
    limbs = standing(120)
    limbs[:, [i for i, name in enumerate(LIMBS) if name.startswith(side)], 3] = 1
    return limbs


def test_balance_of_one_side_and_its_mirror():
    right, left = run(one_sided("r_")).lr_pan, run(one_sided("l_")).lr_pan
    assert right[-1] > 0.9
    np.testing.assert_allclose(right, -left, atol=1e-6)
    np.testing.assert_allclose(run(moving(np.ones(60))).lr_pan, 0, atol=1e-6)


def test_verticality_follows_up_and_down():
    up = run(moving(np.full(120, 0.5), axis=1)).verticality
    down = run(moving(np.full(120, -0.5), axis=1)).verticality
    assert up[-1] > 0.9
    np.testing.assert_allclose(up, -down, atol=1e-6)


def test_grounding_falls_when_hips_bounce_and_stays_when_a_hand_waves():
    swing = np.sin(np.arange(240) / RATE * 12)
    limbs = standing(240)
    limbs[:, LIMB["l_hand"], 4] = 2 * swing
    np.testing.assert_array_equal(run(limbs).grounding, 1)
    limbs[:, LIMB["l_foot"], 4] = swing  # the other foot still bears the body
    np.testing.assert_array_equal(run(limbs).grounding, 1)
    limbs[:, 0, 4] = 0.5 * swing
    assert run(limbs).grounding[-1] < 0.5


def test_speed_and_energy_of_uniform_motion():
    values = run(moving(np.full(240, 0.8)))
    np.testing.assert_allclose(values.speed[-1], 0.8 / np.sqrt(1 + 0.04), rtol=1e-3)
    np.testing.assert_allclose(values.energy[-1], 0.64 / (0.64 + dynamics.ENERGY_HALF), rtol=1e-2)
    np.testing.assert_allclose(values.acceleration[-1], 0, atol=1e-3)


def test_tension_accumulates_and_leaks():
    time = np.arange(10 * RATE) / RATE
    hard = np.concatenate([1.5 * np.sin(2 * np.pi * 3 * time), np.zeros(10 * RATE)])
    tension = np.asarray(run(moving(hard)).tension)
    assert tension[10 * RATE] > 0.7
    assert tension[5 * RATE] > tension[2 * RATE] > tension[RATE // 2]
    assert 0.05 < tension[-1] < 0.3


def test_transition_rises_at_a_change_of_energy_or_pose_and_settles():
    calm, wild = np.full(10 * RATE, 0.2), np.full(10 * RATE, 1.5)
    change = np.asarray(run(moving(np.concatenate([calm, wild, wild]))).transition_intensity)
    assert change[9 * RATE] < 0.1
    assert change[10 * RATE : 12 * RATE].max() > 0.5
    assert change[-1] < 0.1
    poses = np.repeat([[0.0], [0.3]], 10 * RATE, axis=0) * np.ones(32)
    change = np.asarray(run(standing(20 * RATE), z=poses).transition_intensity)
    assert change[10 * RATE : 12 * RATE].max() > 0.5
    assert change[-1] < 0.1


def test_confidence_is_one_for_steady_and_low_for_erratic_velocity():
    steady = run(standing(300), velocity=np.full((300, 32), 2.0)).prediction_confidence
    assert steady[-1] > 0.99
    erratic = np.random.default_rng(2).normal(size=(300, 32)) * 5
    assert run(standing(300), velocity=erratic).prediction_confidence[-1] < 0.1


def test_coherence_is_the_sign_of_agreement():
    time = np.arange(1200) / RATE
    wave = np.sin(2 * np.pi * 0.3 * time)[:, None] * np.ones(32)
    same, opposite = (run(standing(1200), x_fast=wave, y_slow=s * wave).coherence for s in (1, -1))
    assert np.median(same[600:]) > 0.9
    np.testing.assert_allclose(same, -opposite, atol=1e-5)


def test_untracked_limbs_do_not_count():
    limbs = moving(0.5 + 0.3 * np.sin(np.arange(200) / 5))
    limbs[:, 20:24, 7] = 0
    other = limbs.copy()
    other[:, 20:24, :7] = np.random.default_rng(3).normal(size=(200, 4, 7)) * 1e6
    chex.assert_trees_all_equal(run(limbs), run(other))


def test_small_changes_of_the_motion_change_the_continuous_scalars_little():
    rng = np.random.default_rng(4)
    limbs = moving(0.5 + 0.3 * np.sin(np.arange(600) / 5)) + np.float32(
        0.1 * rng.normal(size=(600, 27, 8))
    )
    path = np.cumsum(rng.normal(size=(600, 32)), axis=0) * 0.02
    velocity = np.gradient(path, axis=0) * RATE
    near = np.float32(limbs + 1e-4 * rng.normal(size=limbs.shape))
    first = run(limbs, z=path, velocity=velocity, acceleration=velocity, x_fast=path, y_slow=path)
    moved, faster = path + 1e-4, velocity + 1e-4
    second = run(near, z=moved, velocity=faster, acceleration=velocity, x_fast=path, y_slow=path)
    for name in set(Dynamics._fields) - set(dynamics.DISCONTINUOUS):
        span = getattr(dynamics.TABLE, name).high - getattr(dynamics.TABLE, name).low
        gap = np.abs(getattr(first, name) - getattr(second, name)).max()
        assert gap < 0.01 * span, name
