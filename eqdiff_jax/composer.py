"""Bar in, grid out: the one function that offline and live playing share.

    conditioning [104] -> embedding [768] -> log posterior of each cell, legal and guided -> bounded change
"""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp

from eqdiff_jax.conditioning import LAYOUT, encoder
from eqdiff_jax.denoiser import roformer_of
from eqdiff_jax.diffusion import (
    SAMPLERS,
    absorbing,
    bounded_change,
    classifier_free,
    commitment,
    legal_log_posterior,
    sample,
)
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.types import Array, Change, Params, Predict

GUIDANCE = 3.0  # the weight whose grids come closest to the descriptors of the pairs (of 1, 1.5, 2, 3)
PROCESS = absorbing(len(VOCABULARY))
_LEGAL = LEGAL[:, None, :]  # [12, 1, 81]


def posterior(params: Params, conditioning: Array, given: Array) -> Predict:
    """predict(tokens [B, 12, 32], t) -> log p(cell | tokens, c) over the legal tokens [B, 12, 32, 81], -inf elsewhere.

    params holds `encoder` and `denoiser`; conditioning [B, 104]; where given [B] is False the null embedding stands
    in for it. The network is time-free, so t is not read.
    """
    network = roformer_of(params["denoiser"])
    embedding = cast(Array, encoder.apply({"params": params["encoder"]}, conditioning))

    def predict(tokens: Array, t: Array) -> Array:
        del t
        logits = cast(Array, network.apply({"params": params["denoiser"]}, tokens, embedding, given))
        return legal_log_posterior(logits, _LEGAL)

    return predict


def predictor(params: Params, conditioning: Array, guidance: Array | float = GUIDANCE) -> Predict:
    """`posterior`, guided: the conditional and the unconditional pass run as one batch of 2 B, then mix."""
    batch = conditioning.shape[0]
    both = posterior(params, jnp.concatenate([conditioning, conditioning]), jnp.arange(2 * batch) < batch)

    def predict(tokens: Array, t: Array) -> Array:
        conditional, unconditional = jnp.split(both(jnp.concatenate([tokens, tokens]), t), 2)
        return classifier_free(conditional, unconditional, guidance)

    return predict


@partial(jax.jit, static_argnames=("sampler",))
def compose(key: Array, params: Params, conditioning: Array, previous: Array, *,
            previous_conditioning: Array | None = None, steps: Array | int = 0, temperature: Array | float = 0.0,
            guidance: Array | float = GUIDANCE, kappa: Array | float = bounded_change.KAPPA,
            idle: Array | int = bounded_change.IDLE, most: Array | int = bounded_change.MOST,
            sampler: str = "analytic") -> Change:
    """The next grid, at most `budget` cells away from the previous one.

    Args:
      key: consumed; example i uses fold_in(key, i) only.
      params: a dict with `encoder` and `denoiser`.
      conditioning: [104] or [B, 104] of the new window.
      previous: int [12, 32] or [B, 12, 32]; all masks (81) means there is none, and every cell may change. Masks in
        a part of it are filled too, and the budget is at least their number.
      previous_conditioning: what made `previous`, shaped as conditioning; None: only `idle` cells may change.
      steps, temperature: scalar or [B]; 0 takes them from the window's prediction_confidence (commitment).
      guidance: weight of classifier-free guidance, 1 for none.
      kappa, idle, most: the budget min(most, floor(kappa ||c - c_prev|| 384) + idle).
    Returns:
      Change, with a leading axis B if conditioning has one. Hamming(tokens, previous) <= budget always.
    """
    single = conditioning.ndim == 1
    if previous_conditioning is None:
        previous_conditioning = conditioning
    if single:
        conditioning, previous_conditioning = conditioning[None], previous_conditioning[None]
        previous = jnp.asarray(previous)[None]
    change = transition(key, predictor(params, conditioning, guidance), conditioning, jnp.asarray(previous, jnp.int32),
                        previous_conditioning, steps=steps, temperature=temperature, kappa=kappa, idle=idle,
                        most=most, sampler=sampler)
    return jax.tree.map(lambda x: x[0] if x.ndim else x, change) if single else change


def transition(key: Array, predict: Predict, conditioning: Array, previous: Array, previous_conditioning: Array, *,
               steps: Array | int, temperature: Array | float, kappa: Array | float, idle: Array | int,
               most: Array | int, sampler: str) -> Change:
    """`compose` for any predictor, batched: budget, scoring, re-masking, sampling. Arguments as there."""
    batch, mask, cells = conditioning.shape[0], PROCESS.mask, previous[0].size
    key_score, key_sample = jax.random.split(key)
    auto_steps, auto_temperature = commitment(conditioning[:, LAYOUT["prediction_confidence"]][:, 0])
    steps = jnp.broadcast_to(jnp.asarray(steps, jnp.int32), (batch,))
    steps = jnp.maximum(jnp.where(steps > 0, steps, auto_steps), 1)
    temperature = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (batch,))
    temperature = jnp.where(temperature > 0, temperature, auto_temperature)

    holes = jnp.sum(previous == mask, axis=(1, 2))  # masked cells have to be filled, whatever the budget
    empty = holes == cells
    allowed = jnp.maximum(holes, bounded_change.budget(
        conditioning, previous_conditioning, cells, kappa=kappa, idle=idle, most=most))
    # An empty grid has nothing to score: skip the two network calls when the whole batch is empty.
    likelihood = jax.lax.cond(
        jnp.all(empty), lambda: jnp.full(previous.shape, -jnp.inf),
        lambda: bounded_change.cell_log_likelihood(key_score, predict, previous, mask))
    start = bounded_change.remask_least_likely(likelihood, previous, allowed, mask)
    drawn = sample(key_sample, predict, PROCESS, previous.shape, sampler=SAMPLERS[sampler], steps=steps,
                   temperature=temperature, initial=start)
    return Change(drawn.tokens, jnp.sum(drawn.tokens != previous, axis=(1, 2)), allowed, steps, temperature,
                  drawn.evaluations)
