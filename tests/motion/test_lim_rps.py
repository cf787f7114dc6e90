"""LIM-RPS: contraction by parametrisation, error bounds, tracking and smoothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import lim_rps


def run(z_raw, cross=None):
    params = lim_rps.init_params() if cross is None else lim_rps.LimParams(cross)
    operator = lim_rps.weights(params)
    scan = jax.jit(lambda z: jax.lax.scan(
        lambda s, x: lim_rps.step(operator, s, x), lim_rps.init_state(), z)[1])  # fmt: skip
    return scan(np.float32(z_raw))


def sine(hertz, frames=300, amplitude=0.5):
    """Latent [T, 32] moving on a line, and the time [T] in seconds."""
    time = np.arange(frames) / 60
    return amplitude * np.sin(2 * np.pi * hertz * time)[:, None] * np.ones(32), time


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 1e5, 1e35])
def test_proximal_step_contracts_for_every_parameter(scale):
    cross = np.random.default_rng(0).uniform(-1, 1, (96, 96)) * scale
    operator = np.asarray(lim_rps.weights(lim_rps.LimParams(np.float32(cross))), np.float64)
    assert np.linalg.norm(operator, 2) <= 1 + 1e-5
    step = (np.eye(96) - lim_rps.GAMMA * operator) / (1 + lim_rps.TAU)
    assert np.linalg.norm(step, 2) <= lim_rps.contraction_factor() * (1 + 1e-5) < 1


def test_without_the_proximal_map_it_can_expand():
    step = np.eye(96) - lim_rps.GAMMA * -np.eye(96)
    np.testing.assert_allclose(np.linalg.norm(step, 2), 1 + lim_rps.GAMMA)


@pytest.mark.parametrize(("gamma", "tau"), [(0.2, 0.2), (0.3, 0.2), (-0.1, 0.2)])
def test_uncertified_steps_are_refused(gamma, tau):
    with pytest.raises(InputError, match="gamma < tau"):
        lim_rps.contraction_factor(gamma, tau)


def test_error_bound_covers_the_distance_to_the_fixed_point():
    rng = np.random.default_rng(1)
    operator = lim_rps.weights(lim_rps.LimParams(np.float32(rng.normal(size=(96, 96)))))
    exact = np.asarray(operator, np.float64)
    step, state = jax.jit(lim_rps.step), lim_rps.init_state()
    for z_raw in np.cumsum(rng.normal(size=(40, 32)), axis=0) * 0.05:
        measured_from = state
        state, out = step(operator, state, np.float32(z_raw))
        rate, rate2 = lim_rps.measure(measured_from, np.float32(z_raw))
        measured = np.float64(np.concatenate([np.float32(z_raw), 0.1 * rate, 0.01 * rate2]))
        s = np.zeros(96)
        for _ in range(500):
            s = lim_rps.proximal_step(exact, s, measured)
        assert np.linalg.norm(state.s - s) <= out.error * (1 + 1e-3) + 1e-5


def test_still_latent_has_zero_rates_whatever_was_learnt():
    cross = np.float32(np.random.default_rng(2).normal(size=(96, 96)))
    out = run(np.full((200, 32), 0.7), cross)
    np.testing.assert_array_equal(out.velocity, 0)
    np.testing.assert_array_equal(out.acceleration, 0)
    np.testing.assert_allclose(out.z[-1], out.z[-2], atol=1e-6)


def test_slow_motion_is_tracked_with_its_rates():
    z_raw, time = sine(0.5)
    out, omega = run(z_raw), np.pi
    after = slice(60, None)
    assert np.abs(out.z[after] - z_raw[after]).max() < 0.04 * 0.5
    velocity = 0.5 * omega * np.cos(omega * time)[:, None]
    assert np.abs(out.velocity[after] - velocity[after]).max() < 0.35 * 0.5 * omega
    ratio = np.abs(out.acceleration[after]).max() / (0.5 * omega**2)
    assert 0.7 < ratio < 1.2


def test_jitter_is_smoothed():
    noise = 0.05 * np.random.default_rng(3).normal(size=(600, 32))
    out = run(noise)
    assert np.std(out.z[60:]) < 0.85 * np.std(noise[60:])


def test_prediction_is_a_straight_line():
    z, velocity = jnp.ones(32), jnp.full(32, 2.0)
    np.testing.assert_allclose(lim_rps.predict(z, velocity), 1.2, rtol=1e-6)
