"""Grids made in another process, so that nobody who keeps time waits for the network.

    make   : a window of movement, what played before -> the next grid; what performance.perform does for one window
    Worker : a process that does so; submit and poll never wait, and a process that died or hangs is replaced
"""

import contextlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax import motion, targets
from eqdiff_jax.composer import PROCESS, ROUNDS, compose, music
from eqdiff_jax.conditioning import LAYOUT, assemble
from eqdiff_jax.diffusion import commitment
from eqdiff_jax.errors import InputError
from eqdiff_jax.live.code import live_code
from eqdiff_jax.motion import dell
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.music.conductor import ConductorState, conduct, initial_state, instrument_activations
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.training import checkpoint
from eqdiff_jax.types import Array, Dynamics, Params

SCORING = ROUNDS + 1  # guided steps that weighing the phrases takes as long as
NICE = 5  # the process yields to the one that keeps time


class Job(NamedTuple):
    """One window of two bars: its movement, and the grid that it starts from."""

    window: int  # number of the grid; with `seed` its key
    seed: int
    mode: str  # threshold, modulate, diffusion
    z: np.ndarray  # [32] mean over the window
    velocity: np.ndarray  # [32]
    dynamics: Dynamics[float]  # means; phase as its continuous slot
    limbs: np.ndarray  # [27, 8] the window's last frame, for the margin
    genre: str | None
    bpm: float
    conductor: ConductorState
    previous: np.ndarray  # int32 [12, 32], all masks before the first
    previous_conditioning: np.ndarray | None  # [104]
    activations: np.ndarray  # [12] of the previous grid
    most: int = 0  # steps that there is time for, 0 for any number
    steps: int = 0  # 0 for the commitment rule
    temperature: float = 0.0  # likewise
    candidates: int = 1  # grids that phrases are taken from
    control: float = 1.0  # how strongly the targets count
    rules: Mapping[str, targets.Rule] | None = None  # what the movement asks, None for the default
    bucket: int = 0  # cells that the grids before left unspent, in 1/1024
    bars: int = 2  # since the job before


class Made(NamedTuple):
    """The grid, and how it came about."""

    window: int
    mode: str
    tokens: np.ndarray  # int32 [12, 32]
    code: str  # to be evaluated by the page
    conditioning: np.ndarray  # [104]
    section: np.ndarray  # [6]
    conductor: ConductorState
    activations: np.ndarray  # [12]
    confidence: float
    wanted: int  # steps that the commitment rule asks for; 0 without the network
    steps: int  # that were taken
    temperature: float
    budget: int  # cells that were allowed to change
    changed: int
    bucket: int  # what is left of it, in 1/1024 cell
    asked: np.ndarray  # [7] target ranks
    calls: int  # of the network
    seconds: float  # in those calls
    overhead: float  # s besides
    margin: float  # 1 - spectral radius of DELL's Jacobian at its equilibrium for `limbs`: an estimate, of this moment


class Ready(NamedTuple):
    """The process has compiled everything."""

    per_call: float  # s of one network call
    overhead: float  # s of one grid besides
    margin: float  # of DELL's contraction, proved for every movement


class Failed(NamedTuple):
    """No grid: what went wrong, one line. `window` is None for what happened before the first job."""

    window: int | None
    reason: str


def make(params: Params, job: Job, *, clock: Callable[[], float] = time.perf_counter) -> Made | Failed:
    """The grid of one window: conduct, assemble, compose, print. Same job, same machine, same grid.

    params hold `encoder`, `denoiser`, `statistics` and the motion chain's prepared `weights`. In the modes threshold
    and modulate the Conductor writes the grid, in no steps. Failed where the conditioning or the network is not finite.
    """
    started = clock()
    conductor, tokens, section = conduct(job.conductor, job.dynamics, job.genre, bars=job.bars)
    conditioning = np.asarray(assemble(job.z, job.velocity, job.dynamics, genre=job.genre, section=section,
                                       activations=job.activations, bpm=job.bpm))
    if not np.isfinite(conditioning).all():
        return Failed(job.window, "the movement gives a conditioning that is not finite")
    confidence = float(conditioning[LAYOUT["prediction_confidence"]][0])
    wanted = steps = calls = 0
    temperature, allowed, bucket, seconds = 0.0, tokens.size, 0, 0.0
    target_map = targets.compiled(job.rules or targets.DEFAULT_RULES)
    if job.mode == "diffusion":
        wanted = int(commitment(jnp.float32(confidence))[0])
        # Left to `compose` unless there is no time for it, so that offline and live grids are the same.
        allotted = job.steps or (job.most if 0 < job.most < wanted else 0)
        before = conditioning if job.previous_conditioning is None else job.previous_conditioning
        begun = clock()
        change = compose(
            jax.random.fold_in(jax.random.key(job.seed), job.window), music(params), jnp.asarray(conditioning),
            jnp.asarray(job.previous, jnp.int32), bucket=jnp.int32(job.bucket), candidates=job.candidates,
            control=job.control, target_map=target_map, previous_conditioning=jnp.asarray(before), steps=allotted,
            temperature=job.temperature, sampler="analytic")
        tokens = np.asarray(change.tokens)
        seconds = clock() - begun
        if bool(change.invalid):
            return Failed(job.window, "the network gave NaN; its weights are damaged")
        steps, temperature, allowed = int(change.steps), float(change.temperature), int(change.budget)
        calls, bucket = int(change.evaluations) + SCORING, int(change.bucket)
    code, margin = live_code(tokens, job.mode), local_margin(params["weights"], job.limbs)
    activations = instrument_activations(tokens)
    asked = np.asarray(targets.targets(conditioning, params["statistics"], target_map))
    return Made(job.window, job.mode, tokens, code, conditioning, section, conductor, activations, confidence, wanted,
                steps, temperature, allowed, int((tokens != job.previous).sum()), bucket, asked, calls, seconds,
                clock() - started - seconds, margin)


