"""Schedules against their own definitions, commitment against its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.diffusion import absorbing, commitment
from eqdiff_jax.diffusion.schedule import loglinear_alpha, loglinear_rate


def test_rate_is_the_derivative_of_sigma():
    with jax.enable_x64(True):
        for t in (0.0, 0.3, 0.99):
            assert float(loglinear_rate(t)) == pytest.approx(float(jax.grad(lambda u: -jnp.log(loglinear_alpha(u)))(t)))


def test_alpha_runs_from_one_to_its_floor():
    assert float(loglinear_alpha(0.0)) == 1.0
    assert float(loglinear_alpha(1.0)) == pytest.approx(1e-3, rel=1e-3)


def test_corrupt_masks_at_the_rate_of_the_schedule():
    process = absorbing(6)
    tokens = jnp.full((3, 40_000), 2)
    t = jnp.array([0.1, 0.5, 0.9])
    noisy = np.asarray(process.corrupt(jax.random.key(0), tokens, t))
    assert set(np.unique(noisy)) == {2, 6}
    np.testing.assert_allclose((noisy == 2).mean(1), process.alpha(t), atol=0.01)


@pytest.mark.parametrize(("confidence", "steps", "temperature"), [
    (0.0, 50, 1.2), (1.0, 4, 0.7), (0.5, 27, 0.95), (-3.0, 50, 1.2), (7.0, 4, 0.7)])
def test_commitment(confidence, steps, temperature):
    got = commitment(jnp.float32(confidence))
    assert int(got[0]) == steps and float(got[1]) == pytest.approx(temperature)
