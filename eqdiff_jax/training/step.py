"""One training step of one device: pure, and summed over devices by name.

Noise, times and dropout belong to an example's place in the global batch, not to the device that computes it: one
device, eight, or two hosts of four take the same step, to rounding.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from eqdiff_jax.composer import PROCESS
from eqdiff_jax.conditioning import encoder
from eqdiff_jax.diffusion import antithetic_times, legal_log_posterior
from eqdiff_jax.equilibrium import SOLVERS
from eqdiff_jax.music import LEGAL
from eqdiff_jax.music.grid import REST
from eqdiff_jax.parallel import AXIS
from eqdiff_jax.training.blur import blur
from eqdiff_jax.training.objective import OBJECTIVES
from eqdiff_jax.training.perception import perceive
from eqdiff_jax.training.state import TrainState, network, optimizer
from eqdiff_jax.types import Array, Params

_LEGAL = LEGAL[:, None, :]
Batch = dict[str, Array]


class Sums(NamedTuple):
    """What a part of a batch adds up to; divided by the cells they are the metrics."""

    loss: Array  # nats
    cells: Array  # observed ones
    roughness: Array  # of z*, times the example's cells


def make_loss(config: ConfigDict) -> Callable[[Params, Array, Batch], tuple[Array, Sums]]:
    """loss(params, key, batch) -> (what is minimised, summed over cells; its parts).

    batch: tokens int32 [B, 12, 32], observed bool [B, 12], conditioning [B, 104], paired bool [B], place int32 [B], the
    example's number in the global batch of `config.batch`. Tracks that are not observed stay masked and cost nothing.
    Where `paired` is False, and else with probability `condition_dropout`, the null embedding takes the place of the
    conditioning (for classifier-free guidance); a probability of 1 trains without. Times are stratified over the global
    batch (`antithetic_times`). The conditioning is blurred (blur.py). With config.perception frozen or joint the batch
    has limbs and inside, too, and z comes from them (perception.py); joint adds smoothness * roughness per cell.
    """
    net, objective = network(config), OBJECTIVES[config.loss]

    def loss(params: Params, key: Array, batch: Batch) -> tuple[Array, Sums]:
        key_time, key_noise, key_drop, key_blur = jax.random.split(key, 4)
        place, conditioning = batch["place"], batch["conditioning"]
        observed = jnp.broadcast_to(batch["observed"][..., None], batch["tokens"].shape)
        tokens = jnp.where(observed, batch["tokens"], REST)
        t = antithetic_times(key_time, config.batch)[place]

        def one(place, tokens, t, paired):
            noisy, level = objective.draw(jax.random.fold_in(key_noise, place), tokens[None], t[None])
            given = ~jax.random.bernoulli(jax.random.fold_in(key_drop, place), config.condition_dropout)
            return noisy[0], level[0], given & paired

        noisy, level, given = jax.vmap(one)(place, tokens, t, batch["paired"])
        roughness = jnp.zeros(len(place))
        if config.perception != "given":
            chain = params["motion"] if config.perception == "joint" else jax.lax.stop_gradient(params["motion"])
            conditioning, roughness = perceive(chain, conditioning, batch["limbs"], batch["inside"],
                                               solver=SOLVERS[config.solver])
        blurred = jax.vmap(lambda place, c: blur(jax.random.fold_in(key_blur, place), c, noise=config.condition_noise,
                                                 forget=config.condition_forget))(place, conditioning)
        embedding = encoder.apply({"params": params["encoder"]}, blurred)
        logits = net.apply({"params": params["denoiser"]}, jnp.where(observed, noisy, PROCESS.mask), embedding, given)
        cost = objective.cost(legal_log_posterior(cast(Array, logits), _LEGAL), tokens, noisy, level)
        cells = observed.sum((1, 2))
        sums = Sums(jnp.where(observed, cost, 0.0).sum(), cells.sum(), (roughness * cells).sum())
        return sums.loss + config.smoothness * sums.roughness, sums

    return loss


def make_step(config: ConfigDict) -> Callable[[TrainState, Array, Batch], tuple[TrainState, dict[str, Array]]]:
    """step(state, key, batch) -> (state, metrics) for one device inside the pmap of parallel.py.

    The key is the same on every device. The device's part of the batch is worked off in `accumulate` pieces, whose
    gradients add up; then sums of nats, cells and gradients are taken over the axis and divided by the cells: the
    step is that of the mean cost per observed cell, however the batch is cut. EMA decay: min(ema_decay,
    (1 + step) / (10 + step)).
    """
    loss, transform = make_loss(config), optimizer(config)

    def step(state: TrainState, key: Array, batch: Batch):
        pieces = jax.tree.map(lambda x: x.reshape(config.accumulate, -1, *x.shape[1:]), batch)

        def add(total, piece):
            (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(state.params, key, piece)
            return jax.tree.map(jnp.add, total, (sums, grads)), None

        nothing = (Sums(jnp.float32(0), jnp.int32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, state.params))
        total, _ = jax.lax.scan(add, nothing, pieces, unroll=config.accumulate == 1)
        sums, grads = jax.lax.psum(total, AXIS)
        grads = jax.tree.map(lambda g: g / sums.cells, grads)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        metrics = {"loss": sums.loss / sums.cells, "grad_norm": optax.tree.norm(grads)}
        if config.perception != "given":
            metrics["roughness"] = sums.roughness / sums.cells
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return step
