"""Equilibrium steps and diffusion: what is an identity, what holds under conditions, and where it fails.

Simulations are judged by closed forms and by exact transition matrices. K standard errors are allowed, K = 5:
for the some hundred numbers compared here that is one false alarm in 10^4 seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special

from eqdiff_jax.equilibrium import flows
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import lim_rps

K = 5
CHAINS = 20_000
TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
SKEW = np.array([[0.0, -1.0], [1.0, 0.0]])
LAW = flows.Gaussian(np.array([1.0, -0.5]), TURN @ np.diag([2.0, 0.25]) @ TURN.T)
PRECISION = np.linalg.inv(LAW.covariance)  # eigenvalues 0.5 and 4
IDENTITY = np.eye(2)

WEIGHTS, MEANS, SCALE = np.array([0.3, 0.7]), np.array([[-1.5], [1.5]]), 0.7
GRID = np.linspace(-7.0, 7.0, 701)


def linear(matrix, centre=0.0):
    """B(z) = A (z - m) for z [..., d]."""
    return lambda z: (z - jnp.asarray(centre, z.dtype)) @ jnp.asarray(matrix.T, z.dtype)


def log_mixture(z):
    return flows.mixture_log_density(z, WEIGHTS, MEANS, SCALE)


def mixture_operator(z):
    return -flows.score_of(log_mixture)(z)


def mixture_on_grid():
    """The exact law as probabilities of the grid's cells, from scratch."""
    p = np.exp(-((GRID[:, None] - MEANS[:, 0]) ** 2) / (2 * SCALE**2)) @ WEIGHTS
    return p / p.sum()


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()


def assert_moments(samples, mean, covariance, bias_mean=0.0, bias_covariance=0.0):
    """Mean and covariance of Gaussian samples [N, d] within K standard errors, plus a known bias."""
    samples, n = np.asarray(samples, np.float64), len(samples)
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / n)
    assert (np.abs(samples.mean(0) - mean) <= K * np.sqrt(variance / n) + bias_mean).all()
    assert (np.abs(np.cov(samples.T) - covariance) <= K * error + bias_covariance).all()


def draw(seed, law, n=CHAINS):
    return np.random.default_rng(seed).multivariate_normal(law.mean, law.covariance, n).astype(np.float32)


# --- Euler steps ------------------------------------------------------------------------------------------------------


def test_the_equilibrium_step_is_gradient_ascent_on_log_p():
    """z - gamma B(z) with B = -grad log p, against the mixture's gradient by hand, and the ascent lemma (L = 1/s^2)."""
    with jax.enable_x64(True):
        z, gamma = jnp.linspace(-4.0, 4.0, 81)[:, None], 0.4
        near = WEIGHTS * np.exp(-((z - MEANS[:, 0]) ** 2) / (2 * SCALE**2))
        gradient = ((near / near.sum(1, keepdims=True)) @ MEANS - z) / SCALE**2
        after = jax.jit(lambda z: flows.euler_step(mixture_operator, z, gamma))(z)
        np.testing.assert_allclose(after, z + gamma * gradient, atol=1e-12)
        gain = gamma * (1 - gamma / (2 * SCALE**2)) * (gradient**2)[:, 0]
        before, after = jax.jit(log_mixture)(jnp.stack([z, after]))
        assert (after >= before + gain - 1e-12).all()


def test_mixture_density_is_normalised():
    with jax.enable_x64(True):
        p = np.exp(log_mixture(jnp.asarray(GRID)[:, None])) * (GRID[1] - GRID[0])
    np.testing.assert_allclose(p.sum(), 1.0, atol=1e-10)
    np.testing.assert_allclose(p, mixture_on_grid(), atol=1e-12)


def euler_path_error(steps, time=1.0):
    with jax.enable_x64(True):
        start = z = jnp.array([[3.0, 1.0], [-2.0, 0.5]])
        for _ in range(steps):
            z = flows.euler_step(linear(PRECISION, LAW.mean), z, time / steps)
    return np.abs(np.asarray(z) - flows.gradient_flow(LAW, start, time)).max()


def test_euler_follows_the_flow_at_order_one():
    """Error at t = 1 halves with gamma; the ratio's own error is O(gamma)."""
    errors = np.array([euler_path_error(steps) for steps in (32, 64, 128)])
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2.0, atol=0.1)
    assert 1e-4 < errors[-1] < 1e-2


