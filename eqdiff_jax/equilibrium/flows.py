"""What an equilibrium step has in common with diffusion, and what it has not.

Five steps over z [..., d], with an operator B and noise eps ~ N(0, I):

    Euler               z - gamma B(z)                                    dz = -B dt
    Langevin            z - gamma B(z) + sqrt(2 gamma) eps                dz = -B dt + sqrt(2) dW
    forward-backward    prox_tau(z - gamma B(z))                          0 in gamma B(z) + tau (z - a)
    reverse SDE         x + h (x/2 + score(x, alpha)) + sqrt(h) eps       dx = (x/2 + score) ds + dW
    probability flow    x + h (x + score(x, alpha))/2                     dx = (x + score)/2 ds

| statement | status |
|---|---|
| z - gamma B(z) is one explicit Euler step of dz/dt = -B(z) | identity |
| with B = -grad log p it is gradient ascent on log p | identity |
| it follows the flow with error O(gamma) | condition: B Lipschitz, finite horizon |
| it contracts, at rate max abs(1 - gamma lambda) | B = Lambda (z - m), Lambda > 0: iff 0 < gamma < 2/lambda_max |
| with the noise it is unadjusted Langevin (ULA) | identity |
| ULA's stationary law tends to p, with bias O(gamma) | B = -grad log p smooth, Lipschitz; p confining; gamma small |
| a B with asymmetric Jacobian is a score | false for every p, even where the chain still samples a Gaussian |
| prox_tau(z - gamma B(z)) is forward-backward splitting | identity |
| its fixed point minimises gamma f + (tau/2) abs(z - a)^2 (a MAP) | B = grad f, gamma f + (tau/2) abs(z - a)^2 convex |
| its fixed point solves a monotone inclusion | B 1-Lipschitz, tau > gamma; no minimisation unless B is a gradient |
| forward process, reverse SDE, probability flow: the same marginals | exact score, exact start, h -> 0 |
| reverse SDE and probability flow are the same process | false: the joint laws differ |
| a probability-flow step is z - gamma B(z) with one fixed B | false: B = -(x + score)/2 moves with alpha |
| iterating to an equilibrium is sampling | analogy only: without noise every start ends in one point |
| absorbing diffusion over tokens is one of these flows | analogy only: tokens have no gradient and no Euler step |

Steps are JAX. The closed forms beside them are NumPy float64, so that they can judge the steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array

Operator = Callable[[Array], Array]  # z [..., d] -> B(z) [..., d]
Score = Callable[[Array, Any], Array]  # (x [..., d], alpha []) -> grad log p_alpha(x) [..., d]


class Gaussian(NamedTuple):
    """N(mean, covariance); NumPy or JAX arrays."""

    mean: Any  # [d]
    covariance: Any  # [d, d], symmetric positive definite


# --- Equilibrium steps ------------------------------------------------------------------------------------------------


def _check_step(gamma) -> None:
    if not isinstance(gamma, jax.core.Tracer) and not 0 < gamma < np.inf:
        raise InputError(f"the step size gamma is {gamma}: flows run forwards in time, give a positive finite number")


def euler_step(operator: Operator, z: Array, gamma: float) -> Array:
    """One explicit Euler step z - gamma B(z) of dz/dt = -B(z). [..., d]

    For B = Lambda (z - m) with Lambda symmetric positive definite it contracts iff 0 < gamma < 2/lambda_max. Raises
    InputError unless gamma > 0 (a traced gamma is not looked at; so in all functions here).
    """
    _check_step(gamma)
    return z - gamma * operator(z)


def langevin_step(key: Array, operator: Operator, z: Array, gamma: float) -> Array:
    """One unadjusted Langevin step z - gamma B(z) + sqrt(2 gamma) eps, eps ~ N(0, I). [..., d]

    The key is consumed. Raises InputError unless gamma > 0.
    Reference: Roberts and Tweedie 1996, Exponential convergence of Langevin distributions (Bernoulli 2).
    """
    return euler_step(operator, z, gamma) + (2.0 * gamma) ** 0.5 * jax.random.normal(key, z.shape, z.dtype)


def langevin(key: Array, operator: Operator, z0: Array, gamma: float, steps: int) -> Array:
    """State after `steps` Langevin steps from z0 [..., d]; leading axes are independent chains. [..., d]

    The key is consumed. Raises InputError unless gamma > 0.
    """
    def body(z, key):
        return langevin_step(key, operator, z, gamma), None

    return jax.lax.scan(body, z0, jax.random.split(key, steps))[0]


def forward_backward_step(operator: Operator, z: Array, anchor: Array, gamma: float, tau: float) -> Array:
    """prox_tau(z - gamma B(z)), prox_tau(v) = (v + tau a)/(1 + tau), the LIM-RPS step towards a. [..., d]

    Its fixed points solve gamma B(z) + tau (z - a) = 0. Where B = grad f and gamma f + (tau/2) |z - a|^2 is convex they
    minimise it: the MAP estimate under likelihood exp(-gamma f) and prior N(a, I/tau). Otherwise there is nothing
    that is minimised; for B 1-Lipschitz and tau > gamma the sum is strongly monotone (modulus tau - gamma) and has
    one zero. The step contracts with (1 + gamma)/(1 + tau) for B 1-Lipschitz, and with 1/(1 + tau) if B is the
    gradient of a convex f with L-Lipschitz gradient and gamma <= 2/L, whatever tau > 0.
    Raises InputError unless gamma > 0 and tau >= 0.
    Reference: Lions and Mercier 1979; Combettes and Wajs 2005, theorem 3.4.
    """
    if not isinstance(tau, jax.core.Tracer) and not tau >= 0:
        raise InputError(f"the weight tau of the anchor is {tau}: its proximal map needs a number >= 0")
    return (euler_step(operator, z, gamma) + tau * anchor) / (1.0 + tau)


def score_of(log_density: Callable[[Array], Array]) -> Operator:
    """grad log p of a density given as log p: z [..., d] -> [...]; B = -score_of(log p). [..., d]"""
    return jax.grad(lambda z: jnp.sum(log_density(z)))


def asymmetry(operator: Operator, z: Array) -> Array:
    """|J - J^T| / |J| (Frobenius) of the Jacobian J of B at z [d], in [0, 2]; 0 where J = 0. []

    B on R^d is a gradient iff this is 0 at every z (Poincare), so one positive value proves that B is no score.
    """
    jacobian = jax.jacfwd(operator)(z)
    size = jnp.linalg.norm(jacobian)
    return jnp.linalg.norm(jacobian - jacobian.T) / jnp.where(size > 0, size, 1.0)


# --- Diffusion with the variance-preserving (VP) process --------------------------------------------------------------


def vp_forward(key: Array, x0: Array, alpha: Any) -> Array:
    """A draw of q(x_t | x_0) = N(sqrt(alpha) x_0, (1 - alpha) I). [..., d]

    alpha in [0, 1] broadcasts against x0. The key is consumed. Reference: Ho et al. 2020, equation 4.
    """
    return alpha**0.5 * x0 + (1.0 - alpha) ** 0.5 * jax.random.normal(key, x0.shape, x0.dtype)


def _clock(alphas: Any) -> tuple[Array, Array]:
    """(alpha_k, h_k = log(alpha_{k+1}/alpha_k)) for k < K: in the clock s = log alpha the noise rate is 1."""
    values = np.asarray(alphas, np.float64)
    if values.ndim != 1 or len(values) < 2 or not (values[0] > 0 and values[-1] <= 1 and (np.diff(values) > 0).all()):
        raise InputError("alphas must rise strictly within (0, 1], at least two of them: the reverse process runs from "
                         "noise (small alpha) to data (alpha 1); sort them, and start above 0")
    return jnp.asarray(values[:-1]), jnp.asarray(np.diff(np.log(values)))


def reverse_sde(key: Array, score: Score, x: Array, alphas: Any) -> Array:
    """Euler-Maruyama path of the reverse SDE dx = (x/2 + score) ds + dW, s = log alpha, from x [..., d].

    alphas [K + 1] rise strictly within (0, 1] and are concrete (not traced); x is a draw at alphas[0]. The key is
    consumed. Returns [K + 1, ..., d], x first. Weak order 1. Raises InputError for other alphas.
    Reference: Song et al. 2021 (arXiv:2011.13456), equation 6, with the drift and diffusion of their VP SDE.
    """
    alpha, h = _clock(alphas)

    def body(x, step):
        key, alpha, h = step
        noise = jax.random.normal(key, x.shape, x.dtype)
        x = (x + h * (0.5 * x + score(x, alpha)) + jnp.sqrt(h) * noise).astype(x.dtype)
        return x, x

    return jnp.concatenate([x[None], jax.lax.scan(body, x, (jax.random.split(key, len(h)), alpha, h))[1]])


def probability_flow_drift(score: Score, x: Array, alpha: Any) -> Array:
    """(x + score(x, alpha))/2, the velocity of the probability-flow ODE in the clock s = log alpha. [..., d]

    -B of an Euler step, but of a B that moves with alpha: no fixed B has these steps, in any clock, once two
    eigenvalues of the data's covariance differ from each other and from 1.
    """
    return 0.5 * (x + score(x, alpha))


def probability_flow(score: Score, x: Array, alphas: Any) -> Array:
    """Euler path of the probability-flow ODE dx = (x + score)/2 ds, s = log alpha, from x [..., d].

    Arguments and result as in `reverse_sde`, without a key. Order 1. Raises InputError for other alphas.
    Reference: Song et al. 2021 (arXiv:2011.13456), equation 13.
    """
    def body(x, step):
        alpha, h = step
        x = (x + h * probability_flow_drift(score, x, alpha)).astype(x.dtype)
        return x, x

    return jnp.concatenate([x[None], jax.lax.scan(body, x, _clock(alphas))[1]])


# --- Closed forms -----------------------------------------------------------------------------------------------------


def gaussian_marginal(law: Gaussian, alpha: Any) -> Gaussian:
    """Law of x_t when x_0 ~ N(m, C): N(sqrt(alpha) m, alpha C + (1 - alpha) I). JAX or NumPy, as given."""
    identity = np.eye(len(law.mean))
    return Gaussian(alpha**0.5 * law.mean, alpha * law.covariance + (1.0 - alpha) * identity)


def gaussian_score(law: Gaussian, x: Array) -> Array:
    """grad log p of N(m, C) at x [..., d]: -C^-1 (x - m). [..., d]"""
    mean, covariance = (jnp.asarray(part, x.dtype) for part in law)
    return -(x - mean) @ jnp.linalg.inv(covariance)  # C is symmetric


def mixture_log_density(z: Array, weights: Any, means: Any, scale: Any) -> Array:
    """log sum_k w_k N(z; mu_k, scale^2 I) for z [..., d], weights [K], means [K, d]. [...]

    -log p has Hessian eigenvalues at most 1/scale^2: steps below 2 scale^2 never lower log p. Under the VP process it
    stays a mixture, with means sqrt(alpha) mu_k and variance alpha scale^2 + 1 - alpha.
    """
    weights, means = jnp.asarray(weights, z.dtype), jnp.asarray(means, z.dtype)
    squares = jnp.sum((z[..., None, :] - means) ** 2, axis=-1)
    constant = 0.5 * z.shape[-1] * jnp.log(2 * np.pi * scale**2)
    return jax.nn.logsumexp(jnp.log(weights) - 0.5 * squares / scale**2, axis=-1) - constant


def _function(symmetric: Any, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Q f(lambda) Q^T of a symmetric matrix, float64."""
    values, vectors = np.linalg.eigh(np.asarray(symmetric, np.float64))
    return (vectors * f(values)) @ vectors.T


