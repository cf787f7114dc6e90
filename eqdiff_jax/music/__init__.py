"""Tokens and sound: the vocabulary, the grid and its reading rule, notation, MIDI, pictures, rules."""

from eqdiff_jax.music.grid import FILLS, LEGAL, TRACKS, Event, events, expand, legalise
from eqdiff_jax.music.vocabulary import VOCABULARY

__all__ = ["FILLS", "LEGAL", "TRACKS", "VOCABULARY", "Event", "events", "expand", "legalise"]
