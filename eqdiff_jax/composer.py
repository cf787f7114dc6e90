"""Bar in, grid out: the one function that offline and live playing share.

    conditioning [104] -> embedding [768] -> log posterior of each cell, legal, guided, leaned -> bounded change
"""

from collections.abc import Sequence
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp

from eqdiff_jax import asked
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
from eqdiff_jax.music.grid import BAR, REST
from eqdiff_jax.types import Array, Change, Params, Predict

GUIDANCE = 3.0  # the weight whose grids come closest to the descriptors of the pairs (of 1, 1.5, 2, 3)
KEPT = 5.0  # where the rest is the music before, which pulls new cells to what was asked then (docs/training.md)
SCORING = 30.0  # finds cells, rests too, that the movement speaks against (likewise)
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


def predictor(params: Params, conditioning: Array, guidance: Array | float = GUIDANCE,
              negative: Array | None = None) -> Predict:
    """`posterior`, guided: two passes run as one batch of 2 B, then mix, log p ~ w log p_c + (1 - w) log p_u.

    p_u is unconditional, or, with `negative` [B, 104], that of a conditioning to keep away from.
    """
    batch = conditioning.shape[0]
    other = conditioning if negative is None else negative
    given = (jnp.arange(2 * batch) < batch) | (negative is not None)
    both = posterior(params, jnp.concatenate([conditioning, other]), given)

    def predict(tokens: Array, t: Array) -> Array:
        conditional, unconditional = jnp.split(both(jnp.concatenate([tokens, tokens]), t), 2)
        return classifier_free(conditional, unconditional, guidance)

    return predict


@partial(jax.jit, static_argnames=("sampler",))
def compose(key: Array, params: Params, conditioning: Array, previous: Array, *,
            previous_conditioning: Array | None = None, steps: Array | int = 0, temperature: Array | float = 0.0,
            guidance: Array | float | None = None, scoring: Array | float = SCORING,
            follow: Array | float = 1.0, kappa: Array | float = bounded_change.KAPPA,
            idle: Array | int = bounded_change.IDLE, most: Array | int = bounded_change.MOST,
            negative: Array | None = None, sampler: str = "analytic") -> Change:
    """The next grid, at most `budget` cells away from the previous one.

    Args:
      key: consumed; example i uses fold_in(key, i) only.
      params: a dict with `encoder` and `denoiser`.
      conditioning: [104] or [B, 104] of the new window.
      previous: int [12, 32] or [B, 12, 32]; all masks (81) means there is none, and every cell may change. Masks in
        a part of it are filled too, and the budget is at least their number.
      previous_conditioning: what made `previous`, shaped as conditioning; None: only `idle` cells may change.
      steps, temperature: scalar or [B]; 0 takes them from the window's prediction_confidence (commitment).
      guidance: weight of classifier-free guidance, 1 for none; None: GUIDANCE for a first grid, KEPT for others.
      scoring: the same weight where cells are scored that may have to go.
      follow: scalar or [B], how strongly both laws lean towards the asked number of notes and spread of melodies
        (`asked.follow`); 0 leaves them alone.
      negative: a conditioning to keep away from, shaped as conditioning (`predictor`).
      sampler: a name of `diffusion.SAMPLERS`.
      kappa, idle, most: the budget min(most, floor(kappa ||c - c_prev|| 384) + idle).
    Returns:
      Change, with a leading axis B if conditioning has one. Hamming(tokens, previous) <= budget always. Where the
      network gives NaN the previous grid comes back, marked `invalid`: music does not stop.
    """
    single, previous = conditioning.ndim == 1, jnp.asarray(previous, jnp.int32)
    if previous_conditioning is None:
        previous_conditioning = conditioning
    if single:
        conditioning, previous_conditioning = conditioning[None], previous_conditioning[None]
        previous = previous[None]
        negative = None if negative is None else negative[None]
    if guidance is None:
        first = jnp.all(previous == PROCESS.mask, axis=(1, 2), keepdims=True)[..., None]
        guidance = jnp.where(first, GUIDANCE, KEPT)
    steps, temperature = _committed(conditioning, steps, temperature)
    guided, judge = (asked.follow(predictor(params, conditioning, weight, negative), conditioning, follow, heat)
                     for weight, heat in ((guidance, temperature), (scoring, 1.0)))
    change = transition(key, guided, conditioning, previous, previous_conditioning, judge=judge,
                        steps=steps, temperature=temperature, kappa=kappa, idle=idle, most=most, sampler=sampler)
    return jax.tree.map(lambda x: x[0] if x.ndim else x, change) if single else change


