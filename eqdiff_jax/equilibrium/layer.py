"""A flax layer whose output is an equilibrium, and the penalty that keeps its Jacobian small in training."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from eqdiff_jax.equilibrium.implicit import Adjoint
from eqdiff_jax.equilibrium.solve import DEFAULT_ADJOINT, DEFAULT_SOLVER, fixed_point
from eqdiff_jax.types import Array, Solution, Solver


class Equilibrium(nn.Module):
    """z* = cell(z*, x): a weight-tied network of infinite depth (Bai, Kolter and Koltun 2019, arXiv:1909.01377).

    cell: a module with cell(z, x) -> z, z of the shape of `z0`. Every element of the batch is its own problem and
    stops by itself; the cell sees one element at a time, so norms over the batch have no place in it. It may hold
    parameters and constants only: nothing that it changes (batch statistics) and no dropout, which would make f another
    map at every evaluation.
    The solution's residuals, counts and statuses are sown as `intermediates/solution`; `penalty` > 0 also sows
    `losses/jacobian`, penalty times the Hutchinson estimate of |df/dz|_F^2 / n at z*, key stream "jacobian".
    """

    cell: nn.Module
    solver: Solver = DEFAULT_SOLVER
    adjoint: Adjoint = DEFAULT_ADJOINT
    rtol: float = 1e-5
    atol: float = 1e-6
    max_steps: int = 100
    penalty: float = 0.0

    @nn.compact
    def __call__(self, x: Array, z0: Array) -> Array:
        """x [B, ...], z0 [B, ...] -> z* like z0."""
        if self.is_initializing():
            return cast(Array, self.cell(z0[0], x[0]))[None] + jnp.zeros_like(z0)
        cell, variables = self.cell.unbind()

        def f(z: Array, x: Array, variables: Any) -> Array:
            return cast(Array, cell.apply(variables, z, x))

        def solve(x: Array, z0: Array) -> Solution:
            return fixed_point(f, z0, x, variables, solver=self.solver, adjoint=self.adjoint, rtol=self.rtol,
                               atol=self.atol, max_steps=self.max_steps)

        solution = jax.vmap(solve)(x, z0)
        self.sow("intermediates", "solution", jax.lax.stop_gradient(solution._replace(value=None)))
        if self.penalty > 0:
            keys = jax.random.split(self.make_rng("jacobian"), len(x))
            each = jax.vmap(lambda key, z, x: jacobian_penalty(key, f, z, x, variables))(keys, solution.value, x)
            self.sow("losses", "jacobian", self.penalty * jnp.mean(each))
        return solution.value


def jacobian_penalty(key: Array, f: Callable, z: Any, *args: Any, samples: int = 1) -> Array:
    """Hutchinson's estimate of |df/dz|_F^2 / n at z: mean of |v^T J|^2 / n over standard normal v. []

    Unbiased; its relative spread falls with sqrt(samples). The key is consumed. f(z, *args) -> z, z of n numbers.
    Reference: Bai, Koltun and Kolter 2021, arXiv:2106.14342, section 4.
    """
    flat, unravel = ravel_pytree(z)
    _, by_z = jax.vjp(lambda z: ravel_pytree(f(unravel(z), *args))[0], flat)
    probes = jax.random.normal(key, (samples, flat.size), flat.dtype)
    return jnp.mean(jax.vmap(lambda v: jnp.sum(by_z(v)[0] ** 2))(probes)) / flat.size
