"""The Conductor (v1): a movement's dynamics and a remembered section become a grid, by rules.

    section   : Intro -> Groove -> Build -> Climax -> Breakdown -> Outro, with hysteresis
    size      : energy says how many tracks play, section and genre which
    patterns  : periodicity -> density, curvature -> melodic range, tension -> dissonance, grounding -> bass
                weight, prediction confidence -> how alike the two bars are
    rules     : tension > 0.7 raises hi-hat density, energy > 0.8 bass gain, energy < 0.3 pad gain,
                transition intensity > 0.5 reverb

`conduct` is a pure function of the state, the dynamics, the genre and the seed kept in the state.
"""

import math

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.music import arranger, patterns
from eqdiff_jax.music.arranger import Plan
from eqdiff_jax.music.grid import HALF_BAR, REST, STEPS, TRACKS, events
from eqdiff_jax.music.patterns import GENRES
from eqdiff_jax.music.sections import (
    BREAKDOWN,
    BUILD,
    CLIMAX,
    INTRO,
    OUTRO,
    SECTIONS,
    ConductorState,
    advance,
    initial_state,
)
from eqdiff_jax.music.vocabulary import DEFAULT_DYNAMICS, VELOCITIES, VOCABULARY
from eqdiff_jax.types import Dynamics

__all__ = ["GENRES", "SECTIONS", "ConductorState", "conduct", "initial_state", "instrument_activations"]

# Rules of the specification.
HATS_ABOVE_TENSION = 0.7
BASS_ABOVE_ENERGY = 0.8
PAD_BELOW_ENERGY = 0.3
REVERB_ABOVE_TRANSITION = 0.5

# Where each genre lies in (energy, periodicity, tension, curvature), for a genre left unspecified.
_GENRE_PROTOTYPES = np.array([[0.6, 0.8, 0.3, 0.4], [0.75, 0.9, 0.7, 0.2], [0.8, 0.6, 0.6, 0.7],
                              [0.45, 0.55, 0.4, 0.4], [0.1, 0.2, 0.3, 0.5], [0.5, 0.6, 0.2, 0.5],
                              [0.8, 0.5, 0.6, 0.5], [0.6, 0.7, 0.3, 0.8]])
_HALVES = {"speed": 0.5, "acceleration": 5.0}  # body heights/s and /s^2 that count as a half
_IDS = VOCABULARY.ids
_ROW = {name: i for i, name in enumerate(TRACKS)}
_REPEAT, _FILL, _BREAK = VOCABULARY.ranges["structure"]
_DYNAMICS = tuple(_IDS[name] for name in VELOCITIES)
_MF = tuple(VELOCITIES).index(DEFAULT_DYNAMICS)
_SECTION_TRACKS = np.array([[int(c) for c in row] for row in patterns.SECTION_TRACKS]) / 9.0
_GENRE_TRACKS = {g: np.array([int(c) for c in row]) / 9.0 for g, row in patterns.GENRE_TRACKS.items()}
_WET = tuple(_ROW[t] for t in ("PAD", "LEAD", "VOX", "AMB", "STAB", "ARP", "SNARE", "CLAP", "FX"))
_DISTORTS = {"rock": 0.4, "techno": 0.5, "breakbeat": 0.55}  # tension x energy above which a genre distorts
_MINOR_THIRD = {"dorian", "minor", "phrygian"}  # modes that the pitched fills belong to


def conduct(state: ConductorState, dynamics: Dynamics[float], genre: str | None = None,
            *, bars: int = 2) -> tuple[ConductorState, np.ndarray, np.ndarray]:
    """One window of two bars.

    Args:
      state: from `initial_state` or the call before.
      dynamics: the window's means, in the ranges of motion/dynamics.py; what lies outside is clipped. Speed
        and acceleration count as x / (x + half), half 0.5 body heights/s and 5 body heights/s^2.
      genre: a name of GENRES, or None: the movement and the seed choose one at the start of each section.
      bars: since the call before; the grid is two bars all the same.
    Returns:
      The next state, the grid int32 [12, 32] (every token legal in its track), and the probabilities of the
      six sections, float32 [6], summing to 1.
    Raises:
      InputError for an unknown genre, or for dynamics that are not finite numbers.
    """
    motion = _bounded(dynamics)
    if genre is not None and genre not in GENRES:
        raise InputError(f"unknown genre {genre!r}: choose one of {', '.join(GENRES)}, or none")
    state, probabilities = advance(state, motion, bars)
    style = GENRES.index(genre) if genre else state.style
    if style < 0 or (genre is None and state.bars == 0):
        style = _choose_style(state, motion)
    state = state._replace(style=style)
    grid = _compose(state, motion, float(probabilities[CLIMAX]))
    return state._replace(bars=state.bars + bars, total=state.total + bars), grid, probabilities


def instrument_activations(grid) -> np.ndarray:
    """How much each track plays: float32 [12] in [0, 1].

    1 - prod over its notes of (1 - gain * length / 32): nothing is 0, a note held through two bars at full
    gain is 1, and each further note adds its share of what is left.
    """
    silent = np.ones(len(TRACKS))
    for note in events(grid):
        silent[note.track] *= 1.0 - note.gain * note.length / STEPS
    return (1.0 - silent).astype(np.float32)


