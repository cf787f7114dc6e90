"""The analytic sampler against exact kernels and laws, and the loop's contract."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import exact_predict, posterior_mean, random_world, total_variation, word_index

from eqdiff_jax.diffusion import SAMPLERS, absorbing, absorbing_score, sample
from eqdiff_jax.diffusion.samplers import analytic_probabilities


@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_the_exact_reverse_kernel(seed):
    """p(x_s,i | x_t) by Bayes over the world, one coordinate at a time, to 1e-9 in float64."""
    world, alpha_t, alpha_s = random_world(seed), 0.3, 0.55
    with jax.enable_x64(True):
        for noisy in ([3, 3], [3, 1], [0, 3]):
            mu = posterior_mean(world, noisy)
            got = analytic_probabilities(jnp.log(jnp.asarray(mu[None])), jnp.array([alpha_t]), jnp.array([alpha_s]))[0]
            for i in np.flatnonzero(np.array(noisy) == 3):
                # q(x_s = v | x_t = mask, x_0 = v) by Bayes with the forward kernels, averaged over mu.
                reveal = alpha_s * (1 - alpha_t / alpha_s) / (1 - alpha_t)
                np.testing.assert_allclose(got[i, :3], reveal * mu[i], rtol=1e-9)
                assert float(got[i, 3]) == pytest.approx(1 - reveal, rel=1e-9)


def test_score_ratio_is_the_ratio_of_marginals():
    """s(v) = p_t(x with mask -> v) / p_t(x), by enumeration."""
    world, alpha = random_world(5), 0.4

    def marginal(noisy):
        keep = np.where(np.array(noisy) == 3, 1 - alpha, alpha).prod()
        seen = np.array(noisy) != 3
        return keep * world.law[(world.words[:, seen] == np.array(noisy)[seen]).all(1)].sum()

    with jax.enable_x64(True):
        for noisy, i in (([3, 3], 0), ([3, 2], 0), ([1, 3], 1)):
            score = absorbing_score(jnp.log(jnp.asarray(posterior_mean(world, noisy))), jnp.array(alpha))[i]
            for v in range(3):
                moved = list(noisy)
                moved[i] = v
                assert float(score[v]) == pytest.approx(marginal(moved) / marginal(noisy), rel=1e-9)


def law_of(world, steps, count=60_000, key=0):
    drawn = sample(jax.random.key(key), exact_predict(world), absorbing(3), (count, 2), steps=steps).tokens
    return np.bincount(word_index(world, drawn), minlength=9) / count


def test_law_approaches_the_data_as_steps_grow():
    """Only the factorisation error of simultaneous reveals remains; it shrinks like 1/T."""
    world = random_world(7)
    distance = {steps: total_variation(law_of(world, steps), world.law) for steps in (1, 4, 64)}
    first = posterior_mean(world, [3, 3])
    product = np.array([first[0, a] * first[1, b] for a, b in world.words])
    assert total_variation(law_of(world, 1), product) < 0.01
    assert distance[1] > 2.5 * distance[4] > 2 * distance[64]
    assert distance[64] < 0.015


def test_one_compilation_serves_all_step_counts_and_temperatures():
    world = random_world(0)

    @chex.assert_max_traces(n=1)
    def draw(key, steps, temperature):
        return sample(key, exact_predict(world), absorbing(3), (4, 2), steps=steps, temperature=temperature).tokens

    draw = jax.jit(draw)
    for steps in (1, 4, 50):
        assert (np.asarray(draw(jax.random.key(0), jnp.int32(steps), jnp.float32(1.0 + steps / 50))) < 3).all()


def test_examples_are_independent_of_their_batch():
    world, key = random_world(3), jax.random.key(11)
    steps, heat = jnp.array([3, 9, 27, 50]), jnp.array([0.7, 1.0, 1.1, 1.2])
    whole = sample(key, exact_predict(world), absorbing(3), (4, 2), steps=steps, temperature=heat).tokens
    for n in (1, 2, 3):
        part = sample(key, exact_predict(world), absorbing(3), (n, 2), steps=steps[:n], temperature=heat[:n]).tokens
        np.testing.assert_array_equal(part, whole[:n])


def test_jitted_and_plain_agree_and_given_cells_stay():
    world, key = random_world(4), jax.random.key(2)
    initial = jnp.array([[3, 1], [2, 3], [0, 0], [3, 3]])

    def draw(key):
        return sample(key, exact_predict(world), absorbing(3), (4, 2), steps=8, initial=initial)

    plain, jitted = draw(key), jax.jit(draw)(key)
    chex.assert_trees_all_equal(plain, jitted)
    given = np.asarray(initial) != 3
    np.testing.assert_array_equal(np.asarray(plain.tokens)[given], np.asarray(initial)[given])
    assert (np.asarray(plain.unmasked_at)[given] == -1).all()
    assert (np.asarray(plain.unmasked_at)[~given] >= 0).all()


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


def test_names_are_looked_up_at_the_edge():
    assert set(SAMPLERS) == {"analytic"}
    with pytest.raises(KeyError):
        sample(jax.random.key(0), exact_predict(random_world(0)), absorbing(3), (1, 2), sampler="nothing")
