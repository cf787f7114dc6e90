"""Losses and likelihood bounds against exact enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import exact_predict, posterior_mean, random_world

from eqdiff_jax.diffusion import absorbing, antithetic_times, masked_cross_entropy, nelbo, score_entropy


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        tokens = jnp.asarray(rng.integers(0, 5, (64, 7)))
        t = jnp.asarray(rng.uniform(0.001, 1.0, 64))
        process = absorbing(5)
        noisy = process.corrupt(jax.random.key(0), tokens, t)
        yield jnp.asarray(rng.normal(size=(64, 7, 5)) * 3), tokens, noisy, t, process


def test_score_entropy_equals_its_closed_form(batch):
    np.testing.assert_allclose(score_entropy(*batch), masked_cross_entropy(*batch), rtol=1e-9, atol=1e-9)


def test_score_entropy_equals_the_sum_over_tokens_written_out(batch):
    logits, tokens, noisy, t, process = batch
    log_mu = jax.nn.log_softmax(logits)
    got = np.asarray(score_entropy(*batch))
    for b, i in itertools.product(range(8), range(7)):
        a, rate = float(process.alpha(t[b])), float(process.rate(t[b]))
        if int(noisy[b, i]) != process.mask:
            assert got[b, i] == 0.0
            continue
        want = 0.0
        for y in range(5):
            s = float(jnp.exp(log_mu[b, i, y])) * a / (1 - a)
            r = (a / (1 - a)) * (y == int(tokens[b, i]))
            want += s - r * np.log(s) + (r * np.log(r) - r if r else 0.0)
        assert got[b, i] == pytest.approx(rate * want, rel=1e-9)


def test_gradient_of_the_two_forms_agree(batch):
    logits, tokens, noisy, t, process = batch
    grads = [jax.grad(lambda x, f=f: f(x, tokens, noisy, t, process).sum())(logits)
             for f in (score_entropy, masked_cross_entropy)]
    np.testing.assert_allclose(*grads, rtol=1e-8, atol=1e-9)


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


@pytest.mark.parametrize("seed", range(3))
def test_nelbo_with_the_exact_posterior_is_the_entropy(seed):
    """With exact mu the bound is tight: its mean over the law is the entropy H, per letter."""
    world = random_world(seed)
    with jax.enable_x64(True):
        picks = np.random.default_rng(seed).choice(len(world.law), 4000, p=world.law)
        got = nelbo(jax.random.key(seed), exact_predict(world), absorbing(3), jnp.asarray(world.words[picks]), draws=16)
    entropy = -(world.law * np.log(world.law)).sum() / 2
    sampled = -np.log(world.law[picks]).mean() / 2
    assert abs(float(got.nats) - sampled) < 4 * float(got.stderr)
    assert abs(float(got.nats) - entropy) < 5 * float(got.stderr)


def test_nelbo_exceeds_the_entropy_for_a_wrong_posterior():
    world = random_world(1)
    picks = np.random.default_rng(1).choice(len(world.law), 4000, p=world.law)
    exact = exact_predict(world)
    got = nelbo(jax.random.key(0), lambda x, t: 0.5 * exact(x, t), absorbing(3), jnp.asarray(world.words[picks]))
    assert float(got.nats) > -(world.law * np.log(world.law)).sum() / 2 + 2 * float(got.stderr)


def test_posterior_mean_of_the_fully_masked_word_is_the_marginal():
    world = random_world(2)
    got = posterior_mean(world, [3, 3])
    np.testing.assert_allclose(got[0], [world.law[world.words[:, 0] == v].sum() for v in range(3)])
