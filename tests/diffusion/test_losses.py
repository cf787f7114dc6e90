"""Losses against each other, against sums written out, and against exact expectations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import MAKERS, emission, exact_mean, exact_prediction, noisy_words, random_world, unit_generator

from eqdiff_jax.diffusion import (
    LeaveOneOut,
    Mean,
    Score,
    absorbing,
    antithetic_times,
    as_score,
    auxiliary_cross_entropy,
    lambda_cross_entropy,
    masked_cross_entropy,
    score_entropy,
    uniform,
    variational_bound,
)
from eqdiff_jax.diffusion.losses import prior_term
from eqdiff_jax.diffusion.schedule import SCHEDULES, Linear
from eqdiff_jax.errors import InputError


def make_batch(process, vocab=5):
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, vocab, (64, 7)))
    t = jnp.asarray(rng.uniform(0.001, 1.0, 64))
    noisy = process.corrupt(jax.random.key(0), tokens, t)
    return jnp.asarray(rng.normal(size=(64, 7, vocab)) * 3), tokens, noisy, t, process


@pytest.fixture
def batch():
    with jax.enable_x64(True):
        yield make_batch(absorbing(5))


def test_the_masked_forms_are_equal(batch):
    """Score entropy, its closed form, and the lambda form at lambda = 1 - alpha times the change of variable."""
    logits, tokens, noisy, t, process = batch
    entropy = score_entropy(*batch)
    np.testing.assert_allclose(entropy, masked_cross_entropy(*batch), rtol=1e-9, atol=1e-9)
    level = 1 - process.alpha(t)
    by_lambda = lambda_cross_entropy(logits, tokens, noisy == 5, level)
    np.testing.assert_allclose(entropy, by_lambda * (process.rate(t) * process.alpha(t))[:, None], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_score_entropy_equals_the_sum_over_states_written_out(name):
    """sum_{y != x} R(y -> x) [s - r log s + K(r)], for every process and kind of prediction."""
    with jax.enable_x64(True):
        process = MAKERS[name](5)
        logits, tokens, noisy, t, _ = make_batch(process)
        at = process.level(t)
        for prediction in (Mean(logits), LeaveOneOut(logits), as_score(LeaveOneOut(logits), noisy, at)):
            got = np.asarray(score_entropy(prediction, tokens, noisy, t, process))
            score = np.exp(np.asarray(as_score(prediction, noisy, at).log))
            for b, i in itertools.product(range(6), range(7)):
                q = float(process.rate(t[b])) * unit_generator(name, 5)
                x, clean = int(noisy[b, i]), int(tokens[b, i])
                a, unmasked = float(at.alpha[b]), float(at.unmasked[b])
                mass = np.r_[np.full(5, (unmasked - a) / 5), 1 - unmasked]
                mass[clean] += a
                want = 0.0
                for y in range(6):
                    if y != x and q[y, x] > 0:
                        r, s = mass[y] / mass[x], score[b, i, y]
                        want += q[y, x] * (s - (r * np.log(s) - r * np.log(r) + r if r else 0))
                assert got[b, i] == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_score_entropy_is_least_at_the_exact_score(name):
    """Its expectation over q(x_t, x_0) exceeds the exact score's for any other prediction."""
    world, process, t = random_world(2), MAKERS[name](3), 0.6
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        words = noisy_words(world)
        words = jnp.asarray(words[(words < 3).all(axis=1)] if name == "uniform" else words)
        times = jnp.full(len(words), t)
        level = process.level(jnp.asarray(t))
        exact = exact_prediction(world, process, Score)(words, times)
        noise = jnp.asarray(rng.normal(size=exact.log.shape)) * 0.1

        def expected(score):
            total = 0.0
            for clean, p in zip(world.words, world.law, strict=True):
                where = int(np.flatnonzero((world.words == clean).all(axis=1))[0])
                q = jnp.stack([jnp.prod(emission(world, w, level)[where]) for w in words])
                tokens = jnp.broadcast_to(jnp.asarray(clean), words.shape)
                total += p * jnp.sum(q[:, None] * score_entropy(score, tokens, words, times, process))
            return float(total)

        assert expected(exact) < expected(Score(exact.log + noise)) - 1e-4
        assert expected(exact) < expected(Score(exact.log - noise)) - 1e-4