def test_the_flow_solves_its_equation():
    """d/dt of the closed form by central differences is grad log p; t = 0 is the start, the end is the mean."""
    z, h = np.array([3.0, 1.0]), 1e-5
    velocity = (flows.gradient_flow(LAW, z, 0.3 + h) - flows.gradient_flow(LAW, z, 0.3 - h)) / (2 * h)
    np.testing.assert_allclose(velocity, -PRECISION @ (flows.gradient_flow(LAW, z, 0.3) - LAW.mean), atol=1e-8)
    np.testing.assert_allclose(flows.gradient_flow(LAW, z, 0.0), z, atol=1e-14)
    np.testing.assert_allclose(flows.gradient_flow(LAW, z, 100.0), LAW.mean, atol=1e-12)


@pytest.mark.parametrize(("gamma", "rate"), [(0.01, 0.995), (0.4, 0.8), (4 / 9, 7 / 9), (0.499, 0.996), (0.5, 1.0),
                                             (0.501, 1.004), (1.0, 3.0)])
def test_euler_contracts_iff_gamma_is_below_two_over_lambda_max(gamma, rate):
    """Rate max |1 - gamma lambda| for lambda in {0.5, 4}: met by no pair beyond it, reached along an eigenvector."""
    with jax.enable_x64(True):
        pairs = np.random.default_rng(0).normal(size=(2, 200, 2))
        pairs[:, :2] = [[[0.0, 0.0]] * 2, TURN.T]
        a, b = (flows.euler_step(linear(PRECISION, LAW.mean), z, gamma) for z in pairs)
    ratios = np.linalg.norm(a - b, axis=1) / np.linalg.norm(pairs[0] - pairs[1], axis=1)
    np.testing.assert_allclose(ratios.max(), rate, atol=1e-12)
    assert (rate < 1) == (0 < gamma < 0.5)


def test_without_noise_every_start_ends_in_one_point():
    """An equilibrium iteration is no sampler: its law's covariance is (I - gamma L)^2n C, not C."""
    z = draw(0, LAW)
    for _ in range(60):
        z = flows.euler_step(linear(PRECISION, LAW.mean), z, 0.4)
    slowest = 2.0 * 0.8**120
    assert np.cov(np.asarray(z).T).max() < 2 * slowest + 1e-12
    np.testing.assert_allclose(z, np.broadcast_to(LAW.mean, z.shape), atol=1e-4)


# --- Langevin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.3, 1e-3])
def test_langevin_is_euler_and_noise_of_variance_two_gamma(gamma):
    """What is left after the Euler step, over sqrt(2 gamma), is N(0, 1): moments 1 to 4 are 0, 1, 0, 3, with the sample
    means' variances (1, 2, 15, 96)/N; N = 2^21, so 1 % too much variance shows."""
    z = jnp.zeros((2**20, 2))
    noise = flows.langevin_step(jax.random.key(9), lambda z: z - 2.0, z, gamma) - 2 * gamma
    noise = np.asarray(noise, np.float64).ravel() / np.sqrt(2 * gamma)
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs((noise**power).mean() - moment) < K * np.sqrt(variance / len(noise))


@pytest.mark.parametrize("steps", [3, 100])
def test_langevin_has_the_exact_biased_law(steps):
    """From a point: mean m + (I - gamma L)^n (z - m); along each eigenvector of L
    variance (1 - (1 - gamma lambda)^2n)/(lambda (1 - gamma lambda/2))."""
    gamma, rates = 0.3, np.array([0.5, 4.0])
    z0 = np.float32([2.0, 2.0])
    z = jax.jit(lambda key: flows.langevin(
        key, linear(PRECISION, LAW.mean), jnp.broadcast_to(z0, (CHAINS, 2)), gamma, steps))(jax.random.key(steps))
    shrink = (1 - gamma * rates) ** steps
    variance = (1 - shrink**2) / (rates * (1 - gamma * rates / 2))
    assert_moments(z, LAW.mean + TURN @ np.diag(shrink) @ TURN.T @ (z0 - LAW.mean), TURN @ np.diag(variance) @ TURN.T)
    if steps == 100:  # (1 - 0.15)^200 = 8e-15: the stationary law, which these samples tell from the true one
        stationary = flows.ula_covariance(PRECISION, gamma)
        np.testing.assert_allclose(stationary, TURN @ np.diag(variance) @ TURN.T, rtol=1e-12)
        with pytest.raises(AssertionError):
            assert_moments(z, LAW.mean, LAW.covariance)


