"""The 104 numbers that describe a bar to the music model: one table of named slices.

    z 32 | velocity 32 | ten dynamics | genre 8 | section 6 | activations 12 | energy,
    transition_intensity, prediction_confidence, bpm

The first 74 are the movement, the last 30 the context. Every slot is scaled to order 1.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.conductor import GENRES, SECTIONS
from eqdiff_jax.music.grid import TRACKS
from eqdiff_jax.types import Array, Dynamics

_DYNAMICS = ("curvature", "curvature_rate", "periodicity", "internal_tempo", "phase", "tension", "grounding",
             "verticality", "coherence", "lr_pan")
_CONTEXT = ("energy", "transition_intensity", "prediction_confidence")
_SIZES = {"z": 32, "velocity": 32, **dict.fromkeys(_DYNAMICS, 1), "genre": len(GENRES), "section": len(SECTIONS),
          "activations": len(TRACKS), **dict.fromkeys(_CONTEXT, 1), "bpm": 1}


def _slices() -> dict[str, slice]:
    ends = np.cumsum(list(_SIZES.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(_SIZES.items(), ends, strict=True)}


LAYOUT = _slices()  # name -> slice of the 104
SIZE = sum(_SIZES.values())

# slot = (value - CENTRE) / SCALE; the names not listed pass unchanged.
CENTRE = {"internal_tempo": 120.0, "bpm": 120.0}
SCALE = {"velocity": 0.25, "internal_tempo": 60.0, "bpm": 60.0}
BPM_RANGE = (40.0, 240.0)

# Slots that jump when the motion moves a little: a tempo read off a peak, sections with hysteresis,
# and what follows from the last grid. A Lipschitz bound through them does not exist.
DISCONTINUOUS = ("internal_tempo", "section", "activations")


def genre_vector(genre: str | None) -> np.ndarray:
    """One-hot float32 [8]; all zero for None (unspecified). Raises InputError for a name not in GENRES."""
    if genre is not None and genre not in GENRES:
        raise InputError(f"unknown genre {genre!r}: choose one of {', '.join(GENRES)}, or leave it out")
    return np.array([name == genre for name in GENRES], np.float32)


def assemble(z: ArrayLike, velocity: ArrayLike, dynamics: Dynamics[ArrayLike], *, genre: str | ArrayLike | None = None,
             section: ArrayLike | None = None, activations: ArrayLike | None = None, bpm: ArrayLike = 120.0) -> Array:
    """The conditioning vector, float32 [..., 104].

    z, velocity [..., 32] and dynamics (fields [...]) are a window's means; its `phase` is the continuous slot
    of `motion.phase_slot`. genre is a name, a vector [8] or None; section [..., 6] probabilities and activations
    [..., 12] default to zero; bpm is clipped to 40..240. Raises InputError for an unknown genre.
    """
    z = jnp.asarray(z, jnp.float32)
    lead = z.shape[:-1]
    values = {"z": z, "velocity": velocity, "bpm": jnp.clip(jnp.asarray(bpm, jnp.float32), *BPM_RANGE),
              "genre": genre_vector(genre) if genre is None or isinstance(genre, str) else genre,
              "section": jnp.zeros(len(SECTIONS)) if section is None else section,
              "activations": jnp.zeros(len(TRACKS)) if activations is None else activations}
    values |= {name: getattr(dynamics, name) for name in (*_DYNAMICS, *_CONTEXT)}
    columns = []
    for name, size in _SIZES.items():
        value = jnp.asarray(values[name], jnp.float32)
        if size == 1:
            value = value[..., None]
        value = (value - CENTRE.get(name, 0.0)) / SCALE.get(name, 1.0)
        columns.append(jnp.broadcast_to(value, (*lead, size)))
    return jnp.concatenate(columns, axis=-1)