def test_gradient_of_the_two_forms_agree(batch):
    logits, tokens, noisy, t, process = batch
    grads = [jax.grad(lambda x, f=f: f(x, tokens, noisy, t, process).sum())(logits)
             for f in (score_entropy, masked_cross_entropy)]
    np.testing.assert_allclose(*grads, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_are_finite_everywhere(name):
    process = MAKERS[name](5)
    logits, tokens, noisy, t, _ = make_batch(process)
    logits = jnp.asarray(logits, jnp.float32).at[:, :, 4].set(-jnp.inf)  # an illegal token
    tokens = jnp.minimum(tokens, 3)
    for loss in (score_entropy,):
        value, grad = jax.value_and_grad(lambda x, f=loss: f(x, tokens, noisy, t, process).sum())(logits)
        assert np.isfinite(value) and np.isfinite(grad[..., :4]).all()


def test_illegal_tokens_cost_nothing_and_give_finite_gradients():
    process, tokens = absorbing(4), jnp.array([[1, 2]])
    logits = jnp.array([[[-jnp.inf, 0.3, 0.1, -jnp.inf], [0.0, 1.0, 2.0, -jnp.inf]]])
    t, noisy = jnp.array([0.5]), jnp.array([[4, 4]])
    value, grad = jax.value_and_grad(lambda x: score_entropy(x, tokens, noisy, t, process).sum())(logits)
    assert np.isfinite(value) and np.isfinite(grad[0, 0, 1:3]).all()


def test_antithetic_times_are_stratified_and_in_range():
    t = np.sort(np.asarray(antithetic_times(jax.random.key(3), 16)))
    assert t.min() >= 1e-3 and t.max() <= 1.0
    np.testing.assert_allclose(np.diff(t), 0.999 / 16, rtol=1e-3)


def expected_bound(world, process, kind=Mean):
    """sum_k E_{q(x_0, x_k)} of the bound's terms with the exact prediction, in nats per word."""
    words = noisy_words(world)
    words = jnp.asarray(words[(words < 3).all(axis=1)] if process.masked == 0 else words)
    predict = exact_prediction(world, process, kind)
    total = 0.0
    for k in range(1, process.times + 1):
        t = jnp.full(len(words), k / process.times)
        level = process.level(jnp.asarray(k / process.times))
        q = jax.vmap(lambda w, level=level: jnp.prod(emission(world, w, level), axis=1))(words)  # [S, W]
        prediction = predict(words, t)
        for w, p in enumerate(world.law):
            tokens = jnp.broadcast_to(jnp.asarray(world.words[w]), words.shape)
            each = variational_bound(prediction, tokens, words, jnp.full(len(words), k), process).sum(axis=1)
            total += p * float(jnp.sum(jnp.where(q[:, w] > 0, q[:, w] * each, 0.0)))
    return total


@pytest.mark.parametrize(("name", "kind"), [("absorbing", Mean), ("uniform", Mean), ("uniform", LeaveOneOut),
                                            ("hybrid", LeaveOneOut), ("uniform", Score)])
def test_the_variational_bound_is_the_entropy_for_one_cell(name, kind):
    """One cell: the exact reverse kernel factorises, so the bound is tight for any T (prior at alpha = 1e-9)."""
    world = random_world(3, length=1)
    entropy = -(world.law * np.log(world.law)).sum()
    with jax.enable_x64(True):
        for times in (1, 3, 8):
            process = MAKERS[name](3, Linear(1.0, 1e-9), times)
            assert expected_bound(world, process, kind) == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_with_more_steps_the_bound_falls_towards_the_entropy(name):
    world = random_world(1)
    entropy = -(world.law * np.log(world.law)).sum()
    with jax.enable_x64(True):
        bounds = [expected_bound(world, MAKERS[name](3, Linear(1.0, 1e-9), times)) for times in (1, 4, 16, 64)]
    assert (np.diff(bounds) < 0).all()
    assert all(b >= entropy - 1e-9 for b in bounds)
    assert bounds[-1] - entropy < 0.4 * (bounds[-2] - entropy)


def test_the_uniform_prior_term():
    process = uniform(4)
    alpha = float(process.alpha(jnp.asarray(1.0)))
    law = np.full(4, (1 - alpha) / 4) + np.eye(4)[0] * alpha
    assert float(prior_term(jnp.zeros((1, 1), int), process)[0, 0]) == pytest.approx(
        (law * np.log(law * 4)).sum(), abs=1e-6)
    assert float(prior_term(jnp.zeros((1, 1), int), absorbing(4))[0, 0]) == 0


def test_a_continuous_process_has_no_discrete_bound():
    with pytest.raises(InputError, match="times=T"):
        variational_bound(jnp.zeros((1, 1, 3)), jnp.zeros((1, 1), int), jnp.zeros((1, 1), int), jnp.ones(1), uniform(3))


def test_auxiliary_cross_entropy():
    logits = jnp.log(jnp.array([[[0.2, 0.3, 0.5]]]))
    assert float(auxiliary_cross_entropy(logits, jnp.array([[1]]))[0, 0]) == pytest.approx(-np.log(0.3))


def test_exact_mean_agrees_with_every_schedule():
    """mu of the absorbing process does not depend on time: the network may be time-free."""
    world = random_world(0)
    with jax.enable_x64(True):
        for schedule in SCHEDULES.values():
            process = absorbing(3, schedule)
            means = [exact_mean(world, jnp.array([3, 1]), process.level(jnp.asarray(t))) for t in (0.2, 0.9)]
            np.testing.assert_allclose(means[0], means[1], atol=1e-12)