def _bounded(dynamics: Dynamics[float]) -> Dynamics[float]:
    """The dynamics as floats, bounded as `conduct` says; raises InputError if one is not finite."""
    values: dict[str, float] = {}
    for name, value in zip(Dynamics._fields, dynamics, strict=True):
        number = float(value)
        if not math.isfinite(number):
            raise InputError(f"dynamics.{name} is {number}: the Conductor needs finite numbers")
        if name in ("verticality", "lr_pan", "curvature_rate", "coherence"):
            number = min(max(number, -1.0), 1.0)
        elif name == "phase":
            number %= 1.0
        elif name in _HALVES:
            number = max(number, 0.0)
            number /= number + _HALVES[name]
        elif name != "internal_tempo":
            number = min(max(number, 0.0), 1.0)
        values[name] = number
    return Dynamics(**values)


def _choose_style(state: ConductorState, motion: Dynamics[float]) -> int:
    """A genre near the movement, perturbed by the performance's own Gumbel noise: a draw from a softmax."""
    noise = np.random.default_rng((state.seed, 1)).gumbel(size=len(GENRES))
    here = np.array([motion.energy, motion.periodicity, motion.tension, motion.curvature])
    return int(np.argmax(noise - 4.0 * ((here - _GENRE_PROTOTYPES) ** 2).sum(1)))


def _compose(state: ConductorState, motion: Dynamics[float], climax: float) -> np.ndarray:
    steady = np.random.default_rng((state.seed, state.visits, 2)).random((12, 8))
    rng = np.random.default_rng((state.seed, state.total, 3))
    fresh, cells = rng.random((12, 8)), rng.random((12, 32))
    genre = GENRES[state.style]
    modes = patterns.MODES[genre]
    mode = modes[min(int(motion.tension * len(modes)), len(modes) - 1)]
    plan = Plan(
        genre=genre, scale=patterns.SCALES[mode], tonic=state.tonic,
        chords=_chords(mode, motion.prediction_confidence, steady[0, 6], steady[0, 7]),
        density=motion.periodicity * (0.65 + 0.35 * motion.speed), hats=int(motion.tension > HATS_ABOVE_TENSION),
        curvature=motion.curvature, rising=motion.curvature_rate > -0.1, tension=motion.tension,
        grounding=motion.grounding, confidence=motion.prediction_confidence, height=math.tanh(4.0 * motion.verticality),
        speed=motion.speed, accents=motion.acceleration, rotation=motion.phase,
        steady=steady, fresh=fresh, cells=cells)
    playing = _playing(state.section, motion, genre, steady[:, 7])
    grid = np.full((len(TRACKS), STEPS), REST, np.int32)
    effects = _effects(state.section, motion, genre, playing, steady)
    for t in playing:
        row = arranger.write_row(arranger.voice(TRACKS[t], plan))
        swell = _swell(state.section, t)
        _structure(row, t, state, motion, climax, mode, fresh[t], fresh[0, 6], swell)
        _shape(row, _level(t, motion, steady[t, 6]), swell, effects[t])
        grid[t] = row
    return grid


def _chords(mode: str, confidence: float, u: float, v: float) -> tuple[int, ...]:
    """Scale degrees of the four half-bars: one chord when confident, up to four when not."""
    family = patterns.PROGRESSIONS["minor" if mode in _MINOR_THIRD else "major"]
    level = min(max(int((1.0 - confidence) * len(family) + 0.6 * (u - 0.5)), 0), len(family) - 1)
    return tuple(int(c) for c in family[level][int(v * len(family[level]))])


def _playing(section: int, motion: Dynamics[float], genre: str, u: np.ndarray) -> list[int]:
    """The tracks that play: as many as energy asks for, those that section, genre and balance want most."""
    least, most = patterns.SECTION_SIZES[section]
    count = round(least + (most - least) * motion.energy)
    want = _SECTION_TRACKS[section] + 0.7 * _GENRE_TRACKS[genre] + 0.25 * u
    want[[_ROW["KICK"], _ROW["BASS"]]] += 0.8 * (motion.grounding - 0.5)
    lean = 0.3 * math.tanh(4.0 * motion.lr_pan)  # right: lead and arpeggio, left: voice and stabs
    want[[_ROW["LEAD"], _ROW["ARP"]]] += lean
    want[[_ROW["VOX"], _ROW["STAB"]]] -= lean
    return sorted(np.argsort(-want, kind="stable")[:count].tolist())


def _level(track: int, motion: Dynamics[float], u: float) -> int:
    """Dynamics of a track, 0 (pp) to 5 (ff)."""
    level = 0.4 + 3.9 * motion.energy + 0.6 * (u - 0.5)
    name = TRACKS[track]
    if name in ("KICK", "BASS"):
        level += 1.6 * (motion.grounding - 0.5)
    if name == "BASS" and motion.energy > BASS_ABOVE_ENERGY:
        level += 1.0
    if name == "PAD" and motion.energy < PAD_BELOW_ENERGY:
        level += 1.5
    if name in ("AMB", "FX", "ARP"):
        level -= 0.5
    return min(max(round(level), 0), len(_DYNAMICS) - 1)


