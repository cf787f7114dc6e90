"""What is asked: tables, goals, and a law that does it with the cells that are hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import grid_of
from hypothesis import given
from hypothesis import strategies as st
from networks import asking, random_params

from eqdiff_jax import asked
from eqdiff_jax.asked import ASKED, HAS, LEVELS, SPREADS, follow, goals, spread, standing
from eqdiff_jax.composer import PROCESS, compose, hide, infill
from eqdiff_jax.diffusion import legal_log_posterior
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.music.grid import SHAPE, SOUNDS
from eqdiff_jax.music.metrics import FIDELITY

EMPTY = jnp.full(SHAPE, PROCESS.mask, jnp.int32)
PITCHED = np.isin(np.arange(81), VOCABULARY.ranges["pitch"])
PITCH = np.where(PITCHED, np.arange(81) - VOCABULARY.ranges["pitch"][0] + 36, 0)
LEAP = grid_of(BASS="C2 ~ C3 ~ C2 ~ C3", LEAD="C5", KICK="bd bd bd")


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
    inner = np.clip(np.arange(13), 1, 11)  # stillness and frenzy ask for no more than the outermost twelfths
    np.testing.assert_allclose(1 - np.exp(-np.asarray(notes) / 96), HAS[density][inner], atol=1e-5)
    np.testing.assert_allclose(semitones, SPREADS[inner], atol=1e-5)
    far, _ = goals(asking({"periodicity": 50.0}, {"periodicity": -50.0}))
    np.testing.assert_allclose(1 - np.exp(-np.asarray(far) / 96), HAS[density][[-2, 1]], atol=1e-5)


def test_the_spread_of_a_grid_and_of_a_law():
    """The bass is 6 semitones from its centre four times, the lead 0 once; drums do not count."""
    assert float(spread(one_hot(LEAP)[None])[0]) == pytest.approx(24 / 5)
    half = 0.5 * (one_hot(LEAP) + one_hot(grid_of()))  # half as likely notes lie as far apart
    assert float(spread(half[None])[0]) == pytest.approx(24 / 5)
    assert float(spread(one_hot(grid_of(KICK="bd bd"))[None])[0]) == 0.0


ASKING = [{"periodicity": p, "curvature": q} for p, q in ((0.3, 0.36), (0.5, 0.4), (0.9, 0.35), (0.95, 0.5))]


def half_standing():
    """Four grids [4, 12, 32], half of their cells masked; what stands lies within a fifth, with rests."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((4, *SHAPE), np.int32)
    for t in range(12):
        pitches = np.flatnonzero(LEGAL[t] & SOUNDS)
        tokens[:, t] = rng.choice([*[0] * 40, *pitches[:7]], (4, 32))
    return np.where(rng.random(tokens.shape) < 0.5, PROCESS.mask, tokens)


@pytest.mark.parametrize("heat", [0.7, 1.0, 1.2])
@pytest.mark.parametrize("tokens", [np.full((4, *SHAPE), PROCESS.mask), half_standing()], ids=["empty", "half"])
def test_the_law_that_follows_has_the_notes_and_the_spread_that_are_asked(tokens, heat):
    """At the temperature at which it is drawn from, with what stands counted in."""
    c, hidden = asking(*ASKING), tokens == PROCESS.mask
    notes, semitones = goals(c)
    log = follow(law(1, 4), c, 10.0, jnp.full(4, heat))(jnp.asarray(tokens), jnp.zeros(4))
    whole = np.where(hidden[..., None], jax.nn.softmax(log / heat), one_hot(tokens))
    np.testing.assert_allclose((whole * SOUNDS).sum((1, 2, 3)), notes, rtol=1e-3)
    plain = np.where(hidden[..., None], jax.nn.softmax(law(1, 4)(tokens, 0.0) / heat), one_hot(tokens))
    # The centres are those of the law before, and the number of notes is set afterwards: near, not equal.
    off, was = (np.abs(spread(jnp.asarray(x)) - semitones) for x in (whole, plain))
    assert (off < 0.3 * was).all()
    assert (np.isneginf(log) == ~LEGAL[:, None]).all()


