"""Samplers against exact laws, and the loop's contract: given cells, batches, compilations, devices, bad input."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    clean_law,
    exact_mean,
    exact_predict,
    exact_prediction,
    noisy_words,
    posterior_mean,
    propagate,
    random_world,
    total_variation,
    word_index,
)

from eqdiff_jax.diffusion import (
    SAMPLERS,
    Analytic,
    Ancestral,
    Confidence,
    Euler,
    FirstHitting,
    LeaveOneOut,
    Mean,
    Parallel,
    ReMDM,
    Score,
    absorbing,
    as_score,
    classifier_free,
    cosine_grid,
    hybrid,
    sample,
    uniform,
    uniform_grid,
)
from eqdiff_jax.diffusion.reverse import mixture, tweedie
from eqdiff_jax.diffusion.samplers import euler
from eqdiff_jax.diffusion.samplers.remdm import reveal
from eqdiff_jax.diffusion.sampling import moment
from eqdiff_jax.diffusion.schedule import SCHEDULES
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Level

MAKERS = {"absorbing": absorbing, "uniform": uniform, "hybrid": hybrid}
COUNT = 40_000
STEPWISE = ("analytic", "ancestral", "euler", "confidence")  # a sequential and a parallel form


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


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_compilation_serves_steps_temperatures_and_guidance(name):
    world = random_world(0)
    conditional, plain = exact_predict(world), exact_predict(random_world(1))
    traces = []

    def draw(key, steps, temperature, weight):
        traces.append(1)

        def predict(tokens, t):
            return classifier_free(*(jax.nn.log_softmax(p(tokens, t)) for p in (conditional, plain)), weight)

        return sample(key, predict, absorbing(3), (4, 2), sampler=name, steps=steps, temperature=temperature).tokens

    program = jax.jit(draw)
    for steps in (1, 4, 50):
        got = program(jax.random.key(0), jnp.full(4, steps) + jnp.arange(4), jnp.float32(1.0 + steps / 50),
                      jnp.float32(steps / 10))
        assert (np.asarray(got) < 3).all()
    assert len(traces) == 1
    text = program.lower(jax.random.key(0), jnp.full(4, 4), jnp.float32(1), jnp.float32(1)).as_text()
    assert "callback" not in text  # nothing goes back to the host inside a sample


@pytest.mark.parametrize("name", SAMPLERS)
def test_examples_are_independent_of_their_batch(name):
    world, key = random_world(3), jax.random.key(11)
    steps, heat = jnp.array([3, 9, 27, 50]), jnp.array([0.7, 1.0, 1.1, 1.2])

    def draw(rows, first=0):
        return sample(key, exact_predict(world), absorbing(3), (len(rows), 2), sampler=name, steps=steps[rows],
                      temperature=heat[rows], first=first)

    whole = draw(np.arange(4))
    chex.assert_trees_all_equal(jax.jit(lambda: draw(np.arange(4)))().tokens, whole.tokens)
    for n in (1, 3):
        np.testing.assert_array_equal(draw(np.arange(n)).tokens, whole.tokens[:n])
    np.testing.assert_array_equal(draw(np.arange(2, 4), first=2).tokens, whole.tokens[2:])


@pytest.mark.parametrize("name", SAMPLERS)
def test_given_cells_stay_bit_for_bit(name):
    """10,000 trials: any cells given, the others filled."""
    world = random_world(4, length=4)
    rng = np.random.default_rng(0)
    initial = np.where(rng.random((10_000, 4)) < rng.random((10_000, 1)), 3, rng.integers(0, 3, (10_000, 4)))
    predict = jax.jit(exact_predict(world))
    run = jax.jit(lambda x: sample(jax.random.key(2), predict, absorbing(3), x.shape, sampler=name, steps=6,
                                   initial=x))(jnp.asarray(initial))
    given = initial != 3
    np.testing.assert_array_equal(np.asarray(run.tokens)[given], initial[given])
    assert (np.asarray(run.tokens) < 3).all()
    assert (np.asarray(run.unmasked_at)[given] == -1).all()


@pytest.mark.parametrize("name", ["uniform", "hybrid"])
def test_given_cells_stay_without_a_mask_too(name):
    process = MAKERS[name](3)
    initial = jnp.asarray(np.random.default_rng(1).integers(0, 4, (500, 2)))
    run = sample(jax.random.key(0), exact_prediction(random_world(1), process), process, (500, 2), initial=initial)
    given = np.asarray(initial) != 3
    np.testing.assert_array_equal(np.asarray(run.tokens)[given], np.asarray(initial)[given])
    assert (np.asarray(run.tokens) < 3).all()


def test_infilling_has_the_conditional_law():
    """One cell given: first hitting fills the others from p(rest | given)."""
    world = random_world(9, length=3)
    initial = jnp.tile(jnp.array([[3, 1, 3]]), (COUNT, 1))
    run = sample(jax.random.key(0), exact_predict(world), absorbing(3), (COUNT, 3), sampler="first_hitting",
                 initial=initial)
    law = np.where(world.words[:, 1] == 1, world.law, 0)
    got = np.bincount(word_index(world, run.tokens), minlength=27) / COUNT
    assert total_variation(got, law / law.sum()) < 0.012


def test_loop_stops_when_nothing_is_masked():
    drawn = sample(jax.random.key(0), exact_predict(random_world(0)), absorbing(3), (1, 2), steps=50,
                   initial=jnp.array([[1, 2]]))
    assert int(drawn.evaluations) == 0


def test_low_temperature_takes_the_mode():
    world = random_world(9)
    drawn = sample(jax.random.key(0), exact_predict(world), absorbing(3), (64, 2), steps=50, temperature=0.01).tokens
    # Whichever cell comes first takes its marginal's mode, the other the mode given the first.
    modes = set()
    for i in range(2):
        word = [3, 3]
        word[i] = int(np.argmax(posterior_mean(world, word)[i]))
        word[1 - i] = int(np.argmax(posterior_mean(world, word)[1 - i]))
        modes.add(tuple(word))
    assert {tuple(w) for w in np.asarray(drawn).tolist()} <= modes


def test_discrete_time_stays_on_its_grid():
    seen = []
    process = absorbing(3, times=10)

    def predict(tokens, t):
        jax.debug.callback(lambda t: seen.append(float(t[0])), t)
        return exact_predict(random_world(0))(tokens, t)

    sample(jax.random.key(0), predict, process, (1, 2), sampler=Ancestral(skip=False), steps=7)
    jax.effects_barrier()
    np.testing.assert_allclose(np.array(seen) * 10, np.round(np.array(seen) * 10), atol=1e-5)


def broken(value):
    """Exact, but example 1 of every batch gets `value` as its logits."""
    inner = exact_predict(random_world(0))

    def predict(tokens, t):
        return inner(tokens, t).at[1].set(value)

    return predict


@pytest.mark.parametrize("value", [jnp.nan, -jnp.inf])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_that_says_nonsense_is_reported_and_draws_nothing(name, value):
    def draw():
        return sample(jax.random.key(0), broken(value), absorbing(3), (3, 2), sampler=name, steps=4)

    run = jax.jit(draw)()
    np.testing.assert_array_equal(run.invalid, [False, True, False])
    np.testing.assert_array_equal(run.tokens[1], 3)  # still masked: no token was made up
    assert (np.asarray(run.tokens)[[0, 2]] < 3).all()
    with pytest.raises(ArithmeticError, match=r"examples \[1\]"):
        draw()


@pytest.mark.parametrize(("knobs", "message"), [
    ({"steps": 0}, "at least 1 step"),
    ({"steps": jnp.array([3, -1])}, "at least 1 step"),
    ({"temperature": 0.0}, "above 0"),
    ({"temperature": jnp.nan}, "above 0"),
    ({"initial": jnp.array([[0, 4], [3, 3]])}, "initial holds 4"),
    ({"initial": jnp.array([[0, -1], [3, 3]])}, "initial holds -1"),
    ({"initial": jnp.array([[0, 1]])}, "give every cell"),
    ({"sampler": "nothing"}, "choose one of analytic"),
])
def test_bad_input_is_refused_at_the_edge(knobs, message):
    with pytest.raises(InputError, match=message):
        sample(jax.random.key(0), exact_predict(random_world(0)), absorbing(3), (2, 2), **knobs)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: sample(jax.random.key(0), exact_predict(random_world(0)), uniform(3), (2, 2), sampler="remdm"),
     "needs the absorbing"),
    (lambda: ReMDM("sometimes"), "choose one of cap"),
    (lambda: ReMDM("cap", 1.5), "eta"),
    (lambda: ReMDM("cap", 0.1, (0.2, 0.5, 0.9)), "off <= on"),
    (lambda: Parallel(FirstHitting()), "parallel in time"),
    (lambda: Parallel(Analytic(), 0), "window"),
])
def test_samplers_that_cannot_work_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


DEVICES = """
import sys; sys.path[:0] = [{tests!r}, {root!r}]
import jax, numpy as np
from worlds import exact_predict, random_world
from eqdiff_jax.diffusion import absorbing, sample
from eqdiff_jax.parallel import chains
assert jax.local_device_count() == {count}
predict, process = exact_predict(random_world(3)), absorbing(3)
found = chains(lambda key, first, n: sample(key, predict, process, (n, 2), sampler="{name}", steps=9, first=first),
               jax.random.key(5), 13)
print(np.asarray(found.tokens).tolist())
"""


@pytest.mark.parametrize("name", ["analytic", "remdm", "parallel"])
def test_chains_are_the_same_on_one_device_and_on_eight(name):
    root = Path(__file__).parents[2]
    outputs = []
    for count in (1, 8):
        code = DEVICES.format(tests=str(root / "tests"), root=str(root), count=count, name=name)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "PATH": "/usr/bin:/bin"})
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1] and outputs[0].count("[") == 14
