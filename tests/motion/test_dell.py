"""DELL: proved gains, honest error bounds, untracked limbs and bounded features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.motion import dell
from eqdiff_jax.types import Kind


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
    assert (measured <= dell.gains()).all()  # of the float32 matrices, to the last bit
    assert spectral_norm(w.w_in) <= dell.INPUT_GAIN
    assert dell.violations(w) == ()


def test_lift_has_orthonormal_columns():
    lift = np.asarray(dell.weights(dell.init_params(jax.random.key(1))).lift) / dell.SLOW_TO_FAST
    np.testing.assert_allclose(lift.T @ lift, np.eye(32), atol=3e-5)  # kept inside the unit ball by as much


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


@pytest.fixture(scope="module")
def made():
    return jax.jit(dell.weights)(dell.init_params(jax.random.key(6)))


def test_certificates_of_constructed_weights(made):
    found = dell.certificates(made)
    for name in ("fast", "slow", "coupled"):
        assert found[name].contraction and found[name].margin > 0.09, name
    assert found["coupled"].bound <= 0.9 and found["input"].bound <= 38 / 3
    assert all(0 < c.rounding < 0.5 for c in found.values())


@pytest.mark.parametrize(("name", "size"), [("w_rec", 1.2), ("u_slow", 0.41), ("w_in", 2.5), ("lift", 0.7)])
def test_weights_of_another_hand_are_not_certified(made, name, size):
    matrix = np.asarray(getattr(made, name), np.float64)
    broken = made._replace(**{name: np.float32(matrix * size / spectral_norm(matrix))})
    for certificate in dell.certificates(broken).values():
        assert not certificate.contraction and certificate.bound == np.inf and certificate.kind == Kind.RANGE
        assert f"{name} has norm {size:.3g}" in certificate.method
    assert dell.small_gain(broken).z_raw == np.inf and dell.accumulated(broken).z_raw == np.inf


def test_one_step_rounds_no_more_than_stated(made):
    """Float32 against float64 on the same arguments, at ordinary and at the largest believable features."""
    rng, w, e = np.random.default_rng(0), in_float64(made), dell.rounding(made)
    fast, slow = jax.jit(dell.fast_map), jax.jit(dell.slow_map)
    for scale in (0.02, 0.1, 1.0):
        for _ in range(20):
            h, y = np.float32(rng.uniform(-1, 1, 128)), np.float32(rng.uniform(-1, 1, 32))
            l = np.float32(scale * dell.FEATURE_LIMITS * rng.uniform(-1, 1, 216))  # noqa: E741  (the paper's letter)
            h64, y64, l64 = (np.float64(x) for x in (h, y, l))
            exact = np.tanh(w.w_rec @ h64 + w.w_in @ l64 + w.lift @ y64 + w.bias)
            assert np.linalg.norm(fast(made, h, y, l) - exact) <= e.fast
            x = np.float32(w.w_out @ h64)
            exact = np.tanh(w.u_slow @ y64 + w.w_slow @ np.float64(x) + w.bias_slow)
            assert np.linalg.norm(slow(made, y, x) - exact) <= e.slow
            assert np.linalg.norm(np.float64(jnp.asarray(made.w_out) @ h) - w.w_out @ h64) <= e.output


def test_tanh_errs_by_less_than_assumed():
    x = np.concatenate([np.logspace(-20, 2, 400_001), np.linspace(0, 10, 400_001)]).astype(np.float32)
    x = np.concatenate([x, -x])
    exact = np.tanh(np.float64(x))
    ulps = np.abs(np.asarray(jax.jit(jnp.tanh)(x), np.float64) - exact) / np.spacing(np.abs(np.float32(exact)))
    assert np.nanmax(ulps) <= dell.TANH_ULPS


def test_iterates_drift_no_more_than_accumulated(made):
    """The whole program in float32 against itself in float64, over 96 wild frames."""
    w, state, limbs = in_float64(made), dell.init_state(), limb_frames(96, seed=5)
    allowed, step = dell.accumulated(made), jax.jit(dell.step)
    h, y, y_from, total = np.zeros(128), np.zeros(32), np.zeros(32), np.zeros(32)
    for t, frame in enumerate(limbs):
        state, out = step(made, state, frame)
        confidence = np.float64(frame[:, 7:])
        values = np.concatenate([np.float64(dell.bounded(frame))[:, :7], np.ones((27, 1))], axis=1)
        inputs = (confidence * (values - dell._REST) / dell.SCALES).reshape(-1)
        glide = y_from + (t % 24 + 1) / 24 * (y - y_from)
        for _ in range(dell.FAST_STEPS):
            h = np.tanh(w.w_rec @ h + w.w_in @ inputs + w.lift @ glide + w.bias)
        total = total + w.w_out @ h
        z_raw = 0.7 * w.w_out @ h + 0.3 * glide
        if t % 24 == 23:
            y_from, mean, total = y, total / 24, np.zeros(32)
            for _ in range(dell.SLOW_STEPS):
                y = np.tanh(w.w_slow @ mean + w.u_slow @ y + w.bias_slow)
        assert np.linalg.norm(state.h - h) <= allowed.h
        assert 0 < np.linalg.norm(out.z_raw - z_raw) <= allowed.z_raw
