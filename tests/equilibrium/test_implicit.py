"""Derivatives of fixed points: against central differences, against each other, and when they fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from jax.test_util import check_grads

from eqdiff_jax.equilibrium import (
    Anderson,
    Broyden,
    Implicit,
    Phantom,
    Picard,
    Unrolled,
    anderson,
    fixed_point,
    pullback,
)
from eqdiff_jax.errors import InputError

N = 16
TIGHT = {"rtol": 1e-13, "atol": 1e-13}
IMPLICIT = [Implicit(linear) for linear in ("fixed_point", "gmres", "bicgstab", "dense")]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def problem():
    with jax.enable_x64(True):
        return tuple(map(jnp.asarray, zoo.tanh_problem("gaussian", 0.9, N).args))


def loss(w, x, adjoint=IMPLICIT[0], **knobs):
    """A scalar of the fixed point that weighs its components differently."""
    z = fixed_point(zoo.layer, jnp.zeros(N, x.dtype), w, x, adjoint=adjoint, **{**TIGHT, **knobs}).value
    return jnp.sum(jnp.sin(z) * jnp.arange(1.0, N + 1))


def difference(f, x, direction, h=1e-5):
    """Central difference of order four."""
    return float(8 * (f(x + h * direction) - f(x - h * direction))
                 - (f(x + 2 * h * direction) - f(x - 2 * h * direction))) / (12 * h)


@pytest.mark.parametrize("adjoint", IMPLICIT, ids=lambda a: a.linear)
def test_implicit_matches_central_differences(problem, adjoint):
    w, x = problem
    by_w, by_x = jax.jit(jax.grad(lambda w, x: loss(w, x, adjoint), (0, 1)))(w, x)
    rng, value = np.random.default_rng(0), jax.jit(loss)
    for _ in range(3):
        along_w, along_x = jnp.asarray(rng.normal(size=w.shape)), jnp.asarray(rng.normal(size=x.shape))
        assert float(jnp.vdot(by_w, along_w)) == pytest.approx(difference(lambda w: value(w, x), w, along_w), rel=1e-6)
        assert float(jnp.vdot(by_x, along_x)) == pytest.approx(difference(lambda x: value(w, x), x, along_x), rel=1e-6)
    push = jax.jvp(lambda w: loss(w, x, adjoint), (w,), (along_w,))[1]
    assert float(push) == pytest.approx(float(jnp.vdot(by_w, along_w)), rel=1e-9)


def test_second_derivatives(problem):
    w, x = problem
    check_grads(lambda x: loss(w, x), (x,), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_unrolled_and_long_phantoms_agree_with_implicit(problem):
    w, x = problem
    exact = jax.grad(loss, 1)(w, x)
    unrolled = jax.jit(jax.grad(lambda x: loss(w, x, Unrolled(), solver=Picard(), max_steps=120)))(x)
    np.testing.assert_allclose(unrolled, exact, rtol=1e-8)
    through_anderson = jax.jit(jax.grad(lambda x: loss(w, x, Unrolled(), max_steps=40)))(x)
    np.testing.assert_allclose(through_anderson, exact, rtol=1e-6)
    for damping in (1.0, 0.5):
        phantom = jax.grad(lambda x, d=damping: loss(w, x, Phantom(150, d)))(x)
        np.testing.assert_allclose(phantom, exact, rtol=1e-8)


def test_a_phantom_is_a_truncated_neumann_series(problem):
    """k undamped steps: w^T (I + J + ... + J^(k-1)) df/dx, and the value stays z*."""
    w, x = problem
    found = fixed_point(zoo.layer, jnp.zeros(N), w, x, **TIGHT)
    slope = 1 - found.value**2
    jacobian, by_x = slope[:, None] * w, jnp.diag(slope)
    series = sum(jnp.linalg.matrix_power(jacobian, i) for i in range(3)) @ by_x
    phantom = jax.jacobian(lambda x: fixed_point(zoo.layer, jnp.zeros(N), w, x, adjoint=Phantom(3, 1.0), **TIGHT).value)
    np.testing.assert_allclose(phantom(x), series, atol=1e-10)
    kept = fixed_point(zoo.layer, jnp.zeros(N), w, x, adjoint=Phantom(3, 1.0), **TIGHT)
    np.testing.assert_array_equal(kept.value, found.value)


def test_no_derivative_in_the_start(problem):
    w, x = problem
    start = jax.grad(lambda z: jnp.sum(fixed_point(zoo.layer, z, w, x, **TIGHT).value))(0.1 * jnp.ones(N))
    np.testing.assert_array_equal(start, 0)


def test_batches_and_pytrees_of_arguments(problem):
    w, x = problem
    xs = x + 0.1 * jnp.arange(3.0)[:, None]
    each = jnp.stack([jax.grad(loss, 1)(w, one) for one in xs])
    np.testing.assert_allclose(jax.vmap(jax.grad(loss, 1), (None, 0))(w, xs), each, rtol=1e-9)
    summed = jax.grad(lambda w: jnp.sum(jax.vmap(loss, (None, 0))(w, xs)))(w)
    np.testing.assert_allclose(summed, sum(jax.grad(loss)(w, one) for one in xs), rtol=1e-9)

    def f(z, args, power):  # an integer among the arguments takes no derivative
        return jnp.tanh(args["w"] @ z + args["x"][0] ** power)

    gradient = jax.grad(lambda a: jnp.sum(fixed_point(f, jnp.zeros(N), a, 1, **TIGHT).value))({"w": w, "x": (x,)})
    direct = jax.grad(lambda x: jnp.sum(fixed_point(zoo.layer, jnp.zeros(N), w, x, **TIGHT).value))(x)
    np.testing.assert_allclose(gradient["x"][0], direct, rtol=1e-9)


def test_where_picard_cannot_go_the_derivative_exists_too():
    """A rotation by more than 1: z* = (I - R)^-1 b, dz*/db = (I - R)^-1."""
    turning = zoo.rotation()
    r, b = map(jnp.asarray, turning.args)
    jacobian = jax.jacobian(lambda b: fixed_point(turning.f, jnp.zeros(2), r, b, **TIGHT).value)(b)
    np.testing.assert_allclose(jacobian, np.linalg.inv(np.eye(2) - r), rtol=1e-8)


@pytest.mark.parametrize("adjoint", IMPLICIT, ids=lambda a: a.linear)
def test_a_singular_backward_system_reports_itself(adjoint):
    """f(z) = (z_0, z_1 / 2 + x): I - J has a zero row, so no u solves it for a cotangent with a first component."""
    def f(z, x):
        return z * jnp.array([1.0, 0.5]) + x * jnp.array([0.0, 1.0])

    solution, pull = pullback(f, jnp.zeros(2), jnp.ones(2), adjoint=adjoint)
    (bad,), info = pull(jnp.ones(2))
    assert not info.converged
    assert not info.residual <= adjoint.accept
    assert np.isnan(bad).all()
    gradient = jax.grad(lambda x: jnp.sum(fixed_point(f, jnp.zeros(2), x, adjoint=adjoint).value))(jnp.ones(2))
    assert np.isnan(gradient).all()  # visible, never zero
    (good,), info = pull(jnp.array([0.0, 1.0]))  # a consistent right-hand side: iterations find a solution, LU cannot
    assert info.converged == (adjoint.linear != "dense")
    np.testing.assert_allclose(good, [0.0, 2.0] if info.converged else np.nan, atol=1e-6)


def test_pullback_returns_the_residual_and_the_same_gradient(problem):
    w, x = problem
    solution, pull = pullback(zoo.layer, jnp.zeros(N), w, x, **TIGHT)
    (by_w, by_x), info = jax.jit(pull)(jnp.cos(solution.value) * jnp.arange(1.0, N + 1))
    expected = jax.grad(loss, (0, 1))(w, x)
    np.testing.assert_allclose(by_w, expected[0], rtol=1e-9)
    np.testing.assert_allclose(by_x, expected[1], rtol=1e-9)
    assert 0 <= info.residual < 1e-11
    assert info.converged


def test_too_few_products_is_a_failure_not_a_wrong_number(problem):
    w, x = problem
    strict = Implicit("fixed_point", max_steps=2, accept=1e-6)
    assert np.isnan(jax.grad(loss, 1)(w, x, strict)).all()


@pytest.mark.parametrize("adjoint", IMPLICIT, ids=lambda a: a.linear)
def test_tiny_and_huge_cotangents_are_not_lost(problem, adjoint):
    """In float32 the square of 1e-25 is 0, and so is 1/2^126 compiled: the system would look solved."""
    w, x = (a.astype(jnp.float32) for a in problem)
    solution, pull = pullback(zoo.layer, jnp.zeros(N, jnp.float32), w, x, adjoint=adjoint)
    (_, plain), (_, tiny), (_, huge), (_, none) = (pull(jnp.full(N, s, jnp.float32))[0]
                                                   for s in (1.0, 1e-25, 2.0**126, 0.0))
    np.testing.assert_allclose(np.float64(tiny) * 1e25, plain, rtol=1e-4)
    within = np.abs(plain) < 3.9  # beyond it the answer itself leaves float32
    np.testing.assert_allclose(np.float64(huge)[within] / 2.0**126, plain[within], rtol=1e-4)
    assert within.any() and not np.isclose(huge, 0).any()
    np.testing.assert_array_equal(none, 0)


def test_no_derivative_where_the_forward_solve_went_astray():
    turning = zoo.rotation(2.0)
    r, b = map(jnp.asarray, turning.args)
    for solver, args in ((Picard(), (r, b)), (Picard(), (r, b * jnp.nan))):
        gradient = jax.grad(lambda b, r, s=solver: jnp.sum(fixed_point(turning.f, jnp.zeros(2), r, b, solver=s).value))
        assert np.isnan(gradient(args[1], args[0])).all()


def test_a_loss_that_masks_the_astray_out_keeps_its_derivative():
    """Two problems in one batch, one diverges: the other's derivative is untouched."""
    rates = jnp.array([0.5, 3.0])

    def solve(rate, b):
        return fixed_point(lambda z, rate, b: rate * z + b, jnp.zeros(2), rate, b, solver=Picard())

    def loss(b, mask):
        found = jax.vmap(solve, (0, None))(rates, b)
        return jnp.sum(jnp.where(mask[:, None], found.value, 0.0))

    np.testing.assert_allclose(jax.grad(loss)(jnp.ones(2), jnp.array([True, False])), 2.0, rtol=1e-5)
    assert np.isnan(jax.grad(loss)(jnp.ones(2), jnp.array([True, True]))).all()


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()], ids=lambda s: type(s).__name__)
def test_unrolled_through_an_exact_fixed_point(solver):
    """f(z) = z/2 + x from z0 = 2 x is there at once; z = x + 0 z after one step: residuals of 0 on the way."""
    def solution(x, slope, z0):
        return jnp.sum(fixed_point(lambda z, x: slope * z + x, z0, x, solver=solver, adjoint=Unrolled(),
                                   max_steps=30).value)

    for slope, z0 in ((0.5, 2.0), (0.0, 0.0), (0.0, 5.0)):
        gradient = jax.jit(jax.grad(solution), static_argnums=1)(jnp.ones(3), slope, jnp.full(3, z0))
        assert np.isfinite(gradient).all()
        if z0 != 2.0:  # where the start is the answer nothing was iterated
            np.testing.assert_allclose(gradient, 1.0)


