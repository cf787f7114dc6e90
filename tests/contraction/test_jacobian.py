"""Spectral radii are safe for complex pairs and agree with dense eigenvalues; local constants with the SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

from eqdiff_jax import contraction
from eqdiff_jax.errors import InputError


def rotation(radius, angle=np.pi / 2):
    cosine, sine = radius * np.cos(angle), radius * np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


@pytest.mark.parametrize("dense_limit", [512, 0])
@pytest.mark.parametrize("angle", [np.pi / 2, 0.3, 3.0])
@pytest.mark.parametrize("radius", [0.9, 1.0, 2.5])
def test_a_rotation_of_radius_r_gives_r(radius, angle, dense_limit):
    matrix = np.float32(rotation(radius, angle))
    value = contraction.spectral_radius(lambda z: matrix @ z, jnp.ones(2), dense_limit=dense_limit)
    assert value == pytest.approx(radius, abs=1e-6)


def test_one_rotation_among_faster_decaying_ones():
    radii = np.r_[0.9, np.linspace(0.0, 0.8, 299)]
    cosine, sine = np.float32(radii * np.cos(2 + radii)), np.float32(radii * np.sin(2 + radii))

    def f(z):
        return jnp.concatenate([cosine * z[:300] - sine * z[300:], sine * z[:300] + cosine * z[300:]])

    value = contraction.spectral_radius(f, jnp.zeros(600), dense_limit=0)
    assert value == pytest.approx(0.9, rel=1e-6)


def test_five_hundred_random_block_systems_agree_with_dense_eigenvalues():
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(500):
        n1, n2 = rng.integers(2, 40, 2)
        matrix = rng.normal(size=(n1 + n2, n1 + n2)) / np.sqrt(n1 + n2)
        matrix[:n1, n1:] *= rng.uniform(0, 2)
        matrix[n1:, :n1] *= rng.uniform(0, 2)
        found = contraction.arnoldi(lambda v, matrix=matrix: matrix @ v, n1 + n2, subspace=24)
        assert found.converged
        expected = np.abs(np.linalg.eigvals(matrix)).max()
        worst = max(worst, abs(found.value - expected) / expected)
    assert worst < 1e-4


def test_jvp_path_agrees_with_dense_on_coupled_pytrees():
    rng = np.random.default_rng(1)
    w = np.float32(rng.normal(size=(40, 40)) / 6)

    def f(z, shift):
        flat = jnp.tanh(w @ jnp.concatenate([z["fast"], z["slow"][0]]) + shift)
        return {"fast": flat[:30], "slow": (flat[30:],)}

    z = {"fast": jnp.asarray(rng.normal(size=30), jnp.float32), "slow": (jnp.ones(10),)}
    dense = contraction.spectral_radius(f, z, 0.1)
    assert contraction.spectral_radius(f, z, 0.1, dense_limit=0, subspace=20) == pytest.approx(dense, rel=1e-5)
    expected = np.abs(np.linalg.eigvals(np.asarray(contraction.jacobian(f, z, 0.1), np.float64))).max()
    assert dense == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("pair", [True, False])
def test_twenty_thousand_unknowns_matrix_free(pair):
    """J = H D H, H a reflection, D rotations of radius up to 0.9 and one leading pair (or real number) of 0.95."""
    n, rng = 20_000, np.random.default_rng(0)
    angle, radius = rng.uniform(0, np.pi, n // 2), rng.uniform(0, 0.9, n // 2)
    radius[0], angle[0] = 0.95, (1.9 if pair else 0.0)
    cosine, sine = np.float32(radius * np.cos(angle)), np.float32(radius * np.sin(angle))
    normal = np.float32(rng.normal(size=n))
    normal /= np.linalg.norm(normal)

    def f(z):
        z = z - 2 * normal * (normal @ z)
        x, y = z[::2], z[1::2]
        z = jnp.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1).reshape(-1)
        return z - 2 * normal * (normal @ z)

    product = contraction.linear_map(f, jnp.zeros(n))
    found = contraction.arnoldi(product, n)
    assert found.converged
    assert found.products < 600
    assert found.residual < 1e-5
    assert found.value == pytest.approx(0.95, rel=1e-5)
    assert (abs(found.eigenvalue.imag) > 0.1) == pair
    if pair:
        operator = scipy.sparse.linalg.LinearOperator((n, n), product, dtype=np.float64)
        arpack = scipy.sparse.linalg.eigs(operator, 2, ncv=60, tol=1e-5, return_eigenvectors=False)
        assert found.value == pytest.approx(np.abs(arpack).max(), rel=1e-4)


def test_it_restarts_even_where_the_schur_form_cannot_be_sorted(monkeypatch):
    def unsortable(*args, **kwargs):
        raise np.linalg.LinAlgError("Leading eigenvalues do not satisfy sort condition")

    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    matrix = q * np.r_[1.0, 0.9 * rng.random(199)] @ q.T
    monkeypatch.setattr(scipy.linalg, "schur", unsortable)
    found = contraction.arnoldi(lambda v: matrix @ v, 200, subspace=20)
    assert found.converged
    assert found.value == pytest.approx(1.0, rel=1e-6)


def test_without_convergence_it_says_so():
    angles = np.linspace(0.1, 3.0, 400)  # 400 pairs of equal size: nothing leads
    cosine, sine = np.float32(np.cos(angles)), np.float32(np.sin(angles))

    def f(z):
        return jnp.concatenate([cosine * z[:400] - sine * z[400:], sine * z[:400] + cosine * z[400:]])

    with pytest.raises(ArithmeticError, match="Raise subspace"):
        contraction.spectral_radius(f, jnp.zeros(800), restarts=2, subspace=10)
    record = contraction.arnoldi(contraction.linear_map(f, jnp.zeros(800)), 800, restarts=2, subspace=10)
    assert not record.converged
    assert record.residual > 1e-6
    assert record.products > 0


@pytest.mark.parametrize("dense_limit", [512, 0])
def test_degenerate_maps(dense_limit):
    def radius(f, n=5):
        return contraction.spectral_radius(f, jnp.ones(n), dense_limit=dense_limit)

    assert radius(lambda z: 0 * z) == 0.0
    assert radius(lambda z: -3 * z) == pytest.approx(3)
    assert radius(lambda z: z.sum() * jnp.ones(5)) == pytest.approx(5)
    assert radius(lambda z: 0.5 * z, 1) == pytest.approx(0.5)
    with pytest.raises(InputError, match="NaN"):
        radius(lambda z: jnp.sqrt(z - 1))


def hidden(matrix, seed=0):
    """Q M Q^T in float32, Q a random rotation: the structure is there, but no entry shows it."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=matrix.shape))[0]
    return np.float32(q @ matrix @ q.T)