def _swell(section: int, track: int) -> tuple[int, ...]:
    """Steps of dynamics added in the four half-bars: Build swells, Outro fades."""
    if section == BUILD and TRACKS[track] in ("SNARE", "HH", "PAD", "ARP", "FX"):
        return (-1, 0, 0, 1)
    if section == OUTRO:
        return (0, 0, -1, -1)
    return ()


def _effects(section: int, motion: Dynamics[float], genre: str, playing: list[int], u: np.ndarray) -> list[list[int]]:
    """Effect tokens of each track."""
    effects: list[list[int]] = [[] for _ in TRACKS]
    low = [t for t in playing if TRACKS[t] in ("BASS", "PAD", "ARP", "STAB")]
    bright = [t for t in playing if TRACKS[t] in ("HH", "PAD", "ARP", "KICK")]
    if section in (INTRO, OUTRO, BREAKDOWN) and motion.energy < 0.5:
        for t in low:
            effects[t].append(_IDS["lpf"])
    if section == BUILD and motion.transition_intensity > 0.4:
        for t in bright:
            effects[t].append(_IDS["hpf"])
    for t in playing:  # body and phrase apart: echoes
        if TRACKS[t] in ("LEAD", "STAB", "VOX", "ARP", "FX") and u[t, 5] > 0.75 + 0.5 * motion.coherence:
            effects[t].append(_IDS["delay"])
    wet = sorted((t for t in playing if t in _WET), key=lambda t: u[t, 4])
    share = max(motion.transition_intensity - REVERB_ABOVE_TRANSITION, 0.0) / (1.0 - REVERB_ABOVE_TRANSITION)
    for t in wet[:math.ceil(share * len(wet))]:
        effects[t].append(_IDS["reverb"])
    if motion.tension * motion.energy > _DISTORTS.get(genre, 0.75):
        for t in playing:
            if TRACKS[t] in (("LEAD", "STAB", "BASS") if genre == "rock" else ("BASS", "KICK")):
                effects[t].append(_IDS["dist"])
    return effects


def _structure(row: list[int], track: int, state: ConductorState, motion: Dynamics[float], climax: float, mode: str,
               u: np.ndarray, turn: float, swell: tuple[int, ...]) -> None:
    """Macros, in place: `repeat` for a half-bar like the one before, a fill to end a phrase, a break to drop."""
    drum = TRACKS[track] in ("KICK", "SNARE", "HH", "CLAP", "FX")
    drop = motion.transition_intensity > 0.9 or (state.section == BUILD and climax > 0.35)
    phrase_ends = state.bars % 8 == 6 or motion.transition_intensity > 0.7
    fits = drum or (TRACKS[track] in ("LEAD", "ARP") and mode in _MINOR_THIRD and state.tonic == 0)
    macro = REST
    if drop and TRACKS[track] in ("KICK", "BASS", "STAB", "ARP", "PAD"):
        macro = _BREAK
    elif (phrase_ends or drop) and fits and state.section not in (INTRO, OUTRO):
        macro = _FILL if u[4] < (0.9 if TRACKS[track] == "SNARE" else 0.45 if drum else 0.2) else REST
    halves = [row[i:i + HALF_BAR] for i in range(0, STEPS, HALF_BAR)]
    if macro != REST:
        start = STEPS - (HALF_BAR if turn < 0.6 else HALF_BAR // 2)
        row[start:] = [macro] + [REST] * (STEPS - start - 1)
    for i in range(1, len(halves) - (macro != REST)):
        if not swell and halves[i] == halves[i - 1] and any(halves[i]):
            row[i * HALF_BAR:(i + 1) * HALF_BAR] = [_REPEAT] + [REST] * (HALF_BAR - 1)


def _shape(row: list[int], level: int, swell: tuple[int, ...], effects: list[int]) -> None:
    """Dynamics and effects into free cells, in place; what finds no cell is left out."""
    if swell:
        for half, step in enumerate(swell):
            wanted = min(max(level + step, 0), len(_DYNAMICS) - 1)
            if half == 0 or step != swell[half - 1]:
                _put(row, _DYNAMICS[wanted], half * HALF_BAR, (half + 1) * HALF_BAR)
    elif level != _MF:
        _put(row, _DYNAMICS[level], 0, STEPS)
    for effect in effects:
        _put(row, effect, 0, STEPS)


def _put(row: list[int], token: int, start: int, end: int) -> None:
    """The token into the first free cell behind a note in [start, end), or else the first free one."""
    sound = VOCABULARY.ranges["pitch"].start, VOCABULARY.ranges["drum"].stop
    free, heard = [], False
    step = start
    while step < end:
        if row[step] in (_REPEAT, _FILL, _BREAK):
            step = (step // HALF_BAR + 1) * HALF_BAR
            continue
        heard = heard or sound[0] <= row[step] < sound[1]
        if row[step] == REST:
            if heard:
                row[step] = token
                return
            free.append(step)
        step += 1
    if free:
        row[free[0]] = token
