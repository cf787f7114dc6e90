"""compose: legality, bounded change whatever the network says, independence, one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_params

from eqdiff_jax import composer
from eqdiff_jax.composer import PROCESS, compose, hide, infill, predictor, transition
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.diffusion import legal_log_posterior
from eqdiff_jax.music import LEGAL
from eqdiff_jax.music.grid import SHAPE

EMPTY = jnp.full(SHAPE, PROCESS.mask, jnp.int32)


@pytest.fixture(scope="module")
def params():
    return random_params(0.3)  # large weights: it is sure of itself


def conditioning(seed, confidence=0.9):
    c = jax.random.normal(jax.random.key(seed), (104,)) * 0.3
    return c.at[LAYOUT["prediction_confidence"]].set(confidence)


def legal(tokens):
    return np.take_along_axis(LEGAL[None].repeat(len(tokens), 0), np.asarray(tokens), axis=2).all()


def test_first_grid_is_free_and_legal(params):
    change = compose(jax.random.key(0), params, conditioning(0), EMPTY)
    assert change.tokens.shape == SHAPE and legal(change.tokens[None])
    assert int(change.changed) == int(change.budget) == 384
    assert int(change.steps) == round(50 - 46 * 0.9) and float(change.temperature) == pytest.approx(0.75)


def random_predictor(seed):
    """A cheap wild network: logits from a random mix of the cells around and the conditioning. No two calls agree."""
    table, mix, pull = (jax.random.normal(k, shape) for k, shape in zip(
        jax.random.split(jax.random.key(seed), 3), ((82, 8), (8, 81), (104, 81)), strict=True))

    def bind(conditioning):
        def predict(tokens, t):
            del t
            around = sum(jnp.roll(table[tokens], (i, j), (1, 2)) for i, j in ((0, 1), (1, 0), (0, -1), (3, 5)))
            return legal_log_posterior(2.0 * around @ mix + (conditioning @ pull)[:, None, None], LEGAL[:, None])
        return predict

    return bind


def test_ten_thousand_transitions_keep_their_budget():
    """Conditioning teleports, stands still, drifts; the bound may not depend on the network."""
    rng, batch, calls = np.random.default_rng(0), 250, 40
    tokens = np.stack([rng.choice(np.flatnonzero(LEGAL[t]), (batch, 32)) for t in range(12)], axis=1)
    before = rng.normal(size=(batch, 104)).astype(np.float32)
    knobs = dict(temperature=0.0, kappa=0.05, idle=8, most=128, sampler="analytic")
    step = jax.jit(lambda key, seed, now, tokens, before, steps: transition(
        key, random_predictor(seed)(now), now, tokens, before, steps=steps, **knobs))
    used = []
    for call in range(calls):
        scale = 10.0 ** rng.uniform(-4, 2, (batch, 1))
        now = (before + rng.normal(size=(batch, 104)) * scale).astype(np.float32)
        change = step(jax.random.key(call), call % 4, now, tokens, before, 1 + call % 3)
        changed = (np.asarray(change.tokens) != tokens).sum((1, 2))
        distance = np.linalg.norm(now.astype(np.float64) - before, axis=1)
        np.testing.assert_array_equal(changed, change.changed)
        assert (changed <= np.asarray(change.budget)).all() and (changed <= 128).all()
        assert (changed <= np.floor(384 * 0.05 * distance * (1 + 1e-5)) + 8).all()
        assert legal(change.tokens)
        used.append((changed / np.asarray(change.budget)).max())
        tokens, before = np.asarray(change.tokens), now
    assert min(used) > 0.9  # the budget is used, not merely respected


def test_the_judge_says_which_cells_may_go():
    """Whatever the sampler's law would rather have changed: all else is clamped."""
    rng = np.random.default_rng(0)
    tokens = np.stack([rng.choice(np.flatnonzero(LEGAL[t]), (1, 32)) for t in range(12)], axis=1)
    spoken_against = np.zeros(tokens.shape, bool)
    spoken_against.reshape(1, -1)[0, rng.permutation(384)[:20]] = True
    likes = np.where(spoken_against, 0.0, 9.0)[..., None] * np.eye(81)[tokens]
    c = jax.random.normal(jax.random.key(0), (1, 104))
    change = transition(jax.random.key(1), random_predictor(3)(c), c, jnp.asarray(tokens), c + 1.0,
                        judge=lambda tokens, t: legal_log_posterior(jnp.asarray(likes), LEGAL[:, None]), steps=4,
                        temperature=1.0, kappa=0.05, idle=20, most=20, sampler="analytic")
    changed = np.asarray(change.tokens) != tokens
    assert int(change.budget[0]) == 20 and changed.sum() > 10 and not (changed & ~spoken_against).any()


