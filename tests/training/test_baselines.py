"""The baselines are laws: on small worlds every word is enumerated and the probabilities sum to one."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.music.grid import LEGAL, REST, SHAPE
from eqdiff_jax.training import baselines

SEEDS = st.integers(0, 2**20)
TOY_LEGAL = np.array([[True, True, False], [True, True, True]])  # two tracks, three tokens, four steps, bars of two


def words(tracks: int, steps: int, vocab: int) -> np.ndarray:
    """Every grid of that shape."""
    return np.array(list(itertools.product(range(vocab), repeat=tracks * steps))).reshape(-1, tracks, steps)


def toy(seed: int):
    """Random training and validation grids of the toy world, and a fitted model."""
    rng = np.random.default_rng(seed)
    train, validation = (np.stack([rng.integers(0, 2, (n, 4)), rng.integers(0, 3, (n, 4))], axis=1) for n in (12, 5))
    return train, validation, baselines.fit_markov(train, validation, legal=TOY_LEGAL, bar=2)


def legal_everywhere(tokens: np.ndarray) -> np.ndarray:
    return TOY_LEGAL[np.arange(2)[:, None], tokens].all((1, 2))


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_markov_is_a_law_over_all_words(seed):
    *_, model = toy(seed)
    everything = words(2, 4, 3)
    p = 2.0 ** -baselines.markov_bits(model, everything).sum((1, 2))
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert (p[~legal_everywhere(everything)] == 0).all() and (p[legal_everywhere(everything)] > 0).all()


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_sampler_draws_from_the_law_that_is_scored(seed):
    train, _, model = toy(seed)
    bits = baselines.markov_bits(model, train)
    for step in range(4):
        law = baselines.markov_law(model, train, step)
        np.testing.assert_allclose(law.sum(-1), 1.0, atol=1e-12)
        here = np.take_along_axis(law, train[:, :, step, None], axis=-1)[..., 0]
        np.testing.assert_allclose(-np.log2(here), bits[:, :, step], atol=1e-9)
        blind = train.copy()
        blind[:, :, step:] = 0  # what comes later is not read
        np.testing.assert_array_equal(baselines.markov_law(model, blind, step), law)


def test_samples_follow_the_law():
    *_, model = toy(0)
    everything = words(2, 4, 3)
    p = 2.0 ** -baselines.markov_bits(model, everything).sum((1, 2))
    drawn = baselines.sample_markov(np.random.default_rng(1), model, 40_000, 4)
    assert legal_everywhere(drawn).all()
    place = 3 ** np.arange(7, -1, -1)
    counts = np.bincount(drawn.reshape(-1, 8) @ place, minlength=len(p))
    assert (counts[p == 0] == 0).all()
    expected = 40_000 * p[p > 0]
    chi = ((counts[p > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom)


def test_fitting_lowers_the_code_length_of_the_validation_part():
    train, validation, model = toy(3)
    flat = model._replace(weights=np.full_like(model.weights, 1 / model.weights.shape[-1]))
    np.testing.assert_allclose(model.weights.sum(-1), 1.0)
    assert baselines.markov_bits(model, validation).sum() <= baselines.markov_bits(flat, validation).sum()


def test_a_deterministic_pattern_is_learnt_and_repeats():
    row = np.resize([50, 0, 0, 52, 0, 0, 50, 0], 32)
    row = np.where(LEGAL[0, row], row, REST)
    grids = np.zeros((60, *SHAPE), int)
    grids[:, 0] = row
    model = baselines.fit_markov(grids[:40], grids[40:50])
    assert baselines.markov_bits(model, grids[50:]).mean() < 0.05
    got = baselines.sample_markov(np.random.default_rng(0), model, 20, 32)
    assert (got == grids[:20]).mean() > 0.95


def test_unobserved_tracks_change_nothing_and_cost_nothing():
    rng = np.random.default_rng(0)
    train, validation, _ = toy(1)
    seen = rng.random((12, 2)) < 0.7
    hidden = np.where(seen[..., None], train, 3)  # the mask
    nonsense = np.where(seen[..., None], train, rng.integers(0, 2, train.shape))
    models = [baselines.fit_markov(x, validation, seen, legal=TOY_LEGAL, bar=2) for x in (hidden, nonsense)]
    for a, b in zip(*(jax.tree.leaves(model) for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    bits = baselines.markov_bits(models[0], hidden, seen)
    assert (bits[~seen] == 0).all() and (bits[seen] > 0).all() and np.isfinite(bits).all()
    np.testing.assert_array_equal(baselines.markov_bits(models[0], nonsense, seen), bits)
    law = baselines.unigram(hidden, legal=TOY_LEGAL)
    assert (baselines.code_length(law, hidden, seen)[~seen] == 0).all()
    alone = baselines.unigram(train, np.zeros((12, 2), bool), legal=TOY_LEGAL)
    np.testing.assert_allclose(alone[0], [[0.5, 0.5, 0.0]] * 4)  # a track never observed: uniform over its tokens


def test_unigram_is_a_law_and_its_code_length_is_the_cross_entropy():
    tokens = np.zeros((10, *SHAPE), np.int64)
    tokens[:5, 0, 0] = 50  # bd on half of the kick's first cells
    law = baselines.unigram(tokens)
    np.testing.assert_allclose(law.sum(-1), 1.0)
    bits = baselines.code_length(law, tokens)
    assert bits[0, 0, 0] == pytest.approx(-np.log2(law[0, 0, 50])) and 0.9 < bits[0, 0, 0] < 1.6
    assert (law[0, 0, 1:50] == 0).all()  # a kick plays no pitch


def test_unigram_per_track_pools_the_steps():
    tokens = np.zeros((4, *SHAPE), np.int64)
    tokens[:, 0, ::4] = 50
    law = baselines.unigram(tokens, steps=False)
    np.testing.assert_array_equal(law[0, 0], law[0, 31])
    legal = LEGAL[0].sum()
    assert law[0, 0, 50] == pytest.approx((32 + baselines.PSEUDO_COUNT) / (128 + baselines.PSEUDO_COUNT * legal))


def test_a_token_that_its_track_cannot_say_costs_infinitely_much():
    tokens = np.zeros((2, *SHAPE), np.int64)
    law = baselines.unigram(tokens)
    tokens[0, 0, 0] = 1  # a pitch on the kick
    assert np.isinf(baselines.code_length(law, tokens)[0, 0, 0])


def test_unigram_samples_follow_their_law():
    law = baselines.unigram(toy(0)[0], legal=TOY_LEGAL)
    drawn = baselines.sample_unigram(np.random.default_rng(0), law, 20_000)
    assert legal_everywhere(drawn).all() and drawn.dtype == np.int32
    np.testing.assert_allclose(np.stack([(drawn == v).mean(0) for v in range(3)], -1), law, atol=0.02)


def test_neighbour_mixture_limits():
    rng = np.random.default_rng(0)
    tokens = np.zeros((4, *SHAPE), np.int64)
    law = baselines.unigram(tokens)
    flat = baselines.code_length(law, tokens)
    np.testing.assert_allclose(baselines.mixture_bits(0.0, law, tokens, tokens), flat)
    assert (baselines.mixture_bits(0.9, law, tokens, tokens) < flat).all()
    np.testing.assert_allclose(baselines.mixture_bits(0.9, law, np.full_like(tokens, 81), tokens), flat)
    assert baselines.fit_share(law, tokens, tokens) == baselines.SHARES[-1]
    assert baselines.fit_share(law, tokens + 1, tokens) == 0.0
    rows = rng.normal(size=(20, 5))
    np.testing.assert_array_equal(baselines.nearest(rows, rows[3:6] + 1e-6), [3, 4, 5])


def test_neighbour_mixture_is_a_law():
    train = toy(0)[0]
    law, everything = baselines.unigram(train, legal=TOY_LEGAL), words(2, 4, 3)
    neighbour = np.broadcast_to(train[:1], everything.shape).copy()
    neighbour[:, 1, 2] = 3  # one cell of the neighbour is not known
    p = 2.0 ** -baselines.mixture_bits(0.4, law, neighbour, everything).sum((1, 2))
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
