"""What may be said and how strongly: legality masks and classifier-free guidance, both on the posterior."""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.types import Array


def legal_log_posterior(logits: Array, legal: Array | np.ndarray) -> Array:
    """log softmax over the legal tokens only, -inf elsewhere. logits [..., V], legal bool broadcastable to it."""
    return jax.nn.log_softmax(jnp.where(legal, logits, -jnp.inf))


def classifier_free(conditional: Array, unconditional: Array, weight: Array | float) -> Array:
    """Guided log posterior: log p ~ w log p_c + (1 - w) log p_u, -inf where either is. [..., V]

    w = 1 is the conditional posterior, w = 0 the unconditional one. Normalised again.
    """
    impossible = jnp.isneginf(conditional) | jnp.isneginf(unconditional)
    mix = weight * jnp.where(impossible, 0.0, conditional) + (1.0 - weight) * jnp.where(
        impossible, 0.0, unconditional)
    return jax.nn.log_softmax(jnp.where(impossible, -jnp.inf, mix))
