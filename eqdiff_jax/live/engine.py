"""The performance as a pure function of time: limb frames and the music's position in, jobs, grids and bars out.

    frames -> 60 Hz chain -> sums over the window        at each tick
    `lead` before the next grid's cycle                  the window is cut, a Job goes out
    the grid comes back in time                          an Eval goes out, the grid sounds from that cycle on
    it does not                                          a miss is counted, with its reason; what plays, plays on

A grid of two bars replaces the one before in place, at each bar line in mode diffusion (`budget.pace`) and at even
ones in the others, and never anywhere else. With two bars between grids, what is computed is what performance.perform
computes, window by window: same frames, same edges, same seed, same grids. With one, a window is a bar, and its latest
frames weigh most.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import motion, targets
from eqdiff_jax.composer import PROCESS
from eqdiff_jax.diffusion.schedule import STEPS_MIN
from eqdiff_jax.live.budget import GRID_BARS, RESERVE, Budget, lead, pace
from eqdiff_jax.live.clock import Reading
from eqdiff_jax.live.wire import Crossfade, Eval, ServerMessage, SetParam
from eqdiff_jax.live.worker import Failed, Job, Made, Ready
from eqdiff_jax.motion.dynamics import ENERGY_HALF, TABLE, half, phase_slot
from eqdiff_jax.motion.lim_rps import smoothing
from eqdiff_jax.motion.windows import FRAME_RATE
from eqdiff_jax.music.conductor import ConductorState, initial_state
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.types import Array, Dynamics

FADE_BEATS = 4.0  # from one mode's grids to another's
FARTHEST = 8  # cycles by which a page may start a grid late; what it says beyond that is of another clock
SHORTEST = 0.5  # s of movement that a window needs at least
RAMP = 4  # frame n of a window weighs n to this power, where a grid comes at each bar
ENERGY = 64 + Dynamics._fields.index("energy")  # place in what a window sums


class Settings(NamedTuple):
    """What a person may change while it plays."""

    mode: str = "diffusion"
    genre: str | None = None
    bpm: float = 120.0


class Making(NamedTuple):
    """How grids of the network are made, all evening long."""

    candidates: int = 1  # grids that phrases are taken from
    control: float = 1.0  # how strongly the targets count
    rules: Mapping[str, targets.Rule] | None = None  # what the movement asks, None for the default


PLAIN = Making()


class Pending(NamedTuple):
    """A grid that is being made."""

    job: Job
    missed: bool = False  # its cycle has passed: it will be thrown away


class Playing(NamedTuple):
    """A grid that was sent to the page, and the window that it answers."""

    job: Job
    made: Made
    at: float  # cycle that it starts at


class Bar(NamedTuple):
    """One bar line, for the log."""

    bar: int
    playing: Playing
    bpm: float
    missed: tuple[str, ...]  # reasons of the misses since the bar line before


class Scripted(NamedTuple):
    """A grid of an earlier session, to be made again."""

    job: Job
    bars: int  # that it was heard
    tempo: float  # beats per minute


class State(NamedTuple):
    """Carried from tick to tick."""

    motion: motion.MotionState
    total: np.ndarray  # float64 [80] sums over the window so far: z, velocity, 15 dynamics, the phase's slot
    frames: int  # in it
    settings: Settings
    wanted: Settings  # from the next boundary on
    seed: int
    budget: Budget
    target: int  # cycle that the next grid is for
    late: np.ndarray = np.zeros(80)  # the same sums, of weighted frames, and of limbs' power in energy's place
    weight: float = 0.0  # of all these frames
    window: int = 0  # grids asked for so far
    pending: Pending | None = None
    held: Playing | None = None  # made, and too early to be sent
    coming: tuple[Playing, ...] = ()  # sent, not heard yet
    playing: Playing | None = None
    bar: int = -1  # last bar line
    epoch: int = 0
    trouble: str | None = None  # what has happened since the last grid was sent, why the next may not come
    misses: Mapping[str, int] = {}
    unlogged: tuple[str, ...] = ()  # misses since the last bar line
    script: tuple[Scripted, ...] | None = None  # the grids to come, when a session is played again
    making: Making = PLAIN
    lasts: int = GRID_BARS  # bars until the grid after the one that is being made

    @property
    def newest(self) -> Playing | None:
        """The last grid that was sent."""
        return self.coming[-1] if self.coming else self.playing


class Info(NamedTuple):
    """What comes of one tick."""

    frame: np.ndarray  # float32 [80]: z 32, velocity 32, 15 dynamics, the phase's slot; of the newest limb frame
    job: Job | None  # to be made
    messages: tuple[ServerMessage, ...]  # for the page
    bars: tuple[Bar, ...]


def init(settings: Settings, seed: int, budget: Budget, script: tuple[Scripted, ...] | None = None,
         making: Making = PLAIN) -> State:
    """Before the first tick. The first grid is for cycle 0."""
    return State(motion.init_state(), np.zeros(80), 0, settings, settings, seed, budget, 0, script=script,
                 making=making)


def over(state: State) -> bool:
    """The session that is played again has come to its end."""
    last = state.playing
    return (state.script == () and state.pending is None and state.held is None and not state.coming
            and (last is None or state.bar >= last.at + state.lasts))


def tick(weights: motion.MotionWeights, state: State, frames: np.ndarray, reading: Reading, *,
         answer: Made | Ready | Failed | None = None, idle: bool = True) -> tuple[State, Info]:
    """One tick of the loop.

    Args:
      weights: of `motion.prepare`.
      frames: [K, 27, 8] limb frames since the tick before; one, or more where the loop was late. At least one.
      reading: where the music is now.
      answer: what the worker said, if anything. idle: whether it would take a job.
    """
    state, frame = _moved(weights, state, frames)
    state = _follow(state, reading)
    if answer is not None:
        state = _received(state, answer)
    state, sent = _released(state, reading)
    state = _passed(state, reading, idle)
    state, bars, tempo = _crossed(state, reading)
    state, job = _cut(state, reading, frames[-1]) if idle and state.pending is None else (state, None)
    return state, Info(frame, job, (*tempo, *sent), bars)


@jax.jit
def _step(weights: motion.MotionWeights, state: motion.MotionState, limbs: Array
          ) -> tuple[motion.MotionState, Array, Array]:
    """One frame: what a window sums [80], and its mean squared limb speed, which energy says 0.4 s later."""
    before = state.dynamics.power[0]
    state, frame = motion.step_weights(weights, state, limbs)
    slot = phase_slot(frame.dynamics.phase)
    power = jnp.maximum(before + (state.dynamics.power[0] - before) / smoothing(TABLE.energy.seconds), 0.0)
    return state, jnp.concatenate([frame.z, frame.velocity, jnp.stack([*frame.dynamics, slot])]), power


def _moved(weights: motion.MotionWeights, state: State, frames: np.ndarray) -> tuple[State, np.ndarray]:
    """The movement of these frames, added to the window's two sums: one where all weigh the same, as in
    motion.windows, and one where frame n weighs n^RAMP."""
    inner, total, late, weight = state.motion, state.total, state.late, state.weight
    for number, limbs in enumerate(frames, state.frames + 1):
        inner, values, power = _step(weights, inner, limbs)
        frame, share = np.asarray(values), float(number**RAMP)
        total, late, weight = total + frame, late + share * frame, weight + share
        late[ENERGY] += share * float(power - frame[ENERGY])
    return state._replace(motion=inner, total=total, late=late, weight=weight, frames=state.frames + len(frames)), frame


def _means(state: State) -> np.ndarray:
    """The window in one row, float64 [80].

    Where a grid comes at each bar the latest frames weigh most, and energy is that of their mean power: what a body
    does now is heard at the next bar, what it did a bar before hardly. Elsewhere it is the mean of motion.windows.
    """
    if _pace(state) == GRID_BARS:
        return state.total / state.frames
    mean = state.late / state.weight
    mean[ENERGY] = half(mean[ENERGY], ENERGY_HALF)
    return mean


def _follow(state: State, reading: Reading) -> State:
    """After a jump of the music's position: what was sent plays, and the next grid is for a cycle that it can reach."""
    if reading.epoch == state.epoch:
        return state
    soonest = reading.frontier + (RESERVE + lead(state.wanted.mode, state.wanted.bpm, state.budget)) * reading.cps
    soonest += max(SHORTEST - state.frames / FRAME_RATE, 0.0) * reading.cps
    return state._replace(epoch=reading.epoch, bar=int(np.floor(reading.heard)),
                          target=_start_above(soonest, _pace(state)), playing=state.newest, coming=())


