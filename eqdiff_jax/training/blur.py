"""Less conditioning than there is: what keeps 104 numbers from being a name tag of their window.

A window's z and velocity alone, 64 numbers, tell it from all others, and so do the dynamics that nothing was paired by:
a network learns the grid that stood beside it by heart, and what is learned by heart is wrong for movement that was not
seen. Noise is counted in each slot's own standard deviation, or it would drown the quantities that vary least.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.conditioning import LAYOUT, SIZE
from eqdiff_jax.data.pairing import ASKED
from eqdiff_jax.types import Array

# Standard deviation of a slot over the training pairs of `shippable`.
DEVIATION = {
    "z": 0.13, "velocity": 0.20,
    "curvature": 0.14, "curvature_rate": 0.014, "periodicity": 0.35, "internal_tempo": 0.46, "phase": 0.12,
    "tension": 0.27, "grounding": 0.28, "verticality": 0.07, "coherence": 0.30, "lr_pan": 0.09,
    "genre": 0.13, "section": 0.18, "activations": 0.17, "energy": 0.28, "transition_intensity": 0.23,
    "prediction_confidence": 0.28, "bpm": 0.37}
TRUE = ("genre", "activations")  # belong to the music: no noise
PAIRED = (*ASKED, "bpm")  # what music met movement by: noise of `noise` deviations
OTHERS = 8.0  # times as many for all other slots
GROUPS = (("z", "velocity"), ("activations",), ("section",), ("genre",))  # forgotten together

_SCALE = np.zeros(SIZE, np.float32)
_GROUP = np.zeros(SIZE, int)  # 0: never forgotten, n: with GROUPS[n - 1]
for _name, _place in LAYOUT.items():
    _SCALE[_place] = DEVIATION[_name] * (0.0 if _name in TRUE else 1.0 if _name in PAIRED else OTHERS)
for _number, _names in enumerate(GROUPS, 1):
    for _name in _names:
        _GROUP[LAYOUT[_name]] = _number


def blur(key: Array, conditioning: Array, *, noise: float, forget: float) -> Array:
    """conditioning [104] + noise s e, e ~ N(0, I), each of GROUPS zeroed with probability `forget`. [104]

    s is DEVIATION on the slots of PAIRED, 0 on those of TRUE, and OTHERS times DEVIATION elsewhere. Zero is what a slot
    holds that nothing is known of (`conditioning.assemble`).
    """
    key_noise, key_forget = jax.random.split(key)
    noisy = conditioning + noise * _SCALE * jax.random.normal(key_noise, conditioning.shape)
    gone = jax.random.bernoulli(key_forget, forget, (len(GROUPS) + 1,)).at[0].set(False)
    return jnp.where(gone[_GROUP], 0.0, noisy)
