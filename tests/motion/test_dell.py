"""DELL: proved gains, honest error bounds, untracked limbs and bounded features."""

import jax
import numpy as np
import pytest

from eqdiff_jax.motion import dell


def scaled_params(scale, seed=0):
    """Uniform parameters of a given size, as training might leave them."""
    template = dell.init_params(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: np.float32(scale * rng.uniform(-1, 1, p.shape)), template)


def limb_frames(count, seed=0):
    rng = np.random.default_rng(seed)
    limbs = rng.normal(size=(count, 27, 8)) * [0.3, 0.3, 0.3, 0.6, 0.6, 0.6, 3, 0]
    limbs[..., 7] = rng.uniform(0.5, 1, (count, 27))
    return np.float32(limbs)


def spectral_norm(matrix):
    return np.linalg.norm(np.asarray(matrix, np.float64), 2)


def fixed_point(f, z, steps=500):
    for _ in range(steps):
        z = f(z)
    return z


def in_float64(w):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), w)


def test_rows_of_the_gain_matrix_sum_below_one():
    assert (dell.gains().sum(axis=1) <= 0.9 + 1e-12).all()


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0, 100.0, 1e10, 1e35])
def test_gains_hold_for_every_parameter(scale):
    w = jax.jit(dell.weights)(scaled_params(scale))
    measured = np.array(
        [
            [spectral_norm(w.w_rec), spectral_norm(w.lift)],
            [spectral_norm(w.w_slow) * spectral_norm(w.w_out), spectral_norm(w.u_slow)],
        ]
    )
    assert (measured <= dell.gains() * (1 + 1e-3)).all()
    assert (measured.sum(axis=1) < 1).all()
    assert spectral_norm(w.w_in) <= dell.INPUT_GAIN * (1 + 1e-3)


def test_lift_has_orthonormal_columns():
    lift = np.asarray(dell.weights(dell.init_params(jax.random.key(1))).lift) / dell.SLOW_TO_FAST
    np.testing.assert_allclose(lift.T @ lift, np.eye(32), atol=1e-5)


def test_error_bounds_cover_the_distance_to_the_fixed_point():
    weights = dell.weights(dell.init_params(jax.random.key(2)))
    w, limbs = in_float64(weights), limb_frames(48)
    step, state = jax.jit(dell.step), dell.init_state()
    x_fast = []
    for index, frame in enumerate(limbs):
        state, out = step(weights, state, frame)
        x_fast.append(np.asarray(out.x_fast, np.float64))
        inputs = np.asarray(dell.features(frame), np.float64)
        drive = w.w_in @ inputs + w.lift @ np.float64(out.y_slow) + w.bias
        h_star = fixed_point(lambda h, drive=drive: np.tanh(w.w_rec @ h + drive), np.zeros(128))
        assert np.linalg.norm(state.h - h_star) <= out.error_fast * (1 + 1e-3) + 1e-5
        if index % 24 == 23:
            x_mean = np.mean(x_fast[-24:], axis=0)
            y_star = fixed_point(
                lambda y, m=x_mean: np.tanh(w.w_slow @ m + w.u_slow @ y + w.bias_slow), np.zeros(32)
            )
            assert np.linalg.norm(state.y - y_star) <= state.error_slow * (1 + 1e-3) + 1e-5
            assert state.error_slow > 0


def test_still_body_reaches_the_joint_equilibrium():
    weights = dell.weights(dell.init_params(jax.random.key(3)))
    w, frame = in_float64(weights), limb_frames(1)[0]
    _, out = jax.lax.scan(
        lambda s, x: dell.step(weights, s, x), dell.init_state(), np.repeat(frame[None], 600, 0)
    )
    inputs = np.asarray(dell.features(frame), np.float64)
    h, y = np.zeros(128), np.zeros(32)
    for _ in range(500):
        h_next = np.tanh(w.w_in @ inputs + w.w_rec @ h + w.bias + w.lift @ y)
        y = np.tanh(w.w_slow @ (w.w_out @ h) + w.u_slow @ y + w.bias_slow)
        h = h_next
    np.testing.assert_allclose(out.y_slow[-1], y, atol=1e-5)
    np.testing.assert_allclose(out.x_fast[-1], w.w_out @ h, atol=1e-5)
    np.testing.assert_allclose(out.z_raw[-1], 0.7 * w.w_out @ h + 0.3 * y, atol=1e-5)
    assert out.error_fast[-1] < 1e-5
    assert out.error_slow[-1] < 1e-5


def test_slow_output_glides_without_steps():
    weights = dell.weights(dell.init_params(jax.random.key(4)))
    frames = np.repeat(limb_frames(1), 96, 0)
    _, out = jax.lax.scan(lambda s, x: dell.step(weights, s, x), dell.init_state(), frames)
    change = np.diff(np.asarray(out.y_slow), axis=0)
    total = np.abs(out.y_slow).max()
    assert np.abs(change).max() <= total / 24 + 1e-6
    np.testing.assert_array_equal(out.y_slow[:24], 0)


def test_untracked_limbs_contribute_nothing():
    limbs = limb_frames(1)[0]
    limbs[5:9, 7] = 0
    other = limbs.copy()
    other[5:9, :7] = 1e30
    np.testing.assert_array_equal(dell.features(limbs), dell.features(other))
    np.testing.assert_array_equal(dell.features(limbs).reshape(27, 8)[5:9], 0)


def test_features_stay_bounded():
    wild = np.full((27, 8), 3e38, np.float32) * np.where(np.arange(27) % 2, 1, -1)[:, None]
    assert np.abs(dell.features(np.float32(wild))).max() <= 20
    rest = np.concatenate([dell.REST, np.zeros((27, 4)), np.ones((27, 1))], axis=1)
    np.testing.assert_allclose(dell.features(rest).reshape(27, 8)[:, :7], 0, atol=1e-6)
