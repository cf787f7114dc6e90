"""What a movement asks of the music, and how nearly grids, and laws of cells, do it.

    standing: where a value is among its like over the pairs of training, 0 to 1, F_k for what grids have, G_k for what
              movements ask (data/pairing.py matched their ranks)
    goals   : the number of notes, and the spread of the melodies, that stand where the movement stands
    follow  : the network's law, tilted towards both goals (diffusion/tilting.py)

The tables below are those of `shippable` (data/standing.py makes them).
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.diffusion import tilt
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import DESCRIPTORS, VOCABULARY
from eqdiff_jax.music.descriptors import ONSETS_PER_UNIT
from eqdiff_jax.music.grid import SOUNDS
from eqdiff_jax.music.metrics import FIDELITY
from eqdiff_jax.types import Array, Predict

SLOTS = [LAYOUT[name].start for name in FIDELITY]  # of the conditioning: what is asked
HEARD = [DESCRIPTORS.index(name) for name in FIDELITY.values()]  # of the descriptors: what a grid has of it
LEVELS = np.linspace(0.0, 1.0, 13)  # of the tables

# Quantiles over complete training pairs of `shippable`, in the order of FIDELITY; semitones of spread.
ASKED = np.array([
    (0.000, 0.033, 0.114, 0.233, 0.333, 0.406, 0.510, 0.663, 0.891, 0.920, 0.946, 0.973, 0.996),
    (0.000, 0.244, 0.270, 0.289, 0.308, 0.322, 0.340, 0.367, 0.410, 0.464, 0.517, 0.580, 0.778),
    (0.000, 0.073, 0.160, 0.221, 0.281, 0.361, 0.456, 0.549, 0.618, 0.698, 0.760, 0.814, 0.931),
    (0.040, 0.182, 0.281, 0.340, 0.393, 0.447, 0.506, 0.591, 0.715, 0.802, 0.945, 0.978, 1.000),
    (0.122, 0.197, 0.227, 0.266, 0.308, 0.350, 0.419, 0.514, 0.659, 0.778, 0.870, 0.967, 1.000),
])
HAS = np.array([
    (0.080, 0.298, 0.381, 0.430, 0.487, 0.523, 0.556, 0.592, 0.628, 0.658, 0.704, 0.757, 0.895),
    (0.000, 0.092, 0.167, 0.214, 0.244, 0.268, 0.292, 0.319, 0.345, 0.375, 0.417, 0.479, 0.875),
    (0.000, 0.045, 0.080, 0.101, 0.117, 0.135, 0.154, 0.171, 0.189, 0.208, 0.230, 0.268, 1.000),
    (0.000, 0.058, 0.092, 0.121, 0.144, 0.162, 0.180, 0.200, 0.224, 0.249, 0.276, 0.322, 1.000),
    (0.000, 0.307, 0.407, 0.447, 0.482, 0.516, 0.543, 0.567, 0.596, 0.623, 0.661, 0.725, 1.000),
])
SPREADS = np.array((
    0.000, 0.667, 1.399, 1.724, 1.976, 2.160, 2.321, 2.553, 2.799, 3.064, 3.453, 3.981, 6.200))

MOST = 10.0  # strength of following
# At strength 1, the most log odds by which a note, and an octave from the melody's centre, is leaned on.
NOTES, SPREAD = 2.0, 10.0
_PITCHED = np.isin(np.arange(len(VOCABULARY)), VOCABULARY.ranges["pitch"])
_PITCH = np.array([VOCABULARY.pitch(i) if pitched else 0 for i, pitched in enumerate(_PITCHED)], np.float32)


def check(strength: float) -> None:
    """Raise InputError for a strength of following that cannot be used."""
    if not 0.0 <= strength <= MOST:
        raise InputError(f"--follow is {strength:g}: use 0 .. {MOST:g}")


def standing(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Where each value stands among its like: [N, K], increasing quantiles [K, Q] -> [N, K] in [0, 1]."""
    levels = np.linspace(0.0, 1.0, quantiles.shape[1])
    return np.stack([np.interp(column, row, levels) for column, row in zip(values.T, quantiles, strict=True)], axis=-1)


