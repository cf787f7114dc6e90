"""jaxopt's Anderson and Broyden as solvers of this package. The only file that knows jaxopt, which is unmaintained."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxopt

from eqdiff_jax.types import Array, Map, Step


class JaxoptAnderson(NamedTuple):
    """jaxopt.AndersonAcceleration. Its ridge is absolute, so it slows down once residuals are small against it.

    It works in JAX's default dtype, whatever z's: some of its arrays have no other.
    """

    window: int = 5
    ridge: float = 1e-5

    def _solver(self, f: Map, z: Array) -> jaxopt.AndersonAcceleration:
        return jaxopt.AndersonAcceleration(lambda x: f(x.astype(z.dtype)).astype(x.dtype), history_size=self.window,
                                           ridge=self.ridge, jit=True)

    def init(self, f: Map, z: Array) -> tuple[Array, Any]:
        """Its state before the first step, without the evaluation that its own `init_state` makes and discards."""
        wide = z.astype(float)
        state = jax.eval_shape(self._solver(f, z).init_state, wide)
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
        return z, state._replace(params_history=jnp.tile(wide, (self.window, 1)))

    def step(self, f: Map, z: Array, memory: Any, k: Array) -> Step:
        """One `update`, one evaluation, at the point that it mixed."""
        del k
        fz, state = self._solver(f, z).update(z.astype(float), memory)
        at = state.params_history[memory.iter_num % self.window]
        return Step(at.astype(z.dtype), fz.astype(z.dtype), fz.astype(z.dtype), state, jnp.int32(1))


class JaxoptBroyden(NamedTuple):
    """jaxopt.Broyden with its backtracking line search, whose evaluations are counted.

    It wants z - f(z): given f(z) - z it diverges, since its first inverse Jacobian is +I.
    """

    window: int = 32

    def _solver(self, f: Map) -> jaxopt.Broyden:
        return jaxopt.Broyden(lambda z: z - f(z), history_size=self.window, jit=True)

    def init(self, f: Map, z: Array) -> tuple[Array, Any]:
        """Its state after the first evaluation."""
        return z, self._solver(f).init_state(z)

    def step(self, f: Map, z: Array, memory: Any, k: Array) -> Step:
        """One `update`: as many evaluations as its line search takes, the first one of `init` included."""
        del k
        at, state = self._solver(f).update(z, memory)
        made = state.num_fun_eval - jnp.where(memory.iter_num == 0, 0, memory.num_fun_eval)
        return Step(at, at - state.value, at, state, jnp.asarray(made, jnp.int32))
