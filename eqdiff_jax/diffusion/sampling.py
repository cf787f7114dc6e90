"""The one sampling loop: a traced number of steps per example, inside one compilation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.absorbing import expand_like
from eqdiff_jax.diffusion.samplers import SAMPLERS
from eqdiff_jax.types import Array, Predict, Process, Samples


def sample(key: Array, predict: Predict, process: Process, shape: tuple[int, ...], *,
           sampler: Callable | str = "analytic", steps: Array | int = 16, temperature: Array | float = 1.0,
           initial: Array | None = None) -> Samples:
    """Draw tokens from noise: x_{t_k} -> x_{t_{k+1}}, t_k = 1 - k/T, k = 0..T-1, the last step to t = 0.

    predict(tokens [B, ...], t [B]) -> logits [B, ..., V]; shape (B, ...). steps and temperature are scalars or
    [B], traced: one compilation serves every value. The temperature divides the logits. `initial` [B, ...] holds
    the given cells and masks to fill; given cells stay, bit for bit. Example i uses fold_in(key, i) only, so
    results do not depend on the batch. The key is consumed. The loop ends early once no mask is left.
    """
    step_fn = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    batch = shape[0]
    total = jnp.broadcast_to(jnp.asarray(steps, jnp.int32), (batch,))
    heat = expand_like(jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (batch,)), jnp.empty((*shape, 1)))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    start = jnp.full(shape, process.mask, jnp.int32) if initial is None else jnp.asarray(initial, jnp.int32)

    def unfinished(carry):
        k, tokens, _ = carry
        return (k < jnp.max(total)) & jnp.any(tokens == process.mask)

    def body(carry):
        k, tokens, unmasked_at = carry
        t = jnp.clip(1.0 - k / total, 0.0, 1.0)
        s = jnp.clip(1.0 - (k + 1) / total, 0.0, 1.0)
        logits = predict(tokens, t) / heat
        # After its last step an example holds no mask, so further calls leave it as it is.
        new = jax.vmap(step_fn)(jax.vmap(jax.random.fold_in, (0, None))(keys, k), tokens, logits,
                                process.alpha(t), jnp.where(k + 1 >= total, 1.0, process.alpha(s)))
        filled = (tokens == process.mask) & (new != process.mask)
        return k + 1, new, jnp.where(filled, k, unmasked_at)

    evaluations, tokens, unmasked_at = jax.lax.while_loop(
        unfinished, body, (jnp.int32(0), start, jnp.full(shape, -1, jnp.int32)))
    return Samples(tokens, evaluations, unmasked_at)
