"""The chain of a sampler as one fixed point, solved by this project's Picard solver (see samplers/parallel.py)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.process import expand_like
from eqdiff_jax.diffusion.samplers.parallel import Parallel
from eqdiff_jax.equilibrium import Picard, fixed_point
from eqdiff_jax.types import Array, Process, Samples


def solve(sampler: Parallel, advance: Callable, memory: Any, process: Process, start: Array, total: Array,
          moments: Callable) -> Samples:
    """Samples equal to those of `sampler.inner` in sequence; arguments as in sampling.py.

    Each window of W steps is F(X) = X for the batch together, F in integral form (`accumulate`), tokens as float32
    (exact: they are small integers), the stopping rule |F(X) - X| < 1/2, which for integers is equality. Noise is a
    function of (key, k) and so is the same in every sweep. `sweeps` counts evaluations of F, at most W a window;
    `evaluations` counts network calls of W B rows: the sweeps, and one more a window for its last state and for what
    its steps have to report.
    """
    batch, window = start.shape[0], sampler.window
    once = sampler.inner.keeps and process.masked == 1

    def step(k: Array, tokens: Array) -> tuple[Array, Array, Array]:
        """f_k of the whole batch: (tokens, clipped [B], invalid [B]); beyond T nothing happens."""
        new, _, clipped, invalid = advance(tokens, memory, jax.vmap(lambda n: moments(n)(k))(total))
        made = k < total
        return (jnp.where(expand_like(made, new), new, tokens), jnp.where(made & ~invalid, clipped, 0), made & invalid)

    def solved(k0: Array, x0: Array) -> tuple[Array, ...]:
        """(x after the window, when each cell last changed, clipped, invalid [B], sweeps) from x0 = x_{k0}."""
        ks = k0 + jnp.arange(window, dtype=jnp.int32)

        def before(after: Array) -> Array:
            """x_k from x_{k+1}: shifted by one, x0 in front."""
            return jnp.concatenate([x0[None], after])

        # The last state of a chain or window is no unknown: nothing depends on it.
        unknown = expand_like((ks[:-1, None] < total - 1), jnp.zeros((window - 1, *x0.shape), bool))
        guess = jnp.broadcast_to(x0, (window - 1, *x0.shape))

        def sweep(trajectory: Array) -> Array:
            old = before(trajectory.astype(jnp.int32))[:-1]
            new = jax.vmap(step)(ks[:-1], old)[0]
            return jnp.where(unknown, accumulate(x0, old, new, once), guess).astype(jnp.float32)

        inside, sweeps = guess, jnp.int32(0)
        if window > 1:
            found = fixed_point(sweep, guess.astype(jnp.float32), solver=Picard(), rtol=0.0, atol=0.5,
                                max_steps=window)
            inside, sweeps = jax.lax.stop_gradient(found.value).astype(jnp.int32), found.steps
        # One more evaluation, of the converged states: the last state, and what the steps have to report.
        states, clipped, invalid = jax.vmap(step)(ks, before(inside))
        at = jnp.max(jnp.where(states != before(inside), expand_like(ks, states), -1), axis=0)
        end = jnp.clip(total - k0, 0, window)
        last = jnp.take_along_axis(before(states), expand_like(end[None], states), axis=0)[0]
        return last, at, jnp.sum(clipped, axis=0, dtype=jnp.int32), jnp.any(invalid, axis=0), sweeps

    def body(carry):
        index, x, changed_at, clipped, invalid, sweeps, calls = carry
        x, at, short, bad, count = solved(index * window, x)
        return (index + 1, x, jnp.maximum(changed_at, at), clipped + short, invalid | bad, sweeps + count,
                calls + count + 1)

    none = jnp.zeros(batch, jnp.int32)
    _, tokens, changed_at, clipped, invalid, sweeps, calls = jax.lax.while_loop(
        # Windows are counted one by one: XLA drops a loop whose constant stride exceeds its constant range.
        lambda c: c[0] < (jnp.max(total) + window - 1) // window, body,
        (jnp.int32(0), start, jnp.full(start.shape, -1, jnp.int32), none, jnp.zeros(batch, bool), jnp.int32(0),
         jnp.int32(0)))
    return Samples(tokens, calls, changed_at, clipped, invalid, sweeps)


def accumulate(x0: Array, old: Array, new: Array, once: bool) -> Array:
    """States after steps 0..W-1 from their changes: x0 [B, ...] with every change old_j -> new_j, j <= k. [W, B, ...]

    The integral form of Picard's iteration: a change made at step j is seen by all later states at once, instead of
    wandering on by a step a sweep. Of several changes of a cell the first counts if cells change only `once`, else the
    last. On the chain itself (new_j = old_{j+1}) both give new, so the fixed point is the same.
    """
    steps = jnp.arange(len(old)).reshape(-1, *(1,) * x0.ndim)
    changed = new != old
    if once:
        at = jax.lax.cummin(jnp.where(changed, steps, len(old)), axis=0)
        some = at < len(old)
    else:
        at = jax.lax.cummax(jnp.where(changed, steps, -1), axis=0)
        some = at >= 0
    return jnp.where(some, jnp.take_along_axis(new, jnp.where(some, at, 0), axis=0), x0)
