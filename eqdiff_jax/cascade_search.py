"""What `lipschitz_cascade` measures: the worst local changes that a search finds, each a lower estimate.

Every search maximises a norm of J d over directions d by alternation, d <- the best direction for the present output,
which never decreases it (the generalised power method for a convex function). All starts run in one program.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.composer import PROCESS, compose, music, posterior
from eqdiff_jax.conditioning.encoder import Encoder, Layers, forward
from eqdiff_jax.conditioning.layout import SCALE
from eqdiff_jax.contraction.jacobian import local_lipschitz
from eqdiff_jax.contraction.search import worst_lipschitz
from eqdiff_jax.control import controlled
from eqdiff_jax.diffusion import classifier_free
from eqdiff_jax.motion import MotionWeights, dell, lim_rps
from eqdiff_jax.motion.dell import FAST, FEATURE_LIMITS, LIMITS, SLOW
from eqdiff_jax.motion.lim_rps import GAMMA, LATENT, TAU
from eqdiff_jax.motion.skeleton import REST
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.targets import DEFAULT, targets
from eqdiff_jax.types import Array, Params

REST_FRAME = np.pad(REST, ((0, 0), (0, 5))).astype(np.float32)
REST_FRAME[:, 7] = 1.0
SWEEPS = 48  # of the joint system: 0.9^48 = 6e-3 at the worst, 1e-6 for ordinary weights


def frozen_latent(weights: MotionWeights, inputs: Array) -> Array:
    """z_raw [32] at the joint equilibrium of the features l = `inputs` [216] held for ever."""

    def sweep(state, _):
        h, y = state
        return (dell.fast_map(weights.dell, h, y, inputs), dell.slow_map(weights.dell, y, weights.dell.w_out @ h)), None

    (h, y), _ = jax.lax.scan(sweep, (jnp.zeros(FAST), jnp.zeros(SLOW)), length=SWEEPS)
    return dell.BLEND[0] * weights.dell.w_out @ h + dell.BLEND[1] * y


class Worst(NamedTuple):
    """Largest local constants found at a frozen frame; z_rest is z_raw -> z* at rest."""

    features: Array  # confidences held
    features_free: Array
    z_raw: Array
    z_rest: Array
    limbs: Array


@partial(jax.jit, static_argnames="steps")
def frozen_search(weights: MotionWeights, frames: Array, corner: Array, steps: int) -> Worst:
    """Worst local constants at frozen frames, by gradient ascent from `frames` [S, 27, 8] and their features.

    `corner` [27, 8] is where changing confidences count most.
    """
    limits = jnp.asarray(LIMITS)
    inputs = jnp.concatenate([jnp.zeros((1, FEATURE_LIMITS.size)), jax.vmap(dell.features)(frames)])

    def inside(frame: Array) -> Array:  # strictly: at the border clipping has slope 0 or 1/2
        return jnp.clip(frame, -0.999 * limits, 0.999 * limits).at[:, 7].set(jnp.clip(frame[:, 7], 1e-3, 0.999))

    def held(limbs: Array) -> Array:
        return dell.features(jnp.concatenate([limbs[:, :7], jax.lax.stop_gradient(limbs[:, 7:])], axis=1))

    def rest(z: Array) -> Array:
        return jnp.linalg.solve(TAU * jnp.eye(LATENT) + GAMMA * weights.cross[:LATENT, :LATENT], TAU * z)

    def worst(f, starts: Array, project) -> Array:
        return worst_lipschitz(f, starts, steps=steps, rate=0.02, project=project, inner=16).ratio

    def here(f, points: Array) -> Array:  # maps whose Jacobian is plain to see need no ascent
        return jnp.max(jax.lax.map(lambda x: local_lipschitz(f, x, steps=12), points))

    return Worst(
        features=here(held, frames),
        features_free=here(dell.features, corner[None]),
        z_raw=worst(lambda x: frozen_latent(weights, x), inputs, None),
        z_rest=here(rest, inputs[:1, :LATENT]),
        limbs=worst(lambda m: rest(frozen_latent(weights, held(m))), frames, inside),
    )


@partial(jax.jit, static_argnames="steps")
def encoder_search(params: Params, points: Array, steps: int) -> Array:
    """Worst local constant of `Encoder` by gradient ascent from `points` [S, 104]. []"""
    return worst_lipschitz(lambda c: Encoder().apply({"params": params}, c), points, steps=steps, rate=0.02).ratio


@partial(jax.jit, static_argnames="steps")
def certified_search(layers: Layers, points: Array, steps: int) -> Array:
    """Worst local constant of a `CertifiedEncoder` of gain 1 by gradient ascent from `points` [S, 104]. []"""
    return worst_lipschitz(lambda c: forward(layers, c), points, steps=steps, rate=0.02).ratio


def latent_slots(weights: MotionWeights, limbs: Array) -> Array:
    """The z and velocity slots of the conditioning, frame by frame. [T, 27, 8] -> [T, 64]"""

    def frame(state, limbs):
        dell_state, d = dell.step(weights.dell, state[0], limbs)
        lim_state, s = lim_rps.step(weights.cross, state[1], d.z_raw)
        return (dell_state, lim_state), jnp.concatenate([s.z, s.velocity / SCALE["velocity"]])

    return jax.lax.scan(frame, (dell.init_state(), lim_rps.init_state()), limbs)[1]


def motions(key: Array, limbs: np.ndarray, starts: int, frames: int) -> np.ndarray:
    """`starts` motions [S, frames, 27, 8]: the rest pose, a random one, and pieces of `limbs` [T, 27, 8].

    At rest every tanh has slope 1, which is where the chain is most sensitive. The key is consumed.
    """
    key_size, key_wave = jax.random.split(key)
    time = np.arange(frames)[:, None, None] / dell.RATE
    size = np.asarray(jax.random.normal(key_size, (27, 7))) * [0.2, 0.2, 0.2, 1, 1, 1, 3]
    hertz = np.asarray(jax.random.uniform(key_wave, (27, 7), minval=0.2, maxval=3.0))
    rest = np.broadcast_to(REST_FRAME, (frames, 27, 8)).copy()
    wild = rest.copy()
    wild[..., :7] += size * np.sin(2 * np.pi * hertz * time)
    enough = np.pad(limbs, ((0, max(0, frames - len(limbs))), (0, 0), (0, 0)), mode="edge")
    at = np.linspace(0, len(enough) - frames, max(starts - 2, 1)).astype(int)
    return np.stack([rest, wild, *(enough[i:i + frames] for i in at)])[:starts].astype(np.float32)


@partial(jax.jit, static_argnames="steps")
def motion_gain(key: Array, weights: MotionWeights, bases: Array, when: Array, slots: Array, steps: int) -> Array:
    """Worst |sum_t when_t slots (c_t(m + d) - c_t(m))| for small d with |d_t| <= 1 in every frame. [S, R]

    c_t are the `latent_slots` of m, one of `bases` [S, T, 27, 8]; each of R rows has its own when [R, T] and slots
    [R, 64]; d leaves the confidences alone. The best d for an output direction u is J^T u normalised frame by frame.
    The key is consumed.
    """

    def unit(d: Array) -> Array:
        d = d.at[..., 7].set(0.0)
        return d / jnp.maximum(jnp.sqrt(jnp.sum(d * d, axis=(-2, -1), keepdims=True)), 1e-12)

    def from_base(key: Array, base: Array) -> Array:
        _, push = jax.linearize(partial(latent_slots, weights), base)
        pull = jax.linear_transpose(push, base)

        def row(arguments: tuple[Array, Array]) -> Array:
            times, mask = arguments

            def body(d: Array, _: None) -> tuple[Array, Array]:
                out = mask * (times @ push(d))
                return unit(pull(times[:, None] * (mask * out))[0]), jnp.linalg.norm(out)

            start = unit(jax.random.normal(key, base.shape))
            return jnp.max(jax.lax.scan(body, start, length=steps)[1])

        return jax.lax.map(row, (when, slots))

    return jax.vmap(from_base)(jax.random.split(key, len(bases)), bases)


@partial(jax.jit, static_argnames="steps")
def token_gain(key: Array, params: Params, conditioning: Array, grids: Array, control: float, steps: int
               ) -> Array:
    """Worst total variation of one hidden cell's law per |dc|, at each conditioning [S, 104] and grid. [S]

    The distribution is that of a candidate of `compose` at temperature 1, guided and controlled. |dp|_1 / 2 of the cell
    where it is largest; the best dc for its signs is J^T sign. The key is consumed.
    """
    none, statistics = posterior(params, conditioning[:1], jnp.zeros(1, bool)), params["statistics"]

    def at(key: Array, point: Array, grid: Array) -> Array:
        unconditional = none(grid[None], jnp.zeros(1))

        def law(c: Array) -> Array:
            def guided(tokens: Array, t: Array) -> Array:
                given = posterior(params, c[None], jnp.ones(1, bool))(tokens, t)
                return classifier_free(given, unconditional, statistics.guidance)

            law = controlled(guided, targets(c[None], statistics), jnp.asarray(DEFAULT.weight), statistics, control)
            return jnp.exp(law(grid[None], jnp.zeros(1)))[0]

        _, push = jax.linearize(law, point)
        pull = jax.linear_transpose(push, point)

        def body(d: Array, _: None) -> tuple[Array, Array]:
            change = push(d)
            variation = jnp.where(grid == PROCESS.mask, 0.5 * jnp.sum(jnp.abs(change), axis=-1), 0.0)
            worst = variation == jnp.max(variation)
            d = pull(jnp.sign(change) * worst[..., None])[0]
            return d / jnp.maximum(jnp.linalg.norm(d), 1e-12), jnp.max(variation)

        start = jax.random.normal(key, point.shape)
        return jnp.max(jax.lax.scan(body, start / jnp.linalg.norm(start), length=steps)[1])

    # One after the other: the network's own products already fill the machine.
    return jax.lax.map(lambda a: at(*a), (jax.random.split(key, len(grids)), conditioning, grids))


def compose_grids(key: Array, params: Params, conditioning: np.ndarray, control: float) -> np.ndarray:
    """Grids [N, 12, 32] composed one after the other for the conditionings [N, 104]. The key is consumed."""
    grid, before, grids = jnp.full(SHAPE, PROCESS.mask, jnp.int32), jnp.asarray(conditioning[0]), []
    bucket = jnp.int32(0)  # an array from the first, or it would be another program
    weights = music(params)
    for i, now in enumerate(jnp.asarray(conditioning)):
        change = compose(jax.random.fold_in(key, i), weights, now, grid, previous_conditioning=before, bucket=bucket,
                         control=control)
        grid, bucket, before = change.tokens, change.bucket, now
        grids.append(np.asarray(grid))
    return np.stack(grids)
