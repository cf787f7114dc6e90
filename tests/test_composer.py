"""compose: legal, free where nothing plays, exact infilling, independent examples, one compilation, targets met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CAP, KAPPA, SLACK, STATISTICS, asking, random_params

from eqdiff_jax import composer
from eqdiff_jax.composer import PROCESS, compose, hide, infill, predictor
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.control import cost
from eqdiff_jax.diffusion import sample
from eqdiff_jax.diffusion.bounded_change import UNITS
from eqdiff_jax.music import LEGAL
from eqdiff_jax.music.attributes import sums
from eqdiff_jax.music.grid import REST, SHAPE, SOUNDS, events
from eqdiff_jax.targets import DEFAULT, DEFAULT_RULES, compiled, targets

GUIDANCE = float(STATISTICS.guidance)
EMPTY = jnp.full(SHAPE, PROCESS.mask, jnp.int32)
NONE = jnp.int32(0)  # of a bucket: always an array, as Change.bucket is, or it is another program


@pytest.fixture(scope="module")
def params():
    return random_params(0.1)  # not sure of anything, so that candidates differ


def conditioning(seed, confidence=0.9):
    c = jax.random.normal(jax.random.key(seed), (104,)) * 0.3
    return c.at[LAYOUT["prediction_confidence"]].set(confidence)


def legal(tokens):
    return LEGAL[np.arange(12)[:, None], np.asarray(tokens)].all()


def play(key, params, c, previous, **options):
    """`compose` with every argument given, which makes it one program for all of these tests."""
    options = {"previous_conditioning": c, "bucket": NONE, "steps": 0, "temperature": 0.0, "control": 1.0,
               "guidance": GUIDANCE, "target_map": DEFAULT, "kappa": KAPPA, "slack": SLACK, "cap": CAP} | options
    return compose(jax.random.key(key), params, c, previous, **options)


def test_first_grid_is_free_and_legal(params):
    change = play(0, params, conditioning(0), EMPTY)
    assert change.tokens.shape == SHAPE and legal(change.tokens)
    assert int(change.changed) == int(change.budget) == 384
    assert int(change.steps) == round(50 - 46 * 0.9) and float(change.temperature) == pytest.approx(0.75)
    assert change.bucket.shape == () and change.bucket.dtype == jnp.int32


def test_without_control_one_candidate_is_what_the_sampler_draws(params):
    @jax.jit
    def drawn(k, c, change):
        return sample(jax.random.split(k, 3)[0], predictor(params, c[None]), PROCESS, (1, *SHAPE), steps=change.steps,
                      temperature=change.temperature).tokens[0]

    for key in range(3):
        c = conditioning(key)
        change = play(key, params, c, EMPTY, control=0.0)
        np.testing.assert_array_equal(change.tokens, drawn(jax.random.key(key), c, change))


def test_what_is_not_spent_is_carried(params):
    """Where nothing moves, slack adds up; what the bucket holds may be spent, and is then gone."""
    grid, bucket = play(0, params, conditioning(0), EMPTY).tokens, NONE
    for i in range(4):
        change = play(i, params, conditioning(0), grid, bucket=bucket, slack=3, control=1.0)
        assert int(change.budget) * UNITS == int(bucket) + 3 * UNITS
        assert int(change.bucket) == int(bucket) + (3 - int(change.changed)) * UNITS
        grid, bucket = change.tokens, change.bucket


def test_two_motions_from_one_grid_stay_within_the_sum_of_budgets(params):
    grid = play(0, params, conditioning(0), EMPTY).tokens
    for seed, shift in ((1, 0.01), (2, 0.1), (3, 0.5)):
        near = conditioning(0) + shift * conditioning(seed)
        a, b = (play(9, params, c, grid, previous_conditioning=conditioning(0)) for c in (conditioning(0), near))
        assert (np.asarray(a.tokens) != b.tokens).sum() <= int(a.budget) + int(b.budget)


def test_no_mask_survives_nan_or_holes(params):
    """NaN conditioning is refused at the edge; should it come through, the grid that plays plays on, and says so."""
    bad = play(0, params, jnp.full(104, jnp.nan, jnp.float32), EMPTY)
    assert int(bad.steps) == 50 and (np.asarray(bad.tokens) == REST).all() and bool(bad.invalid)
    fine = play(0, params, conditioning(0), EMPTY)
    grid = fine.tokens
    assert not bool(fine.invalid)
    bad = play(0, params, jnp.full(104, jnp.nan, jnp.float32), grid, previous_conditioning=conditioning(0))
    np.testing.assert_array_equal(bad.tokens, grid)
    assert bool(bad.invalid) and int(bad.changed) == 0
    holes = play(1, params, conditioning(0), grid.at[:6].set(PROCESS.mask), slack=0, cap=0)
    assert (np.asarray(holes.tokens) < 81).all() and int(holes.changed) == int(holes.budget) == 192
    np.testing.assert_array_equal(holes.tokens[6:], grid[6:])


@pytest.mark.parametrize("sampler", ["analytic", "ancestral", "remdm", "parallel"])
def test_any_tracks_and_any_bar_can_be_made_from_the_others(params, sampler):
    grid = play(0, params, conditioning(0), EMPTY).tokens
    for tracks, bars in (((4, 5), ()), ((), (1,)), (range(12), ()), ((0,), (0,))):
        hidden = hide(grid, tracks, bars)
        made = infill(jax.random.key(1), params, conditioning(2), hidden, sampler=sampler, steps=6)
        given = np.asarray(hidden) != PROCESS.mask
        np.testing.assert_array_equal(np.asarray(made.tokens)[given], np.asarray(grid)[given])
        assert int(made.budget) == int(made.changed) == (~given).sum() and legal(made.tokens)


def test_negative_conditioning_is_what_guidance_leads_away_from(params):
    """Its weight is 1 - w: at w = 1 it does nothing, and with itself as the negative nothing is left but p_c."""
    c, other = conditioning(0)[None], conditioning(3)[None]
    tokens, t = jnp.asarray(EMPTY)[None], jnp.ones(1)
    plain = predictor(params, c, 1.0)(tokens, t)
    np.testing.assert_allclose(predictor(params, c, 1.0, other)(tokens, t), plain, atol=1e-4)
    np.testing.assert_allclose(predictor(params, c, 3.0, c)(tokens, t), plain, atol=1e-3)
    away = np.asarray(predictor(params, c, 2.0, other)(tokens, t))
    theirs = composer.posterior(params, other, jnp.array([True]))(tokens, t)
    possible = np.isfinite(np.asarray(plain))
    mixed = np.where(possible, 2 * np.where(possible, plain, 0) - np.where(possible, theirs, 0), -np.inf)
    want = jax.nn.log_softmax(jnp.asarray(mixed))
    np.testing.assert_allclose(away[possible], np.asarray(want)[possible], atol=1e-3)
    np.testing.assert_allclose(np.exp(plain).sum(-1), 1.0, rtol=1e-5)
    assert np.isneginf(np.asarray(plain)[:, ~LEGAL[:, None, :].repeat(32, 1)]).all()


def test_one_compilation_for_every_setting(params):
    """And the same key gives the same grid, another key another."""
    grid = play(0, params, conditioning(0), EMPTY).tokens
    first = compose._cache_size()
    other = compiled(DEFAULT_RULES | {"layers": DEFAULT_RULES["layers"]._replace(source="tension", curve="log")})
    for i in range(3):
        change = play(i, params, conditioning(i), grid, previous_conditioning=conditioning(9), steps=i,
                      temperature=0.5 + i, guidance=1.0 + i, control=0.3 * i, kappa=0.1 * i, slack=i, cap=90 * i,
                      target_map=other if i % 2 else DEFAULT)
        play(i, params, conditioning(i), change.tokens, bucket=change.bucket)
    assert compose._cache_size() == first
    one, two, three = (play(k, params, conditioning(0), EMPTY).tokens for k in (4, 4, 5))
    np.testing.assert_array_equal(one, two)
    assert (np.asarray(one) != three).any()


def test_who_asks_for_silence_has_it(params):
    """Silence is a phrase like any other, where the targets want it and the budget allows."""
    rules = {name: rule._replace(weight=0.0) for name, rule in DEFAULT_RULES.items()}
    for name in ("density", "intensity", "layers"):
        rules[name] = rules[name]._replace(low=0.0, high=0.0, weight=2.0, sections={})
    def notes(key, control):  # as they are read: sounds that a macro stands over are not heard
        change = play(key, params, conditioning(0), EMPTY, target_map=compiled(rules), control=control)
        return len(events(np.asarray(change.tokens)))

    found = [(notes(key, 1.0), notes(key, 0.0)) for key in range(6)]
    assert min(found)[0] == 0 and all(asked < 0.25 * plain for asked, plain in found)


@pytest.fixture(scope="module")
def batch(params):
    """options -> changes of three examples with two candidates each, from empty grids unless it says otherwise."""
    def made(c, previous=None, key=3, **options):
        previous = jnp.broadcast_to(EMPTY, (len(c), *SHAPE)) if previous is None else previous
        options = {"previous_conditioning": c, "bucket": jnp.zeros(len(c), jnp.int32), "candidates": 2,
                   "control": jnp.ones(len(c)), "negative": jnp.zeros_like(c)} | options
        return compose(jax.random.key(key), params, c, previous, **options)
    return made


def test_batch_elements_do_not_influence_each_other(batch):
    """Same place, same key, other neighbours, NaN among them: not a bit may differ."""
    c = jnp.stack([conditioning(0, 0.9), conditioning(1, 0.2), conditioning(2, 1.0)])
    grids = batch(c).tokens
    whole = batch(c, grids, previous_conditioning=c + 0.1)
    other = batch(c.at[1].set(conditioning(8, 0.5)).at[2].set(jnp.nan), grids.at[1:].set(0),
                  previous_conditioning=(c + 0.1).at[1:].set(0.0), bucket=jnp.array([0, 9, 99]) * UNITS,
                  control=jnp.array([1.0, 0.0, 3.0]))
    for field in ("tokens", "changed", "budget", "bucket", "steps", "temperature", "invalid"):
        np.testing.assert_array_equal(getattr(whole, field)[0], getattr(other, field)[0])
    assert int(whole.changed[0]) > 0 and other.invalid.tolist() == [False, False, True]
    assert not np.asarray(other.tokens[2]).any()


def test_more_control_comes_nearer_to_the_targets(batch):
    """Of the same network, by the cost that the chain reads. Elements have strengths of their own."""
    rng, weight = np.random.default_rng(8), jnp.asarray(DEFAULT.weight)
    missed = {0.0: [], 1.0: []}
    for key in range(4):
        c = jnp.asarray(rng.uniform(0, 1, (3, 104)), jnp.float32)
        asked = targets(c, STATISTICS)
        for strength, found in missed.items():
            grids = batch(c, key=key, control=jnp.full(3, strength, jnp.float32)).tokens
            found.extend(cost(jax.tree.map(lambda x: x.sum(1), sums(grids)), asked, weight, STATISTICS).tolist())
    assert np.mean(missed[1.0]) < 0.5 * np.mean(missed[0.0])
    assert np.mean(np.array(missed[1.0]) < missed[0.0]) > 0.8


def test_more_movement_has_more_notes(batch):
    still, wild_ = ({"periodicity": p, "energy": p, "prediction_confidence": 0.9} for p in (0.1, 0.9))
    few, most, _ = np.asarray(batch(asking(still, wild_, still)).tokens)
    assert SOUNDS[few].sum() + 10 < SOUNDS[most].sum()
