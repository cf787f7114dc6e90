"""The 60 Hz chain: one step is the scan's body, batches are independent, nothing breaks it."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax import motion
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import dynamics, lim_rps
from eqdiff_jax.motion.skeleton import REST

GOLDEN = Path(__file__).parents[1] / "goldens" / "motion_trajectory.npz"
FRAMES = 90

_jitted = jax.jit(motion.trajectory)


def trajectory(params, limbs):
    """Jitted `motion.trajectory` of at most 1200 frames, padded so that it compiles once."""
    padded = np.resize(limbs, (1200, 27, 8))
    return jax.tree.map(lambda x: np.asarray(x)[: len(limbs)], _jitted(params, padded))


@pytest.fixture(scope="module")
def params():
    return motion.init_params(jax.random.key(0))


def waving(frames=FRAMES, hertz=1.0, size=0.15):
    """Limbs [T, 27, 8] whose every limb swings about its rest place, each in its own direction."""
    time, limb = np.arange(frames)[:, None] / 60, np.arange(27)
    angle = 2 * np.pi * hertz * time + 0.4 * limb
    direction = np.stack([np.cos(limb), np.sin(2 * limb), np.cos(3 * limb)], axis=-1) * size
    position = REST + np.sin(angle)[..., None] * direction
    velocity = 2 * np.pi * hertz * np.cos(angle)[..., None] * direction
    spin = 2 + np.sin(angle)
    rest = np.stack([spin, np.ones_like(spin)], axis=-1)
    return np.float32(np.concatenate([position, velocity, rest], axis=-1))


def assert_sound(frame):
    """Finite everywhere and every scalar within its range."""
    chex.assert_tree_all_finite(frame)
    for name, row in dynamics.TABLE._asdict().items():
        values = np.asarray(getattr(frame.dynamics, name))
        assert values.min() >= row.low, name
        assert values.max() <= row.high, name
    assert np.asarray(frame.dynamics.phase).max() < 1


def test_shapes_and_types(params):
    frame = trajectory(params, waving())
    chex.assert_shape(frame[:3] + (frame.prediction, frame.x_fast, frame.y_slow), (FRAMES, 32))
    chex.assert_shape([*frame.dynamics, frame.error_fast, frame.error_lim_rps], (FRAMES,))
    chex.assert_type(jax.tree.leaves(frame), np.float32)
    ahead = frame.z + lim_rps.HORIZON * frame.velocity
    np.testing.assert_allclose(frame.prediction, ahead, atol=1e-6)


def test_scan_equals_stepping(params):
    limbs, step, state = waving(60), jax.jit(motion.step), motion.init_state(params)
    frames = []
    for frame in limbs:
        state, out = step(params, state, frame)
        frames.append(out)
    stepped = jax.tree.map(lambda *xs: np.stack(xs), *frames)
    chex.assert_trees_all_close(stepped, trajectory(params, limbs), rtol=1e-3, atol=1e-3)


def test_batched_examples_do_not_see_each_other(params):
    batch = np.stack([waving(), np.zeros_like(waving()), waving(hertz=2.0, size=0.3)])
    together = jax.jit(jax.vmap(motion.trajectory, in_axes=(None, 0)))(params, batch)
    for index, limbs in enumerate(batch):
        alone = trajectory(params, limbs)
        one = jax.tree.map(lambda x, i=index: x[i], together)
        chex.assert_trees_all_close(one, alone, rtol=1e-3, atol=2e-3)


def test_golden_trajectory(params):
    frame = trajectory(params, waving())
    stored = np.load(GOLDEN)
    for name in ("z", "velocity", "acceleration", "x_fast", "y_slow"):
        now, then = getattr(frame, name), stored[name]
        np.testing.assert_allclose(now, then, rtol=1e-3, atol=5e-3, err_msg=name)
    scalars = np.stack(frame.dynamics, 1)
    np.testing.assert_allclose(scalars, stored["dynamics"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_still_body_rests(params, confidence):
    limbs = np.repeat(waving(1), 1200, 0)
    limbs[..., 3:7], limbs[..., 7] = 0, confidence
    frame = trajectory(params, limbs)
    assert_sound(frame)
    for name, row in dynamics.TABLE._asdict().items():
        last = getattr(frame.dynamics, name)[-1]
        # coherence compares outputs with their 8 s means, which still remember the start
        if name != "coherence":
            np.testing.assert_allclose(last, row.rest, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(frame.velocity[-1], 0, atol=1e-4)


def test_no_limb_at_all_gives_the_exact_rest_values(params):
    frame = trajectory(params, np.zeros((FRAMES, 27, 8), np.float32))
    for name, row in dynamics.TABLE._asdict().items():
        np.testing.assert_allclose(getattr(frame.dynamics, name), row.rest, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(frame.z, 0)


@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(-38, 38),
    dropped=st.floats(0, 1),
    hold=st.integers(1, 45),
)
@settings(max_examples=40, deadline=None)
def test_adversarial_limbs_stay_in_range(params, seed, exponent, dropped, hold):
    rng = np.random.default_rng(seed)
    limbs = rng.normal(size=(FRAMES // hold + 1, 27, 8))
    limbs = limbs * np.where(rng.random((27, 8)) < 0.5, 1, 1e-3)
    limbs = np.clip(limbs * 10.0**exponent, -3e38, 3e38)
    limbs[rng.random(limbs.shape[:2]) < dropped] = 0
    limbs = np.repeat(np.float32(limbs), hold, axis=0)[:FRAMES]
    assert_sound(trajectory(params, limbs))


def test_teleports_and_tenfold_speed_stay_in_range(params):
    limbs = waving()
    limbs[30:, :, :3] += 1e3
    limbs[60:, :, 3:7] *= 10
    assert_sound(trajectory(params, limbs))


def test_untracked_limbs_do_not_disturb(params):
    limbs = waving()
    limbs[:, 4:9, 7] = 0
    other = limbs.copy()
    other[:, 4:9, :7] = 1e20
    chex.assert_trees_all_equal(trajectory(params, limbs), trajectory(params, other))


def test_gradients_reach_params_and_limbs(params):
    def loss(params, limbs):
        return sum(jnp.sum(x) for x in jax.tree.leaves(motion.trajectory(params, limbs)))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    still = np.repeat(waving(1), 26, 0)
    still[..., 3:7] = 0
    for limbs in (still, np.zeros_like(still)):
        chex.assert_tree_all_finite(gradient(params, limbs))
    by_params, by_limbs = gradient(params, waving(26))
    chex.assert_tree_all_finite((by_params, by_limbs))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(by_params.dell))
    assert np.abs(by_limbs).max() > 0


def test_wrong_shapes_are_refused(params):
    with pytest.raises(InputError, match=r"\[27, 8\]"):
        motion.step(params, motion.init_state(params), np.zeros((26, 8)))
    with pytest.raises(InputError, match=r"\[T, 27, 8\]"):
        motion.trajectory(params, np.zeros((27, 8)))


def test_a_show_uses_the_ranges(params):
    """Calibration: over a dance from calm to wild the scalars for music are not stuck."""
    show = motion.demo("show", 40, 0)
    values = jax.jit(motion.trajectory)(params, show).dynamics
    names = ("energy", "tension", "transition_intensity", "curvature", "prediction_confidence")
    for name in (*names, "grounding"):
        low, high = np.percentile(getattr(values, name)[60:], [5, 95])
        assert high - low > 0.25, name
    for name in ("verticality", "coherence", "lr_pan"):
        low, high = np.percentile(getattr(values, name)[60:], [5, 95])
        assert low < -0.15, name
        assert high > 0.15, name
    assert np.median(values.periodicity[600:]) > 0.7  # this dancer keeps the beat
