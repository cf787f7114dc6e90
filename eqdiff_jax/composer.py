"""Bar in, grid out: the one function that offline and live playing share.

    conditioning [104] -> targets [7], embedding [768]
                       -> log posterior of each cell, legal, guided, controlled -> candidates: freshly drawn grids
    previous grid, candidates, silence -> phrases of them, put together by bounded change -> the next grid

A phrase is a track in a bar. Which phrases are taken is drawn from

    pi(a) ~ w(a) exp(-control [SHARPNESS cost(a) + INERTIA changed(a)] - FLUENCY nats(a)),    changed(a) <= budget

cost: missed targets, harshness, uneven bars (control.py); nats: the network's own code length of the whole grid, each
cell hidden once; w: whole tracks rather than halves, rests for tracks that are asked to rest, so that none sounds for
ever. diffusion/phrases.py has the chain and what its end is worth.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import control as attributes
from eqdiff_jax import targets
from eqdiff_jax.conditioning import LAYOUT, encoder
from eqdiff_jax.conditioning.layout import SIZE
from eqdiff_jax.denoiser import roformer_of
from eqdiff_jax.diffusion import (
    SAMPLERS,
    absorbing,
    bounded_change,
    classifier_free,
    commitment,
    legal_log_posterior,
    phrases,
    sample,
)
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.music.attributes import Sums, sums
from eqdiff_jax.music.grid import BAR, REST, STEPS, TRACKS
from eqdiff_jax.statistics import Statistics
from eqdiff_jax.targets import TargetMap
from eqdiff_jax.types import Array, Change, Params, Predict

# W: slots that report the music itself do not count, or the music would pay for its own changes; the latent's velocity,
# 0.94 of the length of dc in dances as it is scaled, counts a quarter; energy, which an audience sees first, threefold.
SLOT_WEIGHTS = np.ones(SIZE, np.float32)
for _name, _weight in (("activations", 0.0), ("velocity", 0.25), ("energy", 3.0)):
    SLOT_WEIGHTS[LAYOUT[_name]] = _weight
INERTIA = 0.005  # nats for a changed cell, so that nothing changes for nothing
FLUENCY = 0.15  # share of the network's nats
HALVES = 1.0  # nats against a track whose bars come from different grids
TIRED, REST_COST = 1 / 16, 10.0  # chance that a sounding track is asked to rest in the next grid, nats if it does not
MOST_CANDIDATES = 16
WARM, MOVES, ROUNDS = 288, 36, 4  # of the chain
PROCESS = absorbing(len(VOCABULARY))
_LEGAL = LEGAL[:, None, :]  # [12, 1, 81]


def music(params: Params) -> Params:
    """The part of a checkpoint's parameters that `compose` reads: all but the motion chain's."""
    return {name: params[name] for name in ("encoder", "denoiser", "statistics")}


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


def predictor(params: Params, conditioning: Array, guidance: Array | float | None = None,
              negative: Array | None = None) -> Predict:
    """`posterior`, guided: two passes run as one batch of 2 B, then mix, log p ~ w log p_c + (1 - w) log p_u.

    p_u is unconditional, or, with `negative` [B, 104], that of a conditioning to keep away from. None: the guidance
    scale of params["statistics"].
    """
    scale = params["statistics"].guidance if guidance is None else guidance
    batch = conditioning.shape[0]
    other = conditioning if negative is None else negative
    given = (jnp.arange(2 * batch) < batch) | (negative is not None)
    both = posterior(params, jnp.concatenate([conditioning, other]), given)

    def predict(tokens: Array, t: Array) -> Array:
        conditional, unconditional = jnp.split(both(jnp.concatenate([tokens, tokens]), t), 2)
        return classifier_free(conditional, unconditional, scale)

    return predict


@partial(jax.jit, static_argnames=("candidates", "sampler"))
def compose(key: Array, params: Params, conditioning: Array, previous: Array, *,
            previous_conditioning: Array | None = None, bucket: Array | int = 0, candidates: int = 1,
            steps: Array | int = 0, temperature: Array | float = 0.0, guidance: Array | float | None = None,
            control: Array | float = 1.0, target_map: TargetMap = targets.DEFAULT,
            kappa: Array | float | None = None, slack: Array | int | None = None, cap: Array | int | None = None,
            negative: Array | None = None,
            sampler: str = "analytic") -> Change:
    """The next grid, at most `budget` cells away from the previous one, by whole phrases.

    Args:
      key: consumed; example i uses fold_in(key, i) only.
      params: a dict with `encoder`, `denoiser` and the `statistics` of their training data.
      conditioning: [104] or [B, 104] of the new window.
      previous: int [12, 32] or [B, 12, 32]; all masks (81) means there is none, and every cell may change. Masks in
        a part of it are filled, the rest stays, and the budget is at least their number.
      previous_conditioning: what made `previous`, shaped as conditioning; None: as if nothing had moved.
      bucket: scalar or [B], what earlier grids left unspent: `Change.bucket` of the one before.
      candidates: freshly drawn grids that phrases are taken from.
      steps, temperature: scalar or [B]; 0 takes them from the window's prediction_confidence.
      guidance: scale of classifier-free guidance, 1 for none; None, as for the budget below: the statistics' own.
      control: scalar or [B], how strongly the targets count; 0 leaves the network's distribution alone, of which then
        phrases are taken by chance, and nothing falls silent that the network did not silence.
      target_map: which targets the movement asks for (`targets.compiled`).
      kappa, slack, cap: the budget floor(min(cap, bucket + kappa ||W (c - c_prev)|| 384 + slack)).
      negative: a conditioning to keep away from, shaped as conditioning (`predictor`).
      sampler: a name of `diffusion.SAMPLERS`.
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
    statistics = params["statistics"]
    kappa = statistics.kappa if kappa is None else kappa
    slack = statistics.slack if slack is None else slack
    cap = statistics.cap if cap is None else cap
    steps, temperature = _committed(conditioning, steps, temperature)
    asked = targets.targets(conditioning, statistics, target_map)

    def repeated(x: Array) -> Array:
        return jnp.repeat(x, candidates, axis=0)

    strength = jnp.broadcast_to(jnp.asarray(control, jnp.float32), steps.shape)
    guided = predictor(params, repeated(conditioning), guidance, None if negative is None else repeated(negative))
    weight = jnp.asarray(target_map.weight)
    predict = attributes.controlled(guided, repeated(asked), weight, statistics, repeated(strength),
                                    repeated(temperature))
    own = posterior(params, conditioning, jnp.ones(len(conditioning), bool))
    change = transition(key, predict, own, conditioning, previous, previous_conditioning, bucket, candidates=candidates,
                        steps=steps, temperature=temperature, control=strength, asked=asked,
                        weight=weight, statistics=statistics, kappa=kappa, slack=slack, cap=cap,
                        sampler=sampler)
    return jax.tree.map(lambda x: x[0] if x.ndim else x, change) if single else change


