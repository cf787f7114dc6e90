"""Block fixed points: the three sweeps find the same equilibrium, at the rates that theory gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.equilibrium import SOLVERS, Status, coupled_fixed_point, sweep_map
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import dell

A, D, B, C = 0.3, 0.2, 0.5, 0.6  # z1 = A z1 + B z2 + 1, z2 = D z2 + C z1 + x
MAPS = (lambda z, x: A * z[0] + B * z[1] + 1.0, lambda z, x: D * z[1] + C * z[0] + x)
KNOBS = {"rtol": 1e-14, "atol": 1e-14, "max_steps": 400}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def exact(x):
    return np.linalg.solve([[1 - A, -B], [-C, 1 - D]], [1.0, x])


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden"])
@pytest.mark.parametrize("sweep", ["jacobi", "gauss_seidel"])
def test_every_sweep_finds_the_block_equilibrium(sweep, solver):
    found = coupled_fixed_point(MAPS, (jnp.zeros(()), jnp.zeros(())), 2.0, sweep=sweep, solver=SOLVERS[solver], **KNOBS)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.value, exact(2.0), rtol=1e-12)


def test_sweeps_converge_at_their_own_rates():
    """Jacobi's matrix is [[A, B], [C, D]]; Gauss-Seidel's is [[A, B], [C A, C B + D]]."""
    def rate(sweep):
        trace = coupled_fixed_point(MAPS, (jnp.zeros(()), jnp.zeros(())), 2.0, sweep=sweep, solver=SOLVERS["picard"],
                                    trace=True, **KNOBS).trace
        return trace[25] / trace[24]

    for sweep, matrix in (("jacobi", [[A, B], [C, D]]), ("gauss_seidel", [[A, B], [C * A, C * B + D]])):
        assert rate(sweep) == pytest.approx(np.abs(np.linalg.eigvals(matrix)).max(), rel=1e-6)


def test_joint_acceleration_saves_sweeps():
    count = {name: coupled_fixed_point(MAPS, (jnp.zeros(()), jnp.zeros(())), 2.0, solver=SOLVERS[name], **KNOBS).steps
             for name in ("picard", "anderson")}
    assert count["anderson"] <= 6 < count["picard"]  # two numbers and an affine map: a Krylov space of dimension 2


@pytest.mark.parametrize("sweep", ["jacobi", "gauss_seidel"])
def test_derivative_does_not_depend_on_the_sweep(sweep):
    def value(x):
        return jnp.stack(coupled_fixed_point(MAPS, (jnp.zeros(()), jnp.zeros(())), x, sweep=sweep, **KNOBS).value)

    expected = np.linalg.solve([[1 - A, -B], [-C, 1 - D]], [0.0, 1.0])
    np.testing.assert_allclose(jax.jacobian(value)(2.0), expected, rtol=1e-9)


def test_dell_as_a_coupled_pair():
    """The joint equilibrium of the fast and the slow map, by each sweep, and that it is one of both maps."""
    weights = dell.weights(dell.init_params(jax.random.key(0)))
    inputs = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=216))
    maps = (lambda z: dell.fast_map(weights, z[0], z[1], inputs),
            lambda z: dell.slow_map(weights, z[1], weights.w_out @ z[0]))
    found = [coupled_fixed_point(maps, (jnp.zeros(128), jnp.zeros(32)), sweep=sweep, **KNOBS)
             for sweep in ("jacobi", "gauss_seidel")]
    assert found[1].steps <= found[0].steps
    for block, (one, two) in enumerate(zip(*(s.value for s in found), strict=True)):
        np.testing.assert_allclose(one, two, atol=1e-12)
        np.testing.assert_allclose(maps[block](found[0].value), one, atol=1e-12)


def test_three_blocks():
    maps = tuple(lambda z, i=i: 0.3 * jnp.tanh(z[i] + z[(i + 1) % 3]) + i for i in range(3))
    found = coupled_fixed_point(maps, (jnp.zeros(2), jnp.zeros(2), jnp.zeros(2)), **KNOBS)
    for block, value in zip(sweep_map(maps)(found.value), found.value, strict=True):
        np.testing.assert_allclose(block, value, atol=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="jacobi, gauss_seidel"):
        sweep_map(MAPS, "sor")
    with pytest.raises(InputError, match="one map per block"):
        coupled_fixed_point(MAPS, (jnp.zeros(2),))
