"""How long a grid takes, how many steps fit, and how early its window must therefore be cut."""

from typing import NamedTuple

from eqdiff_jax.diffusion.schedule import STEPS_MAX, STEPS_MIN
from eqdiff_jax.live.worker import SCORING, Made, Ready
from eqdiff_jax.motion.windows import FRAME_RATE, window_seconds

RESERVE = 0.05  # s before the page hands out the first note at which the grid is to be ready
SAFETY = 1.25  # a network call is taken to last so many times its measured time
EASE = 1.5  # a window is cut so many times earlier than all steps should take: others may need the processor, too
LEEWAY = 1.25  # and so many times earlier than the fewest steps should, where even those take long
LEAST_LEAD = 0.2  # s, however fast the network is
GRID_BARS = 2  # bars that a grid lasts
LATEST = 0.2  # share of the time from one grid to the next that a window may be cut early
SLACK = 0.05  # s that the tick which cuts a window may come late without costing a step
RECENT = 4  # grids whose worst time per call counts
MEMORY = 0.3  # weight of a new time in the mean
ALONE = 2.0  # a network call takes so many times as long as it did while nothing else ran, until grids are measured


class Budget(NamedTuple):
    """How long a grid takes: measured, and taken at its worse."""

    per_call: float = 0.0  # s of a network call, mean that forgets
    recent: tuple[float, ...] = ()  # of the last grids
    overhead: float = 0.0  # s of a grid besides, worst that fades

    def seconds(self, steps: int) -> float:
        """What a grid of so many steps takes, to be safe."""
        return self.overhead + (steps + SCORING) * SAFETY * max(self.per_call, *self.recent, 0.0)

    def steps(self, seconds: float) -> int:
        """The most steps that fit, at most STEPS_MAX; 0 or less: not even scoring does."""
        left, call = seconds - self.overhead, self.seconds(1) - self.seconds(0)
        return STEPS_MAX if left >= (STEPS_MAX + SCORING) * call else int(left // call) - SCORING

    def measured(self, made: Made) -> "Budget":
        """With one more grid taken into account."""
        overhead = max(made.overhead, self.overhead + MEMORY * (made.overhead - self.overhead))
        if not made.calls:
            return self._replace(overhead=overhead)
        call = made.seconds / made.calls
        return Budget(self.per_call + MEMORY * (call - self.per_call), (*self.recent, call)[-RECENT:], overhead)


def expected(ready: Ready) -> Budget:
    """The budget before the first grid: the process warmed up alone, and will share the machine from now on."""
    return Budget(ALONE * ready.per_call, (), ready.overhead)


def opening(mode: str, bpm: float, budget: Budget, ahead: float) -> float:
    """The cycle at which to start a clock whose frontier is `ahead` seconds on, so that the first window is as long
    as all others when its grid is for cycle 0."""
    # The frame nearest to the edge closes the window, as in motion.windows: one and a half frames before its time.
    seconds = _between(mode, bpm, budget) - 1.5 / FRAME_RATE + lead(mode, bpm, budget) + RESERVE + ahead
    return -seconds * bpm / 240.0


def pace(mode: str, bpm: float, budget: Budget) -> int:
    """Bars from one grid to the next: one where a network plays that makes its fewest steps within a bar, else two."""
    fits = LEEWAY * budget.seconds(STEPS_MIN) + SLACK + RESERVE <= window_seconds(bpm) / GRID_BARS
    return 1 if mode == "diffusion" and fits else GRID_BARS


def _between(mode: str, bpm: float, budget: Budget) -> float:
    """Seconds from one grid to the next."""
    return window_seconds(bpm) * pace(mode, bpm, budget) / GRID_BARS


def lead(mode: str, bpm: float, budget: Budget) -> float:
    """Seconds before its deadline at which a window is cut: with ease enough for every step that may be asked for, but
    no more than LATEST of the time between two grids, so that the movement is read late, and always enough for the
    fewest steps, with some ease where there is time."""
    if mode != "diffusion":
        return max(LEAST_LEAD, SAFETY * budget.overhead + SLACK)
    most = max(LATEST * _between(mode, bpm, budget) - RESERVE, LEAST_LEAD)
    least, eased = (ease * budget.seconds(STEPS_MIN) + SLACK for ease in (1.0, LEEWAY))
    fewest = eased if eased + RESERVE <= _between(mode, bpm, budget) else least
    return max(min(EASE * budget.seconds(STEPS_MAX) + SLACK, most), fewest, LEAST_LEAD)
