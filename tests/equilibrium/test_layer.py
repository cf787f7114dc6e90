"""The equilibrium layer learns through its fixed point, and the Jacobian penalty is what it estimates."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqdiff_jax.equilibrium import Equilibrium, Implicit, Status, jacobian_penalty


class Cell(nn.Module):
    """tanh(Wz + Ux + b), W small at the start."""

    @nn.compact
    def __call__(self, z, x):
        small = nn.initializers.normal(0.1)
        return jnp.tanh(nn.Dense(z.shape[-1], kernel_init=small)(z) + nn.Dense(z.shape[-1])(x))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), jnp.zeros((8, 6), jnp.float32)


def test_output_is_an_equilibrium_of_the_cell(batch):
    x, z0 = batch
    model = Equilibrium(Cell())
    variables = model.init(jax.random.key(0), x, z0)
    z, seen = jax.jit(lambda v: model.apply(v, x, z0, mutable=["intermediates"]))(variables)
    cell = {"params": variables["params"]["cell"]}
    np.testing.assert_allclose(Cell().apply(cell, z, x), z, atol=1e-4)
    solution = seen["intermediates"]["solution"][0]
    assert solution.status.shape == (8,)
    assert (solution.status == Status.CONVERGED).all()
    alone = model.apply(variables, x[3:4], z0[3:4])
    np.testing.assert_allclose(alone[0], z[3], atol=1e-4)


def test_it_trains_and_the_penalty_shrinks_the_jacobian(batch):
    x, z0 = batch
    target = jnp.sin(x @ jnp.ones((3, 6)))

    def train(penalty):
        model = Equilibrium(Cell(), adjoint=Implicit(), penalty=penalty)
        variables = model.init({"params": jax.random.key(0), "jacobian": jax.random.key(1)}, x, z0)
        transform = optax.adam(3e-2)

        def loss(params, key):
            z, aux = model.apply({"params": params}, x, z0, mutable=["losses"], rngs={"jacobian": key})
            error = jnp.mean((z - target) ** 2)
            return error + sum(jax.tree.leaves(aux)), error

        @jax.jit
        def step(params, state, key):
            grads, error = jax.grad(loss, has_aux=True)(params, key)
            updates, state = transform.update(grads, state)
            return optax.apply_updates(params, updates), state, error

        params, errors = variables["params"], []
        state = transform.init(params)
        for i in range(120):
            params, state, error = step(params, state, jax.random.key(i))
            errors.append(float(error))
        return errors, np.linalg.norm(params["cell"]["Dense_0"]["kernel"])

    errors, free = train(0.0)
    assert errors[-1] < 0.3 * errors[0]
    assert train(3.0)[1] < 0.5 * free


def test_the_penalty_is_unbiased():
    """|W|_F^2 / n for f = Wz; the spread of one sample is 2 |W^T W|_F^2."""
    w = jnp.asarray(np.random.default_rng(1).normal(size=(10, 10)), jnp.float32)
    estimate = jacobian_penalty(jax.random.key(0), lambda z: w @ z, jnp.zeros(10, jnp.float32), samples=20000)
    spread = np.sqrt(2 * np.sum((np.asarray(w) @ w.T) ** 2) / 20000) / 10
    assert abs(float(estimate) - float(jnp.sum(w**2)) / 10) < 4 * spread
