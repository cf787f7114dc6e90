"""Parameterisations and reverse rules against enumeration: every process, every kind of prediction."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import EXACT, MAKERS, emission, exact_leave_one_out, exact_mean, matrix, noisy_words, random_world

from eqdiff_jax.diffusion import (
    LeaveOneOut,
    Mean,
    Score,
    as_leave_one_out,
    as_mean,
    as_score,
    uniform,
)
from eqdiff_jax.diffusion.process import between
from eqdiff_jax.diffusion.reverse import mixture, posterior, product, tweedie

CASES = list(itertools.product(MAKERS, range(3)))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def setting(name, seed, s=0.35, t=0.7):
    """World, all noisy words that can occur, levels [S] at t and s."""
    world, process = random_world(seed, vocab=3, length=2 + seed % 2), MAKERS[name](3)
    words = noisy_words(world)
    if name == "uniform":
        words = words[(words < 3).all(axis=1)]
    late, early = process.level(jnp.asarray(t)), process.level(jnp.asarray(s))
    batch = [jax.tree.map(lambda x: jnp.full(len(words), x), level) for level in (late, early)]
    return world, jnp.asarray(words), late, early, *batch


def exact_kernel(world, words, late, early):
    """p(x_s,i = y | x_t) by Bayes over clean words: [S, L, V + 1]"""
    step, first = (np.asarray(matrix(between(*pair, 3), 3)) for pair in ((early, late), (
        type(late)(1.0, 1.0), early)))
    kernels = []
    for word in np.asarray(words):
        each = np.asarray(emission(world, jnp.asarray(word), late))
        law = np.zeros((len(word), 4))
        for w, (clean, p) in enumerate(zip(world.words, world.law, strict=True)):
            for i, x in enumerate(word):
                rest = p * np.prod(np.delete(each[w], i))
                law[i] += rest * first[clean[i]] * step[:, x]
        kernels.append(law / law.sum(axis=1, keepdims=True))
    return np.stack(kernels)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_three_rules_equal_the_exact_kernel_of_one_cell(name, seed):
    world, words, late, early, t, s = setting(name, seed)
    want = exact_kernel(world, words, late, early)
    fed = {kind: kind(jnp.log(jnp.stack([EXACT[kind](world, w, late) for w in words]))) for kind in EXACT}
    for kind, rule in ((Mean, mixture), (LeaveOneOut, product), (Score, tweedie)):
        np.testing.assert_allclose(rule(fed[kind], words, t, s), want, atol=1e-12)
        np.testing.assert_allclose(posterior(fed[kind], words, t, s), want, atol=1e-12)


@pytest.mark.parametrize("name", ["uniform", "hybrid"])
def test_the_mean_in_the_product_rule_is_wrong(name):
    """The trap: by up to 0.1 in probability. The types keep them apart, and the conversion repairs it."""
    worst = 0.0
    for seed in range(6):
        world, words, late, early, t, s = setting(name, seed)
        mu = jnp.stack([exact_mean(world, w, late) for w in words])
        want = exact_kernel(world, words, late, early)
        wrong = product(LeaveOneOut(jnp.log(mu)), words, t, s)
        worst = max(worst, float(np.abs(np.asarray(wrong) - want).max()))
        mended = product(as_leave_one_out(Mean(jnp.log(mu)), words, t), words, t, s)
        np.testing.assert_allclose(mended, want, atol=1e-9)
    assert worst > 0.05


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_conversions_agree_with_enumeration(name, seed):
    world, words, late, _, t, _ = setting(name, seed)
    exact = {kind: jnp.stack([EXACT[kind](world, w, late) for w in words]) for kind in EXACT}
    fed = {kind: kind(jnp.log(values)) for kind, values in exact.items()}
    masked = np.asarray(words == 3)
    for kind in (LeaveOneOut, Score) if name == "absorbing" else EXACT:
        np.testing.assert_allclose(jnp.exp(as_leave_one_out(fed[kind], words, t).log), exact[LeaveOneOut], atol=1e-12)
        np.testing.assert_allclose(jnp.exp(as_score(fed[kind], words, t).log), exact[Score], atol=1e-11)
        np.testing.assert_allclose(jnp.exp(as_mean(fed[kind], words, t).log), exact[Mean], atol=1e-12)
    if name == "absorbing":  # at a token the mean forgets what the other cells said; at a mask all three agree
        from_mean = jnp.exp(as_leave_one_out(fed[Mean], words, t).log)
        np.testing.assert_allclose(np.asarray(from_mean)[masked], np.asarray(exact[LeaveOneOut])[masked], atol=1e-12)


def test_the_uniform_closed_form():
    """FORMULA: [aV x(y)1[y=x_t] + (a_ts - a)1[y=x_t] + (a_s - a)x(y) + (1-a_ts)(1-a_s)/V] / [aV x(x_t) + 1 - a]."""
    rng, vocab = np.random.default_rng(0), 5
    at, a_s = 0.3, 0.6
    nu, x = rng.dirichlet(np.ones(vocab)), 2
    ts = at / a_s
    same = np.arange(vocab) == x
    want = (at * vocab * nu * same + (ts - at) * same + (a_s - at) * nu + (1 - ts) * (1 - a_s) / vocab) / (
        at * vocab * nu[x] + 1 - at)
    level = [type(uniform(5).level(0.5))(jnp.array([a]), jnp.array([1.0])) for a in (at, a_s)]
    got = product(LeaveOneOut(jnp.log(nu)[None, None]), jnp.array([[x]]), *level)[0, 0]
    np.testing.assert_allclose(got[:vocab], want, atol=1e-14)
    assert float(got[vocab]) == 0


def test_the_absorbing_score_is_the_posterior_mean_scaled():
    """s(v) = mu(v) alpha/(1 - alpha) at a mask, s(mask) = 1."""
    world, words, late, _, t, _ = setting("absorbing", 1)
    mu = jnp.stack([exact_leave_one_out(world, w, late) for w in words])
    score = jnp.exp(as_score(Mean(jnp.log(mu)), words, t).log)
    masked = np.asarray(words == 3)
    ratio = float(late.alpha / (1 - late.alpha))
    np.testing.assert_allclose(np.asarray(score)[masked][:, :3], ratio * np.asarray(mu)[masked], rtol=1e-12)
    np.testing.assert_allclose(np.asarray(score)[masked][:, 3], 1)


def test_float32_laws_stay_laws():
    rng = np.random.default_rng(0)
    with jax.enable_x64(False):
        for name, make in MAKERS.items():
            process = make(81)
            logits = jnp.asarray(rng.normal(size=(4, 60, 81)) * 8, jnp.float32)
            tokens = jnp.asarray(rng.integers(0, 82 if name != "uniform" else 81, (4, 60)))
            t, s = (process.level(jnp.full(4, u, jnp.float32)) for u in (0.62, 0.6))
            for prediction in (Mean(logits), LeaveOneOut(logits), as_score(LeaveOneOut(logits), tokens, t)):
                law = np.asarray(posterior(prediction, tokens, t, s))
                assert (law >= 0).all()
                np.testing.assert_allclose(law.sum(axis=-1), 1, atol=2e-5)
