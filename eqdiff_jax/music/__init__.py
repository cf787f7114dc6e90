"""Tokens and sound: the vocabulary, the grid and its reading rule, notation, MIDI, pictures, rules."""

from typing import TYPE_CHECKING

from eqdiff_jax import lazy
from eqdiff_jax.music.conductor import (
    GENRES,
    SECTIONS,
    ConductorState,
    conduct,
    initial_state,
    instrument_activations,
)
from eqdiff_jax.music.descriptors import DESCRIPTORS, descriptors
from eqdiff_jax.music.encode import from_events
from eqdiff_jax.music.grid import FILLS, LEGAL, TRACKS, Event, events, expand, legalise
from eqdiff_jax.music.midi import from_midi, song_from_midi, to_midi
from eqdiff_jax.music.strudel import song_to_strudel, to_strudel
from eqdiff_jax.music.strudel_parse import from_strudel, song_from_strudel
from eqdiff_jax.music.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from eqdiff_jax.music.picture import draw

__all__ = ["FILLS", "LEGAL", "TRACKS", "VOCABULARY", "Event", "events", "expand", "from_events",
           "from_midi", "from_strudel", "legalise", "song_from_midi", "song_from_strudel", "song_to_strudel",
           "to_midi", "to_strudel"]
__all__ += ["DESCRIPTORS", "GENRES", "SECTIONS", "ConductorState", "conduct", "descriptors", "draw", "initial_state",
            "instrument_activations"]

__getattr__ = lazy.attributes(__name__, draw="eqdiff_jax.music.picture")  # matplotlib takes a while
