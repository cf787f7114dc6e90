"""Likelihood bounds against entropies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import exact_predict, exact_prediction, posterior_mean, random_world

from eqdiff_jax.diffusion import LeaveOneOut, Mean, absorbing, exact_nelbo, hybrid, nelbo, uniform
from eqdiff_jax.errors import InputError


def entropy(world):
    return -(world.law * np.log(world.law)).sum()


@pytest.mark.parametrize("seed", range(3))
def test_nelbo_with_the_exact_posterior_is_the_entropy(seed):
    """With exact mu the bound is tight: its mean over the law is the entropy H, per letter."""
    world = random_world(seed)
    with jax.enable_x64(True):
        picks = np.random.default_rng(seed).choice(len(world.law), 4000, p=world.law)
        got = nelbo(jax.random.key(seed), exact_predict(world), absorbing(3), jnp.asarray(world.words[picks]), draws=16)
        assert float(got.bits) == pytest.approx(float(got.nats) / np.log(2))
    sampled = -np.log(world.law[picks]).mean() / 2
    assert abs(float(got.nats) - sampled) < 4 * float(got.stderr)
    assert abs(float(got.nats) - entropy(world) / 2) < 5 * float(got.stderr)


@pytest.mark.parametrize(("make", "kind"), [(uniform, Mean), (uniform, LeaveOneOut), (hybrid, Mean)])
def test_nelbo_of_other_processes_is_tight_with_exact_predictions(make, kind):
    world, process = random_world(4), make(3)
    with jax.enable_x64(True):
        picks = np.random.default_rng(0).choice(len(world.law), 3000, p=world.law)
        got = nelbo(jax.random.key(0), exact_prediction(world, process, kind), process,
                    jnp.asarray(world.words[picks]), draws=32)
    # One-sided slack: a process with masks ends at alpha = 1e-3, whose cost is left out.
    assert abs(float(got.nats) - entropy(world) / 2) < 5 * float(got.stderr) + 0.005


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_exact_bound_of_each_word_is_its_log_probability_on_average(length):
    world = random_world(length, length=length)
    with jax.enable_x64(True):
        got = exact_nelbo(exact_predict(world), absorbing(3), jnp.asarray(world.words))
        assert float((got.per_example * world.law).sum()) * length == pytest.approx(entropy(world), rel=1e-9)
        # and Monte Carlo agrees word by word
        many = nelbo(jax.random.key(0), exact_predict(world), absorbing(3), jnp.asarray(world.words), draws=4000)
    np.testing.assert_allclose(many.per_example, got.per_example, rtol=0.15, atol=0.05)


def test_nelbo_exceeds_the_entropy_for_a_wrong_posterior():
    world = random_world(1)
    exact = exact_predict(world)
    with jax.enable_x64(True):
        got = exact_nelbo(lambda x, t: 0.5 * exact(x, t), absorbing(3), jnp.asarray(world.words))
        assert float((got.per_example * world.law).sum()) * 2 > entropy(world) + 0.05


def test_posterior_mean_of_the_fully_masked_word_is_the_marginal():
    world = random_world(2)
    got = posterior_mean(world, [3, 3])
    np.testing.assert_allclose(got[0], [world.law[world.words[:, 0] == v].sum() for v in range(3)])


@pytest.mark.parametrize(("process", "cells"), [(uniform(3), 2), (absorbing(3), 20)])
def test_sums_that_are_too_long_are_refused(process, cells):
    with pytest.raises(InputError, match="take nelbo"):
        exact_nelbo(exact_predict(random_world(0)), process, jnp.zeros((2, cells), int))
