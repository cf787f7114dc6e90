"""Conditioning through the motion chain, so that the loss on the music reaches DELL and LIM-RPS (phase 3).

    c = (mean z*, mean dz*/dt over the window, all else as the pair has it),   roughness = mean |dz*/dt|^2

z* are the equilibria of `motion.equilibrium_chain`. The parametrisation of DELL and LIM-RPS keeps every certificate
whatever the parameters are, so joint training cannot lose them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.conditioning.layout import SCALE
from eqdiff_jax.motion.chain import MotionParams
from eqdiff_jax.motion.dell import RATE
from eqdiff_jax.motion.equilibrium_chain import DEFAULT_SOLVER, equilibrium_chain
from eqdiff_jax.types import Array, Solver

MODES = ("given", "frozen", "joint")  # conditioning as stored; through the chain as it is; the chain learns too


def perceive(params: MotionParams, conditioning: Array, limbs: Array, inside: Array, *,
             solver: Solver = DEFAULT_SOLVER) -> tuple[Array, Array]:
    """(conditioning [B, 104] with z and velocity made anew, roughness [B] in 1/s^2).

    limbs float32 [B, T, 27, 8], T a multiple of 24; inside bool [B, T]: frames of the window, nowhere for a pair
    without limbs, which keeps its conditioning and has roughness 0. solver: of every equilibrium.
    """
    found = jax.vmap(lambda x: equilibrium_chain(params, x, solver=solver))(limbs)
    weight = inside / jnp.maximum(inside.sum(1, keepdims=True), 1)
    z, velocity = (jnp.einsum("bt,btd->bd", weight, x) for x in found)
    seen = conditioning.at[:, LAYOUT["z"]].set(z).at[:, LAYOUT["velocity"]].set(velocity / SCALE["velocity"])
    conditioning = jnp.where(inside.any(1)[:, None], seen, conditioning)
    change = jnp.diff(found.z, axis=1) * RATE
    return conditioning, jnp.sum(jnp.sum(change**2, axis=-1) * weight[:, 1:], axis=1)


_perceive = jax.jit(perceive, static_argnames="solver")


def perceived(params: MotionParams, columns: dict[str, np.ndarray], batch: int = 32, *,
              solver: Solver = DEFAULT_SOLVER) -> dict[str, np.ndarray]:
    """Columns with the conditioning [N, 104] that this chain gives to their limbs; the limbs are left out."""
    count, rows = len(columns["conditioning"]), []
    for start in range(0, count, batch):
        chosen = np.minimum(np.arange(start, start + batch), count - 1)  # the last batch is padded, then cut
        rows.append(_perceive(params, *(columns[name][chosen] for name in ("conditioning", "limbs", "inside")),
                              solver=solver)[0])
    kept = {name: column for name, column in columns.items() if name not in ("limbs", "inside")}
    return kept | {"conditioning": np.concatenate(rows)[:count]}
