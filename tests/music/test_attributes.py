"""Attributes in arrays: the same numbers as the reading rule and the descriptors give, for every integer array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.music import LEGAL, VOCABULARY, descriptors
from eqdiff_jax.music.attributes import attributes, harsh, read, sums
from eqdiff_jax.music.grid import SHAPE, TRACKS, events

_read, _attributes = jax.jit(read), jax.jit(attributes)
_harsh = jax.jit(lambda grid: harsh(jax.tree.map(lambda x: x.sum(0), sums(grid))))


def random_grid(seed, kind):
    """Anything at all; legal tokens; legal tokens with many macros, breaks and long notes."""
    rng = np.random.default_rng(seed)
    if kind == "anything":
        return rng.integers(-2, 84, SHAPE).astype(np.int32)
    weight = np.ones(len(VOCABULARY))
    if kind == "macros":
        weight[list(VOCABULARY.ranges["structure"])] = 4
        weight[list(VOCABULARY.ranges["duration"])] = 8
        weight[list(VOCABULARY.ranges["articulation"])] = 4
        weight[0] = 40
    rows = [rng.choice(len(VOCABULARY), 32, p=weight * row / (weight * row).sum()) for row in LEGAL]
    return np.array(rows, np.int32)


def check(grid):
    notes, found = events(grid), _read(grid)
    got = [(t, s) for t in range(12) for s in range(32) if found.onset[t, s]]
    assert got == [(n.track, n.onset) for n in notes]
    for n in notes:
        assert VOCABULARY.names[int(found.token[n.track, n.onset])] == (
            n.sound if isinstance(n.sound, str) else VOCABULARY.names[VOCABULARY.pitch_token(n.sound)])
        assert float(found.length[n.track, n.onset]) == n.length
        assert float(found.gain[n.track, n.onset]) == pytest.approx(n.gain, abs=1e-6)
    measured = _attributes(grid)
    for name, value in descriptors(grid)._asdict().items():
        assert float(getattr(measured, name)) == pytest.approx(value, abs=2e-5), name
    assert float(measured.intensity) == pytest.approx(1 - np.exp(-sum(n.gain for n in notes) / 48), abs=1e-5)
    assert float(measured.layers) == pytest.approx(len({n.track for n in notes}) / 12)
    assert float(_harsh(grid)) == pytest.approx(by_hand(notes), abs=1e-6)


def by_hand(notes):
    """Share of the half sixteenths with two pitches or more that hold a semitone, its inversion, or a tritone."""
    clash = together = 0
    for h in range(64):
        here = [n.sound for n in notes if not isinstance(n.sound, str) and 2 * n.onset <= h < 2 * (n.onset + n.length)]
        together += len(here) > 1
        clash += any(abs(a - b) % 12 in (1, 6, 11) for a in here for b in here)
    return clash / max(together, 1)


@given(st.integers(0, 2**31 - 1), st.sampled_from(["anything", "legal", "macros"]))
@settings(max_examples=150, deadline=None)
def test_equal_to_the_reading_rule(seed, kind):
    check(random_grid(seed, kind))


def test_silence_and_known_chords():
    check(grid_of())
    for chord, share in (("C4 F4", 0.0), ("C4 F#4", 1.0), ("C4 B4", 1.0), ("C4 C5", 0.0), ("E4 F5", 1.0)):
        grid = grid_of(**{t: p for t, p in zip(("PAD", "ARP"), chord.split(), strict=True)})
        check(grid)
        assert float(_harsh(grid)) == share


def test_sums_add_up_over_tracks_and_axes_in_front():
    grids = np.array([[random_grid(i + 2 * j, "legal") for i in range(2)] for j in range(3)])
    whole = _attributes(grids)
    for j in range(3):
        for i in range(2):
            one = _attributes(grids[j, i])
            jax.tree.map(lambda a, b, j=j, i=i: np.testing.assert_allclose(a[j, i], b, atol=1e-6), whole, one)
    parts = sums(jnp.asarray(grids[0, 0]))
    assert parts.chroma.shape == (12, 64, 12) and parts.onsets.shape == (len(TRACKS),)