def test_the_weight_of_scoring_chooses_cells_and_nothing_else(params):
    grid = compose(jax.random.key(0), params, conditioning(0), EMPTY, scoring=3.0).tokens
    np.testing.assert_array_equal(grid, compose(jax.random.key(0), params, conditioning(0), EMPTY, scoring=30.0).tokens)
    a, b = (compose(jax.random.key(1), params, conditioning(1), grid, scoring=w, idle=100, temperature=3.0)
            for w in (0.0, 30.0))
    assert (np.asarray(a.tokens) != b.tokens).any() and int(a.budget) == int(b.budget) == 100


def test_a_first_grid_and_a_kept_one_have_their_own_guidance(params):
    """In one batch: each element as if all of it had that weight. Infilling counts as a first grid."""
    grid = compose(jax.random.key(0), params, conditioning(0), EMPTY).tokens
    now, before = (jnp.stack([conditioning(i), conditioning(i + 1)]) for i in (1, 5))
    previous = jnp.stack([EMPTY, grid])

    def made(guidance):
        return np.asarray(compose(jax.random.key(2), params, now, previous, previous_conditioning=before, idle=100,
                                  guidance=guidance, temperature=3.0).tokens)

    silent, first, kept = (made(w) for w in (None, composer.GUIDANCE, composer.KEPT))
    assert (first != kept).any((1, 2)).all()
    np.testing.assert_array_equal(silent[0], first[0])
    np.testing.assert_array_equal(silent[1], kept[1])
    hidden = hide(grid, range(6))
    a, b, c = (infill(jax.random.key(3), params, now[0], hidden, temperature=3.0, **knobs).tokens
               for knobs in ({}, {"guidance": composer.GUIDANCE}, {"guidance": composer.KEPT}))
    np.testing.assert_array_equal(a, b)
    assert (np.asarray(a) != c).any()


def test_two_motions_from_one_grid_stay_within_the_sum_of_budgets(params):
    grid = compose(jax.random.key(0), params, conditioning(0), EMPTY).tokens
    for seed, shift in ((1, 0.01), (2, 0.1), (3, 0.5)):
        near = conditioning(0) + shift * conditioning(seed)
        a, b = (compose(jax.random.key(9), params, c, grid, previous_conditioning=conditioning(0))
                for c in (conditioning(0), near))
        assert (np.asarray(a.tokens) != b.tokens).sum() <= int(a.budget) + int(b.budget)


def test_idle_budget_without_a_previous_conditioning(params):
    grid = compose(jax.random.key(0), params, conditioning(0), EMPTY).tokens
    change = compose(jax.random.key(1), params, conditioning(5), grid)
    assert int(change.budget) == 8 and (np.asarray(change.tokens) != grid).sum() <= 8


def test_no_mask_survives_nan_or_holes(params):
    """NaN conditioning is refused at the edge; should it come through, the grid that plays plays on, and says so."""
    bad = compose(jax.random.key(0), params, jnp.full(104, jnp.nan), EMPTY)
    assert int(bad.steps) == 50 and (np.asarray(bad.tokens) == 0).all() and bool(bad.invalid)
    fine = compose(jax.random.key(0), params, conditioning(0), EMPTY)
    grid = fine.tokens
    assert not bool(fine.invalid)
    bad = compose(jax.random.key(0), params, jnp.full(104, jnp.nan), grid, previous_conditioning=conditioning(0))
    np.testing.assert_array_equal(bad.tokens, grid)
    assert bool(bad.invalid) and int(bad.changed) == 0
    holes = compose(jax.random.key(1), params, conditioning(0), grid.at[:6].set(PROCESS.mask))
    assert (np.asarray(holes.tokens) < 81).all() and int(holes.changed) == int(holes.budget) == 192
    np.testing.assert_array_equal(holes.tokens[6:], grid[6:])


