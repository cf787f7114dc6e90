"""The one pmap: a per-device function over all devices of all processes, and the layout it wants."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

AXIS = "devices"  # for lax.pmean inside a per-device function


def data_parallel(step: Callable, donate: tuple[int, ...] = (0,)) -> Callable:
    """step(state, batch, ...) on every device at once; arguments carry a leading axis of the local devices."""
    return jax.pmap(step, axis_name=AXIS, donate_argnums=donate)


def join(coordinator: str, processes: int, process: int) -> None:
    """Make this process one of several that train together; before anything else touches JAX.

    coordinator: HOST:PORT of process 0, or "auto" under a cluster scheduler or on a pod, which know all three.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # without it hosts without accelerators cannot talk
    if coordinator == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(coordinator, processes, process)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def part(count: int) -> slice:
    """This process's share of a global batch of `count`: a multiple of the number of all devices."""
    each = count // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def first_to_all(tree):
    """The first process's copy, on every process; all wait for it."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(jnp.asarray, multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree)))


def replicate(tree):
    """One copy per local device: [...] -> [devices, ...], laid out as pmap's own outputs are."""
    count = jax.local_device_count()
    stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), tree)
    # A mesh of another name, or another layout, would compile the step a second time.
    return jax.pmap(lambda x: x, axis_name=AXIS)(stacked)


def unreplicate(tree):
    """The first local device's copy."""
    return jax.tree.map(lambda x: x.addressable_data(0).reshape(x.shape[1:]), tree)


def shard(tree):
    """Split the batch axis over the local devices: [B, ...] -> [devices, B / devices, ...]."""
    count = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), tree)


def chains(draw: Callable, key: jax.Array, count: int):
    """draw(key, first, n) for `count` independent chains, spread over all local devices; leading axis `count`.

    draw makes chains first .. first + n - 1 of a set that depends on (key, index) only, as `diffusion.sample` does, so
    that the number of devices changes nothing. Every device makes ceil(count / devices) of them and the surplus is
    dropped; fields of the result without a batch axis come from the first device.
    """
    devices = jax.local_device_count()
    each = -(-count // devices)
    found = data_parallel(lambda key, first: draw(key, first, each), donate=())(
        replicate(key), jnp.arange(devices) * each)

    def join(x: jax.Array) -> jax.Array:
        return x.reshape(devices * each, *x.shape[2:])[:count] if x.ndim > 1 else x[0]

    return jax.tree.map(join, found)