def test_langevin_bias_shrinks_linearly_on_a_gaussian():
    """W2 to the true law over gamma tends to sqrt(tr Lambda)/4: per direction gamma sqrt(lambda)/4 to first order."""
    gammas = 0.1 * 0.5 ** np.arange(7)
    w2 = np.array([flows.gaussian_w2(LAW, LAW._replace(covariance=flows.ula_covariance(PRECISION, g))) for g in gammas])
    assert (np.diff(w2) < 0).all()
    slope = w2 / gammas / (np.sqrt(4.5) / 4)
    # 1/sqrt(1 - x) - 1 = x/2 (1 + 3x/4 + 5x^2/8 ...), x = gamma lambda/2 <= 2 gamma <= 0.2: in brackets below 1 + x
    assert (np.abs(slope - 1) <= 2 * gammas).all()


def test_w2_of_gaussians_known_by_hand():
    line = [flows.Gaussian(np.array([m]), np.array([[s**2]])) for m, s in [(0.0, 1.0), (3.0, 5.0)]]
    assert flows.gaussian_w2(*line) == pytest.approx(5.0)  # |m - n|^2 + (s - t)^2 = 9 + 16
    assert flows.gaussian_w2(LAW, LAW) == pytest.approx(0.0, abs=1e-7)
    far = flows.Gaussian(LAW.mean, IDENTITY)
    assert flows.gaussian_w2(LAW, far) == pytest.approx(np.hypot(2**0.5 - 1, 0.5))  # commuting: roots apart
    # not commuting: optimal map T = C^-1/2 (C^1/2 D C^1/2)^1/2 C^-1/2, cost E|x - Tx|^2 = tr (I - T) C (I - T)
    other = np.diag([1.0, 3.0])
    root = scipy.linalg.sqrtm(LAW.covariance)
    middle = np.linalg.inv(root) @ scipy.linalg.sqrtm(root @ other @ root) @ np.linalg.inv(root)
    cost = np.trace((IDENTITY - middle) @ LAW.covariance @ (IDENTITY - middle))
    assert flows.gaussian_w2(LAW, flows.Gaussian(LAW.mean, other)) == pytest.approx(np.sqrt(cost))


def test_langevin_bias_shrinks_linearly_on_a_two_mode_mixture():
    """Total variation of the chain's exact stationary law (transition matrix) to the mixture halves with gamma."""
    with jax.enable_x64(True):
        operator = jax.jit(mixture_operator)
        kernels = [flows.ula_kernel(operator, GRID, gamma) for gamma in (0.1, 0.05, 0.025, 0.0125)]
    bias = np.array([total_variation(flows.stationary(kernel), mixture_on_grid()) for kernel in kernels])
    np.testing.assert_allclose(bias[:-1] / bias[1:], 2.0, atol=0.1)
    assert 1e-3 < bias[-1] < 5e-3


