"""Less conditioning than there is: what keeps 104 numbers from being a name tag of their window.

A window's z and velocity, 64 numbers, tell it from all others: a network learns the grid that stood beside it by heart,
and what is learned by heart is wrong for movement that was not seen.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.conditioning import LAYOUT, SIZE
from eqdiff_jax.types import Array

OTHERS = 0.3  # noise of the other slots, beside that of z and velocity; genre and activations have none
GROUPS = (("z", "velocity"), ("activations",), ("section",), ("genre",))  # forgotten together

_SCALE = np.full(SIZE, OTHERS, np.float32)
_GROUP = np.zeros(SIZE, int)  # 0: never forgotten, n: with GROUPS[n - 1]
for _name in ("z", "velocity"):
    _SCALE[LAYOUT[_name]] = 1.0
for _name in ("genre", "activations"):
    _SCALE[LAYOUT[_name]] = 0.0
for _number, _names in enumerate(GROUPS, 1):
    for _name in _names:
        _GROUP[LAYOUT[_name]] = _number


def blur(key: Array, conditioning: Array, *, noise: float, forget: float) -> Array:
    """conditioning [104] + noise s e, e ~ N(0, I), each of GROUPS zeroed with probability `forget`. [104]

    s is 1 on z and velocity (their standard deviations over windows: 0.13 and 0.20), OTHERS on dynamics, section and
    context, 0 on genre and activations. Zero is what a slot holds that nothing is known of (`conditioning.assemble`).
    """
    key_noise, key_forget = jax.random.split(key)
    noisy = conditioning + noise * _SCALE * jax.random.normal(key_noise, conditioning.shape)
    gone = jax.random.bernoulli(key_forget, forget, (len(GROUPS) + 1,)).at[0].set(False)
    return jnp.where(gone[_GROUP], 0.0, noisy)
