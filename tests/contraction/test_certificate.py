"""Certificates add up, bound the float32 program, and refuse to pretend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Certificate, Kind

WIDE_GRID = np.r_[np.linspace(-12, 12, 400_001), np.geomspace(1e-30, 50, 20_000), -np.geomspace(1e-30, 50, 20_000)]


def made(bound, kind=Kind.PROVED, rounding=0.0, assumptions=(), method="made"):
    return Certificate(bound, kind, method, assumptions, rounding)


def test_composition_by_hand():
    whole = contraction.compose(made(0.5, rounding=0.25, assumptions=("p",)), made(3.0, rounding=1.0),
                                made(2.0, assumptions=("q", "p")))
    assert whole.bound == 3.0
    assert whole.rounding == 2 * (1 + 3 * 0.25)
    assert whole.assumptions == ("p", "q")
    assert whole.kind == Kind.PROVED
    assert not whole.contraction
    assert contraction.compose(made(0.5), made(1.0)).contraction
    assert contraction.compose(made(0.7)) == made(0.7)


def test_composition_rounds_up():
    from fractions import Fraction

    bounds = list(np.random.default_rng(0).uniform(0.1, 3, 40))
    exact = Fraction(1)
    for bound in bounds:
        exact *= Fraction(float(bound))
    whole = contraction.compose(*(made(float(b)) for b in bounds))
    assert exact <= Fraction(whole.bound) <= exact * Fraction(1 + 1e-14)


@pytest.mark.parametrize(("kinds", "weakest"), [
    ((Kind.PROVED, Kind.PROVED), Kind.PROVED),
    ((Kind.PROVED, Kind.RANGE), Kind.RANGE),
    ((Kind.RANGE, Kind.ESTIMATED), Kind.ESTIMATED),
    ((Kind.ESTIMATED, Kind.PROVED), Kind.ESTIMATED),
])
def test_the_weakest_kind_dominates(kinds, weakest):
    whole = contraction.compose(*(made(0.5, kind) for kind in kinds))
    assert whole.kind == weakest
    assert whole.contraction == (weakest == Kind.PROVED)


def test_nothing_certified_stays_so():
    assert contraction.compose(made(np.inf), made(0.0)).bound == np.inf
    with pytest.raises(InputError, match="at least one"):
        contraction.compose()


def layers(seed):
    rng = np.random.default_rng(seed)
    w1 = np.asarray(jax.jit(contraction.spectral)(np.float32(rng.normal(size=(40, 24)))))
    w2 = np.float32(rng.normal(size=(17, 40)) / 8)
    return w1, np.float32(rng.normal(size=40) * 0.3), w2, np.float32(rng.normal(size=17))


def adversarial_pairs(rng, count, size, radius, direction):
    """x, y [count, size] on |.| <= radius: far, one ulp apart, equal but for one entry, along `direction`."""
    x = rng.normal(size=(count, size))
    x *= rng.uniform(0, radius, (count, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
    y = rng.normal(size=(count, size))
    y *= rng.uniform(0, radius, (count, 1)) / np.linalg.norm(y, axis=1, keepdims=True)
    x, y = np.float32(x), np.float32(y)
    quarter = count // 4
    y[:quarter] = np.nextafter(x[:quarter], np.float32(0))
    y[quarter:2 * quarter] = x[quarter:2 * quarter]
    y[quarter:2 * quarter, 0] = 0
    y[2 * quarter:3 * quarter] = np.float32(x[2 * quarter:3 * quarter] * 0.999 + 1e-4 * radius * direction)
    scale = np.maximum(np.linalg.norm(y.astype(np.float64), axis=1, keepdims=True) / radius, 1)
    return x, np.where(scale > 1, np.float32(y / scale * (1 - 1e-6)), y)


@pytest.mark.parametrize("name", ["tanh", "gelu", "gelu_exact", "relu", "sigmoid", "identity"])
@pytest.mark.parametrize("radius", [0.5, 30.0])
def test_the_float32_program_keeps_its_certificate(name, radius):
    function = {"tanh": jnp.tanh, "gelu": jax.nn.gelu, "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
                "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "identity": lambda x: x}[name]
    w1, b1, w2, b2 = layers(3)
    program = jax.jit(jax.vmap(lambda x: w2 @ function(w1 @ x + b1) + b2))
    first = contraction.dense(w1, b1, radius=radius)
    reach = first.bound * radius + float(np.linalg.norm(b1)) * 1.01 + 1
    middle = contraction.activation(name, radius=max(reach, 40**0.5), size=40)
    whole = contraction.compose(first, middle, contraction.dense(w2, b2, radius=max(reach, 40**0.5)))
    direction = np.linalg.svd(w1)[2][0]
    x, y = adversarial_pairs(np.random.default_rng(0), 4000, 24, radius, direction)
    out = [np.asarray(program(v), np.float64) for v in (x, y)]
    change = np.linalg.norm(out[0] - out[1], axis=1)
    distance = np.linalg.norm(x.astype(np.float64) - y.astype(np.float64), axis=1)
    assert distance.max() > radius
    assert distance[distance > 0].min() < 1e-5 * radius
    assert (change <= whole.bound * distance + whole.rounding).all()
    assert whole.rounding < 2e-4 * max(reach, 40**0.5)
    # and the rounding term is needed: one ulp apart, the pure ratio exceeds the exact constant
    close = (distance > 0) & (distance < 1e-6 * radius)
    assert close.any()
    if name == "identity":
        assert (change[close] / distance[close]).max() > contraction.spectral_norm(w2 @ w1)


def test_dense_bound_is_the_norm_and_rounding_grows_with_the_radius():
    record = contraction.dense(np.diag([3.0, 4.0]), [0.0, 5.0], radius=2.0)
    assert record.bound == pytest.approx(4.0, rel=1e-12)
    assert record.rounding == pytest.approx(2 * (3 * 2**-24) * (4 * 2 + 5), rel=1e-5)
    assert record.kind == Kind.PROVED
    assert any("|x| <= 2" in text for text in record.assumptions)


@pytest.mark.parametrize(("name", "derivative"), [
    ("gelu", lambda x: jax.grad(lambda v: jax.nn.gelu(v))(x)),
    ("gelu_exact", lambda x: jax.grad(lambda v: jax.nn.gelu(v, approximate=False))(x)),
    ("tanh", lambda x: 1 - jnp.tanh(x) ** 2),
    ("sigmoid", lambda x: jax.nn.sigmoid(x) * (1 - jax.nn.sigmoid(x))),
])
def test_slopes_bound_every_derivative(name, derivative):
    """Grid maximum plus half a step times a bound on the second derivative (below 2 for all of them)."""
    with jax.enable_x64(True):
        grid = jnp.linspace(-12.0, 12.0, 240_001)
        slopes = np.abs(np.asarray(jax.vmap(derivative)(grid)))
        second = np.abs(np.asarray(jax.vmap(jax.grad(derivative))(grid[::10])))
    assert second.max() < 1.9
    supremum = slopes.max() + 0.5 * 1e-4 * 2
    assert slopes.max() <= supremum <= contraction.SLOPES[name] + (1.1e-4 if contraction.SLOPES[name] <= 1 else 0)
    assert slopes.max() >= contraction.SLOPES[name] - 2e-3
    assert slopes[[0, -1]].max() <= 1 + 1e-12  # beyond the grid they are monotone towards 0 or 1


@pytest.mark.parametrize(("name", "function"), [
    ("tanh", jnp.tanh), ("gelu", jax.nn.gelu), ("gelu_exact", lambda x: jax.nn.gelu(x, approximate=False)),
    ("sigmoid", jax.nn.sigmoid)])
def test_activations_err_by_less_than_sixteen_roundings(name, function):
    grid = np.float32(WIDE_GRID)
    rounded = np.asarray(jax.jit(function)(grid), np.float64)
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(function)(grid.astype(np.float64)))
    size = exact if name == "sigmoid" else np.abs(grid)
    assert (np.abs(rounded - exact) <= 16 * 2.0**-24 * size + 1e-37).all()


def test_equilibrium_by_hand():
    record = contraction.equilibrium(made(0.75, rounding=1.0, assumptions=("p",)), 2.0)
    assert record.bound == 8.0
    assert record.rounding == 4.0
    assert record.kind == Kind.PROVED
    assert "p" in record.assumptions
    assert contraction.equilibrium(made(0.5, Kind.ESTIMATED), 0.1).kind == Kind.ESTIMATED
    assert not contraction.equilibrium(made(0.5, Kind.ESTIMATED), 0.1).contraction
    assert contraction.monotone_equilibrium(0.25, 3.0).bound == 12.0


def test_residuals_of_the_solutions_enter_an_equilibrium_certificate():
    """z = 0.9 z + x solved to residual r on opposite sides: z* apart by 2 r/(1 - L) for the same x."""
    record = contraction.equilibrium(made(0.9), 1.0, residual=1e-3)
    assert record.bound == pytest.approx(10)
    assert record.rounding == pytest.approx(0.02, rel=1e-12)
    assert record.rounding >= (1e-3 - -1e-3) / (1 - 0.9)
    assert any("0.001" in text for text in record.assumptions)
    with pytest.raises(InputError, match="residual"):
        contraction.equilibrium(made(0.5), 1.0, residual=np.nan)


def test_sigmoid_errs_by_its_value_and_needs_a_size():
    with pytest.raises(InputError, match="size"):
        contraction.activation("sigmoid", radius=1.0)
    alone = contraction.activation("sigmoid", radius=0.0, size=100)
    assert alone.rounding == pytest.approx(2 * 16 * 2.0**-24 * 5)


@pytest.mark.parametrize("bound", [1.0, 1.5, np.inf, np.nan])
def test_an_equilibrium_without_contraction_is_not_certified(bound):
    record = contraction.equilibrium(made(bound, method="SVD norm of W_rec"), 2.0)
    assert record.bound == np.inf
    assert not record.contraction
    assert record.kind == Kind.ESTIMATED
    assert "not certified" in record.method and "W_rec" in record.method


def test_float32_picard_iterates_keep_the_equilibrium_certificate():
    rng = np.random.default_rng(0)
    cayley = jax.jit(contraction.cayley)
    w = 0.8 * cayley(np.float32(rng.normal(size=(32, 32))))
    u = 1.5 * cayley(np.float32(rng.normal(size=(32, 32))))
    radius = 40.0
    step = contraction.compose(contraction.dense(np.c_[w, u], radius=radius), contraction.activation("tanh", radius=80))
    certificate = contraction.equilibrium(
        contraction.dense(w)._replace(rounding=step.rounding), contraction.spectral_norm(u))

    @jax.jit
    def solve(x):
        return jax.lax.fori_loop(0, 60, lambda _, z: jnp.tanh(w @ z + u @ x), jnp.zeros(32))

    x, y = adversarial_pairs(rng, 400, 32, 30.0, np.ones(32) / 32**0.5)
    out = [np.asarray(jax.vmap(solve)(v), np.float64) for v in (x, y)]
    distance = np.linalg.norm(x.astype(np.float64) - y, axis=1)
    assert (np.linalg.norm(out[0] - out[1], axis=1) <= certificate.bound * distance + certificate.rounding).all()
    assert certificate.bound == pytest.approx(1.5 / 0.2, rel=1e-3)


def test_monotone_equilibrium_of_a_matrix_whose_norm_exceeds_one():
    rng = np.random.default_rng(0)
    m = 0.3
    a, b = np.float32(rng.normal(size=(8, 8)) / 3), np.float32(rng.normal(size=(8, 8)) / 2)
    w = np.asarray(jax.jit(lambda a, b: contraction.monotone(a, b, m))(a, b), np.float64)
    u = rng.normal(size=(8, 5))
    assert contraction.spectral_norm(w) > 1.5
    certificate = contraction.monotone_equilibrium(m, contraction.spectral_norm(u))
    step = 0.5 * m / np.linalg.norm(np.eye(8) - w, 2) ** 2

    def solve(x):  # forward-backward splitting, with relu the proximal map for every step length
        z = np.zeros(8)
        for _ in range(20_000):
            z = np.maximum(z + step * (w @ z + u @ x - z), 0)
        assert np.abs(np.maximum(w @ z + u @ x, 0) - z).max() < 1e-7
        return z

    for _ in range(5):
        x, y = rng.normal(size=(2, 5))
        assert np.linalg.norm(solve(x) - solve(y)) <= certificate.bound * np.linalg.norm(x - y) + 1e-6


def test_a_user_matrix_that_is_no_contraction_is_named_with_its_norm():
    matrix = np.diag([0.5, 1.25])
    record = contraction.check(matrix, 1.0, "W_rec")
    assert record.bound == pytest.approx(1.25, rel=1e-12)
    assert not record.contraction
    assert "W_rec" in record.method and "1.25" in record.method and "not certified" in record.method
    assert any("W_rec" in text for text in record.assumptions)
    assert not contraction.compose(record, made(0.1)).contraction  # no composition launders it


def test_a_user_matrix_within_its_limit_is_certified():
    assert contraction.check(np.diag([0.5, 0.75])).contraction
    above = contraction.check(np.diag([0.5, 0.75]), 0.6, "U")  # short enough to contract, but beyond its own limit
    assert above.bound == pytest.approx(0.75, rel=1e-12)
    assert not above.contraction
    assert not contraction.check(np.eye(3)).contraction  # exactly 1 is not below 1


@pytest.mark.parametrize("call", [
    lambda: contraction.check([[np.nan]], name="W_rec"),
    lambda: contraction.check(np.eye(2), 0.0),
    lambda: contraction.dense(np.eye(2), radius=-1.0),
    lambda: contraction.dense(np.eye(2), [1.0]),
    lambda: contraction.activation("softplus"),
    lambda: contraction.activation("tanh", radius=np.inf),
    lambda: contraction.equilibrium(made(0.5), -1.0),
    lambda: contraction.monotone_equilibrium(0.0, 1.0),
])
def test_bad_input_is_refused_in_one_line(call):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
