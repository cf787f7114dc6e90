"""The transport between grids and movement: marginals, limits, order in one dimension, invariance, determinism."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.data import pairing
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import TRACKS

ALL = np.ones(12, bool)
DRUMS = np.array([name in ("KICK", "SNARE", "HH", "CLAP") for name in TRACKS])
NO_BASS = np.array([name not in ("KICK", "BASS") for name in TRACKS])


def world(seed, grids=160, windows=240):
    rng = np.random.default_rng(seed)
    return {"descriptors": rng.random((grids, 5)), "observed": np.tile(ALL, (grids, 1)),
            "bpm": rng.choice(pairing.TEMPI[:1], grids), "asked": rng.random((windows, 5)),
            "motion_bpm": np.full(windows, pairing.TEMPI[0])}


def random_costs(seed, grids, windows):
    rng = np.random.default_rng(seed)
    return pairing.cost(pairing.ranks(rng.random((grids, 5))), pairing.ranks(rng.random((windows, 5))),
                        np.ones((grids, 5)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), grids=st.integers(1, 60), windows=st.integers(1, 60),
       temperature=st.sampled_from([1e-3, 0.01, 0.1, 10.0]))
def test_balanced_marginals(seed, grids, windows, temperature):
    costs = random_costs(seed, grids, windows)
    plan = pairing.transport(costs, temperature, tolerance=1e-4, sweeps=20_000)
    p = plan.matrix(costs, temperature)
    np.testing.assert_allclose(p.sum(0), 1 / windows, rtol=2e-3)
    assert np.abs(p.sum(1) - 1 / grids).sum() < 5e-4
    assert plan.error <= 1e-4
    np.testing.assert_array_equal(plan.mass, 1 / grids)


def test_infinite_temperature_is_independence():
    costs = random_costs(0, 30, 40)
    p = pairing.transport(costs, 1e4).matrix(costs, 1e4)
    np.testing.assert_allclose(p, 1 / 1200, rtol=1e-3)


def test_zero_temperature_is_the_best_assignment():
    from scipy.optimize import linear_sum_assignment

    costs = random_costs(1, 24, 24)
    plan = pairing.transport(costs, 1e-4, sweeps=20_000)
    rows, columns = linear_sum_assignment(costs)
    np.testing.assert_array_equal(plan.matrix(costs, 1e-4).argmax(1), columns)
    assert (plan.matrix(costs, 1e-4) * costs).sum() == pytest.approx(costs[rows, columns].mean(), rel=0.02)


def test_one_dimension_is_sorting():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 1)) ** 3, rng.exponential(size=(50, 1))
    costs = pairing.cost(pairing.ranks(x), pairing.ranks(y), np.ones((50, 1)))
    p = pairing.transport(costs, 1e-5, sweeps=20_000).matrix(costs, 1e-5)
    np.testing.assert_array_equal(p.argmax(1)[np.argsort(x[:, 0])], np.argsort(y[:, 0]))
    assert (p.max(1) > 0.95 / 50).all()


def test_a_price_leaves_out_what_no_movement_asks_for():
    line = np.linspace(0.01, 0.99, 64)
    u = np.concatenate([np.stack([line, line], 1), np.stack([line, 1 - line], 1)])  # half of the music off the line
    costs = pairing.cost(u.astype(np.float32), np.stack([line, line], 1).astype(np.float32), np.ones((128, 2)))
    held = [pairing.transport(costs, 3e-3, price=price).mass[:64].sum() for price in (np.inf, 0.1, 0.01, 1e-3)]
    assert held[0] == pytest.approx(0.5) and held == sorted(held) and held[-1] > 0.8
    for price in (0.1, 1e-3):
        plan = pairing.transport(costs, 3e-3, price=price, tolerance=1e-5)
        p = plan.matrix(costs, 3e-3).astype(np.float64)
        np.testing.assert_allclose(p.sum(0), 1 / 64, rtol=1e-3)
        np.testing.assert_allclose(plan.mass, p.sum(1), atol=1e-6)
        # Stationary: f = -price log(N P 1) up to the constant that the columns leave free.
        residual = plan.f + price * np.log(128 * p.sum(1))
        assert np.ptp(residual) < 0.02 * price + 1e-4


def test_a_high_price_is_balanced():
    costs = random_costs(3, 40, 50)
    free = pairing.transport(costs, 0.01, price=1e5, tolerance=1e-5, sweeps=20_000).matrix(costs, 0.01)
    np.testing.assert_allclose(free, pairing.transport(costs, 0.01, tolerance=1e-5).matrix(costs, 0.01), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), draws=st.integers(1, 5))
def test_draws_follow_the_plan(seed, draws):
    costs = random_costs(seed, 30, 20)
    plan = pairing.transport(costs, 0.01, price=0.01)
    rows, columns = pairing.drawn(np.random.default_rng(seed), costs, plan, 0.01, draws)
    assert len(rows) == 30 * draws and (np.diff(rows) >= 0).all() and 0 <= columns.min() <= columns.max() < 20
    assert np.abs(np.bincount(rows, minlength=30) - plan.mass * 30 * draws).max() < 1 + 1e-6


def test_draws_have_the_plans_frequencies():
    costs = random_costs(4, 6, 5)
    plan = pairing.transport(costs, 0.05, tolerance=1e-5)
    rows, columns = pairing.drawn(np.random.default_rng(0), costs, plan, 0.05, 20_000)
    seen = np.zeros((6, 5))
    np.add.at(seen, (rows, columns), 1 / len(rows))
    np.testing.assert_allclose(seen, plan.matrix(costs, 0.05), atol=3e-3)


@pytest.mark.parametrize("price", [np.inf, 0.03])
def test_same_arguments_same_pairs_and_another_seed_others(price):
    a, b, c = (pairing.pair(**world(5), seed=seed, price=price) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.grids, b.grids)
    np.testing.assert_array_equal(a.windows, b.windows)
    assert len(a.windows) != len(c.windows) or (a.windows != c.windows).any()


def test_increasing_changes_of_descriptors_and_dynamics_change_nothing():
    here = world(6)
    there = here | {"descriptors": np.exp(3 * here["descriptors"]), "asked": here["asked"] ** 5 - 7}
    a, b = pairing.pair(**here), pairing.pair(**there)
    np.testing.assert_array_equal(a.windows, b.windows)


def test_constant_dynamics_and_ties_give_no_nan():
    here = world(7)
    here["asked"][:] = 0.3
    here["descriptors"][:, 1] = 0.0
    found = pairing.pair(**here, price=np.inf)
    assert np.isfinite(found.errors).all() and len(found.windows) == 160
    np.testing.assert_array_equal(pairing.ranks(np.array([[3.0], [3.0], [3.0], [1.0]]))[:, 0], [0.625] * 3 + [0.125])


def test_pairs_follow_what_movement_asks_for():
    here = world(8, 600, 900)
    found = pairing.pair(**here, temperature=3e-3)
    assert (pairing.spearman(here["descriptors"][found.grids], here["asked"][found.windows]) > 0.85).all()
    loose = pairing.pair(**here, temperature=10.0)
    assert (np.abs(pairing.spearman(here["descriptors"][loose.grids], here["asked"][loose.windows])) < 0.15).all()


def test_what_a_grid_cannot_say_does_not_count():
    np.testing.assert_array_equal(
        pairing.says(np.stack([ALL, DRUMS, NO_BASS, ~ALL])),
        [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [0, 0, 0, 0, 0]])
    here = world(9)
    here["observed"][:] = DRUMS
    found = pairing.pair(**here)
    here["descriptors"][:, [1, 2, 3]] = np.random.default_rng(0).random((160, 3))
    np.testing.assert_array_equal(found.windows, pairing.pair(**here).windows)


def test_blocks_hold_grids_of_one_kind_and_every_grid_once():
    rng = np.random.default_rng(0)
    observed = np.stack([(ALL, DRUMS, NO_BASS)[k] for k in rng.choice(3, 900, p=[0.6, 0.37, 0.03])])
    tempo = rng.choice(6, 900, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    blocks = list(pairing.blocks(rng, observed, tempo))
    assert sorted(np.concatenate([rows for rows, _ in blocks])) == list(range(900))
    for rows, kind in blocks:
        assert len(np.unique(observed[rows], axis=0)) == 1
        assert (tempo[rows] == kind).all() if kind >= 0 else len(rows) < 6 * pairing.SMALLEST


def test_tempi_fold_by_octaves():
    np.testing.assert_array_equal(pairing.tempo_class([72, 144, 60, 240, 174, 36.5, 128]), [0, 0, 3, 3, 1, 0, 4])


@pytest.mark.parametrize(("change", "words"), [
    ({"descriptors": np.zeros((3, 4))}, r"descriptors has shape \[3, 4\], \[160, 5\] is needed"),
    ({"asked": np.full((240, 5), np.nan)}, "asked holds a number that is not finite"),
    ({"bpm": np.zeros(160)}, "bpm holds"),
    ({"motion_bpm": np.zeros(0)}, "160 grids and 0 windows"),
    ({"temperature": 0.0}, "temperature is 0: use a positive one"),
    ({"price": -1.0}, "price is -1"),
])
def test_bad_input_is_named(change, words):
    with pytest.raises(InputError, match=words):
        pairing.pair(**(world(0) | change))
