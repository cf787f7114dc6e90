"""What is asked: tables, goals, and a law that does it with the cells that are hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import grid_of
from hypothesis import given
from hypothesis import strategies as st
from networks import random_params

from eqdiff_jax.asked import ASKED, HAS, HEARD, LEVELS, SLOTS, SPREADS, follow, goals, spread, standing, tables
from eqdiff_jax.composer import PROCESS, compose
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.diffusion import legal_log_posterior
from eqdiff_jax.music import LEGAL, VOCABULARY, descriptors
from eqdiff_jax.music.grid import SHAPE, SOUNDS
from eqdiff_jax.music.metrics import FIDELITY

EMPTY = jnp.full(SHAPE, PROCESS.mask, jnp.int32)
LEAP = grid_of(BASS="C2 ~ C3 ~ C2 ~ C3", LEAD="C5", KICK="bd bd bd")


def asking(*rows):
    c = np.zeros((len(rows), 104), np.float32)
    for i, row in enumerate(rows):
        for name, value in row.items():
            c[i, LAYOUT[name]] = value
    return jnp.asarray(c)


def law(seed, batch):
    """A predictor that is not sure: fixed logits over the legal tokens. [B, 12, 32, 81]"""
    logits = jnp.asarray(np.random.default_rng(seed).normal(0, 1.5, (batch, *SHAPE, 81)), jnp.float32)
    return lambda tokens, t: legal_log_posterior(logits, LEGAL[:, None])


def one_hot(tokens):
    return jax.nn.one_hot(jnp.asarray(tokens), len(VOCABULARY))


def test_a_quantile_stands_at_its_level():
    table = np.array([[0.0, 1.0, 4.0], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(standing(np.array([[0.0, 3.0], [1.0, 2.5], [2.5, 9.0], [-1.0, -1.0]]), table),
                               [[0.0, 1.0], [0.5, 0.75], [0.75, 1.0], [0.0, 0.0]])
    for quantiles in (ASKED, HAS):
        assert (np.diff(quantiles) > 0).all() and quantiles.shape == (len(FIDELITY), len(LEVELS))
        np.testing.assert_allclose(standing(quantiles.T, quantiles), np.repeat(LEVELS[:, None], 5, axis=1))
    assert (np.diff(SPREADS) > 0).all() and SPREADS.shape == LEVELS.shape


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_standing_is_in_order_and_in_range(values):
    column = np.sort(values)[:, None]
    got = standing(column, HAS[:1])
    assert (np.diff(got[:, 0]) >= 0).all() and got.min() >= 0 and got.max() <= 1


def test_goals_are_the_quantiles_of_what_is_asked():
    density, curvature = (list(FIDELITY).index(name) for name in ("periodicity", "curvature"))
    rows = [{"periodicity": p, "curvature": q} for p, q in zip(ASKED[density], ASKED[curvature], strict=True)]
    notes, semitones = goals(asking(*rows))
    np.testing.assert_allclose(1 - np.exp(-np.asarray(notes) / 96), HAS[density], atol=1e-5)
    np.testing.assert_allclose(semitones, SPREADS, atol=1e-5)
    far, _ = goals(asking({"periodicity": 50.0}, {"periodicity": -50.0}))
    np.testing.assert_allclose(1 - np.exp(-np.asarray(far) / 96), HAS[density][[-1, 0]], atol=1e-5)


def test_the_spread_of_a_grid_and_of_a_law():
    """The bass is 6 semitones from its centre four times, the lead 0 once; drums do not count."""
    assert float(spread(one_hot(LEAP)[None])[0]) == pytest.approx(24 / 5)
    half = 0.5 * (one_hot(LEAP) + one_hot(grid_of()))  # half as likely notes lie as far apart
    assert float(spread(half[None])[0]) == pytest.approx(24 / 5)
    assert float(spread(one_hot(grid_of(KICK="bd bd"))[None])[0]) == 0.0


def test_the_law_that_follows_has_the_notes_and_the_spread_that_are_asked():
    """From nothing, and with half of the cells standing, which are counted in."""
    rng = np.random.default_rng(0)
    standing_cells = np.array([[rng.choice(np.flatnonzero(LEGAL[t]), 32) for t in range(12)] for _ in range(4)])
    half = np.where(rng.random((4, *SHAPE)) < 0.5, PROCESS.mask, standing_cells)
    c = asking(*({"periodicity": p, "curvature": q} for p, q in ((0.3, 0.3), (0.5, 0.4), (0.9, 0.3), (0.95, 0.5))))
    notes, semitones = goals(c)
    for tokens, near in ((np.full((4, *SHAPE), PROCESS.mask), 0.05), (half, 1.05)):
        hidden = tokens == PROCESS.mask
        log = np.asarray(follow(law(1, 4), c, 10.0)(jnp.asarray(tokens), jnp.zeros(4)))
        whole = np.where(hidden[..., None], np.exp(log), one_hot(tokens))
        np.testing.assert_allclose((whole * SOUNDS).sum((1, 2, 3)), np.maximum(
            notes, (SOUNDS[np.where(hidden, 0, tokens)] & ~hidden).sum((1, 2))), rtol=1e-3)
        plain = np.where(hidden[..., None], np.exp(law(1, 4)(tokens, 0.0)), one_hot(tokens))
        # The centres are those of the law before, and the number of notes is set afterwards: near, not equal; and
        # what stands in `half` leaps about.
        off, was = (np.abs(spread(jnp.asarray(x)) - semitones) for x in (whole, plain))
        assert (off < near * was).all()
        assert (np.isneginf(log) == ~LEGAL[:, None]).all()


def test_no_strength_is_the_law_itself_and_the_limit_holds():
    c = asking({"periodicity": 0.99, "curvature": 0.7}, {"periodicity": 0.0, "curvature": 0.1})
    tokens = jnp.broadcast_to(EMPTY, (2, *SHAPE))
    plain = law(2, 2)(tokens, 0.0)
    np.testing.assert_allclose(follow(law(2, 2), c, 0.0)(tokens, 0.0), plain, atol=1e-5)
    one = np.asarray(follow(law(2, 2), c, jnp.array([0.5, 0.0]))(tokens, 0.0))
    np.testing.assert_allclose(one[1], plain[1], atol=1e-5)
    drums = np.flatnonzero(LEGAL[0] & SOUNDS)  # the kick's row: no pitch, so only the notes' odds move
    rest = 0
    odds = (one[0, 0][:, drums] - one[0, 0][:, [rest]]) - (plain[0, 0][:, drums] - plain[0, 0][:, [rest]])
    assert (np.abs(odds) <= 0.5 * 2.0 + 1e-4).all() and (np.abs(odds) > 0.01).any()


def test_a_grid_follows_and_elements_do_not_know_of_each_other():
    params = random_params(0.1)
    c = asking({"periodicity": 0.05, "prediction_confidence": 0.9}, {"periodicity": 0.97, "prediction_confidence": 0.9})
    few, many = compose(jax.random.key(0), params, c, jnp.stack([EMPTY, EMPTY])).tokens
    assert np.isin(few, np.flatnonzero(SOUNDS)).sum() + 30 < np.isin(many, np.flatnonzero(SOUNDS)).sum()
    other = compose(jax.random.key(0), params, c.at[1].set(0.3), jnp.stack([EMPTY, EMPTY])).tokens
    np.testing.assert_array_equal(few, other[0])
    alone = compose(jax.random.key(0), params, c[0], EMPTY, follow=0.0).tokens
    both = compose(jax.random.key(0), params, c, jnp.stack([EMPTY, EMPTY]), follow=jnp.array([0.0, 1.0])).tokens
    np.testing.assert_array_equal(alone, both[0])
    np.testing.assert_array_equal(many, both[1])


def test_a_network_that_gives_nan_stops_nothing_but_its_own():
    params = random_params(0.1)
    broken = params | {"denoiser": jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params["denoiser"])}
    change = compose(jax.random.key(0), broken, asking({"periodicity": 0.5})[0], jnp.zeros(SHAPE, jnp.int32))
    assert bool(change.invalid) and not np.asarray(change.tokens).any()


def test_tables_are_quantiles_of_the_pairs():
    rng = np.random.default_rng(4)
    grids = np.array([[rng.choice(np.flatnonzero(LEGAL[t]), 32) for t in range(12)] for _ in range(30)])
    c = rng.uniform(size=(30, 104))
    asked, has, spreads = tables(c, grids)
    assert asked.shape == has.shape == (5, 13) and spreads.shape == (13,)
    heard = np.array([descriptors(g) for g in grids])[:, HEARD]
    np.testing.assert_allclose(asked[:, [0, 6, 12]], np.stack(
        [f(c[:, SLOTS], axis=0) for f in (np.min, np.median, np.max)], axis=1))
    np.testing.assert_allclose(has[:, [0, 6, 12]], np.stack([f(heard, axis=0) for f in (np.min, np.median, np.max)], 1))
    wide = np.array([float(spread(one_hot(g)[None])[0]) for g in grids])
    np.testing.assert_allclose(spreads[[0, 12]], [wide.min(), wide.max()], rtol=1e-5)
