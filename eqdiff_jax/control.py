"""Attribute control: the network's distribution tilted towards the targets, and what a grid costs that misses them.

    controlled : q(v) ~ p(v) e^(lambda s(v)) for the number of notes and the spread of melodies, before a grid is drawn
    cost       : weights . (achieved - targets)^2 + harshness beyond recorded music + bars that are not alike busy
"""

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.diffusion import tilt
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import VOCABULARY
from eqdiff_jax.music.attributes import Sums, harsh, of_sums
from eqdiff_jax.music.descriptors import ONSETS_PER_UNIT
from eqdiff_jax.music.grid import SOUNDS, TRACKS
from eqdiff_jax.statistics import LEVELS, Statistics
from eqdiff_jax.targets import NAMES, achieved, wanted
from eqdiff_jax.types import Array, Predict

MOST = 10.0  # strength of control
# At strength 1, the most log odds by which a note, and an octave from the melody's centre, is moved.
NOTES, SPREAD = 2.0, 10.0
SHARPNESS = 300.0  # beta: a rank missed by 0.1 is e^-3 times as likely
HARSH_WEIGHT = 0.7  # of the share of harsh time beyond that of the median training grid
UNEVEN_WEIGHT = 2.0  # of how unlike the two bars' numbers of notes are, |a - b| / (a + b + FEW), beyond UNEVEN_ABOVE
UNEVEN_ABOVE, FEW = 0.1, 16.0
_INDEX = {name: i for i, name in enumerate(NAMES)}
_PITCHED = np.isin(np.arange(len(VOCABULARY)), VOCABULARY.ranges["pitch"])
_PITCH = np.array([VOCABULARY.pitch(i) if pitched else 0 for i, pitched in enumerate(_PITCHED)], np.float32)


def check(strength: float) -> None:
    """Raise InputError for a strength of control that cannot be used."""
    if not 0.0 <= strength <= MOST:
        raise InputError(f"--control is {strength:g}: use 0 .. {MOST:g}")


def cost(total: Sums, asked: Array, weight: Array, statistics: Statistics) -> Array:
    """How far grids with these sums are from the targets, and from music no harsher than recorded whose bars are alike
    busy: live, a bar is heard for two seconds before another grid comes. [...]

    asked, weight: [7], or with the axes of the sums in front.
    """
    missed = jnp.sum(weight * (achieved(of_sums(total), statistics) - asked) ** 2, axis=-1)
    uneven = jnp.abs(2.0 * total.early - total.onsets) / (total.onsets + FEW)
    return (missed + HARSH_WEIGHT * jnp.maximum(harsh(total) - statistics.harsh, 0.0) ** 2
            + UNEVEN_WEIGHT * jnp.maximum(uneven - UNEVEN_ABOVE, 0.0) ** 2)


def goals(asked: Array, weight: Array, statistics: Statistics) -> tuple[Array, Array]:
    """Notes, and semitones of spread, that a whole grid of the network's should have. targets [B, 7] -> [B], [B]

    Phrases of it will sound in as many tracks as `layers` asks for, so what counts is the notes of a track:
    notes = wanted notes / wanted tracks * SOUNDING, within what grids of training have. Two targets ask for notes,
    density and intensity: their mean by weight [7] says how many.
    """
    pull = weight[jnp.array([_INDEX["density"], _INDEX["intensity"]])]
    rank = (asked[..., _INDEX["density"]] * pull[0] + asked[..., _INDEX["intensity"]] * pull[1]) / _or_one(pull.sum())
    density = jnp.minimum(wanted("density", rank, statistics), 0.95)
    onsets = -ONSETS_PER_UNIT * jnp.log1p(-density)
    tracks = jnp.maximum(asked[..., _INDEX["layers"]] * len(TRACKS), 1.0)
    spread_rank = jnp.clip(asked[..., _INDEX["range"]], LEVELS[1], LEVELS[-2])
    fewest, most = jnp.asarray(statistics.notes)
    return (jnp.clip(onsets / tracks * statistics.sounding, fewest, most),
            jnp.interp(spread_rank, LEVELS, jnp.asarray(statistics.spreads)))


def spread(probabilities: Array) -> Array:
    """Mean distance of pitched notes from the mean pitch of their track, in semitones. [B, 12, 32, 81] -> [B]

    probabilities of each cell; of a grid, ones and zeros. 0 where no pitched note can be.
    """
    pitched = probabilities * _PITCHED
    return jnp.sum(pitched * _distance(pitched), axis=(1, 2, 3)) / _or_one(jnp.sum(pitched, axis=(1, 2, 3)))


def _distance(pitched: Array) -> Array:
    """Semitones from the centre of the track, [B, 12, 1, 81], for probabilities of pitched notes [B, 12, 32, 81]."""
    centre = jnp.sum(pitched * _PITCH, axis=(2, 3)) / _or_one(jnp.sum(pitched, axis=(2, 3)))
    return jnp.abs(_PITCH - centre[..., None])[:, :, None]


def _or_one(x: Array) -> Array:
    return jnp.where(x > 0, x, 1.0)


def controlled(predict: Predict, asked: Array, weight: Array, statistics: Statistics, strength: Array | float,
               temperature: Array | float = 1.0) -> Predict:
    """`predict`, its hidden cells tilted towards the goals of targets [B, 7] with weights [7], given cells counted in.

    First the spread, which moves pitches and leaves alone how likely a cell is pitched: over all pitched notes,
    distance - goal adds up to 0 in the mean, with the centres as they were. Then the number of notes (written ones:
    macros are not read). strength, scalar or [B], scales the most log odds of both, NOTES per note and SPREAD per
    octave; 0 is `predict`. Sums are those at the temperature, scalar or [B], at which cells will be drawn.
    """
    count, semitones = goals(asked, weight, statistics)
    strength, temperature = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), count.shape)
                             for x in (strength, temperature))
    divisor = temperature[:, None, None, None]

    def tilted(tokens: Array, t: Array) -> Array:
        hidden = tokens == VOCABULARY.mask
        given = jax.nn.one_hot(tokens, len(VOCABULARY))  # all zero for the mask
        log = jax.nn.log_softmax(predict(tokens, t) / divisor)
        within = jnp.where(_PITCHED, log, -jnp.inf)
        melodic = jnp.any(within > -jnp.inf, axis=-1)
        within = jnp.where(melodic[..., None], within, 0.0)  # never read
        likely = jax.nn.logsumexp(within, axis=-1)  # log probability of a pitched note
        pitched = jnp.where(hidden[..., None], jnp.exp(log), given) * _PITCHED
        octaves = (_distance(pitched) - semitones[:, None, None, None]) / 12.0
        moved = tilt(within, octaves, jnp.where(hidden & melodic, jnp.exp(likely), 0.0),
                     -jnp.sum(given * _PITCHED * octaves, axis=(1, 2, 3)), SPREAD * strength)
        log = jnp.where(_PITCHED & melodic[..., None], moved + likely[..., None], log)
        log = tilt(log, jnp.asarray(SOUNDS, log.dtype), hidden.astype(log.dtype),
                   count - jnp.sum(given * SOUNDS, axis=(1, 2, 3)), NOTES * strength)
        return divisor * log

    return tilted