@pytest.mark.parametrize("tokens", [np.full((4, *SHAPE), PROCESS.mask), half_standing()], ids=["empty", "half"])
def test_the_spread_moves_pitches_and_no_notes(tokens, monkeypatch):
    """Distances from the centres of the law before add up to the goal; how likely a cell is pitched stays."""
    monkeypatch.setattr(asked, "NOTES", 0.0)
    c, hidden = asking(*ASKING), tokens == PROCESS.mask
    plain, log = law(1, 4)(tokens, 0.0), follow(law(1, 4), c, 10.0)(jnp.asarray(tokens), jnp.zeros(4))
    before, after = (np.where(hidden[..., None], np.exp(x), one_hot(tokens)) * PITCHED for x in (plain, log))
    np.testing.assert_allclose(before.sum(-1), after.sum(-1), atol=1e-5)
    centre = (before * PITCH).sum((2, 3)) / before.sum((2, 3)).clip(1e-9)
    distance = np.abs(PITCH - centre[..., None])[:, :, None]
    np.testing.assert_allclose((after * distance).sum((1, 2, 3)) / after.sum((1, 2, 3)), goals(c)[1], rtol=1e-3)
    assert (np.abs((before * distance).sum((1, 2, 3)) / before.sum((1, 2, 3)) - goals(c)[1]) > 0.5).all()


def test_a_track_that_is_silent_stays_silent():
    """One note in 1e9 has no centre that counts, and pulls nobody."""
    logits = np.random.default_rng(1).normal(0, 1.5, (1, *SHAPE, 81))
    quiet = [t for t in range(12) if (LEGAL[t] & PITCHED).any()][1:4]
    logits[:, quiet] -= 22.0 * PITCHED
    log = follow(lambda tokens, t: legal_log_posterior(jnp.asarray(logits, jnp.float32), LEGAL[:, None]),
                 asking({"periodicity": 0.99, "curvature": 0.7}), 1.0)(EMPTY[None], jnp.zeros(1))
    assert (np.exp(log)[0, quiet] * PITCHED).sum() < 1e-4
    assert not np.isnan(log).any()


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
    assert np.isin(few, np.flatnonzero(SOUNDS)).sum() + 20 < np.isin(many, np.flatnonzero(SOUNDS)).sum()
    other = compose(jax.random.key(0), params, c.at[1].set(0.3), jnp.stack([EMPTY, EMPTY])).tokens
    np.testing.assert_array_equal(few, other[0])
    alone = compose(jax.random.key(0), params, c[0], EMPTY, follow=0.0).tokens
    both = compose(jax.random.key(0), params, c, jnp.stack([EMPTY, EMPTY]), follow=jnp.array([0.0, 1.0])).tokens
    np.testing.assert_array_equal(alone, both[0])
    np.testing.assert_array_equal(many, both[1])


def test_nan_stays_where_it_is():
    """Of two conditionings one breaks the network: its grid comes back, marked, and the other is what it was."""
    params = random_params(0.1)
    c, grids = asking({"periodicity": 0.5}, {"periodicity": 0.5}), jnp.zeros((2, *SHAPE), jnp.int32)
    clean = compose(jax.random.key(0), params, c, grids, idle=50)
    change = compose(jax.random.key(0), params, c.at[1].set(jnp.nan), grids, idle=50)
    assert change.invalid.tolist() == [False, True] and not np.asarray(change.tokens[1]).any()
    np.testing.assert_array_equal(change.tokens[0], clean.tokens[0])
    assert int(clean.changed[0]) > 0


def test_infilling_makes_up_for_nothing_unless_it_is_asked():
    params = random_params(0.1)
    hidden = hide(jnp.zeros(SHAPE, jnp.int32), range(3))
    c = asking({"periodicity": 0.97})[0]
    found = [infill(jax.random.key(0), params, c, hidden, temperature=1.0, **knobs).tokens
             for knobs in ({}, {"follow": 0.0}, {"follow": 5.0})]
    np.testing.assert_array_equal(found[0], found[1])
    assert SOUNDS[np.asarray(found[2])].sum() > SOUNDS[np.asarray(found[0])].sum()
