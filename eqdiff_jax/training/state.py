"""What training carries from step to step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from eqdiff_jax import data, motion
from eqdiff_jax.conditioning import SIZE, encoder
from eqdiff_jax.denoiser import Roformer
from eqdiff_jax.music import VOCABULARY
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.types import Array, Params


class TrainState(NamedTuple):
    """Everything a resumed run needs; the data position is the step itself."""

    step: Array  # [] int32
    params: Params  # {"encoder": …, "denoiser": …}, float32
    ema: Params  # the same tree, exponential moving average
    opt_state: optax.OptState


def network(config: ConfigDict) -> Roformer:
    """The denoiser that a config describes."""
    return Roformer(width=config.width, depth=config.depth, vocab=len(VOCABULARY), patch=config.patch,
                    condition_tokens=config.condition_tokens, rank=config.rank, dtype=jnp.dtype(config.dtype),
                    remat=config.remat)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW with linear warm-up and cosine decay to a tenth.

    The network's matrices decay only: those of the motion chain become orthogonal ones, whose size says nothing.
    """
    def decays(params: Params):
        return {part: jax.tree.map(lambda p, part=part: p.ndim > 1 and part != "motion", tree)
                for part, tree in params.items()}

    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, max(config.steps, config.warmup_steps + 1),
        0.1 * config.learning_rate)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=config.weight_decay,
                    mask=decays))


def init_params(key: Array, config: ConfigDict) -> Params:
    """Fresh encoder and denoiser parameters, and the chain's where perception is trained; the key is consumed."""
    key_encoder, key_denoiser = jax.random.split(key)
    params = {
        "encoder": encoder.init(key_encoder, jnp.zeros((1, SIZE)))["params"],
        "denoiser": network(config).init(
            key_denoiser, jnp.zeros((1, *SHAPE), jnp.int32), jnp.zeros((1, 768)))["params"],
    }
    if config.perception != "given":
        params["motion"] = motion.init_params(jax.random.key(data.motion_seed(config.data)))
    return params


def init_state(key: Array, config: ConfigDict) -> TrainState:
    """State before the first step; the key is consumed."""
    params = init_params(key, config)
    return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), optimizer(config).init(params))
