"""The loop's contract: given cells, batches, compilations, bad networks, bad input."""


import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    MAKERS,
    exact_predict,
    exact_prediction,
    posterior_mean,
    random_world,
)

from eqdiff_jax.diffusion import (
    SAMPLERS,
    Analytic,
    Ancestral,
    FirstHitting,
    Parallel,
    ReMDM,
    absorbing,
    classifier_free,
    sample,
    uniform,
)
from eqdiff_jax.errors import InputError


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
