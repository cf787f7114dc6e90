"""Commitment against its table; the schedules themselves are checked in test_process.py."""

import jax.numpy as jnp
import pytest

from eqdiff_jax.diffusion import commitment


@pytest.mark.parametrize(("confidence", "steps", "temperature"), [
    (0.0, 50, 1.2), (1.0, 4, 0.7), (0.5, 27, 0.95), (-3.0, 50, 1.2), (7.0, 4, 0.7), (float("nan"), 50, 1.2)])
def test_commitment(confidence, steps, temperature):
    got = commitment(jnp.float32(confidence))
    assert int(got[0]) == steps and float(got[1]) == pytest.approx(temperature)
