"""Forward processes against the matrix exponential of their generators."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from worlds import MAKERS, matrix, unit_generator

from eqdiff_jax.diffusion import PROCESSES, SCHEDULES, absorbing, hybrid, uniform
from eqdiff_jax.diffusion.process import CLEAN, between, expand_like, likelihood, marginal, rates_into
from eqdiff_jax.errors import InputError


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("name", "schedule"), list(itertools.product(MAKERS, SCHEDULES)))
def test_kernels_are_the_matrix_exponential(name, schedule):
    """From s to t: expm((sigma_t - sigma_s) Q), for every process and schedule."""
    process = MAKERS[name](4, SCHEDULES[schedule])
    for s, t in ((0.01, 0.2), (0.3, 0.9), (0.5, 1.0)):
        sigma = [-float(jnp.log(process.alpha(jnp.asarray(u)))) for u in (s, t)]
        expected = scipy.linalg.expm((sigma[1] - sigma[0]) * unit_generator(name, 4))
        kernel = between(process.level(jnp.asarray(s)), process.level(jnp.asarray(t)), 4)
        np.testing.assert_allclose(matrix(kernel, 4), expected, atol=1e-12)
        rates = float(process.rate(jnp.asarray(t))) * unit_generator(name, 4)
        into = rates_into(process, jnp.arange(5)[None], jnp.asarray(t)[None])[0]
        np.testing.assert_allclose(into, (rates - np.diag(np.diag(rates))).T, atol=1e-12)


@pytest.mark.parametrize("name", ["d3pm_absorbing", "d3pm_uniform", "d3pm_hybrid"])
def test_discrete_steps_multiply_up_to_the_cumulative_kernel(name):
    process = PROCESSES[name](5)
    assert process.times == 100
    whole = np.eye(6)
    for k in range(100):
        s, t = (process.level(jnp.asarray(i / 100)) for i in (k, k + 1))
        step = np.asarray(matrix(between(s, t, 5), 5))
        assert (step >= 0).all()
        np.testing.assert_allclose(step.sum(axis=1), 1, atol=1e-12)
        whole = whole @ step
    np.testing.assert_allclose(whole, matrix(between(process.level(jnp.asarray(0.0)), t, 5), 5), atol=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_likelihood_and_marginal_are_columns_and_rows_of_the_kernel(name):
    process = MAKERS[name](3)
    kernel = between(process.level(jnp.asarray(0.2)), process.level(jnp.asarray(0.7)), 3)
    full = np.asarray(matrix(kernel, 3))
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], kernel)
    found = likelihood(batch, jnp.arange(4)[None], 3)[0]
    np.testing.assert_allclose(found, full.T, atol=1e-15)
    p = np.random.default_rng(0).dirichlet(np.ones(3))
    at = jax.tree.map(lambda x: x[None], process.level(jnp.asarray(0.7)))
    cumulative = np.asarray(matrix(between(CLEAN, process.level(jnp.asarray(0.7)), 3), 3))
    np.testing.assert_allclose(marginal(jnp.asarray(p)[None, None], at)[0, 0], p @ cumulative[:3], atol=1e-15)


@pytest.mark.parametrize("name", MAKERS)
def test_corruption_has_the_law_of_the_kernel(name):
    process = MAKERS[name](4)
    tokens = jnp.full((3, 60_000), 2)
    t = jnp.array([0.1, 0.5, 0.9])
    noisy = np.asarray(process.corrupt(jax.random.key(0), tokens, t))
    for row, u in zip(noisy, t, strict=True):
        law = np.asarray(matrix(between(CLEAN, process.level(u), 4), 4))[2]
        np.testing.assert_allclose(np.bincount(row, minlength=5) / row.size, law, atol=0.01)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: absorbing(1), "at least 2 tokens"),
    (lambda: uniform(5, times=0), "at least 1 step"),
    (lambda: hybrid(5, masked=1.0), "take absorbing"),
])
def test_impossible_processes_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_per_example_values_are_spread_over_the_axes_of_tokens():
    assert expand_like(jnp.ones(3), jnp.ones((3, 4, 5))).shape == (3, 1, 1)
    assert expand_like(0.5, jnp.ones((2, 2))).shape == (1, 1)