def goals(conditioning: Array) -> tuple[Array, Array]:
    """Notes, and semitones of spread, that stand where periodicity and curvature do. [B, 104] -> [B], [B]

    The outermost twelfths are left out, so that a still body does not ask for the emptiest grid of all: 34 to 136
    notes, 0.67 to 3.98 semitones.
    """
    def found(k: int, table: np.ndarray) -> Array:
        level = jnp.interp(conditioning[:, SLOTS[k]], ASKED[k], LEVELS)
        return jnp.interp(jnp.clip(level, LEVELS[1], LEVELS[-2]), LEVELS, table)

    density, range_ = (list(FIDELITY.values()).index(name) for name in ("density", "range"))
    return -ONSETS_PER_UNIT * jnp.log1p(-found(density, HAS[density])), found(range_, SPREADS)


def spread(law: Array) -> Array:
    """Mean distance of pitched notes from the mean pitch of their track, in semitones. [B, 12, 32, 81] -> [B]

    law: the probabilities of each cell; of a grid, ones and zeros. 0 where no pitched note can be.
    """
    pitched = law * _PITCHED
    return jnp.sum(pitched * _distance(pitched), axis=(1, 2, 3)) / _or_one(jnp.sum(pitched, axis=(1, 2, 3)))


def _distance(pitched: Array) -> Array:
    """Semitones from the centre of the track, [B, 12, 1, 81], for probabilities of pitched notes [B, 12, 32, 81]."""
    centre = jnp.sum(pitched * _PITCH, axis=(2, 3)) / _or_one(jnp.sum(pitched, axis=(2, 3)))
    return jnp.abs(_PITCH - centre[..., None])[:, :, None]


def _or_one(x: Array) -> Array:
    return jnp.where(x > 0, x, 1.0)


def follow(predict: Predict, conditioning: Array, strength: Array | float, temperature: Array | float = 1.0) -> Predict:
    """`predict`, its hidden cells leaned towards the goals of conditioning [B, 104], with those that stand counted in.

    First the spread, which moves pitches and leaves alone how likely a cell is pitched: over all pitched notes,
    distance - goal adds up to 0 in the mean, with the centres of the law as it was. Then the number of notes (written
    ones: macros are not read). strength, scalar or [B], scales the most log odds of both, NOTES per note and SPREAD per
    octave; 0 is `predict`. Sums are those of the law at the temperature, scalar or [B], at which it will be drawn from.
    """
    count, semitones = goals(conditioning)
    strength, temperature = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), count.shape)
                             for x in (strength, temperature))
    heat = temperature[:, None, None, None]

    def leaning(tokens: Array, t: Array) -> Array:
        hidden = tokens == VOCABULARY.mask
        stands = jax.nn.one_hot(tokens, len(VOCABULARY))  # all zero for the mask
        log = jax.nn.log_softmax(predict(tokens, t) / heat)
        within = jnp.where(_PITCHED, log, -jnp.inf)
        melodic = jnp.any(within > -jnp.inf, axis=-1)
        within = jnp.where(melodic[..., None], within, 0.0)  # never read
        likely = jax.nn.logsumexp(within, axis=-1)  # log probability of a pitched note
        pitched = jnp.where(hidden[..., None], jnp.exp(log), stands) * _PITCHED
        octaves = (_distance(pitched) - semitones[:, None, None, None]) / 12.0
        moved = tilt(within, octaves, jnp.where(hidden & melodic, jnp.exp(likely), 0.0),
                     -jnp.sum(stands * _PITCHED * octaves, axis=(1, 2, 3)), SPREAD * strength)
        log = jnp.where(_PITCHED & melodic[..., None], moved + likely[..., None], log)
        log = tilt(log, jnp.asarray(SOUNDS, log.dtype), hidden.astype(log.dtype),
                   count - jnp.sum(stands * SOUNDS, axis=(1, 2, 3)), NOTES * strength)
        return heat * log

    return leaning
