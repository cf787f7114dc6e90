"""The section machine: Intro -> Groove -> Build -> Climax -> Breakdown -> Outro, with hysteresis.

Each section has a place in (energy, tension, transition intensity). The machine leaves the one that plays for a
section that may follow it, once the movement is clearly nearer to that one's place.
"""

from typing import NamedTuple

import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Dynamics

SECTIONS = ("Intro", "Groove", "Build", "Climax", "Breakdown", "Outro")
INTRO, GROOVE, BUILD, CLIMAX, BREAKDOWN, OUTRO = range(6)
# Where each section may go; the Outro opens again when movement returns.
SUCCESSORS = ((GROOVE,), (BUILD, BREAKDOWN), (CLIMAX, GROOVE), (BREAKDOWN,), (BUILD, GROOVE, OUTRO), (GROOVE,))

SMOOTHING = 0.6  # weight of a new window in the machine's averages
SHORTEST = 4  # bars before a section may end
STAY = 0.6  # log odds in favour of the section that plays: the hysteresis
TIRES_AFTER, TIRES_BY = 4, 0.25  # bars after which a section tires, and log odds per bar at full energy
UNREACHABLE = -3.0  # log odds of a section that cannot follow, in the returned probabilities
_SHARPNESS = 10.0  # 1 / (2 sigma^2) of the evidence
# Where each section lies in (energy, tension, transition intensity), and how much each axis counts.
_PROTOTYPES = np.array([[0.1, 0.1, 0.1], [0.4, 0.25, 0.2], [0.7, 0.55, 0.6], [0.9, 0.55, 0.4],
                        [0.25, 0.3, 0.25], [0.05, 0.08, 0.08]])
_AXES = np.array([1.0, 0.7, 0.6])


class ConductorState(NamedTuple):
    """What the Conductor remembers between windows of two bars."""

    seed: int  # of all its choices
    tonic: int  # pitch class 0..11 of the performance; 0 is C
    section: int  # index into SECTIONS
    bars: int  # played in this section
    total: int  # bars played in all
    visits: int  # sections entered
    style: int  # index into GENRES, in use since the section began
    energy: float  # smoothed, [0, 1]
    tension: float
    transition: float


def initial_state(seed: int = 0, *, tonic: int = 0) -> ConductorState:
    """The state before the first bar: an Intro that has not begun."""
    if not 0 <= tonic < 12:
        raise InputError(f"tonic is a pitch class from 0 (C) to 11 (B), got {tonic}")
    return ConductorState(seed, tonic, INTRO, 0, 0, 0, -1, 0.0, 0.0, 0.0)


def advance(state: ConductorState, motion: Dynamics[float], bars: int = 2) -> tuple[ConductorState, np.ndarray]:
    """The section machine: the state at the start of this window, and the section probabilities [6].

    log p_j = -10 |w (x - prototype_j)|^2 + (0.6 - tiring) [j plays] - 3 [j can neither stay nor follow] + constant,
    x the smoothed (energy, tension, transition intensity). After four bars the machine moves to the likeliest
    successor if it is likelier than the section that plays: the odds 0.6 are what a reverse move must win back.
    Windows are `bars` long, and smoothing is the same for two short ones as for a long one. Tiring is 0.25 energy for
    each bar beyond 4, so that a dance that never changes still gets a form.
    """
    rate = 1.0 - (1.0 - SMOOTHING) ** (bars / 2) if state.total else 1.0
    now = (motion.energy, motion.tension, motion.transition_intensity)
    old = (state.energy, state.tension, state.transition)
    energy, tension, transition = (b + rate * (a - b) for a, b in zip(now, old, strict=True))
    offset = (np.array([energy, tension, transition]) - _PROTOTYPES) * _AXES
    evidence = -_SHARPNESS * (offset ** 2).sum(1)
    reachable = np.zeros(6, bool)
    reachable[list(SUCCESSORS[state.section])] = True
    evidence[state.section] += STAY - TIRES_BY * energy * max(state.bars - TIRES_AFTER, 0)
    best = max(SUCCESSORS[state.section], key=lambda j: evidence[j])
    moves = state.bars >= SHORTEST and evidence[best] > evidence[state.section]
    reachable[state.section] = True
    evidence = np.where(reachable, evidence, evidence + UNREACHABLE)
    probabilities = np.exp(evidence - evidence.max())
    state = state._replace(energy=energy, tension=tension, transition=transition)
    if moves:
        state = state._replace(section=best, bars=0, visits=state.visits + 1)
    return state, (probabilities / probabilities.sum()).astype(np.float32)