@jax.jit
def _jacobian(weights: dell.DellWeights, limbs: Array) -> Array:
    """The Jacobian [160, 160] of DELL's coupled map at its equilibrium for one limb frame held for ever."""
    inputs = dell.features(limbs)

    def joint(z: Array) -> Array:
        return jnp.concatenate(dell.joint_map(weights, z[:dell.FAST], z[dell.FAST:], inputs))

    return jax.jacfwd(joint)(jnp.concatenate(dell.equilibrium(weights, inputs).value))


def local_margin(weights: motion.MotionWeights, limbs: np.ndarray) -> float:
    """1 - spectral radius there: how far from losing contraction this pose is, as contraction's condition (c)."""
    jacobian = np.asarray(_jacobian(weights.dell, jnp.asarray(limbs, jnp.float32)), np.float64)
    return 1.0 - float(np.abs(np.linalg.eigvals(jacobian)).max())


def load(folder: str | Path) -> Params:
    """Parameters of a checkpoint as `make` takes them; raises InputError."""
    params = checkpoint.load(folder)
    return params | {"weights": jax.jit(motion.prepare)(params["motion"])}


def first_job(seed: int = 0) -> Job:
    """A body at rest before the first grid."""
    still = Dynamics(*(float(row.rest) for row in motion.dynamics.TABLE))
    return Job(0, seed, "diffusion", np.zeros(32, np.float32), np.zeros(32, np.float32), still, REST_FRAME, None, 120.0,
               initial_state(seed), np.full(SHAPE, PROCESS.mask, np.int32), None, np.zeros(SHAPE[0], np.float32))


def warm_up(params: Params, candidates: int = 1) -> Ready:
    """Compile what `make` needs, and measure it: the best of three grids, for what disturbs is not ours."""
    job, measured = first_job()._replace(steps=8, candidates=candidates), []
    for _ in range(4):  # the first compiles
        made = make(params, job)
        if isinstance(made, Failed):
            raise InputError(made.reason)
        job = job._replace(window=job.window + 1, previous=made.tokens, previous_conditioning=made.conditioning,
                           bucket=made.bucket)
        measured.append((made.seconds / made.calls, made.overhead))
    per_call, overhead = map(min, zip(*measured[1:], strict=True))
    proved = dell.certificates(params["weights"].dell)["coupled"].bound
    return Ready(per_call, overhead, 1.0 - proved if math.isfinite(proved) else 0.0)


def _serve(pipe: Connection, folder: str, cache: str | None, candidates: int) -> None:
    """The process: jobs in, grids out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started us
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICE)
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    with contextlib.suppress(EOFError, OSError):
        try:
            params = load(folder)
            pipe.send(warm_up(params, candidates))
        except Exception as error:
            pipe.send(Failed(None, _line(error)))
            return
        while True:
            job = pipe.recv()
            try:
                pipe.send(make(params, job))
            except Exception as error:
                pipe.send(Failed(job.window, _line(error)))


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


class Worker:
    """One process that makes grids, one at a time. No method waits for it, but `close` for half a second.

    candidates: what jobs ask for, compiled beforehand.
    """

    def __init__(self, folder: str | Path, cache: str | None = None, candidates: int = 1):
        self.folder, self.cache, self.candidates = str(folder), cache, candidates
        self.starts = 0  # processes started so far
        self.ready: Ready | None = None  # what the newest process measured
        self.busy: Job | None = None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether there is a process, as far as is known."""
        return self._process is not None

    @property
    def idle(self) -> bool:
        """Whether it takes a job."""
        return self.ready is not None and self.busy is None

    def start(self) -> None:
        """Start a process, which takes some milliseconds; it is `ready` once it has compiled everything."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.folder, self.cache, self.candidates), daemon=True,
                                  name="eqdiff grids")
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours  # at once: another thread may be polling
        self.starts += 1

    def submit(self, job: Job) -> None:
        """Begin a grid; only when idle. A job is small enough for the pipe, so this does not wait."""
        assert self._pipe is not None and self.idle
        self.busy = job
        with contextlib.suppress(OSError):  # it has just died: `poll` will say so
            self._pipe.send(job)

    def poll(self) -> Made | Ready | Failed | None:
        """What it has to say, if anything. After a Failed without a window the process is gone."""
        if self._pipe is None or self._process is None:
            return None
        try:
            if self._pipe.poll():
                answer = self._pipe.recv()
                self.busy = None
                if isinstance(answer, Ready):
                    self.ready = answer
                elif answer.window is None:
                    self.kill()
                return answer
            gone = not self._process.is_alive()
        except (EOFError, OSError):
            gone = True
        if gone:
            code = self._process.exitcode
            self.kill()
            return Failed(None, "the process that makes grids died" + (f" (exit code {code})" if code else ""))
        return None

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = self.ready = self.busy = None

    def close(self) -> None:
        """End the process, and see it go."""
        process = self._process
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if process is not None:
            process.join(0.1)  # it goes by itself when idle
        self.kill()
        if process is not None:
            process.join(0.4)