@pytest.mark.parametrize("sampler", ["analytic", "ancestral", "remdm", "parallel"])
def test_any_tracks_and_any_bar_can_be_made_from_the_others(params, sampler):
    grid = compose(jax.random.key(0), params, conditioning(0), EMPTY).tokens
    for tracks, bars in (((4, 5), ()), ((), (1,)), (range(12), ()), ((0,), (0,))):
        hidden = hide(grid, tracks, bars)
        made = infill(jax.random.key(1), params, conditioning(2), hidden, sampler=sampler, steps=6)
        given = np.asarray(hidden) != PROCESS.mask
        np.testing.assert_array_equal(np.asarray(made.tokens)[given], np.asarray(grid)[given])
        assert (np.asarray(made.tokens) < 81).all() and int(made.budget) == (~given).sum()
        assert LEGAL[np.arange(12)[:, None], made.tokens].all()


def test_negative_conditioning_is_what_guidance_leads_away_from(params):
    """Its weight is 1 - w: at w = 1 it does nothing, and with itself as the negative nothing is left but p_c."""
    c, other = conditioning(0)[None], conditioning(3)[None]
    tokens, t = jnp.asarray(EMPTY)[None], jnp.ones(1)
    plain = composer.predictor(params, c, 1.0)(tokens, t)
    np.testing.assert_allclose(composer.predictor(params, c, 1.0, other)(tokens, t), plain, atol=1e-4)
    np.testing.assert_allclose(composer.predictor(params, c, 3.0, c)(tokens, t), plain, atol=1e-3)
    away = np.asarray(composer.predictor(params, c, 2.0, other)(tokens, t))
    theirs = composer.posterior(params, other, jnp.array([True]))(tokens, t)
    legal = np.isfinite(np.asarray(plain))
    mixed = np.where(legal, 2 * np.where(legal, plain, 0) - np.where(legal, theirs, 0), -np.inf)
    want = jax.nn.log_softmax(jnp.asarray(mixed))
    np.testing.assert_allclose(away[legal], np.asarray(want)[legal], atol=1e-3)
    made = compose(jax.random.key(0), params, c[0], EMPTY, negative=other[0], steps=4)
    assert (np.asarray(made.tokens) < 81).all()


def test_same_key_same_grid_other_key_other_grid(params):
    one, two, three = (compose(jax.random.key(k), params, conditioning(0), EMPTY).tokens for k in (4, 4, 5))
    np.testing.assert_array_equal(one, two)
    assert (np.asarray(one) != three).any()


def test_batch_elements_do_not_influence_each_other(params):
    c = jnp.stack([conditioning(0, 0.9), conditioning(1, 0.2), conditioning(2, 1.0)])
    previous = jnp.stack([EMPTY, *[compose(jax.random.key(0), params, conditioning(i), EMPTY).tokens for i in (1, 2)]])
    whole = compose(jax.random.key(3), params, c, previous, previous_conditioning=c + 0.1)
    # Same place, same key, other neighbours: not a bit may differ.
    other = compose(jax.random.key(3), params, c.at[1:].set(conditioning(8, 0.5)), previous.at[1:].set(0),
                    previous_conditioning=(c + 0.1).at[1:].set(0.0))
    np.testing.assert_array_equal(whole.tokens[0], other.tokens[0])


def test_one_compilation_for_every_setting(params):
    grid = compose(jax.random.key(0), params, conditioning(0), EMPTY).tokens
    before = compose._cache_size()
    for i in range(4):
        compose(jax.random.key(i), params, conditioning(i), grid, previous_conditioning=conditioning(9),
                steps=i, temperature=0.5 + i, guidance=1.0 + i)
    first = compose._cache_size()
    compose(jax.random.key(7), params, conditioning(7), grid, previous_conditioning=conditioning(9), steps=33,
            temperature=0.7, guidance=3.0)
    assert compose._cache_size() == first <= before + 1


def test_predictor_gives_a_legal_normalised_posterior(params):
    log_p = predictor(params, conditioning(0)[None], 1.5)(EMPTY[None], jnp.zeros(1))
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0, rtol=1e-5)
    assert np.isneginf(np.asarray(log_p)[:, ~LEGAL[:, None, :].repeat(32, 1)]).all()
