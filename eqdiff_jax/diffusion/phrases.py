"""Bounded change by phrases: a distribution over ways to put a grid together from parts of others, and a chain that
draws from it.

A grid has T tracks, track t takes one of C parts, at `spent[t, c]` changed cells. Of all choices a that together spend
no more than allowed,

    pi(a) ~ prod_t w[t, a_t] exp(-energy(sum_t features[t, a_t]) - late(a)),    sum_t spent[t, a_t] <= allowed

`energy` reads sums over tracks and is cheap; `late` may be anything dear, such as a network's code length.

    gibbs   : one track at a time, drawn from its exact conditional; reversible for pi without `late`
    delayed : n of those moves are one proposal, accepted with min(1, exp(late(a) - late(a'))): reversible for pi

Choices that change nothing are always allowed, so the chain can go from any choice to any other. After finitely many
moves its law lies between that of its start and pi; tests measure how far on worlds that can be enumerated.
Reference: Christen and Fox, Markov chain Monte Carlo using an approximation, 2005 (delayed acceptance).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.diffusion.categorical import categorical
from eqdiff_jax.types import Array


class Parts(NamedTuple):
    """What each track can be, for one grid."""

    features: Any  # pytree of [T, C, ...], added up over the chosen parts
    log_weight: Array  # [T, C] log w, -inf for a part that cannot be
    spent: Array  # int32 [T, C] cells that differ from the grid before
    allowed: Array  # int32 [] cells that may differ in all
    data: Any = None  # what else `energy` reads


class Drawn(NamedTuple):
    """Result of `delayed`."""

    choice: Array  # int32 [T]
    accepted: Array  # [] share of the proposals that were


def total(features: Any, choice: Array) -> Any:
    """Features of the chosen parts, added up. [T, C, ...], [T] -> [...]"""
    return jax.tree.map(lambda x: x[jnp.arange(len(choice)), choice].sum(0), features)


def gibbs(key: Array, parts: Parts, energy: Callable[[Any, Any], Array], choice: Array, moves: Array | int
          ) -> Array:
    """`moves` tracks, picked at random, drawn anew one after the other. int32 [T]

    energy(features [C, ...], data) -> [C]. choice must be possible. The key is consumed.
    """
    tracks = len(choice)

    def move(i: Array, carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
        choice, sums, used = carry
        key_track, key_part = jax.random.split(jax.random.fold_in(key, i))
        t = jax.random.randint(key_track, (), 0, tracks)
        here = jax.tree.map(lambda x: x[t], parts.features)
        others = jax.tree.map(lambda s, x: s - x[choice[t]], sums, here)
        left = parts.allowed - used + parts.spent[t, choice[t]]
        candidates = jax.tree.map(lambda s, x: s[None] + x, others, here)
        logits = jnp.where(parts.spent[t] <= left, parts.log_weight[t] - energy(candidates, parts.data), -jnp.inf)
        part = categorical(key_part, logits)
        sums = jax.tree.map(lambda s, x: s + x[part], others, here)
        return choice.at[t].set(part), sums, parts.allowed - left + parts.spent[t, part]

    used = parts.spent[jnp.arange(tracks), choice].sum()
    return jax.lax.fori_loop(0, moves, move, (choice, total(parts.features, choice), used))[0]


def delayed(key: Array, parts: Parts, energy: Callable[[Any, Any], Array], late: Callable[[Array], Array],
            choice: Array, *, warm: int, moves: int, rounds: int) -> Drawn:
    """A batch of chains: `warm` Gibbs moves, then `rounds` proposals of `moves` each. choice int32 [B, T]

    parts with a leading axis B; energy(features [C, ...], data) -> [C]; late maps choices [B, T] to [B], and is called
    rounds + 1 times. A proposal whose `late` is not finite is refused. Example b uses fold_in(key, b) only. The key is
    consumed.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(choice)))

    def propose(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        choice, cost, accepted = carry
        first = i == 0  # the warm walk, taken whatever it costs
        step, far = jnp.maximum(2 * i - 1, 0), jnp.where(first, warm, moves)
        new = jax.vmap(lambda k, p, c: gibbs(jax.random.fold_in(k, step), p, energy, c, far))(keys, parts, choice)
        price = late(new)
        coin = jax.vmap(lambda k: jax.random.exponential(jax.random.fold_in(k, 2 * i)))(keys)
        # log u < cost - price for u uniform; where the start's cost is not finite, anything finite is better
        take = first | (jnp.isfinite(price) & ((price - cost < coin) | ~jnp.isfinite(cost)))
        return jnp.where(take[:, None], new, choice), jnp.where(take, price, cost), accepted + (take & ~first)

    if rounds == 0:
        walk = jax.vmap(lambda k, p, c: gibbs(jax.random.fold_in(k, 0), p, energy, c, warm))
        return Drawn(walk(keys, parts, choice), jnp.zeros(len(choice)))
    start = (choice, jnp.zeros(len(choice)), jnp.zeros(len(choice)))
    choice, _, accepted = jax.lax.fori_loop(0, rounds + 1, propose, start)  # one loop: `late` is compiled once
    return Drawn(choice, accepted / rounds)
