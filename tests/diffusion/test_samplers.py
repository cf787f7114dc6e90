"""Every sampler against exact laws on worlds that can be enumerated."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    MAKERS,
    clean_law,
    exact_mean,
    exact_predict,
    exact_prediction,
    noisy_words,
    propagate,
    random_world,
    total_variation,
    word_index,
)

from eqdiff_jax.diffusion import (
    Analytic,
    Ancestral,
    Confidence,
    Euler,
    FirstHitting,
    LeaveOneOut,
    Mean,
    ReMDM,
    Score,
    absorbing,
    as_score,
    cosine_grid,
    sample,
    uniform,
    uniform_grid,
)
from eqdiff_jax.diffusion.reverse import mixture, tweedie
from eqdiff_jax.diffusion.samplers import euler
from eqdiff_jax.diffusion.samplers.remdm import reveal
from eqdiff_jax.diffusion.sampling import moment
from eqdiff_jax.diffusion.schedule import SCHEDULES
from eqdiff_jax.types import Level

COUNT = 40_000


def drawn_law(world, process, predict, key=0, count=COUNT, **knobs):
    draw = jax.jit(lambda key: sample(key, predict, process, (count, world.words.shape[1]), **knobs).tokens)
    tokens = np.asarray(draw(jax.random.key(key)))
    return np.bincount(word_index(world, tokens), minlength=len(world.words)) / count


def cell_law(sampler, world, process, steps, k, grid=uniform_grid):
    """Law of every cell after step k of `sampler`, from every noisy word: [S, L, V + 1]"""
    words = jnp.asarray(noisy_words(world))
    if process.masked == 0:
        words = jnp.where(words == world.vocab, 0, words)  # never met; any token will do
    now = moment(jnp.int32(k), jnp.int32(steps), process, grid)
    t, s = (jax.tree.map(lambda x: jnp.full(len(words), x), level) for level in (now.t, now.s))
    mean = Mean(jnp.log(jax.vmap(lambda x: exact_mean(world, x, now.t))(words)))
    if isinstance(sampler, Euler) and k < steps - 1:
        score = as_score(Mean(mean.log), words, t)
        return jax.vmap(lambda log, x: euler.probabilities(log, x, process, now)[0])(score.log, words)
    if isinstance(sampler, ReMDM):
        most = jnp.minimum(1.0, (1.0 - now.s.alpha) / now.t.alpha)
        rate = jnp.minimum(sampler.eta, most) if sampler.kind == "cap" else sampler.eta * most
        show, mu = reveal(now.t, now.s, rate), jnp.exp(mean.log)
        own = jax.nn.one_hot(words, world.vocab + 1)
        hide = jax.nn.one_hot(jnp.full_like(words, world.vocab), world.vocab + 1)
        from_mask = jnp.concatenate([show * mu, jnp.broadcast_to(1 - show, (*mu.shape[:2], 1))], axis=-1)
        return jnp.where((words == world.vocab)[..., None], from_mask, (1 - rate) * own + rate * hide)
    return tweedie(as_score(mean, words, t), words, t, s) if isinstance(sampler, Analytic) else mixture(
        mean, words, t, s)


def exact_law(sampler, world, process, steps, grid=uniform_grid):
    """The law that `steps` of an exact, cell by cell independent sampler lead to: no Monte Carlo."""
    words = noisy_words(world)
    start = (words == world.vocab).all(axis=1) if process.masked > 0 else (words < world.vocab).all(axis=1)
    laws = [cell_law(sampler, world, process, steps, k, grid) for k in range(steps)]
    return clean_law(world, propagate(world, start / start.sum(), laws))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("sampler", [Analytic(), Ancestral(), Euler()], ids=lambda s: type(s).__name__)
def test_the_loop_has_the_law_of_its_kernels(name, sampler):
    """Sampled against the exact product of kernels, T = 5: only the noise of the count remains."""
    world, process = random_world(3), MAKERS[name](3, SCHEDULES["cosine"])
    with jax.enable_x64(True):
        want = exact_law(sampler, world, process, 5)
    got = drawn_law(world, process, exact_prediction(world, process), sampler=sampler, steps=5)
    assert total_variation(got, want) < 0.012


@pytest.mark.parametrize("sampler", [ReMDM("cap", 0.3), ReMDM("rescale", 0.5), Ancestral(skip=False)],
                         ids=lambda s: getattr(s, "kind", "ancestral"))
def test_so_has_remasking(sampler):
    world, process = random_world(4), absorbing(3)
    with jax.enable_x64(True):
        want = exact_law(sampler, world, process, 6, cosine_grid)
    got = drawn_law(world, process, exact_predict(world), sampler=sampler, steps=6, grid=cosine_grid)
    assert total_variation(got, want) < 0.012


def test_kinds_of_prediction_lead_to_one_law():
    world, process = random_world(5), uniform(3)
    with jax.enable_x64(True):
        want = exact_law(Ancestral(), world, process, 4)
    for kind in (Mean, LeaveOneOut, Score):
        got = drawn_law(world, process, exact_prediction(world, process, kind), sampler="ancestral", steps=4)
        assert total_variation(got, want) < 0.012


@pytest.mark.parametrize("sampler", [Analytic(), Ancestral(), Euler(), ReMDM("cap", 0.2), ReMDM("rescale", 0.3)],
                         ids=lambda s: getattr(s, "kind", type(s).__name__))
def test_error_falls_like_one_over_steps(sampler):
    """TV(T) / TV(2T) -> 2, in exact arithmetic on three cells; with remasking it falls, too."""
    world, process = random_world(6, length=3), absorbing(3, SCHEDULES["cosine"])
    with jax.enable_x64(True):
        distance = [total_variation(exact_law(sampler, world, process, steps), world.law) for steps in (8, 16, 32, 64)]
    ratios = np.array(distance[:-1]) / distance[1:]
    if isinstance(sampler, ReMDM):
        assert (ratios > 1.3).all()
    else:
        assert (ratios > 1.5).all() and ratios[-1] == pytest.approx(2.0, abs=0.25)
    assert distance[-1] < 0.03


@pytest.mark.parametrize("sampler", [Analytic(), Ancestral()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_one_cell_is_exact_in_any_number_of_steps(sampler, steps):
    world = random_world(8, vocab=4, length=1)
    with jax.enable_x64(True):
        np.testing.assert_allclose(exact_law(sampler, world, absorbing(4), steps), world.law, atol=1e-12)
        # the uniform process starts from alpha = 1e-3 instead of 0, which is the whole error
        start = total_variation(exact_law(sampler, world, uniform(4), steps), world.law)
    assert start < 2e-3


def test_euler_is_not_exact_there_and_says_when_it_clips():
    world, process = random_world(8, vocab=4, length=1), uniform(4, SCHEDULES["geometric"])
    with jax.enable_x64(True):
        assert total_variation(exact_law(Euler(), world, process, 4), world.law) > 1e-3
    wild = sample(jax.random.key(0), exact_prediction(world, process), process, (64, 1), sampler="euler", steps=2)
    assert int(wild.clipped.sum()) > 0
    fine = sample(jax.random.key(0), exact_predict(random_world(0)), absorbing(3), (64, 2), sampler="euler", steps=20)
    assert int(fine.clipped.sum()) == 0


@pytest.mark.parametrize("steps", [1, 50])
def test_first_hitting_is_exact_whatever_the_steps(steps):
    world = random_world(7, length=3)
    predict = exact_predict(world)
    got = drawn_law(world, absorbing(3), predict, sampler="first_hitting", steps=steps)
    assert total_variation(got, world.law) < 0.012
    many = drawn_law(world, absorbing(3), predict, key=1, sampler="ancestral", steps=2000)
    assert total_variation(got, many) < 0.016
    run = sample(jax.random.key(0), predict, absorbing(3), (5, 3), sampler="first_hitting", steps=steps)
    assert int(run.evaluations) == 3


def test_first_hitting_times_have_their_law():
    """E(1 - alpha') = (1 - alpha) N/(N + 1), and time as the network sees it is that of the level."""
    process, draw = absorbing(3), FirstHitting()
    levels = []
    for seed in range(2000):
        now = draw.next(process, jnp.full(4, 3), (jax.random.key(seed), jnp.float32(0.5)), jnp.int32(0), None)
        levels.append(1 - float(now.s.alpha))
        assert float(process.alpha(now.time)) == pytest.approx(float(now.s.alpha), abs=1e-6)
    assert np.mean(levels) == pytest.approx(0.5 * 4 / 5, abs=4 * np.std(levels) / 2000**0.5)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.37, 1.0])
