"""Windows of two bars: boundaries that never drift, means, and the two refusals."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqdiff_jax import motion
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.dynamics import phase_slot
from eqdiff_jax.motion.windows import boundaries, require_windows, window_means, window_seconds


def test_windows_at_120_bpm_are_four_seconds():
    assert window_seconds(120.0) == 4.0
    np.testing.assert_array_equal(boundaries(719, 120.0), [0, 240, 480])
    np.testing.assert_array_equal(boundaries(720, 120.0), [0, 240, 480, 720])
    assert len(boundaries(239, 120.0)) == 1


@given(st.floats(40, 240), st.integers(1, 20_000))
def test_boundaries_stay_on_the_beat(bpm, frames):
    edges = boundaries(frames, bpm)
    exact = np.arange(len(edges)) * 480.0 / bpm * 60.0
    assert np.abs(edges - exact).max() <= 0.5 + 1e-6
    assert edges[-1] <= frames < edges[-1] + 480.0 / bpm * 60.0 + 1


@given(st.floats(40, 240), st.integers(1, 40))
def test_a_demo_of_n_windows_holds_n_windows(bpm, num):
    assert len(boundaries(round(num * window_seconds(bpm) * 60), bpm)) >= num + 1


def test_means_are_the_windows_own():
    limbs = motion.demo("groove", 8.5, 3)
    frames = jax.jit(motion.trajectory)(motion.init_params(jax.random.key(0)), limbs)
    z, velocity, dynamics = window_means(frames, np.array([0, 240, 480]))
    np.testing.assert_allclose(z[1], np.asarray(frames.z[240:480]).mean(0), atol=1e-5)
    np.testing.assert_allclose(velocity[0], np.asarray(frames.velocity[:240]).mean(0), atol=1e-5)
    np.testing.assert_allclose(dynamics.energy[1], np.asarray(frames.dynamics.energy[240:480]).mean(), rtol=1e-4)
    slot = np.asarray(phase_slot(frames.dynamics.phase))
    np.testing.assert_allclose(dynamics.phase[1], slot[240:480].mean(), rtol=1e-4)
    assert z.dtype == velocity.dtype == dynamics.energy.dtype == np.float32


@pytest.mark.parametrize(("frames", "count", "message"), [
    (100, None, "walk.bvh is too short: 1.67 s of motion.*takes 4.00 s"),
    (500, 3, "walk.bvh holds 2 windows.*--num asks for 3"),
    (500, 0, "--num is 0: ask for at least 1")])
def test_refusals_name_the_fix(frames, count, message):
    with pytest.raises(InputError, match=message):
        require_windows(np.zeros((frames, 27, 8)), 120.0, count, "walk.bvh")
