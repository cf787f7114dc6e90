"""Records that cross package borders, with their shapes. `State` is carried, `Info` is diagnostic.

Shapes: T frames at 60 Hz, B examples, 27 limbs x 8 features, 12 tracks x 32 sixteenths.
"""

import enum
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

Array = jax.Array
Map = Callable[[Array], Array]
Params = Any  # a pytree of arrays
Scalar = TypeVar("Scalar", covariant=True)


class Dynamics(NamedTuple, Generic[Scalar]):
    """The 15 scalars of movement; ranges, units and rest values stand in motion/dynamics.py.

    Each field is of one type: a float, or a float32 array, [] for a frame, [T] for a trajectory.
    """

    curvature: Scalar
    curvature_rate: Scalar
    periodicity: Scalar
    internal_tempo: Scalar
    phase: Scalar
    tension: Scalar
    grounding: Scalar
    verticality: Scalar
    coherence: Scalar
    lr_pan: Scalar
    prediction_confidence: Scalar
    energy: Scalar
    transition_intensity: Scalar
    speed: Scalar
    acceleration: Scalar


class MotionFrame(NamedTuple):
    """What the 60 Hz chain says of one frame (or, stacked, of a trajectory: leading axis T)."""

    z: Array  # [32] smoothed latent, first block of the LIM-RPS state
    velocity: Array  # [32] its rate, per second
    acceleration: Array  # [32] the rate of that, per second squared
    dynamics: Dynamics[Array]
    prediction: Array  # [32] z extrapolated one prediction horizon ahead
    x_fast: Array  # [32] DELL fast output
    y_slow: Array  # [32] DELL slow output
    error_fast: Array  # [] a posteriori bound on |h - h*|
    error_slow: Array  # [] a posteriori bound on |y - y*|
    error_lim_rps: Array  # [] a posteriori bound on |s - s*|


class Schedule(Protocol):
    """A noise schedule: survival, its rate, its inverse. Elementwise in t in [0, 1]."""

    def alpha(self, t: Array) -> Array:
        """Probability of having survived until t, decreasing from about 1."""

    def rate(self, t: Array) -> Array:
        """sigma'(t) = -alpha'/alpha."""

    def inverse(self, alpha: Array) -> Array:
        """t with that survival."""


class Level(NamedTuple):
    """How much of the data is left at some time: alpha <= unmasked."""

    alpha: Array | float  # [] or [B] probability that a token is the original one, not drawn anew
    unmasked: Array | float  # same shape, probability that it is not the mask


class Process(NamedTuple):
    """A forward corruption process over V tokens; the mask is id V."""

    vocab: int  # V, number of tokens without the mask
    alpha: Callable[[Array], Array]  # time t in [0, 1] -> survival, decreasing from 1
    rate: Callable[[Array], Array]  # t -> d sigma/dt with sigma = -log alpha
    corrupt: Callable[[Array, Array, Array], Array]  # (key, tokens [B, ...], t [B]) -> tokens of the same shape
    level: Callable[[Array], Level]  # t -> survival and unmasked probability
    inverse: Callable[[Array], Array]  # survival -> t
    masked: float  # share of the events that mask: 1 absorbing, 0 uniform
    times: int | None  # T of a discrete-time process, which lives at t = k/T; None: continuous

    @property
    def mask(self) -> int:
        return self.vocab


# (tokens [B, ...], t [B]) -> logits [B, ..., V] of the mean, or a Prediction (diffusion/parameterise.py)
Predict = Callable[[Array, Array], Any]


class Moment(NamedTuple):
    """Where one step of a sampler starts and ends, of one example."""

    k: Array  # [] int32 index of the step
    time: Array  # [] t, which the network sees
    duration: Array  # [] t - s
    t: Level  # [] fields
    s: Level  # [] fields; exactly clean in the last step
    last: Array  # [] bool


class Sampler(Protocol):
    """A reverse step as a record of its knobs; everything here is about one example, the loop is in sampling.py."""

    @property
    def absorbing(self) -> bool:
        """It works on the absorbing process only."""

    @property
    def keeps(self) -> bool:
        """A token that is not the mask stays (on an absorbing process)."""

    @property
    def steady(self) -> bool:
        """The memory never changes, so that all steps of a chain can be computed at once."""

    def init(self, key: Array, process: Process, tokens: Array, moment: Callable[[Array], Moment]) -> Any:
        """Memory of a chain that starts at `tokens` [...]; moment(k) says when step k happens."""

    def next(self, process: Process, tokens: Array, memory: Any, k: Array, moment: Callable[[Array], Moment]) -> Moment:
        """The step to make after k - 1: step k, or a later one if nothing happens before it."""

    def step(self, key: Array, process: Process, tokens: Array, prediction: Any, memory: Any,
             moment: Moment) -> tuple[Array, Any, Array]:
        """(tokens at s, memory, number of cells whose probabilities had to be clipped []). The key is consumed."""

    def horizon(self, steps: Array, cells: int) -> Array:
        """Number of steps after which the chain has ended for sure. []"""


class Samples(NamedTuple):
    """Result of `diffusion.sample`."""

    tokens: Array  # [B, ...] int32, no masks left
    evaluations: Array  # [] network calls made for the whole batch
    unmasked_at: Array  # [B, ...] int32 step at which each cell last changed, -1 where it was given
    clipped: Array  # [B] int32 cells, counted step by step, whose probabilities left [0, 1] and were clipped
    invalid: Array  # [B] bool: the network said NaN, or that nothing is possible; the cells to fill are left masked
    sweeps: Array  # [] Picard sweeps of the parallel sampler, else 0


