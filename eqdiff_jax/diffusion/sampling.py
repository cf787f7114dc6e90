"""The one sampling loop: a traced number of steps per example, inside one compilation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.diffusion import parallel_in_time
from eqdiff_jax.diffusion.parameterise import LeaveOneOut, Mean, Prediction, Score, as_leave_one_out
from eqdiff_jax.diffusion.process import CLEAN, expand_like, prior
from eqdiff_jax.diffusion.samplers import SAMPLERS, Parallel
from eqdiff_jax.diffusion.schedule import uniform_grid
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Moment, Predict, Process, Sampler, Samples

# Folded into an example's key for what its sampler draws beforehand, and for x_1; steps take 0, 1, ...
MEMORY, START = 2**31, 2**31 + 1


class Chain(NamedTuple):
    """Loop state; leading axis B but for `evaluations`."""

    k: Array  # [B] int32 next step
    tokens: Array  # [B, ...]
    memory: Any  # the sampler's
    changed_at: Array  # [B, ...] int32
    clipped: Array  # [B] int32
    invalid: Array  # [B] bool
    evaluations: Array  # [] int32


def sample(key: Array, predict: Predict, process: Process, shape: tuple[int, ...], *,
           sampler: Sampler | Parallel | str = "analytic", steps: Array | int = 16, temperature: Array | float = 1.0,
           initial: Array | None = None, grid: Callable[[Array], Array] = uniform_grid,
           first: Array | int = 0) -> Samples:
    """Draw tokens from noise: x_{t_k} -> x_{t_{k+1}}, t_k = grid(1 - k/T), k = 0..T-1, the last step to t = 0.

    Args:
      key: consumed; example i uses fold_in(key, first + i) only, so results do not depend on the batch.
      predict: predict(tokens [B, ...], t [B]) -> logits [B, ..., V] of the mean p(x_0 | x_t), or a Mean, LeaveOneOut or
        Score, which says itself what it is.
      shape: (B, ...), of the tokens.
      sampler: a record, or a name of SAMPLERS.
      steps, temperature: T >= 1 and a divisor > 0 of the logits; scalars or [B], traced: one compilation serves all.
      initial: [B, ...] given cells, and masks (V) to fill; given cells stay, bit for bit.
      grid: increasing map of [0, 1] to [0, 1]; uniform_grid, or cosine_grid for small first steps.
      first: index of the first example, for batches that are parts of a larger one.
    Returns:
      Samples. Examples whose network said NaN, or that nothing is possible, are `invalid` and keep their masks; the
      loop ends early once no example has anything left to do.
    Raises:
      InputError, where values are concrete: steps < 1, temperature <= 0, tokens outside the vocabulary, shapes that
      disagree, an unknown sampler. ArithmeticError for invalid examples, outside of jit.
    """
    chosen = _checked(sampler, process, shape, steps, temperature, initial)
    batch = shape[0]
    total = jnp.broadcast_to(jnp.asarray(steps, jnp.int32), (batch,))
    heat = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (batch,))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch))
    given = jnp.zeros(shape, bool) if initial is None else jnp.asarray(initial) != process.mask
    start = jax.vmap(lambda k: prior(jax.random.fold_in(k, START), process, shape[1:]))(keys)
    start = start if initial is None else jnp.where(given, jnp.asarray(initial, jnp.int32), start)

    def moments(total: Array) -> Callable[[Array], Moment]:
        return lambda k: moment(k, total, process, grid)

    inner = chosen.inner if isinstance(chosen, Parallel) else chosen
    memory = jax.vmap(lambda k, x, n: inner.init(jax.random.fold_in(k, MEMORY), process, x, moments(n)))(
        keys, start, total)

    def advance(tokens: Array, memory: Any, now: Moment) -> tuple[Array, Any, Array, Array]:
        """One step of the batch: (tokens, memory, clipped [B], invalid [B]); given cells and invalid examples stay."""
        prediction, invalid = _tempered(predict(tokens, now.time), tokens, now, heat, given)
        new, memory, clipped = jax.vmap(lambda key, x, p, m, at: inner.step(
            jax.random.fold_in(key, at.k), process, x, p, m, at))(keys, tokens, prediction, memory, now)
        return jnp.where(given | expand_like(invalid, new), tokens, new), memory, clipped, invalid

    if isinstance(chosen, Parallel):
        samples = parallel_in_time.solve(chosen, advance, memory, process, start, total, moments)
    else:
        samples = _sequential(chosen, advance, memory, process, start, given, total, moments)
    hidden = samples.invalid.reshape(batch, *(1,) * (len(shape) - 1)) & ~given
    samples = samples._replace(tokens=jnp.where(hidden, process.mask, samples.tokens))
    if not isinstance(samples.invalid, jax.core.Tracer) and bool(jnp.any(samples.invalid)):
        raise ArithmeticError(f"the network gave NaN, or no possible token, for examples "
                              f"{np.flatnonzero(samples.invalid).tolist()}: look at its weights and at the legality "
                              "masks")
    return samples


def moment(k: Array, total: Array, process: Process, grid: Callable[[Array], Array]) -> Moment:
    """Step k of T = `total` of one example."""
    def time(k: Array) -> Array:
        t = grid(jnp.clip(1.0 - k / total, 0.0, 1.0))
        return t if process.times is None else jnp.round(t * process.times) / process.times

    t, s, last = time(k), time(k + 1), k + 1 >= total
    end = jax.tree.map(lambda level, clean: jnp.where(last, clean, level), process.level(s), CLEAN)
    return Moment(jnp.asarray(k, jnp.int32), t, t - s, process.level(t), end, last)


def _sequential(sampler: Sampler, advance: Callable, memory: Any, process: Process, start: Array, given: Array,
                total: Array, moments: Callable) -> Samples:
    batch, cells = start.shape[0], int(np.prod(start.shape[1:]))
    horizon = jax.vmap(lambda n: sampler.horizon(n, cells))(total)
    stays = sampler.keeps and process.masked == 1

    def busy(chain: Chain) -> Array:
        left = (chain.k < horizon) & ~chain.invalid
        return left & _any(chain.tokens == process.mask) if stays else left & _any(~given)

    def body(chain: Chain) -> Chain:
        active = busy(chain)
        now = jax.vmap(lambda x, m, k, n: sampler.next(process, x, m, k, moments(n)))(
            chain.tokens, chain.memory, chain.k, total)
        new, memory, clipped, invalid = advance(chain.tokens, chain.memory, now)

        def kept(new: Array, old: Array) -> Array:
            return jnp.where(expand_like(active & ~invalid, new), new, old)

        new = kept(new, chain.tokens)
        return Chain(jnp.where(active, now.k + 1, chain.k), new, jax.tree.map(kept, memory, chain.memory),
                     jnp.where(new != chain.tokens, expand_like(now.k, new), chain.changed_at),
                     chain.clipped + kept(clipped, jnp.zeros_like(clipped)), chain.invalid | (active & invalid),
                     chain.evaluations + 1)

    none = jnp.zeros(batch, jnp.int32)
    end = jax.lax.while_loop(lambda c: jnp.any(busy(c)), body, Chain(
        none, start, memory, jnp.full(start.shape, -1, jnp.int32), none, jnp.zeros(batch, bool), jnp.int32(0)))
    return Samples(end.tokens, end.evaluations, end.changed_at, end.clipped, end.invalid, jnp.int32(0))


def _tempered(raw: Any, tokens: Array, now: Moment, heat: Array, given: Array) -> tuple[Prediction, Array]:
    """(prediction with its logits divided by the temperature, which examples' are unusable [B])."""
    prediction: Prediction = raw if isinstance(raw, Mean | LeaveOneOut | Score) else Mean(raw)
    if isinstance(prediction, Score):
        prediction = as_leave_one_out(prediction, tokens, now.t)
    log = prediction.log
    usable = jnp.isfinite(jnp.max(log, axis=-1)) & ~jnp.any(jnp.isnan(log), axis=-1)
    log = jnp.where(usable[..., None], log, 0.0)  # whatever is drawn from it is not used
    return type(prediction)(log / expand_like(heat, log)), _any(~usable & ~given)


def _any(x: Array) -> Array:
    """[B, ...] -> [B]"""
    return jnp.any(x.reshape(x.shape[0], -1), axis=1)


def _checked(sampler: Sampler | Parallel | str, process: Process, shape: tuple[int, ...], steps: Any, temperature: Any,
             initial: Any) -> Sampler | Parallel:
    """The record of a name; raises InputError for what can be seen to be wrong. Traced values cannot be seen."""
    if isinstance(sampler, str) and sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    chosen = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    inner = chosen.inner if isinstance(chosen, Parallel) else chosen
    if process.masked < 1 and inner.absorbing:
        raise InputError(f"{type(inner).__name__} needs the absorbing process: take analytic, ancestral or euler")

    def seen(value: Any) -> bool:
        return value is not None and not isinstance(value, jax.core.Tracer)

    if seen(steps) and not np.all(np.asarray(steps) >= 1):
        raise InputError(f"steps is {steps}: a chain has at least 1 step")
    if seen(temperature) and not np.all(np.asarray(temperature) > 0):
        raise InputError(f"temperature is {temperature}: logits are divided by it, so it must be above 0")
    if initial is not None and tuple(jnp.shape(initial)) != tuple(shape):
        raise InputError(f"initial has shape {jnp.shape(initial)}, not {tuple(shape)}: give every cell, masks to fill")
    if seen(initial):
        outside = (np.asarray(initial) < 0) | (np.asarray(initial) > process.mask)
        if outside.any():
            raise InputError(f"initial holds {np.asarray(initial)[outside][0]}: tokens are 0 to {process.vocab - 1}, "
                             f"and {process.mask} is the mask")
    return chosen