def hide(tokens: Array, tracks: Sequence[int] = (), bars: Sequence[int] = ()) -> Array:
    """`tokens` [..., 12, 32] with whole tracks (0 to 11) and whole bars (0, 1) masked, for `infill`."""
    track = jnp.isin(jnp.arange(tokens.shape[-2]), jnp.asarray(tracks, jnp.int32))[:, None]
    bar = jnp.isin(jnp.arange(tokens.shape[-1]) // BAR, jnp.asarray(bars, jnp.int32))
    return jnp.where(track | bar, PROCESS.mask, tokens)


def infill(key: Array, params: Params, conditioning: Array, tokens: Array, **options) -> Change:
    """The masked cells of `tokens` filled, the others kept bit for bit: accompaniment, continuation, repair.

    compose with a budget of exactly the masks, and control 0, as what is kept may be anybody's and need not be made up
    for; arguments and result as there.
    `infill(key, params, c, hide(grid, tracks=(4, 5)))` makes two tracks anew, `hide(grid, bars=(1,))` a second bar.
    """
    return compose(key, params, conditioning, tokens, slack=0, cap=0, **{"control": 0.0} | options)


def _committed(conditioning: Array, steps: Array | int, temperature: Array | float) -> tuple[Array, Array]:
    """Steps and temperature [B], where they are 0 those of the commitment rule."""
    auto_steps, auto_temperature = commitment(conditioning[:, LAYOUT["prediction_confidence"]][:, 0])
    steps = jnp.broadcast_to(jnp.asarray(steps, jnp.int32), auto_steps.shape)
    temperature = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), auto_steps.shape)
    return (jnp.maximum(jnp.where(steps > 0, steps, auto_steps), 1),
            jnp.where(temperature > 0, temperature, auto_temperature))


def asked_to_rest(key: Array, held: Array) -> Array:
    """Which tracks of each grid are, by chance, of those that sound. [B, 12, 32] -> bool [B, 12]"""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(held)))
    chance = jax.vmap(lambda k: jax.random.bernoulli(k, TIRED, held.shape[1:2]))(keys)
    return chance & jnp.any(held != REST, axis=-1)


def pairs(candidates: int) -> list[tuple[int, int]]:
    """Where the two bars of a track may come from: 0 the previous grid, 1 silence, 2, 3, ... the candidates.

    The bars of two candidates never meet in one track. The first pair keeps what plays.
    """
    sources = range(2 + candidates)
    return [(a, b) for a, b in product(sources, sources) if a == b or min(a, b) < 2]


