"""Jobs and grids of a live session, as random as they come."""

import numpy as np

from eqdiff_jax.composer import PROCESS
from eqdiff_jax.live.worker import Job, Made
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.music.conductor import GENRES, initial_state, instrument_activations
from eqdiff_jax.targets import DEFAULT_RULES, Rule
from eqdiff_jax.types import Dynamics


def pair(rng, window=0, tokens=None, before=None, mode="diffusion"):
    """A job and its grid, made from the grid `before`."""
    scalars = Dynamics(*(float(np.float32(rng.uniform(row.low, row.high))) for row in TABLE))
    conductor = initial_state(int(rng.integers(2**31)))._replace(energy=float(rng.random()), style=np.int64(3))
    tokens = rng.integers(0, 81, (12, 32)).astype(np.int32) if tokens is None else tokens
    rules = DEFAULT_RULES | {"range": Rule("tension", 0.1, 0.8, "s", 0.5, {"Climax": 0.25})}
    job = Job(window, 7, mode, rng.normal(size=32).astype(np.float32), rng.normal(size=32).astype(np.float32), scalars,
              REST_FRAME, [*GENRES, None][rng.integers(9)], float(rng.uniform(40, 240)), conductor,
              np.full((12, 32), PROCESS.mask, np.int32) if before is None else before.tokens,
              None if before is None else before.conditioning, rng.random(12).astype(np.float32),
              candidates=int(rng.integers(1, 5)), control=float(rng.uniform(0.0, 2.0)),
              rules=rules if window % 5 == 4 else None, bucket=int(rng.integers(200_000)), bars=int(rng.integers(1, 3)))
    section = rng.dirichlet(np.ones(6)).astype(np.float32)
    made = Made(window, mode, tokens, 'kick: s("bd")\n', rng.normal(size=104).astype(np.float32), section, conductor,
                instrument_activations(tokens), 0.5, 27, 20, 0.95, 40, 33, 7168,
                rng.random(7).astype(np.float32), 22, 0.2, 0.05, 0.3)
    return job, made
