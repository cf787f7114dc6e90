"""The blur on the conditioning: which slots it touches, how much, and nothing when it is off."""

import jax
import numpy as np
import pytest

from eqdiff_jax.conditioning import LAYOUT, SIZE
from eqdiff_jax.training.blur import GROUPS, OTHERS, blur

DRAWS = 4000


def _draws(**knobs) -> tuple[np.ndarray, np.ndarray]:
    conditioning = np.linspace(0.5, 1.5, SIZE, dtype=np.float32)
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return np.asarray(jax.vmap(lambda key: blur(key, conditioning, **knobs))(keys)), conditioning


def test_off_changes_nothing():
    found, conditioning = _draws(noise=0.0, forget=0.0)
    np.testing.assert_array_equal(found, np.broadcast_to(conditioning, found.shape))


def test_noise_has_the_stated_deviation_in_every_slot():
    found, conditioning = _draws(noise=0.4, forget=0.0)
    deviation, mean = found.std(0, dtype=float), found.mean(0, dtype=float) - conditioning
    for name, place in LAYOUT.items():
        expected = {"z": 0.4, "velocity": 0.4, "genre": 0.0, "activations": 0.0}.get(name, 0.4 * OTHERS)
        np.testing.assert_allclose(deviation[place], expected, rtol=0.08, atol=1e-6)
    assert np.abs(mean).max() < 5 * 0.4 / np.sqrt(DRAWS)


def test_groups_are_forgotten_whole_and_apart():
    found, conditioning = _draws(noise=0.0, forget=0.25)
    gone = []
    for names in GROUPS:
        zero = np.concatenate([found[:, LAYOUT[name]] == 0.0 for name in names], axis=1)
        assert (zero.all(1) == zero.any(1)).all()
        gone.append(zero.all(1))
        assert zero.all(1).mean() == pytest.approx(0.25, abs=0.035)
    assert np.abs(np.corrcoef(gone) - np.eye(len(GROUPS))).max() < 0.08
    kept = [name for name in LAYOUT if name not in {name for names in GROUPS for name in names}]
    for name in kept:
        np.testing.assert_array_equal(found[:, LAYOUT[name]], np.broadcast_to(
            conditioning[LAYOUT[name]], found[:, LAYOUT[name]].shape))
