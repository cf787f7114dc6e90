"""The one pmap: a per-device function over all local devices, and the layout it wants."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

AXIS = "devices"  # for lax.pmean inside a per-device function


def data_parallel(step: Callable, donate: tuple[int, ...] = (0,)) -> Callable:
    """step(state, batch, ...) on every local device at once; arguments carry a leading device axis."""
    return jax.pmap(step, axis_name=AXIS, donate_argnums=donate)


def replicate(tree):
    """One copy per local device: [...] -> [devices, ...], laid out as pmap's own outputs are."""
    count = jax.local_device_count()
    stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), tree)
    return jax.pmap(lambda x: x)(stacked)  # other layouts would compile the step a second time


def unreplicate(tree):
    """The first device's copy."""
    return jax.tree.map(lambda x: x[0], tree)


def shard(tree):
    """Split the batch axis over the local devices: [B, ...] -> [devices, B / devices, ...]."""
    count = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), tree)
