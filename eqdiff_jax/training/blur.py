"""Less conditioning than there is: what keeps 104 numbers from being a name tag of their window.

A window's z and velocity alone, 64 numbers, tell it from all others, and so do the dynamics that nothing was paired by:
a network learns the grid that stood beside it by heart, and what is learned by heart is wrong for movement that was not
seen. So each slot is mixed with noise that has its own mean and deviation. Mean and deviation of what the network sees
stay the same, and conditioning without noise is nothing new to it: the encoder's LayerNorm would otherwise take it for
a stronger one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.conditioning import LAYOUT, SIZE
from eqdiff_jax.data.pairing import ASKED
from eqdiff_jax.types import Array

TRUE = ("genre",)  # belongs to the music: no noise
# What music met movement by, and what it played before, which tells a piece: `noise` times their deviation.
TRUSTED = (*ASKED, "bpm", "activations")
OTHERS = 8.0  # times as much in all other slots
GROUPS = (("z", "velocity"), ("activations",), ("section",), ("genre",))  # forgotten together

_SHARE = np.zeros(SIZE, np.float32)
_GROUP = np.zeros(SIZE, int)  # 0: never forgotten, n: with GROUPS[n - 1]
for _name, _place in LAYOUT.items():
    _SHARE[_place] = 0.0 if _name in TRUE else 1.0 if _name in TRUSTED else OTHERS
for _number, _names in enumerate(GROUPS, 1):
    for _name in _names:
        _GROUP[LAYOUT[_name]] = _number


class Spread(NamedTuple):
    """How conditioning varies in a dataset."""

    mean: np.ndarray  # float32 [104]
    deviation: np.ndarray  # float32 [104]


def spread(conditioning: np.ndarray, paired: np.ndarray) -> Spread:
    """Mean and standard deviation of each slot over the rows [N, 104] that are paired [N]; zeros where none is."""
    rows = conditioning[paired] if paired.any() else np.zeros((1, SIZE))
    return Spread(rows.mean(0, dtype=np.float64).astype(np.float32), rows.std(0, dtype=np.float64).astype(np.float32))


def blur(key: Array, conditioning: Array, over: Spread, *, noise: float, forget: float) -> Array:
    """m + (c - m + n s e) / sqrt(1 + n^2), e ~ N(0, I), then each of GROUPS zeroed with probability `forget`. [104]

    m, s: mean and deviation of the slot. n: `noise` on the slots of TRUSTED, 0 on those of TRUE, elsewhere OTHERS times
    `noise`. Zero is what a slot holds that nothing is known of (`conditioning.assemble`).
    """
    key_noise, key_forget = jax.random.split(key)
    n = noise * _SHARE
    kept = 1.0 / jnp.sqrt(1.0 + n**2)
    mixed = conditioning + (kept - 1.0) * (conditioning - over.mean) + kept * n * over.deviation * jax.random.normal(
        key_noise, conditioning.shape)  # without noise exactly c
    gone = jax.random.bernoulli(key_forget, forget, (len(GROUPS) + 1,)).at[0].set(False)
    return jnp.where(gone[_GROUP], 0.0, mixed)