@pytest.mark.parametrize("dense_limit", [512, 0])
def test_a_radius_without_digits_is_not_returned(dense_limit):
    """A Jordan block of 0.5 at n = 40, rounded to float32, has eigenvalues as large as 1.1."""
    jordan = hidden(0.5 * np.eye(40) + np.eye(40, k=1))
    assert np.abs(np.linalg.eigvals(jordan.astype(np.float64))).max() > 1
    with pytest.raises(ArithmeticError, match="far from normal"):
        contraction.spectral_radius(lambda z: jordan @ z, jnp.zeros(40), dense_limit=dense_limit)


@pytest.mark.parametrize("dense_limit", [512, 0])
def test_zero_eigenvalues_without_eigenvectors_do_no_harm(dense_limit):
    """A Gauss-Seidel sweep: half of its eigenvalues are 0, and defective."""
    rng = np.random.default_rng(1)
    upper, lower = (np.linalg.qr(rng.normal(size=(30, 30)))[0] for _ in range(2))
    sweep = hidden(np.block([[np.zeros((30, 30)), 0.5 * upper], [np.zeros((30, 30)), 0.6 * lower]]))
    value = contraction.spectral_radius(lambda z: sweep @ z, jnp.zeros(60), dense_limit=dense_limit)
    assert value == pytest.approx(0.6, rel=1e-4)


