"""Recordings and their windows: mirror images, changes of pace, splits by performer, the section machine."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax import motion
from eqdiff_jax.data import movement
from eqdiff_jax.data.movement import MotionSource, Recording, mirrored, time_scaled
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.skeleton import LIMB, REST
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means
from eqdiff_jax.music.conductor import conduct, initial_state

PARAMS = motion.init_params(jax.random.key(0))


@pytest.fixture(scope="module")
def limbs():
    return motion.demo("flow", 17.0, 3)


def one_sided():
    """Only the left hand moves, outwards and back."""
    limbs = np.tile(np.pad(REST, ((0, 0), (0, 5))), (600, 1, 1)).astype(np.float32)
    limbs[..., 7] = 1.0
    angle = np.arange(600) * 2 * np.pi / 60
    limbs[:, LIMB["l_hand"], 0] += 0.1 * (1 - np.cos(angle))
    limbs[:, LIMB["l_hand"], 3] = 0.2 * np.pi * np.sin(angle)
    return limbs


def test_mirror_twice_is_the_identity_and_rest_is_symmetric(limbs):
    np.testing.assert_array_equal(mirrored(mirrored(limbs)), limbs)
    rest = np.pad(REST, ((0, 0), (0, 5)))[None].astype(np.float32)
    np.testing.assert_allclose(mirrored(rest), rest, atol=1e-7)


def test_mirror_moves_the_other_hand_the_other_way():
    limbs = mirrored(one_sided())
    assert np.ptp(limbs[:, LIMB["l_hand"], 0]) == 0.0
    np.testing.assert_allclose(np.ptp(limbs[:, LIMB["r_hand"], 0]), 0.2, atol=1e-3)
    assert limbs[:, LIMB["r_hand"], 0].max() < 0.0  # right is -x
    np.testing.assert_allclose(np.diff(limbs[:, LIMB["r_hand"], 0]) * 60, limbs[1:, LIMB["r_hand"], 3], atol=0.05)


def test_mirror_flips_the_balance_and_leaves_the_rest():
    here, there = (padded_trajectory(PARAMS, x).dynamics for x in (one_sided(), mirrored(one_sided())))
    assert np.asarray(here.lr_pan).mean() < -0.3
    np.testing.assert_allclose(np.asarray(there.lr_pan), -np.asarray(here.lr_pan), atol=1e-5)
    for name in ("energy", "speed", "acceleration", "tension", "periodicity", "grounding", "verticality"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), atol=1e-5, err_msg=name)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.8, 1.25))
def test_pace_keeps_path_and_scales_rates(rate):
    limbs = one_sided()
    scaled = time_scaled(limbs, rate)
    assert len(scaled) == int(599 / rate + 1e-6) + 1
    hand = scaled[:, LIMB["l_hand"]]
    at = np.arange(len(scaled)) * rate * 2 * np.pi / 60
    np.testing.assert_allclose(hand[:, 0], REST[LIMB["l_hand"], 0] + 0.1 * (1 - np.cos(at)), atol=1e-3)
    np.testing.assert_allclose(hand[:, 3], 0.2 * np.pi * np.sin(at) * rate, atol=2e-3)
    assert (scaled[..., 7] == 1.0).all() and np.isfinite(scaled).all()


def test_pace_one_changes_nothing(limbs):
    np.testing.assert_array_equal(time_scaled(limbs, 1.0), limbs)
    with pytest.raises(InputError, match="use 0.8 .. 1.25"):
        time_scaled(limbs, 2.0)


def test_a_gap_stays_a_gap(limbs):
    limbs = limbs.copy()
    limbs[100:140, 5, 7] = 0.0
    assert (time_scaled(limbs, 0.9)[112:155, 5, 7] == 0.0).all()


def test_windows_are_the_means_that_sample_uses(limbs):
    windows = movement.cut(PARAMS, Recording("a", limbs), (120.0, 88.0), (0.0, 0.5), source="s", split="train")
    count = {bpm: int((windows.bpm == bpm).sum()) for bpm in (120.0, 88.0)}
    assert count == {120.0: 4 + 3, 88.0: 3 + 2}
    z, velocity, dynamics = window_means(padded_trajectory(PARAMS, limbs), boundaries(len(limbs), 120.0))
    np.testing.assert_array_equal(windows.z[:4], z)
    np.testing.assert_array_equal(windows.velocity[:4], velocity)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:4], b), windows.dynamics, dynamics)
    assert set(windows.clip) == {"a"} and set(windows.split) == {"train"} and not windows.shippable.any()


def test_sections_are_the_conductors(limbs):
    dynamics = movement.cut(PARAMS, Recording("a", limbs), (152.0,)).dynamics
    state = initial_state()
    for i, found in enumerate(movement.sections(dynamics)):
        state, _, section = conduct(state, jax.tree.map(lambda x, i=i: float(x[i]), dynamics))
        np.testing.assert_array_equal(found, section)


def test_too_short_a_recording_has_no_window(limbs):
    windows = movement.cut(PARAMS, Recording("a", limbs[:100]), (72.0,))
    assert windows.z.shape == (0, 32) and windows.section.shape == (0, 6)


def test_an_augmented_source_is_played_six_ways(limbs):
    source = MotionSource("x", lambda split: iter([Recording("a", limbs)]), shippable=True, augmented=True)
    played = list(movement.played(source, "train"))
    assert len({r.name for r in played}) == 6 and len({len(r.limbs) for r in played}) == 3
    windows = movement.motion_windows(PARAMS, [source], "train", (120.0,))
    assert windows.shippable.all() and len(np.unique(windows.clip)) == 6


def test_balanced_sources_count_alike_at_each_tempo(limbs):
    many = [movement.cut(PARAMS, Recording(str(i), limbs), (120.0, 152.0), source="many") for i in range(3)]
    few = movement.cut(PARAMS, Recording("f", limbs), (120.0, 152.0), source="few")
    windows = movement.balanced(np.random.default_rng(0), movement.concatenated([*many, few]))
    for bpm in (120.0, 152.0):
        sources = windows.source[windows.bpm == bpm]
        assert (sources == "many").sum() == (sources == "few").sum() == (few.bpm == bpm).sum()


def test_a_folder_keeps_performers_together(limbs, tmp_path):
    for performer in range(12):
        (tmp_path / f"p{performer}").mkdir()
        for take in range(2):
            np.save(tmp_path / f"p{performer}" / f"{take}.npy", limbs[:20])
    source = movement.folder_source(tmp_path)
    homes = {split: {r.name.split("/")[0] for r in source.recordings(split)} for split in movement.SPLITS}
    assert sum(map(len, homes.values())) == 12 and len(set.union(*homes.values())) == 12
    assert not source.shippable
    with pytest.raises(InputError, match=r"no \.bvh"):
        movement.folder_source(tmp_path / "nothing")


def test_unknown_source_and_missing_data(monkeypatch):
    with pytest.raises(InputError, match="unknown motion source 'lafan': choose one of demo, salsa, bandai"):
        movement.source("lafan")
    monkeypatch.delenv("EQDIFF_DATA", raising=False)
    with pytest.raises(InputError, match="set EQDIFF_DATA"):
        next(movement.bandai_recordings("train"))
    with pytest.raises(InputError, match="no window of two bars in the test movement of none"):
        movement.motion_windows(PARAMS, [MotionSource("none", lambda split: iter([]), True, False)], "test")


def test_bandai_styles_stay_together(eqdiff_data, monkeypatch):
    monkeypatch.setenv("EQDIFF_DATA", str(eqdiff_data))
    recordings = {split: list(movement.bandai_recordings(split)) for split in ("validation", "test")}
    styles = {split: {r.name.split("_")[1] for r in found} for split, found in recordings.items()}
    assert styles == {"validation": {"musical", "old"}, "test": {"active", "tired"}}
    assert all(np.isfinite(r.limbs).all() and len(r.limbs) > 60 for found in recordings.values() for r in found)
    assert not movement.source("bandai").shippable


def test_salsa_windows_have_finite_means(eqdiff_data, monkeypatch):
    monkeypatch.setenv("EQDIFF_DATA", str(eqdiff_data))
    recording = next(movement.salsa_recordings("validation"))
    windows = movement.cut(PARAMS, recording, (104.0,), movement.SHIFTS)
    assert len(windows.z) >= 4 and np.ptp(windows.dynamics.prediction_confidence) > 0.01
    assert all(np.isfinite(column).all() for column in jax.tree.leaves(windows)[:18])
