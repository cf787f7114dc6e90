"""The demo dancer: deterministic, human in its measures, periodic, and different per style."""

import jax
import numpy as np
import pytest

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.demo import STYLES, demo
from eqdiff_jax.motion.limbs import RANGES
from eqdiff_jax.motion.skeleton import BONES, LIMB, PARENTS, REST

STEADY = [style for style in STYLES if style not in ("rest", "build", "show")]


def speed(limbs):
    """Mean speed of the limbs [T], body heights/s."""
    return np.linalg.norm(limbs[..., 3:6], axis=-1).mean(axis=-1)


def regularity(series, lag):
    """Normalised autocorrelation of a series at a lag in frames (rounded)."""
    series = series - series.mean()
    lag = int(round(lag))
    head, tail = series[:-lag], series[lag:]
    return (head * tail).sum() / np.sqrt((head**2).sum() * (tail**2).sum())


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_finite_confident_and_within_human_reach(style):
    limbs = demo(style, 6.0, 1)
    assert limbs.shape == (360, 27, 8)
    assert limbs.dtype == np.float32
    assert np.isfinite(limbs).all()
    np.testing.assert_array_equal(limbs[..., 7], 1.0)
    assert np.abs(limbs[..., 3:6]).max() < 8.0  # hands of dancers reach about 6 body heights/s
    assert limbs[..., 6].max() < 0.8 * RANGES[6]
    assert np.abs(limbs[:, 0, 1]).max() < 0.25


@pytest.mark.parametrize("style", STYLES)
def test_bones_keep_their_lengths_and_feet_stay_above_the_floor(style):
    limbs = demo(style, 12.0, 5)
    positions = limbs[..., :3].copy()
    height = 0.53 + limbs[:, 0, 1]
    positions[:, 0] = 0.0
    for limb in range(1, 27):
        lengths = np.linalg.norm(positions[:, limb] - positions[:, PARENTS[limb]], axis=-1)
        np.testing.assert_allclose(lengths, BONES[limb], atol=2e-5)
    feet = positions[:, [LIMB["l_toes"], LIMB["r_toes"]], 1] + height[:, None]
    assert feet.min() > -0.005
    assert positions[..., 1].max() + height.max() < 1.5


def test_planted_feet_do_not_slide():
    limbs = demo("bounce", 6.0, 2)
    feet = limbs[:, [LIMB["l_foot"], LIMB["r_foot"]]]
    assert np.linalg.norm(feet[..., 3:6], axis=-1).max() < 0.02
    assert speed(limbs).mean() > 0.1


def test_knees_bend_forwards_and_elbows_do_not_break():
    limbs = demo("show", 32.0, 4)
    for side in "lr":
        hip, knee, ankle = (LIMB[f"{side}_{part}"] for part in ("up_leg", "low_leg", "foot"))
        forward = limbs[:, knee, 2] - 0.5 * (limbs[:, hip, 2] + limbs[:, ankle, 2])
        assert forward.min() > -0.03


def test_rest_is_still_and_is_the_rest_pose():
    limbs = demo("rest", 2.0, 0)
    np.testing.assert_allclose(limbs[..., 3:7], 0.0, atol=1e-5)
    legs_and_spine = [*range(11), *range(19, 27)]
    np.testing.assert_allclose(
        limbs[:, legs_and_spine, :3], np.tile(REST[legs_and_spine], (120, 1, 1)), atol=0.02
    )


def test_the_key_decides_everything():
    one = demo("groove", 3.0, 7)
    np.testing.assert_array_equal(demo("groove", 3.0, 7), one)
    np.testing.assert_array_equal(demo("groove", 3.0, jax.random.key(7)), one)
    np.testing.assert_array_equal(demo("groove", 3.0, jax.random.PRNGKey(7)), one)
    assert np.abs(demo("groove", 3.0, 8) - one).max() > 0.05


@pytest.mark.parametrize("style", STEADY)
@pytest.mark.parametrize("key", [0, 1, 2])
def test_any_two_bars_are_periodic_at_a_dance_tempo(style, key):
    """Somewhere in 90..130 bpm the speed repeats after one or two beats, early and late alike."""
    limbs = demo(style, 60.0, key)
    for start in (0, 1700, 3300):
        window = speed(limbs[start : start + 300])
        beats = 3600.0 / np.linspace(90.0, 130.0, 81)
        best = max(max(regularity(window, beat), regularity(window, 2.0 * beat)) for beat in beats)
        assert best > 0.6, (start, best)


def test_long_dances_do_not_drift():
    limbs = demo("groove", 180.0, 3)
    early, late = speed(limbs[:3600]).mean(), speed(limbs[-3600:]).mean()
    assert abs(early - late) < 0.15 * early
    np.testing.assert_allclose(
        limbs[:3600, :, :3].mean(axis=0), limbs[-3600:, :, :3].mean(axis=0), atol=0.03
    )


def test_build_rises_from_stillness_to_wild_and_comes_back():
    energy = speed(demo("build", 32.0, 6)).reshape(16, -1).mean(axis=-1)
    assert energy[0] < 0.02
    assert energy[-1] < 0.1
    assert energy.max() > 0.4
    assert 7 <= energy.argmax() <= 12
    assert (np.diff(energy[:8]) > -0.03).all()


def test_show_is_varied_over_32_seconds():
    limbs = demo("show", 32.0, 0)
    energy = speed(limbs).reshape(8, -1).mean(axis=-1)
    assert energy.max() > 3.0 * energy.min()
    assert energy.argmax() in (4, 5, 6)
    hands = limbs[:, [LIMB["l_hand"], LIMB["r_hand"]], 1]
    assert hands.min() < 0.0  # at the sides
    assert hands.max() > 0.35  # over the shoulders


def test_styles_are_clearly_different():
    """Every pair of styles differs in mean or spread of the features by more than keys do."""

    def portrait(style, key):
        limbs = demo(style, 16.0, key)
        return np.concatenate([limbs.mean(axis=0), limbs.std(axis=0)], axis=-1)

    def distance(one, two):
        return np.linalg.norm(one - two)

    first = {style: portrait(style, 0) for style in (*STEADY, "rest")}
    for style, one in first.items():
        own = distance(one, portrait(style, 1))
        nearest = min(distance(one, other) for name, other in first.items() if name != style)
        assert nearest > own, style


@pytest.mark.parametrize(
    ("style", "seconds", "message"),
    [
        ("waltz", 4.0, "no demo dance is called 'waltz'; choose one of groove, bounce"),
        ("groove", 0.0, "give a length"),
        ("groove", -1.0, "give a length"),
        ("groove", float("nan"), "give a length"),
    ],
)
def test_what_is_refused(style, seconds, message):
    with pytest.raises(InputError, match=message):
        demo(style, seconds, 0)