def _pace(state: State) -> int:
    """Bars from one grid to the next, by the mode of the one that is being made, if one is."""
    making = state.held or state.pending
    return pace(making.job.mode if making else state.wanted.mode, state.wanted.bpm, state.budget)


def _start_above(cycle: float, bars: int) -> int:
    """The first cycle after that one at which a grid may start."""
    return bars * (int(np.floor(cycle / bars)) + 1)


def _received(state: State, answer: Made | Ready | Failed) -> State:
    """Take in what the worker said."""
    pending = state.pending
    if isinstance(answer, Ready):
        return state._replace(budget=Budget(answer.per_call, (), answer.overhead))
    if isinstance(answer, Failed):
        gone = answer.window is None
        return state._replace(pending=None, trouble="worker" if gone else "network")
    state = state._replace(budget=state.budget.measured(answer))
    if pending is None or pending.job.window != answer.window:
        return state
    state = state._replace(pending=None)
    return state if pending.missed else state._replace(held=Playing(pending.job, answer, state.target))


def _released(state: State, reading: Reading) -> tuple[State, tuple[Eval | Crossfade, ...]]:
    """Send a finished grid once the page would start it at its own cycle, and not at the one before."""
    held, before = state.held, state.newest
    if held is None or not state.target - _pace(state) <= reading.frontier < state.target:
        return state, ()
    held = held._replace(at=float(state.target))
    state = state._replace(held=None, coming=(*state.coming, held), target=state.target + state.lasts, trouble=None)
    # Without a page that runs the cycles are our own, and mean nothing to one that is about to start.
    message = as_message(held, cycle=held.at if reading.page else None,
                         fades=before is not None and before.made.mode != held.made.mode)
    return state, (message,)


