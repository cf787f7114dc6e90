"""Phrases: the chain's distribution against the exact one on worlds that can be enumerated, and the budget, always."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.diffusion.phrases import Parts, delayed, gibbs, total

TRACKS, PARTS, CHAINS = 3, 3, 40_000


def world(seed, allowed=6):
    """Parts with features, weights and prices by chance; the first part of each track costs nothing."""
    rng = np.random.default_rng(seed)
    spent = rng.integers(1, 5, (TRACKS, PARTS)) * (np.arange(PARTS) > 0)
    weight = rng.normal(size=(TRACKS, PARTS))
    weight[1, 2] = -np.inf if seed % 2 else weight[1, 2]
    return Parts({"a": jnp.asarray(rng.normal(size=(TRACKS, PARTS))), "b": jnp.asarray(rng.normal(
        size=(TRACKS, PARTS, 2)))}, jnp.asarray(weight), jnp.asarray(spent, jnp.int32), jnp.int32(allowed),
        jnp.asarray(rng.normal()))


def energy(features, data):
    """No sum over tracks: what one track does depends on the others."""
    return 1.5 * (features["a"] - data) ** 2 + jnp.abs(features["b"]).sum(-1) * features["a"]


def late_table(seed):
    return np.random.default_rng(seed + 99).exponential(1.5, (PARTS,) * TRACKS)


def exact(parts, table=None):
    """pi [27] in the order of product(range(3), repeat=3)."""
    log = []
    for choice in product(range(PARTS), repeat=TRACKS):
        at = (np.arange(TRACKS), np.array(choice))
        value = np.asarray(parts.log_weight)[at].sum() - float(energy(total(parts.features, jnp.array(choice)),
                                                                     parts.data))
        value -= 0.0 if table is None else table[choice]
        log.append(value if np.asarray(parts.spent)[at].sum() <= int(parts.allowed) else -np.inf)
    p = np.exp(np.array(log) - max(log))
    return p / p.sum()


def histogram(choices):
    index = np.asarray(choices) @ PARTS ** np.arange(TRACKS)[::-1]
    return np.bincount(index, minlength=PARTS**TRACKS) / len(choices)


def apart(p, q):
    return 0.5 * np.abs(p - q).sum()


def batched(parts, count):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), parts)


@pytest.mark.parametrize("seed", range(4))
def test_gibbs_goes_to_the_stated_distribution(seed):
    parts, keys = world(seed), jax.random.split(jax.random.key(seed), CHAINS)
    run = jax.jit(lambda moves: jax.vmap(lambda k: gibbs(k, parts, energy, jnp.zeros(TRACKS, jnp.int32), moves))(keys))
    want = exact(parts)
    far = [apart(histogram(run(moves)), want) for moves in (1, 6, 60)]
    assert far[2] < 0.012 < far[0]  # the noise of 40,000 draws from 27 outcomes is 0.007


@pytest.mark.parametrize("seed", [0, 1])
def test_with_late_costs_it_goes_there_too_and_stays(seed):
    """`moves` and `rounds` change how fast, not where to. Started from pi, it is pi after any number of rounds."""
    parts, table = world(seed), late_table(seed)
    late = lambda choice: jnp.asarray(table)[tuple(choice.T)]  # noqa: E731
    want = exact(parts, table)
    assert apart(want, exact(parts)) > 0.1
    start = jnp.zeros((CHAINS, TRACKS), jnp.int32)
    far = [apart(histogram(delayed(jax.random.key(3), batched(parts, CHAINS), energy, late, start, warm=20,
                                   moves=moves, rounds=rounds).choice), want)
           for moves, rounds in ((5, 0), (5, 2), (2, 40), (9, 20))]
    assert max(far[2:]) < 0.012 < 0.05 < far[0] and far[1] < far[0]
    drawn = np.random.default_rng(0).choice(PARTS**TRACKS, CHAINS, p=want)
    start = jnp.asarray(np.stack(np.unravel_index(drawn, (PARTS,) * TRACKS), axis=1), jnp.int32)
    once = delayed(jax.random.key(4), batched(parts, CHAINS), energy, late, start, warm=0, moves=3, rounds=1)
    assert apart(histogram(once.choice), want) < 0.012
    assert 0.2 < float(once.accepted.mean()) < 1.0


def test_nothing_is_spent_beyond_what_is_allowed():
    for allowed in range(9):
        parts = world(2, allowed)
        keys = jax.random.split(jax.random.key(allowed), 500)
        found = jax.vmap(lambda k, p=parts: gibbs(
            k, p, lambda features, data: 0.0 * features["a"], jnp.zeros(TRACKS, jnp.int32), 12))(keys)
        spent = np.asarray(parts.spent)[np.arange(TRACKS), np.asarray(found)].sum(1)
        assert spent.max() <= allowed
        assert spent.max() == max(s for s in (np.asarray(parts.spent)[np.arange(3), list(c)].sum()
                                              for c in product(range(3), repeat=3)) if s <= allowed)


def test_a_late_cost_that_is_not_finite_is_refused():
    parts, start = batched(world(0), 64), jnp.zeros((64, TRACKS), jnp.int32)
    for broken in (jnp.nan, jnp.inf):
        only = delayed(jax.random.key(0), parts, energy, lambda c, b=broken: jnp.where(c[:, 0] == 0, 1.0, b), start,
                       warm=0, moves=4, rounds=8)
        assert (only.choice[:, 0] == 0).all()
        lost = delayed(jax.random.key(0), parts, energy, lambda c, b=broken: jnp.full(len(c), b), start, warm=0,
                       moves=4, rounds=8)
        assert (lost.choice == start).all() and not lost.accepted.any()


def test_examples_do_not_know_of_each_other():
    first, other = world(0), world(3)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), first, other)
    swap = jax.tree.map(lambda a, b: jnp.stack([a, b]), first, world(5))
    late = lambda choice: choice.sum(1).astype(jnp.float32)  # noqa: E731
    run = lambda p: delayed(jax.random.key(1), p, energy, late, jnp.zeros((2, TRACKS), jnp.int32), warm=9,  # noqa: E731
                            moves=5, rounds=4).choice[0]
    np.testing.assert_array_equal(run(both), run(swap))