def test_remasking_keeps_the_marginals_for_every_rate(rate):
    """alpha_t (1 - r) + (1 - alpha_t) reveal = alpha_s: q(x_s | x_0) again; both probabilities stay in [0, 1]."""
    for alpha_t, alpha_s in ((0.1, 0.15), (0.5, 0.9), (0.9, 0.95), (0.2, 1.0)):
        again = rate * min(1.0, (1 - alpha_s) / alpha_t)
        with jax.enable_x64(True):
            show = float(reveal(Level(alpha_t, alpha_t), Level(alpha_s, alpha_s), again))
        assert alpha_t * (1 - again) + (1 - alpha_t) * show == pytest.approx(alpha_s, abs=1e-14)
        assert -1e-14 <= show <= 1 + 1e-14


def test_remasking_by_confidence_and_in_a_loop_end_on_clean_words():
    world = random_world(2)
    for name in ("remdm_conf", "remdm_loop", "remdm_rescale"):
        run = sample(jax.random.key(0), exact_predict(world), absorbing(3), (5000, 2), sampler=name, steps=40)
        assert (np.asarray(run.tokens) < 3).all()
        law = np.bincount(word_index(world, run.tokens), minlength=9) / 5000
        assert total_variation(law, world.law) < 0.08


def test_confidence_reveals_what_the_schedule_asks_for_surest_first():
    """mu is certain of cell i with weight i: without noise the order is that of certainty."""
    table = jnp.log(jnp.stack([jnp.array([1 - 0.01 * (i + 1), 0.01 * (i + 1)]) for i in range(8)]))

    def predict(tokens, t):
        return jnp.broadcast_to(table, (*tokens.shape, 2))

    run = sample(jax.random.key(0), predict, absorbing(2), (200, 8), sampler=Confidence(noise=0.0), steps=4)
    at = np.asarray(run.unmasked_at)
    assert (np.sort(at, axis=1) == np.repeat(np.arange(4), 2)).all()  # two a step
    first = (at == 0).mean(axis=0)
    assert (np.diff(first) <= 0.02).all() and first[0] > 0.95
    run = sample(jax.random.key(0), predict, absorbing(2), (200, 8), sampler=Confidence(noise=1e6), steps=4)
    assert (np.asarray(run.unmasked_at) == 0).mean(axis=0).std() < 0.08  # noise makes the places random


def test_skipping_changes_the_calls_and_nothing_else():
    world = random_world(1, length=4)
    runs = [sample(jax.random.key(3), exact_predict(world), absorbing(3), (1, 4), sampler=Ancestral(skip), steps=50)
            for skip in (True, False)]
    np.testing.assert_array_equal(runs[0].tokens, runs[1].tokens)
    np.testing.assert_array_equal(runs[0].unmasked_at, runs[1].unmasked_at)
    assert int(runs[0].evaluations) == len(np.unique(runs[0].unmasked_at)) <= 4
    assert int(runs[1].evaluations) == int(runs[0].unmasked_at.max()) + 1


def test_infilling_has_the_conditional_law():
    """One cell given: first hitting fills the others from p(rest | given)."""
    world = random_world(9, length=3)
    initial = jnp.tile(jnp.array([[3, 1, 3]]), (COUNT, 1))
    run = sample(jax.random.key(0), exact_predict(world), absorbing(3), (COUNT, 3), sampler="first_hitting",
                 initial=initial)
    law = np.where(world.words[:, 1] == 1, world.law, 0)
    got = np.bincount(word_index(world, run.tokens), minlength=27) / COUNT
    assert total_variation(got, law / law.sum()) < 0.012
