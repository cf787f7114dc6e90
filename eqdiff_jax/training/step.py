"""One training step of one device: pure, and averaged over devices by name."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from eqdiff_jax.composer import PROCESS
from eqdiff_jax.conditioning import encoder
from eqdiff_jax.diffusion import antithetic_times, legal_log_posterior, score_entropy
from eqdiff_jax.music import LEGAL
from eqdiff_jax.parallel import AXIS
from eqdiff_jax.training.state import TrainState, network, optimizer
from eqdiff_jax.types import Array, Params

_LEGAL = LEGAL[:, None, :]


def make_loss(config: ConfigDict) -> Callable[[Params, Array, dict[str, Array]], Array]:
    """loss(params, key, batch) -> mean denoising score entropy, in nats per scored cell.

    batch: tokens int32 [B, 12, 32], conditioning [B, 104]. With probability `condition_dropout` an example's
    conditioning is replaced by the null embedding (for classifier-free guidance); 1 trains without conditioning.
    """
    net = network(config)

    def loss(params: Params, key: Array, batch: dict[str, Array]) -> Array:
        key_time, key_mask, key_drop = jax.random.split(key, 3)
        tokens = batch["tokens"]
        t = antithetic_times(key_time, tokens.shape[0])
        noisy = PROCESS.corrupt(key_mask, tokens, t)
        given = ~jax.random.bernoulli(key_drop, config.condition_dropout, (tokens.shape[0],))
        embedding = encoder.apply({"params": params["encoder"]}, batch["conditioning"])
        logits = net.apply({"params": params["denoiser"]}, noisy, embedding, given)
        return score_entropy(legal_log_posterior(cast(Array, logits), _LEGAL), tokens, noisy, t, PROCESS).mean()

    return loss


def make_step(config: ConfigDict) -> Callable[[TrainState, Array, dict[str, Array]],
                                              tuple[TrainState, dict[str, Array]]]:
    """step(state, key, batch) -> (state, metrics) for one device inside the pmap of parallel.py.

    The key differs per device; gradients and metrics are averaged over the axis. EMA decay:
    min(ema_decay, (1 + step) / (10 + step)).
    """
    loss, transform = make_loss(config), optimizer(config)

    def step(state: TrainState, key: Array, batch: dict[str, Array]):
        value, grads = jax.value_and_grad(loss)(state.params, key, batch)
        value, grads = jax.lax.pmean((value, grads), AXIS)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return step