def as_message(playing: Playing, *, cycle: float | None, fades: bool) -> Eval | Crossfade:
    """What brings a grid to the page, to start no earlier than at that cycle. The grids of another mode have little
    in common with those before, so it fades in."""
    job, made = playing.job, playing.made
    first = bool((job.previous == PROCESS.mask).all())
    tokens, changed = made.tokens.tolist(), [] if first else np.argwhere(made.tokens != job.previous).tolist()
    bars = 1 if made.mode == "diffusion" else GRID_BARS
    if fades:
        return Crossfade(made.code, FADE_BEATS, made.window, tokens, changed, cycle, bars)
    cascade = {"budget": made.budget, "wanted": made.wanted, "targets": [round(float(x), 3) for x in made.asked]}
    return Eval(made.code, made.window, "bar", bars, tokens, changed, made.steps, made.temperature, made.confidence,
                round(made.seconds + made.overhead, 4), round(made.margin, 4),
                [round(float(p), 4) for p in made.section], cascade, cycle)


def _passed(state: State, reading: Reading, idle: bool) -> State:
    """Count every grid whose last moment has gone by."""
    while reading.frontier >= state.target and (state.script != () or state.pending or state.held):
        busy = state.pending is not None or state.held is not None
        state = _miss(state, state.trouble or ("late" if busy else "slow" if idle else "worker"))
        state = state._replace(held=None, pending=state.pending and state.pending._replace(missed=True))
    return state


def _miss(state: State, reason: str) -> State:
    """The grid for the target will not be there; the next one is for the cycle after."""
    state = _counted(state, reason)
    return state._replace(target=_start_above(state.target, _pace(state)))


def _counted(state: State, reason: str) -> State:
    """One more miss, for the log and the page. The network's trouble is over with it, the worker's is not."""
    return state._replace(misses=Counter(state.misses) + Counter([reason]), unlogged=(*state.unlogged, reason),
                          trouble=None if reason == "network" else state.trouble)


