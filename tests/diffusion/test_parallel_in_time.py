"""The parallel sampler against the sequential one: the same tokens, with fewer sweeps than steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import exact_predict, exact_prediction, random_world

from eqdiff_jax.diffusion import (
    Analytic,
    Ancestral,
    Confidence,
    Euler,
    Parallel,
    absorbing,
    hybrid,
    sample,
    uniform,
)
from eqdiff_jax.diffusion.parallel_in_time import accumulate

CHAINS = 1000


def both(inner, window, steps, length=3, process=None, predict=None, initial=None, count=CHAINS, key=0):
    """For each of `steps`: (sequential, parallel) samples of `count` chains, each chain solved by itself."""
    world = random_world(7, length=length)
    process = process or absorbing(3)
    predict = predict or exact_predict(world)

    def one(i, sampler, steps):
        return sample(jax.random.key(key), predict, process, (1, length), sampler=sampler, steps=steps, first=i,
                      initial=None if initial is None else initial[None])

    samplers = inner, Parallel(inner, window)
    run = jax.jit(lambda steps: [jax.vmap(lambda i, s=s: one(i, s, steps))(jnp.arange(count)) for s in samplers])
    return [jax.tree.map(np.asarray, run(jnp.int32(s))) for s in steps]


@pytest.mark.parametrize("inner", [Analytic(), Ancestral(), Euler(), Confidence()], ids=lambda s: type(s).__name__)
def test_the_same_tokens_in_at_most_t_sweeps(inner):
    """1,000 chains, bit for bit, in float64; the count of sweeps is a chain's own."""
    counts = (1, 8, 16, 50, 100)
    with jax.enable_x64(True):
        runs = both(inner, 128, counts)
    for steps, (one, other) in zip(counts, runs, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.unmasked_at, other.unmasked_at)
        assert (other.sweeps >= 1).all() and (other.sweeps <= steps).all()
        if steps >= 50:
            assert np.median(other.sweeps) <= 6  # three cells change at most three times


@pytest.mark.parametrize("window", [1, 2, 7, 16])
def test_windows_lead_to_the_same_tokens(window):
    with jax.enable_x64(True):
        [(one, other)] = both(Analytic(), window, [23], count=200)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert (other.sweeps <= 23 + 23 // window + 1).all()


@pytest.mark.parametrize("make", [uniform, hybrid])
@pytest.mark.parametrize("inner", [Analytic(), Ancestral(), Euler()], ids=lambda s: type(s).__name__)
def test_cells_may_change_more_than_once(make, inner):
    process = make(3)
    with jax.enable_x64(True):
        [(one, other)] = both(inner, 32, [20], length=2, process=process, count=300,
                          predict=exact_prediction(random_world(7), process))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert (other.sweeps <= 20).all()


def test_given_cells_and_unequal_lengths():
    world = random_world(7, length=3)
    steps = jnp.array([1, 5, 30, 64, 9])
    initial = jnp.array([[3, 1, 3], [3, 3, 3], [0, 3, 2], [3, 3, 1], [1, 1, 1]])
    with jax.enable_x64(True):
        runs = [jax.jit(lambda s=s: sample(jax.random.key(4), exact_predict(world), absorbing(3), (5, 3), sampler=s,
                                           steps=steps, initial=initial))()
                for s in (Analytic(), Parallel(Analytic(), 64), Parallel(Analytic(), 10))]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].tokens, other.tokens)
        np.testing.assert_array_equal(runs[0].unmasked_at, other.unmasked_at)


def test_temperature_and_reports_come_through():
    with jax.enable_x64(True):
        world, process = random_world(2), uniform(3)
        runs = [sample(jax.random.key(4), exact_prediction(world, process), process, (64, 2), sampler=s, steps=2,
                       temperature=0.3) for s in (Euler(), Parallel(Euler()))]
    np.testing.assert_array_equal(runs[0].tokens, runs[1].tokens)
    np.testing.assert_array_equal(runs[0].clipped, runs[1].clipped)


def test_changes_add_up():
    """Two cells, three steps: the first change of a cell counts, or the last."""
    x0 = jnp.array([[9, 9]])
    old = jnp.array([[[9, 9]], [[1, 9]], [[1, 9]]])
    new = jnp.array([[[1, 9]], [[2, 5]], [[1, 6]]])
    np.testing.assert_array_equal(accumulate(x0, old, new, True)[:, 0], [[1, 9], [1, 5], [1, 5]])
    np.testing.assert_array_equal(accumulate(x0, old, new, False)[:, 0], [[1, 9], [2, 5], [2, 6]])