def test_mixing_weights_have_the_derivative_of_their_formula():
    rng = np.random.default_rng(0)
    directions = jnp.asarray(rng.normal(size=(5, 8)))
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    sizes = jnp.asarray([0.3, 2.0, 0.7, 0.0, 1.1])

    def weights(directions, sizes):
        return anderson.mixing_weights(directions @ directions.T, sizes, 1e-6)

    assert float(jnp.sum(weights(directions, sizes))) == pytest.approx(1.0)
    assert weights(directions, sizes)[3] == 0
    check_grads(lambda s: weights(directions, jnp.where(sizes > 0, s, 0.0)), (sizes,), order=2, modes=("fwd", "rev"),
                atol=1e-4, rtol=1e-4)
    indefinite = -jnp.eye(5)
    np.testing.assert_array_equal(anderson.mixing_weights(indefinite, sizes, 1e-6), 0)
    gradient = jax.grad(lambda c: jnp.sum(anderson.mixing_weights(c, sizes, 1e-6) ** 2))(indefinite)
    np.testing.assert_array_equal(gradient, 0)


def test_float32(problem):
    w, x = (a.astype(jnp.float32) for a in problem)
    low = jax.grad(lambda x: loss(w, x, rtol=1e-6, atol=1e-6))(x)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, jax.grad(loss, 1)(*problem), rtol=1e-3, atol=1e-3)


def test_unknown_linear_solver_is_refused(problem):
    with pytest.raises(InputError, match="fixed_point, gmres, bicgstab"):
        loss(*problem, Implicit("lu"))
    with pytest.raises(InputError, match="pass an Implicit"):
        pullback(zoo.layer, jnp.zeros(N), *problem, adjoint=Phantom())