def _crossed(state: State, reading: Reading) -> tuple[State, tuple[Bar, ...], tuple[SetParam, ...]]:
    """At a bar line: the grid that starts there plays, a new tempo begins at an even one, the log gets its line."""
    bar = int(np.floor(reading.heard))
    if bar <= state.bar:
        return state, (), ()
    started = [p for p in state.coming if p.at <= reading.heard]
    if started:
        state = state._replace(playing=started[-1], coming=state.coming[len(started):])
    tempo: tuple[SetParam, ...] = ()
    if state.wanted.bpm != state.settings.bpm and bar // GRID_BARS != state.bar // GRID_BARS:
        state = state._replace(settings=state.settings._replace(bpm=state.wanted.bpm))
        tempo = (SetParam("bpm", state.wanted.bpm),)
    state = state._replace(bar=bar)
    if state.playing is None:
        return state, (), tempo
    line = Bar(bar, state.playing, state.settings.bpm, state.unlogged)
    return state._replace(unlogged=()), (line,), tempo


def _cut(state: State, reading: Reading, limbs: np.ndarray) -> tuple[State, Job | None]:
    """The window's end, if it is time: its means become a job, and a new window begins."""
    if state.held is not None or state.frames < SHORTEST * FRAME_RATE or state.script == ():
        return state, None
    if state.script:
        state = state._replace(wanted=Settings(state.script[0].job.mode, state.script[0].job.genre,
                                               state.script[0].tempo))
    wanted, budget = state.wanted, state.budget
    needed, diffusion = lead(wanted.mode, wanted.bpm, budget), wanted.mode == "diffusion"
    bars = _pace(state)
    state = state._replace(target=-(-state.target // bars) * bars)  # odd after grids of one bar
    while True:
        left = (state.target - reading.frontier) / reading.cps - RESERVE
        most = budget.steps(left) if diffusion else 0
        if left > needed + 1e-6:
            return state, None
        if left > 0 and (most >= STEPS_MIN or not diffusion):
            break
        state = _miss(state, state.trouble or "slow")
    lasts = bars
    if state.script:
        job = state.script[0].job._replace(limbs=np.asarray(limbs, np.float32))
        lasts *= max(-(-state.script[0].bars // lasts), 1)
        state = state._replace(script=state.script[1:])
    else:
        job = _job(state, limbs, most)
    # Mode and genre are of the grid and begin with it; the tempo begins at the bar line.
    settings = wanted._replace(bpm=state.settings.bpm)
    return state._replace(pending=Pending(job), window=state.window + 1, total=np.zeros(80), late=np.zeros(80),
                          weight=0.0, frames=0, settings=settings, lasts=lasts), job


def _job(state: State, limbs: np.ndarray, most: int) -> Job:
    """The window as it stands, after the newest grid."""
    mean = _means(state).astype(np.float32)
    dynamics = Dynamics(*map(float, mean[64:79]))._replace(phase=float(mean[79]))
    newest, wanted = state.newest, state.wanted
    conductor: ConductorState = initial_state(state.seed)
    previous, before = np.full(SHAPE, PROCESS.mask, np.int32), None
    activations, bucket = np.zeros(SHAPE[0], np.float32), 0
    if newest is not None:
        made = newest.made
        conductor, previous, before, activations = made.conductor, made.tokens, made.conditioning, made.activations
        bucket = made.bucket
    candidates, control, rules = state.making
    return Job(state.window, state.seed, wanted.mode, mean[:32], mean[32:64], dynamics, np.asarray(limbs, np.float32),
               wanted.genre, wanted.bpm, conductor, previous, before, activations, most, candidates=candidates,
               control=control, rules=rules, bucket=bucket, bars=_pace(state))


# What the page says of the grids it was sent.

def evaluated(state: State, window: int, at: float) -> State:
    """The page starts that grid at this cycle; if that is later than planned, each start in between is a miss."""
    late = next((p for p in state.coming if p.made.window == window and p.at < at <= p.at + FARTHEST), None)
    if late is None:
        return state
    state = state._replace(coming=tuple(p._replace(at=at) if p is late else p for p in state.coming))
    while state.target <= at:
        state = _miss(state, "page")
    return state


def refused(state: State, window: int) -> State:
    """The page cannot play that grid: the one before plays on, and what was made from it is thrown away."""
    coming = tuple(p for p in state.coming if p.made.window < window)
    if all(p.made.window != window for p in state.coming):
        return state
    pending = state.pending and state.pending._replace(missed=True)
    return _counted(state._replace(coming=coming, held=None, pending=pending), "page")
