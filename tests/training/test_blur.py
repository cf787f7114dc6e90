"""The blur on the conditioning: which slots it touches, how much, what stays, and nothing when it is off."""

import jax
import numpy as np
import pytest

from eqdiff_jax.conditioning import LAYOUT, SIZE
from eqdiff_jax.training.blur import GROUPS, OTHERS, TRUE, TRUSTED, Spread, blur, spread

DRAWS = 4000
RNG = np.random.default_rng(0)
OVER = Spread(RNG.normal(size=SIZE).astype(np.float32), RNG.uniform(0.1, 2.0, SIZE).astype(np.float32))


def _draws(conditioning, **knobs) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), DRAWS)
    conditioning = np.broadcast_to(conditioning, (DRAWS, SIZE)).astype(np.float32)
    return np.asarray(jax.vmap(lambda key, c: blur(key, c, OVER, **knobs))(keys, conditioning))


def test_off_changes_nothing():
    conditioning = np.linspace(0.5, 1.5, SIZE, dtype=np.float32)
    found = _draws(conditioning, noise=0.0, forget=0.0)
    np.testing.assert_array_equal(found, np.broadcast_to(conditioning, found.shape))


def test_a_slot_keeps_the_stated_share_of_itself():
    assert sorted(TRUSTED) == ["activations", "bpm", "curvature", "grounding", "periodicity", "prediction_confidence",
                               "tension"]
    conditioning = np.linspace(0.5, 1.5, SIZE, dtype=np.float32)
    found = _draws(conditioning, noise=0.5, forget=0.0)
    for name, place in LAYOUT.items():
        n = 0.5 * (0.0 if name in TRUE else 1.0 if name in TRUSTED else OTHERS)
        mean, s = OVER.mean[place], OVER.deviation[place]
        np.testing.assert_allclose(found[:, place].std(0, dtype=float), s * n / np.hypot(1, n), rtol=0.08, atol=1e-6)
        np.testing.assert_allclose(found[:, place].mean(0, dtype=float), mean + (conditioning[place] - mean) / np.hypot(
            1, n), atol=5 * s.max() / np.sqrt(DRAWS))


def test_mean_and_deviation_over_the_data_stay():
    rows = OVER.mean + OVER.deviation * np.random.default_rng(1).normal(size=(DRAWS, SIZE))
    found = _draws(rows, noise=0.7, forget=0.0)
    np.testing.assert_allclose(found.mean(0), OVER.mean, atol=5 * OVER.deviation.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(found.std(0), OVER.deviation, rtol=0.08)


def test_groups_are_forgotten_whole_and_apart():
    conditioning = np.linspace(0.5, 1.5, SIZE, dtype=np.float32)
    found, gone = _draws(conditioning, noise=0.0, forget=0.25), []
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


def test_the_spread_is_that_of_paired_rows():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (50, SIZE)).astype(np.float32)
    paired = np.arange(50) < 30
    found = spread(np.where(paired[:, None], rows, 99.0), paired)
    np.testing.assert_allclose(found.mean, rows[:30].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, rows[:30].std(0), rtol=1e-4)
    assert not spread(rows, np.zeros(50, bool)).deviation.any()
