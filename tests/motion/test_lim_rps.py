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
    assert np.linalg.norm(operator, 2) <= 1
    step = (np.eye(96) - lim_rps.GAMMA * operator) / (1 + lim_rps.TAU)
    found = lim_rps.certificates(operator)
    assert np.linalg.norm(step, 2) <= found["step"].bound <= lim_rps.contraction_factor() < 1
    assert found["step"].contraction
    assert found["solution"].bound <= lim_rps.TAU / (lim_rps.TAU - lim_rps.GAMMA)


def test_without_the_proximal_map_it_can_expand():
    step = np.eye(96) - lim_rps.GAMMA * -np.eye(96)
    np.testing.assert_allclose(np.linalg.norm(step, 2), 1 + lim_rps.GAMMA)


@pytest.mark.parametrize("monotone", [-1.0, -0.5, 0.0, 0.3, 0.9])
def test_strong_monotonicity_tightens_the_factor(monotone):
    """B = mu I + sqrt(1 - mu^2) J with a rotation J has norm 1 and modulus mu, and attains the factor."""
    turn = np.kron(np.eye(48), [[0, -1], [1, 0]])
    operator = monotone * np.eye(96) + (1 - monotone**2) ** 0.5 * turn
    step = (np.eye(96) - lim_rps.GAMMA * operator) / (1 + lim_rps.TAU)
    factor = lim_rps.contraction_factor(monotone=monotone)
    np.testing.assert_allclose(np.linalg.norm(step, 2), factor, rtol=1e-12)
    assert factor <= lim_rps.contraction_factor()


def test_strong_monotonicity_certifies_beyond_tau():
    assert lim_rps.contraction_factor(0.5, 0.2, monotone=0.5) < 1
    with pytest.raises(InputError, match="gamma < tau"):
        lim_rps.contraction_factor(0.5, 0.2)
    with pytest.raises(InputError, match="monotonicity"):
        lim_rps.contraction_factor(monotone=1.5)


def test_an_operator_beyond_norm_one_is_not_certified():
    for certificate in lim_rps.certificates(1.2 * np.eye(96)).values():
        assert not certificate.contraction and "norm 1.2" in certificate.method


@pytest.mark.parametrize("seed", [0, 1])
def test_solution_constant_is_attained(seed):
    cross = np.random.default_rng(seed).normal(size=(96, 96))
    operator = np.float64(lim_rps.weights(lim_rps.LimParams(np.float32(cross))))
    solve = lim_rps.TAU * np.linalg.inv(lim_rps.TAU * np.eye(96) + lim_rps.GAMMA * operator)
    a, s = solve[:, 0] * 0 + np.linalg.svd(solve)[2][0], np.zeros(96)
    for _ in range(400):
        s = lim_rps.proximal_step(operator, s, a)
    found = lim_rps.certificates(operator)
    np.testing.assert_allclose(np.linalg.norm(s), found["solution"].bound, rtol=1e-9)
    rest = np.concatenate([a[:32], np.zeros(64)])
    assert np.linalg.norm((solve @ rest)[:32]) <= found["latent"].bound * np.linalg.norm(rest)


@pytest.mark.parametrize(("gamma", "tau"), [(0.1, 0.25), (0.2, 0.22)])
def test_error_bound_is_sharp_and_never_short(gamma, tau):
    """For any 1-Lipschitz linear B, the worst ones included: between the distance and 1.3 times it (at b = 0.4)."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(96, 96)))[0]
    for operator in (turn, -np.eye(96), np.eye(96), 0 * turn, np.eye(96, k=32)):
        for _ in range(5):
            s, a = rng.normal(size=(2, 96))
            exact = np.linalg.solve(tau * np.eye(96) + gamma * operator, tau * a)
            distance = np.linalg.norm(s - exact)
            bound = float(lim_rps.error_bound(jnp.float32(operator), jnp.float32(s), jnp.float32(a), gamma, tau))
            assert distance <= bound * (1 + 1e-5)
            if gamma / tau <= 0.4:
                assert bound <= 1.3 * distance


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
