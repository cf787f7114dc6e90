"""Enumerable toy worlds: a joint law over V^L states small enough for exact answers."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class World(NamedTuple):
    """A random joint law over all words of length L over V letters."""

    vocab: int
    words: np.ndarray  # [V^L, L]
    law: np.ndarray  # [V^L] probabilities


def random_world(seed: int, vocab: int = 3, length: int = 2) -> World:
    """Dirichlet(0.7) over the words, so that some are rare."""
    words = np.array(list(itertools.product(range(vocab), repeat=length)))
    return World(vocab, words, np.random.default_rng(seed).dirichlet(np.full(len(words), 0.7)))


def posterior_mean(world: World, noisy) -> np.ndarray:
    """Exact mu_i(v) = p(x0_i = v | x_t) under absorbing noise: condition on the unmasked letters. [L, V]"""
    noisy = np.asarray(noisy)
    seen = noisy != world.vocab
    weight = world.law * (world.words[:, seen] == noisy[seen]).all(1)
    weight = weight / weight.sum()
    return np.stack([np.bincount(world.words[:, i], weight, minlength=world.vocab) for i in range(len(noisy))])


def exact_predict(world: World):
    """predict(tokens [B, L], t) with the exact posterior, as a table over all (V + 1)^L noisy words; jittable."""
    length, base = world.words.shape[1], world.vocab + 1
    table = np.log(np.stack([posterior_mean(world, noisy) + 1e-300
                             for noisy in itertools.product(range(base), repeat=length)]))
    place = base ** np.arange(length)[::-1]

    def predict(tokens, t):
        del t
        return jnp.asarray(table)[tokens @ place]

    return predict


def word_index(world: World, words) -> np.ndarray:
    """Row of each word in `world.words`."""
    return np.asarray(words) @ world.vocab ** np.arange(world.words.shape[1])[::-1]


def total_variation(p, q) -> float:
    """Half the L1 distance."""
    return 0.5 * float(np.abs(np.asarray(p) - np.asarray(q)).sum())
