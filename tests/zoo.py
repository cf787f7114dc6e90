"""A zoo of fixed-point problems, in float64 NumPy: f, its arguments, a start, and what is known of each.

`tanh_problem` is the main family: f(z) = tanh(Wz + x), x = 0.1 N(0, I), z0 = 0; a larger x saturates tanh and makes
every solver look alike. Stop where |f - z| <= 1e-6 (1 + |f|).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TOLERANCE = 1e-6
KINDS, RATES, SIZES = ("gaussian", "symmetric", "orthogonal"), (0.5, 0.9, 0.99), (32, 128, 1024)


class Problem(NamedTuple):
    """f(z, *args) -> z."""

    f: Callable
    z0: np.ndarray  # [n]
    args: tuple
    rate: float  # Lipschitz constant in the Euclidean norm, inf where there is no useful one


def layer(z, w, x):
    """tanh(Wz + x)."""
    return jnp.tanh(w @ z + x)


def matrix(kind: str, rate: float, n: int, seed: int = 0) -> np.ndarray:
    """W [n, n] with |W| = rate."""
    w = np.random.default_rng(seed).normal(size=(n, n))
    if kind == "symmetric":
        w = (w + w.T) / 2
        return rate * w / np.abs(np.linalg.eigvalsh(w)).max()
    if kind == "orthogonal":
        return rate * np.linalg.qr(w)[0]
    return rate * w / np.linalg.norm(w, 2)


def tanh_problem(kind: str, rate: float, n: int, seed: int = 0) -> Problem:
    """tanh(Wz + x) from 0, |W| = rate, x = 0.1 N(0, I)."""
    x = 0.1 * np.random.default_rng([seed, 1]).normal(size=n)
    return Problem(layer, np.zeros(n), (matrix(kind, rate, n, seed), x), rate)


def affine(rate: float, n: int = 64, seed: int = 0) -> Problem:
    """Mz + b, M symmetric with eigenvalues spread over [-rate, rate], both ends taken."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return Problem(lambda z, m, b: m @ z + b, np.zeros(n),
                   ((basis * np.linspace(-rate, rate, n)) @ basis.T, rng.normal(size=n)), rate)


def cosine() -> Problem:
    """cos z from 0: 0.7390851332151607."""
    return Problem(jnp.cos, np.zeros(1), (), 1.0)


def rotation(radius: float = 1.05) -> Problem:
    """A plane rotation of that radius plus b: one fixed point, and Picard spirals away from it."""
    turn = radius * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    return Problem(lambda z, m, b: m @ z + b, np.zeros(2), (turn, np.array([1.0, 2.0])), np.inf)


def runaway() -> Problem:
    """z^2 + z + 1: no fixed point; every iterate is larger than the one before."""
    return Problem(lambda z: z * z + z + 1.0, np.zeros(4), (), np.inf)


def attention(tokens: int = 16, width: int = 8, gain: float = 0.7, seed: int = 0) -> Problem:
    """One weight-tied attention block, z <- gain tanh(softmax(z Q (z K)^T / sqrt(d)) z V + x), z [tokens * width]."""
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(3, width, width)) / width**0.5

    def block(z, q, k, v, x):
        z = z.reshape(tokens, width)
        share = jax.nn.softmax((z @ q) @ (z @ k).T / width**0.5)
        return gain * jnp.tanh(share @ (z @ v) + x).reshape(-1)

    return Problem(block, np.zeros(tokens * width), (q, k, v, rng.normal(size=(tokens, width))), np.inf)


def reference(problem: Problem, steps: int = 20000) -> np.ndarray:
    """The fixed point in float64 NumPy: a linear solve where f is affine, else plain iteration to rest."""
    if problem.f is layer:
        w, x = problem.args
        z = problem.z0
        for _ in range(steps):
            z, last = np.tanh(w @ z + x), z
            if np.linalg.norm(z - last) <= 1e-15 * (1 + np.linalg.norm(z)):
                break
        return z
    if len(problem.args) == 2:
        m, b = problem.args
        return np.linalg.solve(np.eye(len(b)) - m, b)
    raise ValueError("no reference for this problem")