def hide(tokens: Array, tracks: Sequence[int] = (), bars: Sequence[int] = ()) -> Array:
    """`tokens` [..., 12, 32] with whole tracks (0 to 11) and whole bars (0, 1) masked, for `infill`."""
    track = jnp.isin(jnp.arange(tokens.shape[-2]), jnp.asarray(tracks, jnp.int32))[:, None]
    bar = jnp.isin(jnp.arange(tokens.shape[-1]) // BAR, jnp.asarray(bars, jnp.int32))
    return jnp.where(track | bar, PROCESS.mask, tokens)


def infill(key: Array, params: Params, conditioning: Array, tokens: Array, **knobs) -> Change:
    """The masked cells of `tokens` filled, the others kept bit for bit: accompaniment, continuation, repair.

    compose with a budget of exactly the masks, the guidance of a first grid, and follow 0, as what is kept may be
    anybody's and need not be made up for; arguments and result as there.
    `infill(key, params, c, hide(grid, tracks=(4, 5)))` makes two tracks anew, `hide(grid, bars=(1,))` a second bar.
    """
    return compose(key, params, conditioning, tokens, idle=0, most=0, **{"guidance": GUIDANCE, "follow": 0.0} | knobs)


def _committed(conditioning: Array, steps: Array | int, temperature: Array | float) -> tuple[Array, Array]:
    """Steps and temperature [B], where they are 0 those of the commitment rule."""
    auto_steps, auto_temperature = commitment(conditioning[:, LAYOUT["prediction_confidence"]][:, 0])
    steps = jnp.broadcast_to(jnp.asarray(steps, jnp.int32), auto_steps.shape)
    temperature = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), auto_steps.shape)
    return (jnp.maximum(jnp.where(steps > 0, steps, auto_steps), 1),
            jnp.where(temperature > 0, temperature, auto_temperature))


def transition(key: Array, predict: Predict, conditioning: Array, previous: Array, previous_conditioning: Array, *,
               judge: Predict | None = None, steps: Array | int, temperature: Array | float, kappa: Array | float,
               idle: Array | int, most: Array | int, sampler: str) -> Change:
    """`compose` for any predictor, batched: budget, scoring by `judge`, re-masking, sampling. Arguments as there."""
    mask, cells = PROCESS.mask, previous[0].size
    key_score, key_sample = jax.random.split(key)
    steps, temperature = _committed(conditioning, steps, temperature)

    holes = jnp.sum(previous == mask, axis=(1, 2))  # masked cells have to be filled, whatever the budget
    empty = holes == cells
    allowed = jnp.maximum(holes, bounded_change.budget(
        conditioning, previous_conditioning, cells, kappa=kappa, idle=idle, most=most))
    # An empty grid has nothing to score: skip the two network calls when the whole batch is empty.
    likelihood = jax.lax.cond(
        jnp.all(empty), lambda: jnp.full(previous.shape, -jnp.inf),
        lambda: bounded_change.cell_log_likelihood(key_score, judge or predict, previous, mask))
    start = bounded_change.remask_least_likely(likelihood, previous, allowed, mask)
    drawn = sample(key_sample, predict, PROCESS, previous.shape, sampler=SAMPLERS[sampler], steps=steps,
                   temperature=temperature, initial=start)
    played = jnp.where(previous == mask, REST, previous)
    tokens = jnp.where(drawn.invalid[:, None, None], played, drawn.tokens)
    return Change(tokens, jnp.sum(tokens != previous, axis=(1, 2)), allowed, steps, temperature, drawn.evaluations,
                  drawn.invalid)
