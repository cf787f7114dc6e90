"""Small-gain conditions against hand-computed cases, and reports that say no more than they know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.contraction.gains import contracting_weights, perron_root
from eqdiff_jax.contraction.small_gain import coupling_limit
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Kind


def linear(matrix):
    """f1, f2 of z <- M z, M 2 x 2, scalars as arrays of one entry."""
    (a, b), (c, d) = np.float32(matrix)
    return (lambda z1, z2: a * z1 + b * z2), (lambda z2, z1: c * z1 + d * z2)


def report(matrix, **kwargs):
    return contraction.coupled_report(*linear(matrix), jnp.zeros(1), jnp.zeros(1), **kwargs)


def test_gains_of_the_two_limb_equilibria():
    gains = [[0.6, 0.3], [0.5, 0.4]]
    r = report(gains, gains=gains)
    assert r.row_sums.value == pytest.approx(0.9)
    assert r.perron_root.value == pytest.approx(0.5 + np.sqrt(0.01 + 0.15))  # 0.9
    assert r.local.value == pytest.approx(0.9, abs=1e-6)
    assert [c.holds for c in (r.row_sums, r.perron_root, r.local)] == [True, True, True]
    assert r.row_sums.margin == pytest.approx(0.1)
    assert (r.row_sums.kind, r.perron_root.kind, r.local.kind) == (Kind.PROVED, Kind.PROVED, Kind.ESTIMATED)
    a, b, c = r.limits
    np.testing.assert_allclose(a, [1.2, 4 / 3, 1.2])  # min(0.4/0.3, 0.6/0.5); 0.4/0.3; 0.6/0.5
    np.testing.assert_allclose(b, [np.sqrt(1.6), 1.6, 1.6])  # (0.4 x 0.6)/(0.3 x 0.5)
    np.testing.assert_allclose(c, [np.sqrt(1.6), 1.6, 1.6], rtol=1e-4)  # J = G here
    assert r.residual == 0
    assert r.distance == 0


def test_row_sums_fail_and_perron_holds():
    gains = [[0.5, 0.9], [0.1, 0.5]]
    r = report(gains, gains=gains)
    assert r.row_sums.holds is False
    assert r.row_sums.value == pytest.approx(1.4)
    assert r.perron_root.holds is True
    assert r.perron_root.value == pytest.approx(0.8)
    assert "one equilibrium" in r.perron_root.implies
    assert "not necessary" in r.row_sums.implies
    np.testing.assert_allclose(r.limits[0], [5 / 9, 5 / 9, 0])  # c alone: the first row fails already
    np.testing.assert_allclose(r.limits[1], [np.sqrt(0.25 / 0.09), 0.25 / 0.09, 0.25 / 0.09])


def test_perron_fails_and_the_local_radius_holds():
    """Couplings of opposite sign: J = [[0.9, 0.5], [-0.5, 0.1]] has a complex pair of size sqrt(det) = sqrt(0.34),
    while rho(|J|) = 0.5 + sqrt(0.41) > 1."""
    matrix = np.array([[0.9, 0.5], [-0.5, 0.1]])
    r = report(matrix, gains=np.abs(matrix))
    assert r.perron_root.holds is False
    assert r.perron_root.value == pytest.approx(0.5 + np.sqrt(0.16 + 0.25))
    assert r.local.holds is True
    assert r.local.value == pytest.approx(np.sqrt(0.34), abs=1e-6)
    assert r.local.kind == Kind.ESTIMATED
    assert "converge" in r.local.implies and "close enough" in r.local.implies
    assert "globally" in r.local.not_implied
    assert "divergence" in r.perron_root.not_implied
    assert r.distance == np.inf  # no proved contraction, no distance
    text = str(r)
    assert text == contraction.describe(r)
    assert "fails" in text and "holds" in text and "globally" in text


def test_coupling_limit_of_the_local_radius_in_closed_form():
    """J(s) = [[0.9, s/2], [-s/2, 0.1]]: rho^2 = det = 0.09 + s^2/4 for a complex pair, so rho = 1 at s^2 = 3.64."""
    matrix = np.array([[0.9, 0.5], [-0.5, 0.1]])
    limits = report(matrix, gains=np.abs(matrix)).limits[2]
    assert limits.both == pytest.approx(np.sqrt(3.64), rel=1e-4)
    assert limits.slow_to_fast == pytest.approx(3.64, rel=2e-4)
    assert limits.fast_to_slow == pytest.approx(3.64, rel=2e-4)
    alone = report([[0.9, 0.5 * 3.63], [-0.5, 0.1]], gains=np.ones((2, 2)))
    assert 0.995 < alone.local.value < 1


@pytest.mark.parametrize("gains", [[[0.5, 0.0], [7.0, 0.5]], [[0.5, 7.0], [0.0, 0.5]], [[0.9, 0.0], [0.0, 0.2]],
                                   [[0.0, 1e-9], [1e5, 0.99]], [[0.6, 0.3], [0.5, 0.4]], [[0.0, 0.0], [0.0, 0.0]]])
def test_the_rate_that_is_claimed_is_a_rate(gains):
    """Also where the Perron vector has zeros: sweeps of the linear map shrink the weighted norm by it."""
    r = report(gains, gains=gains)
    rate = contraction.max_norm(gains, r.weights)
    assert perron_root(gains) <= rate * (1 + 1e-12) and rate < 1
    assert f"{rate:.6g}" in r.perron_root.implies
    z = r.weights.copy()
    for _ in range(20):
        z, before = np.asarray(gains) @ z, np.max(z / r.weights)
        assert np.max(z / r.weights) <= rate * before * (1 + 1e-12)
    assert (contracting_weights(gains) == r.weights).all()


def test_gains_that_the_point_contradicts_are_not_proved():
    """dF1/dz1 is 0.9 there, the caller says 0.5."""
    r = report([[0.9, 0.3], [0.2, 0.4]], gains=[[0.5, 0.3], [0.2, 0.4]])
    assert r.kind == r.row_sums.kind == Kind.ESTIMATED
    assert r.row_sums.holds is False and r.gains[0, 0] == pytest.approx(0.9, rel=1e-5)
    assert r.distance == np.inf
    assert len(r.violated) == 1 and "dF1/dz1" in r.violated[0] and "0.5" in r.violated[0]
    assert "not proved: |dF1/dz1| is 0.9" in str(r)


def test_contradicted_gains_are_not_said_to_occur():
    """dF1/dz1 is 0.6 where 0.5 was claimed; the claimed 0.9 of the other row occurs nowhere, so nothing is refuted."""
    r = report([[0.6, 0.1], [0.1, 0.2]], gains=[[0.5, 0.1], [0.9, 0.9]])
    assert r.violated and r.row_sums.holds is None and r.perron_root.holds is None
    np.testing.assert_allclose(r.gains, [[0.6, 0.1], [0.1, 0.2]], rtol=1e-5)


def test_a_radius_without_digits_decides_nothing():
    """A hidden Jordan block at 0.5, 40 unknowns: its float32 eigenvalues exceed 1, in truth it contracts at last."""
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    w = np.float32(q @ (0.5 * np.eye(40) + np.eye(40, k=1)) @ q.T)
    for limit in (512, 0):
        r = contraction.coupled_report(lambda z1, z2: w @ z1 + 0 * z2, lambda z2, z1: 0.1 * z2, jnp.zeros(40),
                                       jnp.zeros(1), gains=[[1.6, 0.0], [0.0, 0.2]], dense_limit=limit)
        assert r.local.holds is None
        assert "errs by" in r.local.implies
        assert np.isnan(r.limits[2].both)


def test_limits_of_the_local_radius():
    one_way = report([[0.5, 0.0], [7.0, 0.5]], gains=[[0.5, 0.0], [7.0, 0.5]])
    assert one_way.limits[2].both == np.inf
    assert coupling_limit(lambda s: 0.5 * s, 0.5) == pytest.approx(2.0, rel=1e-4)


def test_limits_say_how_far_they_were_followed():
    weak = report([[0.5, 1e-6], [1e-6, 0.5]], gains=[[0.5, 1e-6], [1e-6, 0.5]])
    assert "more than 100" in str(weak) and "more than 10000" in str(weak)
    assert np.isnan(coupling_limit(lambda s: float("nan") if s > 3 else 0.5, 0.5))


def test_integer_points_are_refused():
    with pytest.raises(InputError, match="needs floats"):
        contraction.coupled_report(*linear(np.zeros((2, 2))), jnp.zeros(1, int), jnp.zeros(1), gains=np.zeros((2, 2)))


def test_limit_below_one_when_the_coupling_is_too_strong_already():
    assert coupling_limit(lambda s: 2.0 * s, 2.0) == pytest.approx(0.5, rel=1e-4)
    assert coupling_limit(lambda s: 1.5, 1.5) == 0.0


def test_radius_one_is_undecided():
    r = report([[0.0, 1.0], [-1.0, 0.0]], gains=np.ones((2, 2)))
    assert r.local.holds is None
    assert "undecided" in r.local.implies
    assert "undecided" in str(r)


def test_a_repelling_point_is_said_to_repel():
    r = report([[1.5, 0.0], [0.0, 0.5]], gains=[[1.5, 0.0], [0.0, 0.5]])
    assert r.local.holds is False
    assert "repels" in r.local.implies
    assert r.limits[2] == (0, 0, 0)


def coupled_tanh():
    rng = np.random.default_rng(0)
    q = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(4)]
    w = [np.float32(m) for m in (0.6 * q[0], 0.3 * q[1][:, :3], 0.5 * q[2][:3], 0.4 * q[3][:3, :3])]

    def f1(z1, z2):
        return {"h": jnp.tanh(w[0] @ z1["h"] + w[1] @ z2 + 0.5)}

    def f2(z2, z1):
        return jnp.tanh(w[3] @ z2 + w[2] @ z1["h"] - 0.2)

    return f1, f2


def solve(f1, f2, steps):
    z1, z2 = {"h": jnp.zeros(6)}, jnp.zeros(3)
    for _ in range(steps):
        z1, z2 = f1(z1, z2), f2(z2, z1)
    return z1, z2


def test_estimated_gains_say_so_and_lie_below_the_proved_ones():
    f1, f2 = coupled_tanh()
    r = contraction.coupled_report(f1, f2, *solve(f1, f2, 100), key=jax.random.key(1), starts=4, steps=30)
    proved = np.array([[0.6, 0.3], [0.5, 0.4]])
    assert (r.gains <= proved + 1e-5).all()
    assert (r.gains[:, 0] >= 0.7 * proved[:, 0]).all()
    assert r.kind == r.row_sums.kind == r.perron_root.kind == Kind.ESTIMATED
    assert r.row_sums.holds is None  # a lower estimate below 1 decides nothing
    assert "nothing for certain" in r.row_sums.implies
    assert r.residual < 1e-5
    assert r.local.holds is True


def test_estimated_gains_can_refute():
    r = report([[1.5, 0.0], [0.0, 0.5]], starts=2, steps=1)
    assert r.row_sums.holds is False
    assert r.gains[0, 0] == pytest.approx(1.5, rel=1e-5)


def test_residual_and_distance_of_a_point_that_is_not_the_equilibrium():
    f1, f2 = coupled_tanh()
    exact, near = solve(f1, f2, 200), solve(f1, f2, 3)
    r = contraction.coupled_report(f1, f2, *near, gains=[[0.6, 0.3], [0.5, 0.401]])
    assert r.residual > 1e-3
    away = max(float(jnp.linalg.norm(exact[0]["h"] - near[0]["h"])), float(jnp.linalg.norm(exact[1] - near[1])))
    assert away <= r.distance < 30 * away


def test_matrix_free_agrees_with_dense():
    f1, f2 = coupled_tanh()
    point = solve(f1, f2, 100)
    gains = [[0.6, 0.3], [0.5, 0.401]]
    dense = contraction.coupled_report(f1, f2, *point, gains=gains)
    free = contraction.coupled_report(f1, f2, *point, gains=gains, dense_limit=0)
    assert free.local.value == pytest.approx(dense.local.value, rel=1e-5)
    np.testing.assert_allclose(free.limits[2], dense.limits[2], rtol=1e-3)


@pytest.mark.parametrize("gains", [np.eye(3), [[0.1, -0.1], [0.1, 0.1]], [[np.nan, 0], [0, 0]]])
def test_gains_that_are_none_are_refused(gains):
    with pytest.raises(InputError, match="gains"):
        report(np.zeros((2, 2)), gains=gains)


def test_maps_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match="f2"):
        contraction.coupled_report(lambda z1, z2: z1, lambda z2, z1: z1, jnp.zeros(2), jnp.zeros(3), gains=np.eye(2))
