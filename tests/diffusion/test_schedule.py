"""Schedules against their definitions, commitment against its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.diffusion import GRIDS, SCHEDULES, absorbing, commitment
from eqdiff_jax.diffusion.schedule import Cosine, Geometric, Linear, LogLinear, check
from eqdiff_jax.errors import InputError


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_rate_and_inverse(schedule):
    for t in (0.05, 0.3, 0.77, 0.99):
        assert float(schedule.rate(t)) == pytest.approx(float(jax.grad(lambda u: -jnp.log(schedule.alpha(u)))(t)))
        assert float(schedule.inverse(schedule.alpha(t))) == pytest.approx(t, abs=1e-9)


def test_schedules_run_where_their_papers_say():
    geometric = Geometric()
    assert float(-jnp.log(geometric.alpha(0.0))) == pytest.approx(1e-4)
    assert float(-jnp.log(geometric.alpha(1.0))) == pytest.approx(20.0)
    assert float(LogLinear().alpha(1.0)) == pytest.approx(1e-3)
    assert float(Cosine().alpha(0.5)) == pytest.approx(np.cos(np.pi / 4), abs=1e-3)
    linear = Linear()
    assert float(linear.alpha(0.0)) == 1.0
    assert float(linear.alpha(1.0)) == pytest.approx(9e-6)
    assert float(linear.alpha(0.5)) == pytest.approx((0.99999 + 9e-6) / 2)


def test_grids_run_from_nought_to_one_without_turning():
    u = jnp.linspace(0.0, 1.0, 101)
    for grid in GRIDS.values():
        assert float(grid(u[0])) == pytest.approx(0, abs=1e-15)
        assert float(grid(u[-1])) == 1.0
        assert (np.diff(np.asarray(grid(u))) > 0).all()
    assert float(GRIDS["cosine"](0.5)) == pytest.approx(np.cos(np.pi / 4))


class Rising(LogLinear):
    def alpha(self, t):
        return 1.0 - 0.9 * t + 0.5 * jnp.sin(9.0 * t) * t


@pytest.mark.parametrize(("make", "message"), [
    (lambda: absorbing(5, Rising()), "rises after"),
    (lambda: absorbing(5, LogLinear(0.8)), "survival has to fall"),
    (lambda: check(Geometric(np.nan)), "NaN"),
])
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(("confidence", "steps", "temperature"), [
    (0.0, 50, 1.2), (1.0, 4, 0.7), (0.5, 27, 0.95), (-3.0, 50, 1.2), (7.0, 4, 0.7), (float("nan"), 50, 1.2)])
def test_commitment(confidence, steps, temperature):
    got = commitment(jnp.float32(confidence))
    assert int(got[0]) == steps and float(got[1]) == pytest.approx(temperature)
