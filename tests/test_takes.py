"""Takes: the chosen one is one of them, the nearest to what is asked, and no element knows of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import grid_of
from networks import asking, random_params

from eqdiff_jax.asked import ASKED, HAS
from eqdiff_jax.composer import PROCESS, compose
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.music import LEGAL, descriptors
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.music.metrics import FIDELITY
from eqdiff_jax.takes import compose_takes, cost

SILENT = grid_of()
BUSY = grid_of(KICK=" ".join(["bd"] * 32), SNARE=" ".join(["sd"] * 32), BASS=" ".join(["C2", "G2"] * 16))


@pytest.fixture(scope="module")
def params():
    return random_params(0.1)  # not sure of anything, so that takes differ


@pytest.fixture(scope="module")
def windows():
    """Three windows: conditionings [3, 104], the ones before, and the grids that play."""
    rng = np.random.default_rng(0)
    now, before = (rng.uniform(0, 1, (3, 104)).astype(np.float32) * 0.5 for _ in range(2))
    legal = [np.flatnonzero(row) for row in LEGAL]
    grids = np.array([[[rng.choice(tokens) for _ in range(32)] for tokens in legal] for _ in range(3)], np.int32)
    return jnp.asarray(now), jnp.asarray(before), jnp.asarray(grids)


def test_the_cost_is_the_sum_it_says():
    c = np.concatenate([asking(dict(periodicity=0.9, tension=0.3)), asking(dict(grounding=0.7, curvature=0.4))])
    got = cost(np.array([SILENT, BUSY]), c)
    for grid, row, value in zip((SILENT, BUSY), c, got, strict=True):
        total = 0.0
        for k, (asked, heard) in enumerate(FIDELITY.items()):
            u = np.interp(getattr(descriptors(grid), heard), HAS[k], np.linspace(0, 1, 13))
            v = np.interp(row[LAYOUT[asked]][0], ASKED[k], np.linspace(0, 1, 13))
            total += (u - v) ** 2
        assert value == pytest.approx(total, abs=1e-5)


def test_who_moves_periodically_asks_for_many_notes():
    """What the silent grid loses against the busy one, otherwise asked the same, turns with periodicity."""
    def lost(periodicity):
        c = asking(dict(periodicity=periodicity, curvature=0.4, tension=0.3, grounding=0.5, prediction_confidence=0.9))
        silent, busy = cost(np.array([SILENT, BUSY]), np.repeat(c, 2, axis=0))
        return silent - busy

    levels = [lost(p) for p in (0.0, 0.3, 0.6, 0.9, 0.99)]
    assert (np.diff(levels) > 0).all() and levels[-1] - levels[0] > 1.0


@pytest.mark.parametrize("empty", [False, True])
def test_one_take_is_compose_and_more_are_the_best_of_its_rows(params, windows, empty):
    now, before, grids = windows
    grids = jnp.full_like(grids, PROCESS.mask) if empty else grids
    knobs = {"steps": 3, "temperature": 1.0}
    one = compose_takes(jax.random.key(4), params, now, grids, takes=1, previous_conditioning=before, **knobs)
    plain = compose(jax.random.key(4), params, now, grids, previous_conditioning=before, **knobs)
    jax.tree.map(np.testing.assert_array_equal, one, plain)
    many = compose(jax.random.key(4), params, *(jnp.repeat(x, 5, axis=0) for x in (now, grids)),
                   previous_conditioning=jnp.repeat(before, 5, axis=0), **knobs)
    best = compose_takes(jax.random.key(4), params, now, grids, takes=5, previous_conditioning=before, **knobs)
    costs = cost(np.asarray(many.tokens), np.repeat(now, 5, axis=0)).reshape(3, 5)
    rows = 5 * np.arange(3) + costs.argmin(1)
    assert len(set(costs[0].tolist())) > 1
    for field in ("tokens", "changed", "budget", "steps", "temperature", "invalid"):
        np.testing.assert_array_equal(getattr(best, field), getattr(many, field)[rows])
    assert (best.changed <= best.budget).all() and (best.changed == (best.tokens != grids).sum((1, 2))).all()
    assert int(best.evaluations) == int(many.evaluations)


def test_elements_of_a_batch_do_not_know_of_each_other(params, windows):
    now, before, grids = windows
    knobs = {"steps": jnp.array([2, 3, 4]), "temperature": jnp.array([0.8, 1.0, 1.2])}
    whole = compose_takes(jax.random.key(7), params, now, grids, takes=3, previous_conditioning=before, **knobs)
    assert whole.steps.tolist() == [2, 3, 4]
    other = compose_takes(jax.random.key(7), params, now.at[1:].set(0.5), grids.at[1:].set(0), takes=3,
                          previous_conditioning=before, **knobs)
    np.testing.assert_array_equal(whole.tokens[0], other.tokens[0])
    alone = compose_takes(jax.random.key(7), params, now[0], grids[0], takes=3, previous_conditioning=before[0],
                          steps=2, temperature=0.8)
    np.testing.assert_array_equal(whole.tokens[0], alone.tokens)
    assert alone.tokens.shape == SHAPE and alone.changed.shape == ()


def test_more_takes_come_nearer(params, windows):
    """The best of n is the best of the first n of more."""
    now, before, grids = windows
    for i in range(3):
        many = compose(jax.random.key(9), params, *(jnp.repeat(x[i:i + 1], 8, axis=0) for x in (now, grids)),
                       previous_conditioning=jnp.repeat(before[i:i + 1], 8, axis=0), steps=3)
        costs = cost(np.asarray(many.tokens), np.repeat(now[i:i + 1], 8, axis=0))
        for n in (2, 4, 8):
            best = compose_takes(jax.random.key(9), params, now[i], grids[i], takes=n,
                                 previous_conditioning=before[i], steps=3)
            assert cost(np.asarray(best.tokens)[None], now[i:i + 1])[0] == pytest.approx(costs[:n].min())


def test_a_negative_conditioning_and_a_broken_network(params, windows):
    now, before, grids = windows
    change = compose_takes(jax.random.key(1), params, now[0], grids[0], takes=2, previous_conditioning=before[0],
                           negative=before[0], steps=2)
    twice = compose(jax.random.key(1), params, *(jnp.repeat(x[:1], 2, axis=0) for x in (now, grids)),
                    previous_conditioning=jnp.repeat(before[:1], 2, axis=0),
                    negative=jnp.repeat(before[:1], 2, axis=0), steps=2)
    assert change.tokens.tolist() in twice.tokens.tolist()
    broken = params | {"denoiser": jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params["denoiser"])}
    change = compose_takes(jax.random.key(1), broken, now[0], grids[0], takes=2, previous_conditioning=before[0])
    assert bool(change.invalid)
    np.testing.assert_array_equal(change.tokens, grids[0])
