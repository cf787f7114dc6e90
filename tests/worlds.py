"""Enumerable toy worlds: a joint law over V^L states small enough for exact answers."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.diffusion import LeaveOneOut, Mean, Score, absorbing, hybrid, uniform
from eqdiff_jax.diffusion.process import CLEAN, Kernel, between

MAKERS = {"absorbing": absorbing, "uniform": uniform, "hybrid": hybrid}


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


def matrix(kernel: Kernel, vocab: int) -> jnp.ndarray:
    """A forward kernel as a matrix [V + 1, V + 1], rows from, columns to, the mask last; kernel's fields []."""
    tokens = kernel.keep * jnp.eye(vocab) + kernel.spread
    top = jnp.concatenate([tokens, jnp.full((vocab, 1), kernel.to_mask)], axis=1)
    return jnp.concatenate([top, jnp.zeros((1, vocab + 1)).at[0, vocab].set(1.0)])


def unit_generator(name: str, vocab: int) -> np.ndarray:
    """Q at rate 1 of a process in MAKERS, written out: rows from, the mask last. [V + 1, V + 1]"""
    masked = {"absorbing": 1.0, "uniform": 0.0, "hybrid": 0.9}[name]
    q = np.zeros((vocab + 1, vocab + 1))
    for x in range(vocab):
        q[x, :vocab] += (1 - masked) / vocab
        q[x, vocab] = masked
        q[x, x] -= 1.0
    return q


def noisy_words(world: World) -> np.ndarray:
    """All (V + 1)^L noisy words, the mask being V. [S, L]"""
    return np.array(list(itertools.product(range(world.vocab + 1), repeat=world.words.shape[1])))


def emission(world: World, tokens, level) -> jnp.ndarray:
    """q(x_t,i | x_0,i = word_i) of every clean word and cell, for one noisy word [L]: [W, L]; level's fields []."""
    kernel = matrix(between(CLEAN, level, world.vocab), world.vocab)
    return kernel[jnp.asarray(world.words), tokens[None, :]]


def exact_mean(world: World, tokens, level) -> jnp.ndarray:
    """mu_i(v) = p(x_0,i = v | x_t) [L, V] by enumeration, any process."""
    weight = jnp.asarray(world.law) * jnp.prod(emission(world, tokens, level), axis=1)
    hot = jax.nn.one_hot(jnp.asarray(world.words), world.vocab, dtype=weight.dtype)
    return jnp.einsum("w,wiv->iv", weight, hot) / jnp.sum(weight)


def exact_leave_one_out(world: World, tokens, level) -> jnp.ndarray:
    """nu_i(v) = p(x_0,i = v | x_t without cell i) [L, V] by enumeration."""
    each = emission(world, tokens, level)
    hot = jax.nn.one_hot(jnp.asarray(world.words), world.vocab, dtype=each.dtype)
    rest = jnp.stack([jnp.prod(jnp.delete(each, i, axis=1), axis=1) for i in range(each.shape[1])], axis=1)
    joint = jnp.einsum("w,wi,wiv->iv", jnp.asarray(world.law), rest, hot)
    return joint / jnp.sum(joint, axis=1, keepdims=True)


def exact_score(world: World, tokens, level) -> jnp.ndarray:
    """s_i(y) = p_t(x with i -> y) / p_t(x) [L, V + 1] by enumeration, the mask last."""
    def marginal(noisy):
        return jnp.sum(jnp.asarray(world.law) * jnp.prod(emission(world, noisy, level), axis=1))

    own = marginal(tokens)
    return jnp.stack([jnp.stack([marginal(tokens.at[i].set(y)) / own for y in range(world.vocab + 1)])
                      for i in range(world.words.shape[1])])


EXACT = {Mean: exact_mean, LeaveOneOut: exact_leave_one_out, Score: exact_score}


def exact_prediction(world: World, process, kind=Mean):
    """predict(tokens [B, L], t [B]) -> the exact `kind` of any process; jittable."""
    def predict(tokens, t):
        values = jax.vmap(lambda x, t: EXACT[kind](world, x, process.level(t)))(tokens, t)
        return kind(jnp.log(values))

    return predict


def propagate(world: World, start, laws) -> np.ndarray:
    """Law over noisy words after steps that change every cell independently: start [S], laws [[S, L, V + 1], ...]."""
    words, law = noisy_words(world), np.asarray(start, np.float64)
    for cells in laws:
        cells = np.asarray(cells, np.float64)
        joint = np.ones((len(words), len(words)))
        for i in range(words.shape[1]):
            joint *= cells[:, i, :][:, words[:, i]]
        law = law @ joint
    return law


def clean_law(world: World, law) -> np.ndarray:
    """The part of a law over noisy words that lies on clean words, in the order of `world.words`."""
    words = noisy_words(world)
    clean = (words < world.vocab).all(axis=1)
    found = np.zeros(len(world.words))
    found[word_index(world, words[clean])] = np.asarray(law)[clean]
    return found
