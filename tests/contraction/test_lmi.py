"""The LMI bound: closed forms, never below what a search over slopes finds, verified whatever an optimiser proposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Kind


def orthogonal(n, rng, special=False):
    matrix = np.linalg.qr(rng.normal(size=(n, n)))[0]
    if special and np.linalg.det(matrix) < 0:
        matrix[:, 0] *= -1
    return matrix


@jax.jit
def ascend_slopes(w, u, c, starts):
    """Largest |C (I - D W)^-1 D U| over D in [0, 1]^n met by projected gradient ascent."""

    def value(d):
        inner = jnp.linalg.solve(jnp.eye(len(w)) - d[:, None] * w, d[:, None] * u)
        return jnp.linalg.norm(c @ inner, 2)

    def climb(d):
        def step(carry, _):
            d, best = carry
            now, gradient = jax.value_and_grad(value)(d)
            d = jnp.clip(d + 0.1 * gradient / (jnp.max(jnp.abs(gradient)) + 1e-30), 0, 1)
            return (d, jnp.maximum(best, now)), None

        (d, best), _ = jax.lax.scan(step, (d, 0.0), None, 60)
        return jnp.maximum(best, value(d))

    return jax.vmap(climb)(starts).max()


def worst_slopes(w, u, c, rng):
    with jax.enable_x64(True):
        starts = np.vstack([np.ones(len(w)), rng.integers(0, 2, (7, len(w))), rng.random((8, len(w)))])
        return float(ascend_slopes(*(jnp.asarray(x, jnp.float64) for x in (w, u, c, starts))))


@pytest.mark.parametrize("w", [0.9, 0.3, 0.0, -5.0])
def test_scalar_closed_form(w):
    """z = sigma(w z + 2 x), read as 3 z: the constant is 6/(1 - w), for w < -1 too, where |w| < 1 fails."""
    record = contraction.implicit_lipschitz([[w]], [[2.0]], [[3.0]])
    exact = 6 / (1 - w)
    assert exact <= record.bound <= exact * (1 + 1e-8)
    assert record.kind == Kind.PROVED


def test_without_recurrence_it_is_the_product_of_norms():
    rng = np.random.default_rng(0)
    aligned = contraction.implicit_lipschitz(np.zeros((6, 6)), 3 * orthogonal(6, rng), 2 * orthogonal(6, rng)).bound
    assert 6 <= aligned <= 6 * (1 + 1e-8)
    u, c = rng.normal(size=(6, 4)), rng.normal(size=(3, 6))
    general = contraction.implicit_lipschitz(np.zeros((6, 6)), u, c).bound
    product = contraction.spectral_norm(u) * contraction.spectral_norm(c)
    assert np.linalg.norm(c @ u, 2) <= general <= product * (1 + 1e-8)


def systems():
    rng = np.random.default_rng(0)
    n, m, p = 11, 7, 5
    for index in range(9):
        w = rng.normal(size=(n, n)) * rng.uniform(0.2, 0.9)
        if index % 3 == 0:
            w /= 1.2 * np.linalg.norm(w, 2)
        elif index % 3 == 1:  # I - W monotone, |W| beyond 1
            w = 0.7 * np.eye(n) - w @ w.T + (w - w.T)
        else:  # monotone only after a diagonal change of variables
            w /= 1.2 * np.linalg.norm(w, 2)
            scale = np.exp(rng.uniform(-1.5, 1.5, n))
            w = scale[:, None] * w / scale
        yield w, rng.normal(size=(n, m)), rng.normal(size=(p, n))


@pytest.mark.parametrize("problem", list(systems()))
def test_bound_is_not_below_what_a_search_over_slopes_finds(problem):
    w, u, c = problem
    record = contraction.implicit_lipschitz(w, u, c, refine=40)
    found = worst_slopes(w, u, c, np.random.default_rng(1))
    assert found <= record.bound * (1 + 1e-9)
    assert np.isfinite(record.bound)
    norm = contraction.spectral_norm(w)
    if norm < 1:
        naive = contraction.spectral_norm(u) * contraction.spectral_norm(c) / (1 - norm)
        assert record.bound <= naive * (1 + 1e-6)


@pytest.mark.parametrize("n", [8, 24])
def test_tighter_than_gain_over_one_minus_l_on_orthogonal_recurrence(n):
    rng = np.random.default_rng(n)
    w, u, c = 0.6 * orthogonal(n, rng, special=True), 2 * orthogonal(n, rng), orthogonal(n, rng)[: n // 4]
    naive = 2 / (1 - 0.6)
    one = contraction.implicit_lipschitz(w, u, c)
    refined = contraction.implicit_lipschitz(w, u, c, refine=40)
    assert refined.bound <= one.bound * (1 + 1e-9) < 0.99 * naive
    assert worst_slopes(w, u, c, rng) <= refined.bound


def test_block_multipliers_beat_a_single_one_on_unbalanced_couplings():
    """G = [[0.5, 2], [0.05, 0.5]] has |W| > 1 but a Perron root of 0.82, so that weighted blocks contract."""
    rng = np.random.default_rng(0)
    gains = np.array([[0.5, 2.0], [0.05, 0.5]])
    w = np.block([[gains[i, j] * orthogonal(6, rng) for j in range(2)] for i in range(2)])
    u, c = orthogonal(12, rng), np.eye(12)
    blocks = contraction.implicit_lipschitz(w, u, c, blocks=(6, 6))
    assert np.isfinite(blocks.bound)
    assert blocks.bound >= worst_slopes(w, u, c, rng) * (1 - 1e-9)
    assert blocks.method == "LMI, 2 block multipliers"
    assert all(contraction.lmi_bound(w, u, c, np.repeat(t, 12)) == np.inf for t in np.geomspace(0.1, 1e4, 20))
    refined = contraction.implicit_lipschitz(w, u, c, blocks=(6, 6), refine=40)
    assert worst_slopes(w, u, c, rng) * (1 - 1e-9) <= refined.bound < 0.99 * blocks.bound
    assert "diagonal" in contraction.implicit_lipschitz(w, u, c).method  # which one block did not offer


def test_ill_posed_systems_are_not_certified():
    record = contraction.implicit_lipschitz([[1.5]], [[1.0]])  # z = relu(1.5 z + x): no or two solutions
    assert record.bound == np.inf
    assert not record.contraction
    assert "not certified" in record.method


@pytest.mark.parametrize("multipliers", [[0.0], [-1.0], [np.nan], [1e-9]])
def test_useless_multipliers_prove_nothing(multipliers):
    assert contraction.lmi_bound([[0.5]], [[1.0]], [[1.0]], multipliers) == np.inf


def test_every_multiplier_gives_a_valid_bound_and_scales_are_exact():
    w, u, c = next(systems())
    rng = np.random.default_rng(0)
    found = worst_slopes(w, u, c, rng)
    base = 30 * np.ones(len(w))
    for _ in range(30):
        assert contraction.lmi_bound(w, u, c, base * np.exp(rng.normal(size=len(w)))) >= found * (1 - 1e-9)
    assert contraction.implicit_lipschitz(w, 1e-9 * u, c).bound == pytest.approx(
        1e-9 * contraction.implicit_lipschitz(w, u, c).bound, rel=1e-6)


def test_no_input_and_no_output_have_constant_zero():
    assert contraction.implicit_lipschitz([[0.5]], [[0.0]], [[1.0]]).bound == 0.0
    assert contraction.implicit_lipschitz([[0.5]], [[1.0]], [[0.0]]).bound == 0.0


@pytest.mark.parametrize("call", [
    lambda: contraction.implicit_lipschitz(np.eye(2)[:1], np.eye(2)),
    lambda: contraction.implicit_lipschitz(np.eye(2), np.eye(3)),
    lambda: contraction.implicit_lipschitz(np.eye(2), np.eye(2), blocks=(1,)),
    lambda: contraction.implicit_lipschitz([[np.inf]], [[1.0]]),
    lambda: contraction.lmi_bound([[0.5]], [[1.0]], [[1.0]], [1.0, 2.0]),
])
def test_bad_shapes_are_refused(call):
    with pytest.raises(InputError):
        call()


@pytest.mark.parametrize(("u_size", "c_size"), [(1e100, 1.0), (1.0, 1e100), (1e150, 1e150), (1e-150, 1e-150),
                                                (1e-200, 1e200), (1.0, 1e-300)])
def test_the_bound_scales_with_what_goes_in_and_out(u_size, c_size):
    rng = np.random.default_rng(0)
    w, u, c = 0.2 * rng.normal(size=(6, 6)), rng.normal(size=(6, 3)), rng.normal(size=(2, 6))
    usual = contraction.implicit_lipschitz(w, u, c).bound
    found = contraction.implicit_lipschitz(w, u * u_size, c * c_size)
    assert found.bound == pytest.approx(usual * u_size * c_size, rel=1e-6)
    assert found.contraction == (found.bound < 1)


def test_never_above_the_simple_bound():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        w = rng.normal(size=(5, 5))
        w *= rng.choice([0.1, 0.9, 0.999999]) / contraction.spectral_norm(w)
        u, c = rng.normal(size=(5, 2)), rng.normal(size=(3, 5))
        simple = contraction.spectral_norm(c) * contraction.spectral_norm(u) / (1 - contraction.spectral_norm(w))
        assert contraction.implicit_lipschitz(w, u, c).bound <= simple * (1 + 1e-12)


def test_hopeless_weights_are_not_certified():
    found = contraction.implicit_lipschitz(1e100 * np.eye(3), np.eye(3))
    assert found.bound == np.inf and not found.contraction and found.kind == Kind.ESTIMATED