def test_transition_matrix_gives_the_exact_gaussian_law():
    lam, gamma = 1.5, 0.2
    kernel = flows.ula_kernel(lambda z: lam * (z - 0.5), GRID, gamma)
    p = flows.stationary(kernel)
    np.testing.assert_allclose(kernel.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose([p.sum(), p @ GRID], [1.0, 0.5], atol=1e-10)
    assert p @ (GRID - 0.5) ** 2 == pytest.approx(1 / (lam * (1 - gamma * lam / 2)), abs=1e-7)


@pytest.mark.parametrize(("gamma", "steps"), [(0.4, 20), (0.1, 50), (0.01, 150)])
def test_langevin_simulation_has_the_exact_law_on_a_mixture(gamma, steps):
    """Histogram of 50,000 chains after n steps against p0 K^n: expected TV below sum sqrt(q (1 - q)/N)/2 for cell
    probabilities q, and McDiarmid bounds the excess: P(TV > E + t) <= exp(-2 N t^2), here 1e-6.
    The same histogram is far from the true density at large steps, and as near as noise allows at small ones."""
    n, cell = 50_000, 10
    rng = np.random.default_rng(7)
    z0 = np.float32(rng.normal(MEANS[(rng.random(n) < WEIGHTS[1]).astype(int)], SCALE))
    run = jax.jit(lambda key, z: flows.langevin(key, mixture_operator, z, gamma, steps))
    z = np.asarray(run(jax.random.key(3), z0))[:, 0]

    spacing = GRID[1] - GRID[0]
    with jax.enable_x64(True):
        kernel = flows.ula_kernel(jax.jit(mixture_operator), GRID, gamma)
    law = mixture_on_grid() @ np.linalg.matrix_power(kernel, steps)
    # cells of 10 spacings, edges midway between grid points
    edges = np.append(GRID[::cell][:-1] - spacing / 2, GRID[-2] + spacing / 2)
    cells = law[:-1].reshape(-1, cell).sum(1)
    counts = np.histogram(z, edges)[0] / n
    noise = 0.5 * np.sqrt(cells * (1 - cells) / n).sum() + np.sqrt(np.log(1e6) / (2 * n))
    # a cell's mass by the midpoint rule is off by spacing^2/24 |p''| per unit length
    assert total_variation(counts, cells) <= noise + 1e-4
    true = mixture_on_grid()[:-1].reshape(-1, cell).sum(1)
    bias = total_variation(cells, true)
    assert abs(total_variation(counts, true) - bias) <= noise + 1e-4
    assert (bias > noise) == (gamma > 0.05)


# --- Where the picture fails ------------------------------------------------------------------------------------------


def test_a_rotation_keeps_the_gaussian_but_is_no_score():
    """A = lambda I + omega J. In continuous time A S + S A^T = 2 I gives S = I/lambda, whose score is -lambda z, not
    -A z; no density has -A z, since its Jacobian would be symmetric. In steps S = I/(lambda - gamma |a|^2/2)."""
    lam, omega, gamma = 1.0, 2.0, 0.1
    matrix = lam * IDENTITY + omega * SKEW
    np.testing.assert_allclose(scipy.linalg.solve_continuous_lyapunov(matrix, 2 * IDENTITY), IDENTITY / lam, atol=1e-12)
    z = jax.random.normal(jax.random.key(0), (2,))
    expected = np.sqrt(8) * omega / np.sqrt(2 * (lam**2 + omega**2))  # |J - J^T|/|J|
    np.testing.assert_allclose(flows.asymmetry(linear(matrix), z), expected, rtol=1e-5)
    exact = IDENTITY / (lam - gamma * (lam**2 + omega**2) / 2)
    np.testing.assert_allclose(flows.ula_covariance(matrix, gamma), exact, atol=1e-12)
    run = jax.jit(lambda key: flows.langevin(key, linear(matrix), jnp.zeros((CHAINS, 2)), gamma, 150))
    assert_moments(run(jax.random.key(1)), np.zeros(2), exact)


def test_a_skew_part_moves_an_anisotropic_law():
    """Adding omega J to diag(1, 4) changes even the continuous-time law: B's symmetric part is not its precision."""
    matrix = np.diag([1.0, 4.0]) + 2.0 * SKEW
    law = scipy.linalg.solve_continuous_lyapunov(matrix, 2 * IDENTITY)
    assert np.abs(law - np.diag([1.0, 0.25])).max() > 0.1
    # the chain tends to that law, not to the other, with error O(gamma)
    error = [np.abs(flows.ula_covariance(matrix, gamma) - law).max() for gamma in (4e-3, 2e-3, 1e-3)]
    np.testing.assert_allclose(np.divide(error[:-1], error[1:]), 2.0, atol=0.05)


def test_asymmetry_is_zero_for_gradients_only():
    z = jnp.array([0.3, -0.7])
    operators = [flows.score_of(lambda z: -jnp.sum(jnp.cosh(z)) - jnp.prod(z) ** 2), linear(SKEW), lambda z: 0.0 * z]
    found = jax.jit(lambda z: jnp.stack([flows.asymmetry(operator, z) for operator in operators]))(z)
    np.testing.assert_allclose(found, [0.0, 2.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("curvature", [0.0, -1.0])
def test_no_confinement_no_law(curvature):
    """B = c z with c <= 0: the variance grows without end, 2 gamma sum_k (1 - gamma c)^2k, exactly."""
    gamma, steps = 0.1, 30
    run = jax.jit(lambda key: flows.langevin(key, lambda z: curvature * z, jnp.zeros((CHAINS, 2)), gamma, steps))
    growth = 2 * gamma * ((1 - gamma * curvature) ** (2 * np.arange(steps))).sum()
    assert_moments(run(jax.random.key(2)), np.zeros(2), growth * IDENTITY)
    with pytest.raises(InputError, match="no stationary law"):
        flows.ula_covariance(curvature * IDENTITY, gamma)


def test_beyond_two_over_lambda_the_chain_diverges():
    with pytest.raises(InputError, match="no stationary law"):
        flows.ula_covariance(PRECISION, 0.5)
    z = flows.langevin(jax.random.key(0), linear(PRECISION), jnp.zeros((100, 2)), 0.55, 100)
    assert np.std(z) > 1.2**50  # |1 - gamma lambda| = 1.2


@pytest.mark.parametrize("gamma", [0.1, 0.01, 0.001])
def test_confining_but_not_lipschitz_is_not_enough(gamma):
    """B = z^3 (p ~ exp(-z^4/4)): from |z| > sqrt(2/gamma) the step grows, however small gamma is."""
    z = jnp.array([1.1 * (2 / gamma) ** 0.5])
    after = flows.euler_step(lambda z: z**3, z, gamma)
    assert np.abs(after) > 1.4 * z  # gamma z^2 - 1 = 1.42
    assert np.abs(flows.euler_step(lambda z: z**3, after, gamma)) > 3 * np.abs(after)  # gamma z^2 - 1 = 3.9


# --- Forward-backward splitting ---------------------------------------------------------------------------------------


def iterate(step, z, steps):
    return jax.lax.fori_loop(0, steps, lambda _, z: step(z), z)


def test_lim_rps_is_a_forward_backward_step():
    operator = jax.jit(lim_rps.weights)(lim_rps.init_params())
    z, anchor = np.random.default_rng(0).normal(size=(2, 96)).astype(np.float32)
    step = flows.forward_backward_step(lambda z: operator @ z, z, anchor, lim_rps.GAMMA, lim_rps.TAU)
    np.testing.assert_allclose(step, lim_rps.proximal_step(operator, z, anchor), rtol=1e-6, atol=1e-6)
    # the shipped operator is no gradient: LIM-RPS solves an inclusion and minimises nothing
    assert flows.asymmetry(lambda z: operator @ z, z) > 1.0


@pytest.mark.parametrize(("gamma", "tau"), [(0.1, 0.25), (0.4, 0.1)])
def test_proximal_step_is_the_prox(gamma, tau):
    """The backward half minimises |u - v|^2/2 + (tau/2) |u - a|^2: its gradient vanishes."""
    z, anchor = jnp.array([0.3, -1.0]), jnp.array([2.0, 1.0])
    u = flows.forward_backward_step(jnp.tanh, z, anchor, gamma, tau)
    v = flows.euler_step(jnp.tanh, z, gamma)
    np.testing.assert_allclose(jax.grad(lambda u: ((u - v) ** 2).sum() / 2 + tau / 2 * ((u - anchor) ** 2).sum())(u),
                               0.0, atol=1e-6)


@pytest.mark.parametrize(("gamma", "tau"), [(0.1, 0.25), (0.4, 0.1)])
def test_its_fixed_point_is_the_map_estimate(gamma, tau):
    """f = (z - m)^T Lambda (z - m)/2: the minimiser of gamma f + (tau/2)|z - a|^2 is the posterior mean under prior
    N(a, I/tau). tau < gamma too: for convex f and gamma <= 2/L the factor is 1/(1 + tau)."""
    anchor = np.array([-2.0, 1.5])
    with jax.enable_x64(True):
        def step(z):
            return flows.forward_backward_step(linear(PRECISION, LAW.mean), z, anchor, gamma, tau)

        z = iterate(step, jnp.zeros(2), 400)
        first = np.linalg.norm(step(jnp.array([5.0, 5.0])) - step(jnp.array([-3.0, 1.0]))) / np.hypot(8, 4)
    # Gaussian conditioning with likelihood covariance C/gamma: a + S (S + C/gamma)^-1 (m - a), S = I/tau
    prior = IDENTITY / tau
    posterior = anchor + prior @ np.linalg.solve(prior + LAW.covariance / gamma, LAW.mean - anchor)
    np.testing.assert_allclose(z, posterior, atol=1e-10)
    assert first <= 1 / (1 + tau)


def test_its_fixed_point_minimises_a_convex_function():
    """f = sum log cosh (not quadratic): no nearby point is lower, and gamma B(z) + tau (z - a) = 0."""
    gamma, tau = 0.5, 0.2
    with jax.enable_x64(True):
        anchor = jnp.array([2.0, -1.0])
        z = iterate(lambda z: flows.forward_backward_step(jnp.tanh, z, anchor, gamma, tau), anchor, 200)
        np.testing.assert_allclose(gamma * jnp.tanh(z) + tau * (z - anchor), 0.0, atol=1e-12)

        def objective(z):
            return gamma * jnp.log(jnp.cosh(z)).sum(-1) + tau / 2 * ((z - anchor) ** 2).sum(-1)

        others = z + np.random.default_rng(0).normal(size=(500, 2)) * np.logspace(-4, 1, 500)[:, None]
        # strong convexity tau: J(u) >= J(z*) + tau/2 |u - z*|^2
        assert (objective(others) >= objective(z) + tau / 2 * ((others - z) ** 2).sum(-1) - 1e-12).all()


def test_without_a_gradient_it_solves_an_inclusion():
    """B = J (skew, norm 1), tau > gamma: the zero of gamma B + tau (z - a), a field that is no gradient."""
    gamma, tau, anchor = 0.1, 0.25, np.array([1.0, 2.0])
    with jax.enable_x64(True):
        z = iterate(lambda z: flows.forward_backward_step(linear(SKEW), z, anchor, gamma, tau), jnp.zeros(2), 300)
        field = flows.asymmetry(lambda z: gamma * linear(SKEW)(z) + tau * (z - anchor), z)
    np.testing.assert_allclose(z, np.linalg.solve(gamma * SKEW + tau * IDENTITY, tau * anchor), atol=1e-12)
    assert field == pytest.approx(2 * gamma / np.hypot(gamma, tau))


# --- Diffusion on a Gaussian ------------------------------------------------------------------------------------------

MARKS = np.array([0.05, 0.2, 0.6, 1.0])


def noise_levels(steps):
    """`steps` per interval of MARKS, even in log alpha. [3 steps + 1]"""
    return np.append(np.concatenate([np.geomspace(a, b, steps, endpoint=False)
                                     for a, b in zip(MARKS[:-1], MARKS[1:], strict=True)]), 1.0)


def exact_score(x, alpha):
    return flows.gaussian_score(flows.gaussian_marginal(LAW, alpha), x)


def reverse_path(noise, steps):
    """(key, x) -> path of the reverse SDE, or of the probability flow, at `noise_levels(steps)`."""
    levels = noise_levels(steps)
    return jax.jit(lambda key, x: flows.reverse_sde(key, exact_score, x, levels) if noise
                   else flows.probability_flow(exact_score, x, levels))


def scheme_law(steps, noise):
    """Exact law of the discrete scheme, which is linear: (mean, covariance, covariance with the start) at MARKS.

    x' = x + h (x/2 + g score), g = 1 with noise (reverse SDE), 1/2 without (probability flow, drift (x + score)/2).
    """
    alphas = noise_levels(steps)
    mean, covariance = flows.gaussian_marginal(LAW, alphas[0])
    joint, laws = covariance, []
    for k, (alpha, h) in enumerate(zip(alphas, np.append(np.diff(np.log(alphas)), 0.0), strict=True)):
        if k % steps == 0:
            laws.append((mean, covariance, joint))
        m, v = flows.gaussian_marginal(LAW, alpha)
        pull = h * (1.0 if noise else 0.5) * np.linalg.inv(v)
        move = (1 + h / 2) * IDENTITY - pull
        mean, covariance, joint = move @ mean + pull @ m, move @ covariance @ move.T, move @ joint
        covariance = covariance + h * IDENTITY if noise else covariance
    return laws


def test_forward_marginals():
    """q(x_t | x_0) over x_0 ~ N(m, C): N(sqrt(a) m, a C + (1 - a) I), and Cov(x_t, x_0) = sqrt(a) C."""
    x0 = draw(1, LAW)
    for seed, alpha in enumerate([0.0, 0.3, 0.9, 1.0]):
        x = flows.vp_forward(jax.random.key(seed), jnp.asarray(x0), alpha)
        covariance = alpha * LAW.covariance + (1 - alpha) * IDENTITY
        assert_moments(x, np.sqrt(alpha) * LAW.mean, covariance)
        cross = np.sqrt(alpha) * LAW.covariance
        if alpha < 1:
            joint = np.block([[LAW.covariance, cross], [cross, covariance]])
            assert_moments(np.hstack([x0, x]), np.append(LAW.mean, np.sqrt(alpha) * LAW.mean), joint)


def test_one_reverse_step_by_hand():
    """From alpha 0.2 to 1, h = log 5, with the score at the noisier end; the SDE's noise has variance h."""
    x, h = np.full((2**18, 2), [0.5, -1.0], np.float32), np.log(5)
    mean, covariance = np.sqrt(0.2) * LAW.mean, 0.2 * LAW.covariance + 0.8 * IDENTITY
    pull = -np.linalg.solve(covariance, x[0] - mean)
    flow = jax.jit(lambda x: flows.probability_flow(exact_score, x, [0.2, 1.0]))(x[:1])
    np.testing.assert_allclose(flow[:, 0], [x[0], x[0] + h * (x[0] + pull) / 2], rtol=1e-5)
    sde = jax.jit(lambda key, x: flows.reverse_sde(key, exact_score, x, [0.2, 1.0]))(jax.random.key(8), x)
    assert_moments(sde[1], x[0] + h * (x[0] / 2 + pull), h * IDENTITY)


@pytest.mark.parametrize("noise", [True, False], ids=["reverse_sde", "probability_flow"])
def test_both_reverse_equations_have_the_exact_marginals(noise):
    """From the exact law at alpha 0.05: at 0.2, 0.6 and 1 the samples have the scheme's exact law, and the true one
    up to the scheme's bias, which is O(h)."""
    steps = 40
    x = jnp.asarray(draw(2, flows.gaussian_marginal(LAW, MARKS[0])))
    path = reverse_path(noise, steps)(jax.random.key(5), x)
    assert path.shape == (3 * steps + 1, CHAINS, 2)
    for mark, samples, law in zip(MARKS, path[::steps], scheme_law(steps, noise), strict=True):
        true = flows.gaussian_marginal(LAW, mark)
        assert_moments(samples, law[0], law[1])
        assert_moments(samples, *true, np.abs(law[0] - true.mean), np.abs(law[1] - true.covariance))


@pytest.mark.parametrize("noise", [True, False], ids=["reverse_sde", "probability_flow"])
def test_marginal_bias_is_of_order_one(noise):
    """Bias of the covariance at every mark, exactly, halves with h; at 160 steps per interval it is below 2 %."""
    bias = np.array([[np.abs(law[1] - flows.gaussian_marginal(LAW, mark).covariance).max()
                      for mark, law in list(zip(MARKS, scheme_law(steps, noise), strict=True))[1:]]
                     for steps in (40, 80, 160)])
    np.testing.assert_allclose(bias[:-1] / bias[1:], 2.0, atol=0.15)
    assert (bias[-1] < 0.02).all()


def test_probability_flow_is_the_exact_map_path_by_path():
    """Per direction of C deviations scale by sqrt(v_end/v_start); the error of each path halves with h."""
    with jax.enable_x64(True):
        x = jnp.asarray(draw(3, flows.gaussian_marginal(LAW, MARKS[0]), 50), float)
        errors = []
        for steps in (40, 80, 160):
            path = np.asarray(reverse_path(False, steps)(None, x))[::steps]
            exact = np.stack([flows.gaussian_flow(LAW, x, MARKS[0], mark) for mark in MARKS])
            errors.append(np.abs(path - exact).max((1, 2))[1:])
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2.0, atol=0.15)
    assert np.max(errors[-1]) < 0.02
    # along the eigenvector of C with eigenvalue 2: sqrt(2/1.05) from alpha 0.05 to 1
    far = flows.gaussian_flow(LAW, np.sqrt(0.05) * LAW.mean + TURN[:, 0], 0.05, 1.0) - LAW.mean
    np.testing.assert_allclose(far, np.sqrt(2 / 1.05) * TURN[:, 0], atol=1e-12)


def test_probability_flow_of_a_mixture_keeps_every_quantile():
    """On a line the flow is monotone, so F_end(x_end) = F_start(x_start) with the exact laws' F; order 1 in h."""
    def cdf(x, alpha):
        z = (np.asarray(x) - np.sqrt(alpha) * MEANS[:, 0]) / np.sqrt(alpha * SCALE**2 + 1 - alpha)
        return scipy.special.ndtr(z) @ WEIGHTS

    def diffused_score(x, alpha):
        law = WEIGHTS, jnp.sqrt(alpha) * MEANS, jnp.sqrt(alpha * SCALE**2 + 1 - alpha)
        return flows.score_of(lambda x: flows.mixture_log_density(x, *law))(x)

    errors = []
    with jax.enable_x64(True):
        x = jnp.linspace(-2.0, 2.0, 21)[:, None]
        for steps in (40, 80, 160):
            levels = noise_levels(steps)
            path = jax.jit(lambda x, levels=levels: flows.probability_flow(diffused_score, x, levels))(x)[::steps]
            quantiles = np.stack([cdf(part, mark) for part, mark in zip(path, MARKS, strict=True)])
            errors.append(np.abs(quantiles[1:] - quantiles[0]).max(1))
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2.0, atol=0.15)
    assert np.max(errors[-1]) < 0.01


def test_same_marginals_but_another_process():
    """Start and end (alpha a to 1) have covariance sqrt(a) C under the reverse SDE, as under the forward process, and
    V^1/2 C^1/2 under the flow (correlation 1 along each direction). Sampled correlations: (1 - r^2)/sqrt(N)."""
    steps, a = 80, MARKS[0]
    start = flows.gaussian_marginal(LAW, a)
    x = jnp.asarray(draw(4, start))
    c = np.array([2.0, 0.25])
    v = a * c + 1 - a
    for noise, exact in [(True, np.sqrt(a * c / v)), (False, np.ones(2))]:
        path = reverse_path(noise, steps)(jax.random.key(6), x)
        first, last = (np.asarray(part, np.float64) @ TURN for part in (path[0], path[-1]))
        sampled = np.array([np.corrcoef(first[:, i], last[:, i])[0, 1] for i in range(2)])
        _, covariance, joint = scheme_law(steps, noise)[-1]
        scheme = np.diag(TURN.T @ joint @ TURN) / np.sqrt(v * np.diag(TURN.T @ covariance @ TURN))
        error = K * (1 - scheme**2) / np.sqrt(CHAINS) + 1e-5  # float32
        assert (np.abs(sampled - scheme) <= error).all()
        assert (np.abs(sampled - exact) <= error + np.abs(scheme - exact)).all()
        assert np.abs(scheme - exact).max() < 0.01
    assert (np.sqrt(a * c / v) < 0.35).all()


def test_probability_flow_has_no_fixed_operator():
    """Its velocity at one point points elsewhere at another alpha, so that not even a change of clock makes it -B(z);
    for data N(0, I) alone it vanishes at every alpha."""
    law = flows.Gaussian(np.zeros(2), np.diag([2.0, 0.25]))

    def velocity(alpha, law=law):
        return np.asarray(flows.probability_flow_drift(
            lambda x, alpha: flows.gaussian_score(flows.gaussian_marginal(law, alpha), x), jnp.ones(2), alpha))

    # (1 - 1/v)/2, v = alpha c + 1 - alpha
    np.testing.assert_allclose(velocity(1.0), [0.25, -1.5], rtol=1e-5)
    np.testing.assert_allclose(velocity(0.2), [1 / 12, -3 / 34], rtol=1e-5)
    early, late = velocity(0.2), velocity(1.0)
    assert abs(early[0] * late[1] - early[1] * late[0]) > 0.1 * np.linalg.norm(early) * np.linalg.norm(late)
    unit = flows.Gaussian(np.zeros(2), IDENTITY)
    np.testing.assert_allclose([velocity(a, unit) for a in (0.2, 1.0)], 0.0, atol=1e-6)


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, -0.1, np.nan, np.inf])
def test_step_sizes_are_positive(gamma):
    z = jnp.zeros(2)
    for call in [lambda: flows.euler_step(jnp.tanh, z, gamma), lambda: flows.ula_covariance(IDENTITY, gamma),
                 lambda: flows.langevin(jax.random.key(0), jnp.tanh, z, gamma, 3),
                 lambda: flows.forward_backward_step(jnp.tanh, z, z, gamma, 0.1)]:
        with pytest.raises(InputError, match="step size gamma"):
            call()


@pytest.mark.parametrize("alphas", [[0.0, 1.0], [0.5, 0.2], [0.5, 0.5], [0.5, 1.1], [0.5], [[0.1, 0.2]], [0.1, np.nan]])
def test_noise_levels_rise_within_their_range(alphas):
    with pytest.raises(InputError, match="rise strictly"):
        flows.probability_flow(exact_score, jnp.zeros(2), alphas)
    with pytest.raises(InputError, match="rise strictly"):
        flows.reverse_sde(jax.random.key(0), exact_score, jnp.zeros(2), alphas)


def test_other_refusals():
    with pytest.raises(InputError, match="tau"):
        flows.forward_backward_step(jnp.tanh, jnp.zeros(2), jnp.zeros(2), 0.1, -0.1)
    for grid in (np.linspace(-3, 3, 20), np.geomspace(1, 2, 100), [0.0], -GRID):
        with pytest.raises(InputError, match="finer"):
            flows.ula_kernel(jnp.tanh, grid, 0.01)