def gradient_flow(law: Gaussian, z: Any, time: float) -> np.ndarray:
    """Exact solution of dz/dt = grad log p(z) for p = N(m, C): m + exp(-t C^-1) (z - m). [..., d]"""
    return law.mean + (np.asarray(z, np.float64) - law.mean) @ _function(law.covariance, lambda c: np.exp(-time / c))


def gaussian_flow(law: Gaussian, x: Any, start: float, end: float) -> np.ndarray:
    """Exact probability-flow map from alpha = start to alpha = end when x_0 ~ N(m, C). [..., d]

    Along an eigenvector of C with eigenvalue c, deviations from the mean scale by sqrt(v_end / v_start),
    v_alpha = alpha c + 1 - alpha.
    """
    scale = _function(law.covariance, lambda c: np.sqrt((end * c + 1 - end) / (start * c + 1 - start)))
    return end**0.5 * law.mean + (np.asarray(x, np.float64) - start**0.5 * law.mean) @ scale


def ula_covariance(matrix: Any, gamma: float) -> np.ndarray:
    """Stationary covariance of z - gamma A (z - m) + sqrt(2 gamma) eps; its stationary mean is m. [d, d]

    The solution of S = (I - gamma A) S (I - gamma A)^T + 2 gamma I. For A symmetric, per eigenvalue lambda, it is
    1/(lambda (1 - gamma lambda/2)): too wide by gamma/2 + O(gamma^2). A [d, d] need not be symmetric.
    Raises InputError where no stationary law exists: spectral radius of I - gamma A at least 1.
    """
    _check_step(gamma)
    step = np.eye(len(matrix)) - gamma * np.asarray(matrix, np.float64)
    radius = np.abs(np.linalg.eigvals(step)).max()
    if not radius < 1 - 1e-12:  # on the border rounding may fall to either side
        raise InputError(f"the chain has no stationary law: I - gamma A has spectral radius {radius:.3g} >= 1 at gamma "
                         f"{gamma}; every eigenvalue of A needs a positive real part, and gamma must be smaller")
    return scipy.linalg.solve_discrete_lyapunov(step, 2 * gamma * np.eye(len(step)))


