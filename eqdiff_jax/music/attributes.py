"""Achieved attributes of grids as arrays: the reading rule and the five descriptors for many grids at once, jitted.

    tracks [..., 12, 32] -> sums of each track -> their sum over the tracks -> seven attributes

Every attribute is a function of sums over tracks, so a grid put together from parts of others is measured by adding
the sums of its tracks. Equal to `events` and `descriptors` up to float32, for every integer array.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.music.descriptors import BASS_BELOW, NEIGHBOURS, ONSETS_PER_UNIT, ROUGH, WIDEST
from eqdiff_jax.music.grid import BAR, FILLS, HALF_BAR, LEGAL, REST, SOUNDS, STEPS, TRACKS
from eqdiff_jax.music.vocabulary import DEFAULT_DYNAMICS, LENGTHS, VELOCITIES, VOCABULARY
from eqdiff_jax.types import Array

GAIN_PER_UNIT = 48.0  # summed gain at which intensity reaches 1 - 1/e
LONGEST_WEIGHT = 4.0  # sixteenths after which a longer note weighs no more in the bass
HALF_STEPS = 2 * STEPS  # times are multiples of half a sixteenth
HARSH = (1, 6)  # interval classes of minor seconds (and major sevenths) and tritones

_IDS = VOCABULARY.ids
_REPEAT, _FILL, _BREAK = VOCABULARY.ranges["structure"]
_SAID = np.array([max((n for n in LENGTHS.values() if n <= limit), default=1) for limit in range(STEPS + 1)],
                 np.float32)
_PITCHED = np.isin(np.arange(len(VOCABULARY)), VOCABULARY.ranges["pitch"])
_PITCH = np.array([VOCABULARY.pitch(i) if pitched else 0 for i, pitched in enumerate(_PITCHED)], np.int32)
_LENGTH, _VELOCITY, _FACTOR = np.zeros((3, len(VOCABULARY)), np.float32)
_LENGTH[[_IDS[name] for name in LENGTHS]] = list(LENGTHS.values())
_VELOCITY[[_IDS[name] for name in VELOCITIES]] = list(VELOCITIES.values())
_FACTOR[list(VOCABULARY.ranges["articulation"])] = [
    {"accent": 1.25, "ghost": 0.5}.get(VOCABULARY.names[i], 1.0) for i in VOCABULARY.ranges["articulation"]]
_KICK = np.arange(len(TRACKS)) == TRACKS.index("KICK")


class Notes(NamedTuple):
    """The notes of one track, at the sixteenth where each begins."""

    onset: Array  # bool [32]
    token: Array  # int32 [32] of the expanded row
    length: Array  # float32 [32] in sixteenths
    gain: Array  # float32 [32] velocity / 127


class Sums(NamedTuple):
    """What adds up over tracks."""

    onsets: Array  # [] notes
    early: Array  # [] those of them in the first bar
    gain: Array  # [] their summed gain
    sounding: Array  # [] tracks with a note
    lines: Array  # [] pitched tracks with two notes or more
    span: Array  # [] their spans, at most WIDEST semitones each
    chroma: Array  # [64, 12] summed gain of each pitch class in each half sixteenth
    squares: Array  # [64] sum of gain^2 of the pitches that sound
    pitches: Array  # [64] how many pitches sound
    rough: Array  # [] roughness between neighbours of one track
    weight: Array  # [] and how much it weighs
    low: Array  # [] weight of kick and bass
    total: Array  # [] weight of everything
    shared: Array  # [5] onsets that two bars, or two half-bars, have in common
    either: Array  # [5] onsets that at least one of them has


class Attributes(NamedTuple):
    """What a grid has of the seven targets, each in [0, 1]; the first five are `descriptors`."""

    density: Array
    range: Array
    dissonance: Array
    bass_weight: Array
    stability: Array
    intensity: Array  # 1 - exp(-summed gain / 48)
    layers: Array  # share of the tracks that sound


def _expanded(row: Array, legal: Array, fill: Array) -> tuple[Array, Array]:
    """The row without macros, and where a break stands. int32 [32], bool [32]"""
    known = (row >= 0) & (row < len(VOCABULARY))
    inside = jnp.where(known, row, REST)
    row = jnp.where(legal[inside], inside, REST)

    def step(carry: tuple[Array, Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], tuple]:
        macro, end, recent = carry
        s, token = at
        starts = (s >= end) & (token >= _REPEAT)
        macro = jnp.where(starts, token, macro)
        end = jnp.where(starts, jnp.where(token == _BREAK, (s // BAR + 1) * BAR, (s // HALF_BAR + 1) * HALF_BAR), end)
        said = jnp.select([macro == _REPEAT, macro == _FILL], [jnp.where(s >= HALF_BAR, recent[0], REST),
                                                              fill[s % HALF_BAR]], REST)
        value = jnp.where(s < end, said, token)
        return (macro, end, jnp.append(recent[1:], value)), (value, starts & (token == _BREAK))

    start = (jnp.int32(REST), jnp.int32(0), jnp.full(HALF_BAR, REST, jnp.int32))
    return jax.lax.scan(step, start, (jnp.arange(STEPS), row))[1]


def _row_notes(row: Array, legal: Array, fill: Array) -> Notes:
    """The notes of one row int [32], as `events` reads them."""
    row, breaks = _expanded(row.astype(jnp.int32), legal, fill)
    onset, now = jnp.asarray(SOUNDS)[row], jnp.arange(STEPS)

    def step(carry: tuple[Any, Any, Any, Any], at: tuple[Array, Array, Array, Array]
             ) -> tuple[tuple[Any, Any, Any, Any], tuple[Any, Any, Any, Any]]:
        length, articulation, velocity, cut = carry
        s, token, begins, breaks = at
        length = jnp.where(begins, 0.0, jnp.where(_LENGTH_OF[token] > 0, _LENGTH_OF[token], length))
        articulation = jnp.where(begins, REST, jnp.where(_FACTOR_OF[token] > 0, token, articulation))
        velocity = jnp.where(_VELOCITY_OF[token] > 0, _VELOCITY_OF[token], velocity)
        cut = jnp.where(begins, STEPS, jnp.where(breaks, jnp.minimum(cut, s), cut))
        carry = (length, articulation, velocity, cut)
        return carry, carry

    _LENGTH_OF, _FACTOR_OF, _VELOCITY_OF = (jnp.asarray(x) for x in (_LENGTH, _FACTOR, _VELOCITY))
    start = (jnp.float32(0), jnp.int32(REST), jnp.float32(VELOCITIES[DEFAULT_DYNAMICS]), jnp.int32(STEPS))
    said = jax.lax.scan(step, start, (now, row, onset, breaks))[1]
    following = jax.lax.cummin(jnp.append(jnp.where(onset, now, STEPS), STEPS), reverse=True)[1:]
    length, articulation, velocity, cut = (x[following - 1] for x in said)  # as it stands when the next note begins
    gap, limit = following - now, jnp.maximum(cut - now, 0)
    length = jnp.where(length > 0, length, 1.0)
    length = jnp.select([articulation == _IDS["stac"], articulation == _IDS["legato"]], [length / 2, gap], length)
    length = jnp.minimum(length, gap)
    length = jnp.where((cut < STEPS) & (length > limit), jnp.asarray(_SAID)[limit], length)
    factor = jnp.asarray(_FACTOR)[articulation]
    gain = jnp.minimum(velocity * jnp.where(factor > 0, factor, 1.0), 127.0) / 127.0
    return Notes(onset, row, jnp.where(onset, length, 0.0), jnp.where(onset, gain, 0.0))


def _overlaps(onset: Array, token: Array) -> tuple[Array, Array]:
    """Onsets in common and onsets in either: of the bars with and without their sounds, of neighbouring half-bars."""
    bars, halves = onset.reshape(-1, BAR), onset.reshape(-1, HALF_BAR)
    same = jnp.equal(*token.reshape(-1, BAR))
    both, count = bars[0] & bars[1], bars.sum()
    near = (halves[1:] & halves[:-1]).sum(1)
    shared = jnp.concatenate([jnp.stack([(both & same).sum(), both.sum()]), near])
    either = jnp.concatenate([count - shared[:2], (halves[1:] | halves[:-1]).sum(1)])
    return shared.astype(jnp.float32), either.astype(jnp.float32)


def _row_sums(notes: Notes, kick: Array) -> Sums:
    onset, gain, length = notes.onset, notes.gain, notes.length
    pitched = onset & jnp.asarray(_PITCHED)[notes.token]
    pitch = jnp.asarray(_PITCH)[notes.token]
    now, half = jnp.arange(STEPS), jnp.arange(HALF_STEPS)
    # One note of a track sounds at a time: the latest that has begun, until it ends.
    latest = jax.lax.cummax(jnp.where(pitched, now, -1))
    here = latest[half // 2]
    at = jnp.maximum(here, 0)
    sounds = (here >= 0) & (half < 2 * at + jnp.floor(2 * length[at]).astype(jnp.int32))
    loud = jnp.where(sounds, gain[at], 0.0)
    before = jnp.append(-1, latest[:-1])
    neighbours = pitched & (before >= 0)
    other = jnp.maximum(before, 0)
    weight = jnp.where(neighbours, NEIGHBOURS * jnp.minimum(gain, gain[other]), 0.0)
    rough = jnp.asarray(ROUGH, jnp.float32)[pitch % 12, pitch[other] % 12]
    span = jnp.max(jnp.where(pitched, pitch, 0)) - jnp.min(jnp.where(pitched, pitch, 127))
    line = pitched.sum() > 1
    heavy = gain * jnp.minimum(length, LONGEST_WEIGHT)
    shared, either = _overlaps(onset, notes.token)
    count = onset.sum().astype(jnp.float32)
    return Sums(
        onsets=count, early=onset[:BAR].sum().astype(jnp.float32), gain=gain.sum(), sounding=jnp.minimum(count, 1.0),
        lines=line.astype(jnp.float32),
        span=jnp.where(line, jnp.minimum(span, WIDEST), 0.0).astype(jnp.float32),
        chroma=loud[:, None] * jax.nn.one_hot(pitch[at] % 12, 12), squares=loud**2,
        pitches=sounds.astype(jnp.float32), rough=(weight * rough).sum(), weight=weight.sum(),
        low=jnp.sum(heavy * (kick | (pitched & (pitch < BASS_BELOW)))), total=heavy.sum(), shared=shared, either=either)


def read(tracks: Array) -> Notes:
    """The notes of rows int [..., 12, 32], one row for each track; fields [..., 12, 32]."""
    rows = jax.vmap(_row_notes)
    for _ in range(jnp.ndim(tracks) - 2):
        rows = jax.vmap(rows, (0, None, None))
    return rows(jnp.asarray(tracks), jnp.asarray(LEGAL), jnp.asarray(FILLS))


def sums(tracks: Array) -> Sums:
    """The sums of rows int [..., 12, 32]; fields with the axes [..., 12] in front."""
    rows = jax.vmap(_row_sums)
    for _ in range(jnp.ndim(tracks) - 2):
        rows = jax.vmap(rows, (0, None))
    return rows(read(tracks), jnp.asarray(_KICK))


def of_sums(total: Sums) -> Attributes:
    """The attributes of a grid from the sums of its tracks, added up; fields [...]."""
    chroma = total.chroma
    mixed = jnp.einsum("...ti,ij->...tj", chroma, jnp.asarray(ROUGH, jnp.float32))
    rough = total.rough + 0.25 * jnp.sum(mixed * chroma, axis=(-2, -1))
    weight = total.weight + 0.25 * jnp.sum(chroma.sum(-1) ** 2 - total.squares, axis=-1)
    overlap = jnp.where(total.either > 0, total.shared / jnp.maximum(total.either, 1.0), 1.0)
    return Attributes(
        density=1.0 - jnp.exp(-total.onsets / ONSETS_PER_UNIT),
        range=total.span / (WIDEST * jnp.maximum(total.lines, 1.0)),
        dissonance=jnp.where(weight > 1e-4, jnp.clip(rough / jnp.maximum(weight, 1e-4), 0.0, 1.0), 0.0),
        bass_weight=total.low / jnp.maximum(total.total, 1e-6),
        stability=(overlap[..., 0] + overlap[..., 1] + overlap[..., 2:].mean(-1)) / 3.0,
        intensity=1.0 - jnp.exp(-total.gain / GAIN_PER_UNIT), layers=total.sounding / len(TRACKS))


def harsh(total: Sums) -> Array:
    """Share of the time with two pitches or more in which a minor second, a major seventh or a tritone sounds. [...]"""
    present = total.chroma > 0
    clash = jnp.zeros(present.shape[:-1], bool)
    for interval in HARSH:
        clash |= jnp.any(present & jnp.roll(present, interval, -1), axis=-1)
    together = total.pitches > 1
    return jnp.sum(clash & together, axis=-1) / jnp.maximum(jnp.sum(together, axis=-1), 1)


def attributes(grids: Array) -> Attributes:
    """Density, range, dissonance, bass weight, stability, intensity and layers of grids int [..., 12, 32]."""
    return of_sums(jax.tree.map(lambda x: x.sum(jnp.ndim(grids) - 2), sums(grids)))