class Nelbo(NamedTuple):
    """Negative evidence lower bound, a bound on -log p(tokens)."""

    nats: Array  # [] mean, in nats per token
    stderr: Array  # [] its standard error over examples
    per_example: Array | np.ndarray  # [N] nats per token; NumPy where batches were gathered

    @property
    def bits(self) -> Array:
        """[] mean, in bits per token."""
        return self.nats / np.log(2.0)


class Change(NamedTuple):
    """A bounded step from one grid to the next."""

    tokens: Array  # [B, 12, 32] int32 the new grid
    changed: Array  # [B] int32 number of cells that differ from the previous grid
    budget: Array  # [B] int32 number of cells that were allowed to
    steps: Array  # [B] int32 denoising steps used
    temperature: Array  # [B] temperature used
    evaluations: Array  # [] network calls of the sampler
    invalid: Array  # [B] bool: the network gave NaN; the previous grid plays on, its holes at rest
    bucket: Array  # [B] int32 what is left to spend, in 1/1024 cell


class Status(enum.IntEnum):
    """Why a solver stopped. The member is the message: `print(Status.of(solution.status))`."""

    message: str

    def __new__(cls, code: int, message: str) -> "Status":
        member = int.__new__(cls, code)
        member._value_ = code
        member.message = message
        return member

    def __str__(self) -> str:
        return self.message

    @classmethod
    def of(cls, code: Any) -> "Status":
        """The member of a code [], as solutions hold it."""
        return {member.value: member for member in cls}[int(code)]

    CONVERGED = 0, "converged: the residual is within atol + rtol |f(z)|"
    STEP_LIMIT = 1, ("the step limit was reached before the tolerance: raise max_steps, loosen rtol or atol, or start "
                     "nearer; the iterate of least residual is returned")
    DIVERGED = 2, ("diverged: the residual outgrew its start beyond recall; f is not a contraction there. Damp it, "
                   "constrain its weights (eqdiff_jax.contraction), or start nearer")
    NOT_FINITE = 3, ("not finite: f returned NaN or infinity, or its input held one; look at the arguments and at f "
                     "itself. The iterate of least residual before that is returned")


class Solution(NamedTuple):
    """Result of `equilibrium.fixed_point`. Under vmap every field has the batch axis."""

    value: Any  # pytree like z0: the iterate z with the least residual
    status: Array  # [] int32, a Status
    steps: Array  # [] int32 evaluations of f, every one counted
    residual: Array  # [] |f(z) - z| at the best iterate z, Euclidean norm over the whole pytree
    relative: Array  # [] that over |f(z)|
    trace: Array | None  # [max_steps] residual of each evaluation, NaN beyond `steps`; None unless asked for


class Step(NamedTuple):
    """One step of a fixed-point solver on a flat vector."""

    at: Array  # [n] a point z
    value: Array  # [n] f(z)
    next: Array  # [n] where to evaluate next
    memory: Any  # what the solver carries
    evaluations: Array  # [] int32 calls of f made by this step


class Solver(Protocol):
    """Hyper-parameters of a method as a record; the loop around it is written once, in equilibrium/loop.py."""

    def init(self, f: Map, z: Array) -> tuple[Array, Any]:
        """(first point to evaluate, memory) for f: [n] -> [n] and a start z [n]."""

    def step(self, f: Map, z: Array, memory: Any, k: Array) -> Step:
        """Evaluate at z (or near it) and say where next; k [] int32 counts the steps made before."""


class LinearInfo(NamedTuple):
    """How the linear solve of a backward (or tangent) pass went."""

    residual: Array  # [] |b - A u| / |b|, recomputed from the answer
    converged: Array  # [] bool, residual within the adjoint's `accept`


class Kind(enum.StrEnum):
    """How sure a bound is."""

    PROVED = "proved"  # a theorem whose assumptions hold for these parameters
    ESTIMATED = "estimated"  # measured, hence a lower estimate of the true constant
    RANGE = "range bound only"  # proved, but it says only that the output's range is finite


class Certificate(NamedTuple):
    """|f(x) - f(y)| <= bound |x - y| + rounding; f the float32 program, on the domain that `assumptions` name."""

    bound: float  # Lipschitz constant L in exact arithmetic; inf when nothing is certified (kind is not PROVED then)
    kind: Kind
    method: str  # how it was found, one phrase
    assumptions: tuple[str, ...] = ()
    rounding: float = 0.0  # eps that float32 may add, 0 in exact arithmetic

    @property
    def margin(self) -> float:
        """1 - bound: how far from losing contraction; negative: not certified as a contraction."""
        return 1.0 - self.bound

    @property
    def contraction(self) -> bool:
        """Certified: the bound is proved and below 1."""
        return self.kind == Kind.PROVED and self.bound < 1.0


class CascadeRow(NamedTuple):
    """One stage of the chain limb frame -> grid: its bound beside the worst that a search found."""

    stage: str
    bound: float  # |out(x) - out(y)| <= bound |x - y| (+ offset), in the units that `method` names
    kind: Kind
    method: str
    measured: float  # worst ratio found by gradient search; a lower estimate of the true constant
    offset: float = 0.0  # additive part: rounding, range, or idle cells