def gaussian_w2(first: Gaussian, second: Gaussian) -> float:
    """2-Wasserstein distance of two Gaussians, in units of z; accurate to about 1e-8 of the laws' width.

        W2^2 = |m - n|^2 + tr(C + D - 2 (C^1/2 D C^1/2)^1/2).
    Reference: Dowson and Landau 1982; Olkin and Pukelsheim 1982.
    """
    def root(c):
        return np.sqrt(np.maximum(c, 0.0))  # rounding may leave -1e-17

    half = _function(first.covariance, root)
    cross = _function(half @ second.covariance @ half, root)
    square = np.sum((first.mean - second.mean) ** 2) + np.trace(first.covariance + second.covariance - 2 * cross)
    return float(np.sqrt(max(square, 0.0)))


def ula_kernel(operator: Operator, grid: Any, gamma: float) -> np.ndarray:
    """Transition matrix of the Langevin step on a line: K[i, j] ~ N(grid_j; grid_i - gamma B(grid_i), 2 gamma). [n, n]

    grid [n] is uniform. Rows sum to 1: mass that would leave the grid stays on it, so it must span the law's
    support. The quadrature error is below 1e-8 because the spacing is at most the noise's sd sqrt(2 gamma).
    Raises InputError for a wider or an uneven spacing. A law p [n] after k steps is p @ K^k, without sampling noise.
    """
    _check_step(gamma)
    grid, noise = np.asarray(grid, np.float64), (2 * gamma) ** 0.5
    spacing = np.diff(grid)
    if grid.ndim != 1 or len(grid) < 2 or not np.allclose(spacing, spacing.mean()) or not 0 < spacing.mean() <= noise:
        raise InputError(f"the grid needs even, rising points no further apart than the noise, sqrt(2 gamma) = "
                         f"{noise:.3g}, or the quadrature cannot resolve a step: take a finer np.linspace")
    drifted = grid - gamma * np.asarray(operator(grid[:, None]), np.float64)[:, 0]
    exponent = -((grid - drifted[:, None]) ** 2) / (4 * gamma)
    kernel = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return kernel / kernel.sum(axis=1, keepdims=True)


def stationary(kernel: np.ndarray) -> np.ndarray:
    """The law p = p K of an irreducible transition matrix K [n, n], sum 1. [n]

    Solves (I - K^T + 1 1^T) p = 1: summing the rows gives sum p = 1, hence p = K^T p.
    """
    n = len(kernel)
    return np.linalg.solve(np.eye(n) - kernel.T + 1.0, np.ones(n))