def test_the_estimated_error_covers_the_error():
    """Non-normal systems of known radius: J = S D S^-1 with D known, S ever worse conditioned."""
    rng = np.random.default_rng(2)
    for power in (0, 1, 2, 3):
        exact = np.r_[0.9, np.linspace(0, 0.7, 29)]
        s = np.linalg.qr(rng.normal(size=(30, 30)))[0] * 10.0 ** np.linspace(0, power, 30)
        s = s @ np.linalg.qr(rng.normal(size=(30, 30)))[0]
        matrix = np.float32(s * exact @ np.linalg.inv(s)).astype(np.float64)
        found = contraction.arnoldi(lambda v, m=matrix: m @ v, 30, transpose=lambda v, m=matrix: m.T @ v,
                                    subspace=20, dtype=np.float32)
        assert abs(found.value - 0.9) <= 4 * found.error <= 1e4 * abs(found.value - 0.9) + 1e-4


@pytest.mark.parametrize("knobs", [{"subspace": 0}, {"restarts": 0}, {"tol": 0.0}])
def test_knobs_that_cannot_work_are_refused(knobs):
    with pytest.raises(InputError, match="subspace"):
        contraction.spectral_radius(lambda z: z, jnp.ones(3), **knobs)
    with pytest.raises(InputError, match="steps"):
        contraction.local_lipschitz(lambda z: z, jnp.ones(3), steps=0)


def test_a_map_into_another_space_has_no_radius():
    with pytest.raises(InputError, match="itself"):
        contraction.spectral_radius(lambda z: z[:2], jnp.ones(3))


def test_radius_below_one_says_nothing_globally():
    """f(z) = z^2 has rho = 0 at its fixed point 0 and runs away from 2: the module's warning, in numbers."""
    assert contraction.spectral_radius(lambda z: z * z, jnp.zeros(1)) == 0.0
    z = 2.0
    for _ in range(6):
        z = z * z
    assert z > 1e18


def test_jvp_and_vjp_are_adjoint():
    w = np.float32(np.random.default_rng(0).normal(size=(4, 6)))
    x, u, v = jnp.ones(6), jnp.arange(4.0), jnp.arange(6.0)

    def f(x, scale):
        return jnp.tanh(scale * (w @ x))

    forward, back = contraction.jvp(f, x, 0.3)(v), contraction.vjp(f, x, 0.3)(u)
    assert float(u @ forward) == pytest.approx(float(back @ v), rel=1e-5)
    np.testing.assert_allclose(forward, contraction.jacobian(f, x, 0.3) @ v, rtol=1e-5)


@pytest.mark.parametrize("shape", [(30, 20), (1, 7)])
def test_local_lipschitz_approaches_the_largest_singular_value_from_below(shape):
    with jax.enable_x64(True):
        w = jnp.asarray(np.random.default_rng(0).normal(size=shape))
        sigma = float(jnp.linalg.svd(w, compute_uv=False)[0])
        constant = jax.jit(lambda x, k: contraction.local_lipschitz(lambda x: w @ x, x, steps=k), static_argnums=1)
        values = [float(constant(jnp.ones(shape[1]), k)) for k in (1, 4, 30)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(sigma, rel=1e-9)
    assert max(values) <= sigma * (1 + 1e-12)


def test_local_lipschitz_gradient_is_that_of_the_singular_value():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        w, x = jnp.asarray(rng.normal(size=(5, 6))), jnp.asarray(rng.normal(size=6))

        def f(x):
            return jnp.tanh(w @ x)

        found = jax.grad(lambda x: contraction.local_lipschitz(f, x, steps=6))(x)
        expected = jax.grad(lambda x: jnp.linalg.svd(jax.jacobian(f)(x), compute_uv=False)[0])(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_local_lipschitz_of_constants_is_zero_with_zero_gradient():
    value, gradient = jax.value_and_grad(lambda x: contraction.local_lipschitz(lambda x: 0 * x, x))(jnp.ones(3))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)