def transition(key: Array, predict: Predict, own: Predict, conditioning: Array, previous: Array,
               previous_conditioning: Array, bucket: Array | int, *, candidates: int, steps: Array, temperature: Array,
               control: Array, asked: Array, weight: Array, statistics: Statistics, kappa: Array | float,
               slack: Array | int, cap: Array | int, sampler: str) -> Change:
    """`compose` for any two predictors, batched: budget, candidates by `predict`, phrases by `own` and the targets.

    predict takes the candidates of all examples as one batch [B candidates, ...]. Other arguments as there.
    """
    mask, batch, cells = PROCESS.mask, len(previous), previous[0].size
    key_sample, key_score, key_chain, key_rest = jax.random.split(key, 4)
    moved = bounded_change.distance(conditioning, previous_conditioning, SLOT_WEIGHTS)
    level = bounded_change.level(bucket, moved, cells, kappa=kappa, slack=slack, cap=cap)
    holes = jnp.sum(previous == mask, axis=(1, 2))  # masked cells have to be filled, whatever the budget
    allowed = jnp.maximum(holes, level // bounded_change.UNITS)

    partial_grid = (holes > 0)[:, None, None]
    start = jnp.repeat(jnp.where(partial_grid, previous, mask), candidates, axis=0)
    drawn = sample(key_sample, predict, PROCESS, start.shape, sampler=SAMPLERS[sampler], initial=start,
                   steps=jnp.repeat(steps, candidates), temperature=jnp.repeat(temperature, candidates))
    grids = drawn.tokens.reshape(batch, candidates, *previous.shape[1:])
    invalid = drawn.invalid.reshape(batch, candidates)
    held = jnp.where(previous == mask, REST, previous)
    base = jnp.where(partial_grid & ~invalid[:, 0, None, None], grids[:, 0], held)

    choices = np.array(pairs(candidates))
    sources = jnp.concatenate([jnp.stack([base, jnp.full_like(base, REST)], axis=1), grids], axis=1)
    bars = sources.reshape(batch, -1, len(TRACKS), STEPS // BAR, BAR)
    rows = jnp.concatenate([bars[..., i, :][:, choices[:, i]] for i in (0, 1)], axis=-1)  # [B, C, 12, 32]
    rows = jnp.where(rows == mask, REST, rows)  # of invalid candidates, never taken
    spent = jnp.sum(rows != previous[:, None], axis=-1).swapaxes(1, 2)
    broken = jnp.concatenate([jnp.zeros((batch, 2), bool), invalid], axis=1)
    refused = broken[:, choices].any(-1) | ((choices == 1).any(-1) & (control[:, None] <= 0))  # [B, C]
    # Where grid 0 has been filled in for the previous one it is there already, and meets no other.
    filled = (partial_grid[:, 0, 0] & ~invalid[:, 0])[:, None]
    refused |= filled & ((choices == 2).any(-1) | ((choices == 0).any(-1) & (choices > 2).any(-1)))
    log_weight = -HALVES * (choices[:, 0] != choices[:, 1]) - (INERTIA * control)[:, None, None] * spent
    awake = asked_to_rest(key_rest, held)[..., None] & jnp.any(rows != REST, axis=-1).swapaxes(1, 2)
    log_weight -= (REST_COST * control)[:, None, None] * awake
    parts = phrases.Parts(
        features=jax.tree.map(lambda x: x.swapaxes(1, 2), sums(rows)), spent=spent.astype(jnp.int32), allowed=allowed,
        log_weight=jnp.where(refused[:, None], -jnp.inf, log_weight), data=(asked, control))

    def together(choice: Array) -> Array:
        return jnp.take_along_axis(rows, choice[:, None, :, None], axis=1)[:, 0]

    def energy(features: Sums, data: tuple[Array, Array]) -> Array:
        wanted, strength = data
        return attributes.SHARPNESS * strength * attributes.cost(features, wanted, weight, statistics)

    def nats(choice: Array) -> Array:
        likelihood = bounded_change.cell_log_likelihood(key_score, own, together(choice), mask)
        return -FLUENCY * likelihood.sum((1, 2))

    choice = phrases.delayed(key_chain, parts, energy, nats, jnp.zeros((batch, len(TRACKS)), jnp.int32), warm=WARM,
                             moves=MOVES, rounds=ROUNDS).choice
    failed = jnp.all(invalid, axis=1)
    tokens = jnp.where(failed[:, None, None], held, together(choice))
    changed = jnp.sum(tokens != previous, axis=(1, 2))
    left = jnp.maximum(level - bounded_change.UNITS * changed.astype(jnp.int32), 0)
    return Change(tokens, changed, allowed, steps, temperature, drawn.evaluations, failed, left)
