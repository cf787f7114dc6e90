"""The performance under an injected clock: grids on their bars, misses accounted for, and the same grids as offline."""

from collections import deque
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as thorough
from hypothesis import strategies as st
from test_sample import export

from eqdiff_jax import motion, performance
from eqdiff_jax.composer import PROCESS
from eqdiff_jax.diffusion.schedule import STEPS_MAX, STEPS_MIN
from eqdiff_jax.live import engine
from eqdiff_jax.live.budget import (
    GRID_BARS,
    LATEST,
    LEAST_LEAD,
    LEEWAY,
    RESERVE,
    SAFETY,
    SLACK,
    Budget,
    expected,
    lead,
    opening,
    pace,
)
from eqdiff_jax.live.clock import InnerClock, Reading
from eqdiff_jax.live.engine import Making, Settings
from eqdiff_jax.live.wire import Crossfade, SetParam
from eqdiff_jax.live.worker import SCORING, Failed, Made, Ready, make
from eqdiff_jax.motion.dynamics import ENERGY_HALF, half, phase_slot
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.windows import boundaries, window_seconds
from eqdiff_jax.music.conductor import conduct, instrument_activations
from eqdiff_jax.targets import DEFAULT_RULES, formatted
from eqdiff_jax.training import checkpoint

FAST = Budget(0.01, (), 0.02)  # a small network: a grid at each bar
SLOW = Budget(0.25, (), 0.05)  # its fewest steps do not fit in a bar of 2 s: a grid in each two
STANDARD = Settings()
OTHER_RULES = DEFAULT_RULES | {"range": DEFAULT_RULES["range"]._replace(source="tension", high=0.7)}


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return checkpoint.load(export(tmp_path_factory.mktemp("checkpoint") / "small"))


@pytest.fixture(scope="module")
def weights(params):
    return jax.jit(motion.prepare)(params["motion"])


def pretend(job, seconds, calls, besides):
    """A grid without a network: some cells of the previous one redrawn."""
    rng = np.random.default_rng((job.seed, job.window))
    tokens = np.where(job.previous == PROCESS.mask, 0, job.previous)
    tokens[0, rng.integers(32, size=4)] = rng.choice([0, 50], size=4)
    return Made(job.window, job.mode, tokens, f"code {job.window}", np.full(104, job.window, np.float32),
                np.full(6, 1 / 6, np.float32), job.conductor, instrument_activations(tokens), 0.5, 27,
                min(27, job.most or 27), 0.95, 8, int((tokens != job.previous).sum()), 7 * (job.window + 1),
                np.full(7, 0.5), calls, seconds, besides, 0.3)


class Room:
    """Clock, engine and a worker whose grids take as long as `cost(job)` says, in seconds that pass at will."""

    def __init__(self, weights, settings=STANDARD, budget=FAST, *, seed=0, ahead=0.3, cost=None, making=engine.PLAIN):
        self.weights, self.now = weights, 0.0
        self.cost = cost or (lambda job: (0.01, 0.02))  # seconds per call, and besides
        self.clock = InnerClock(0.0, settings.bpm / 240.0, ahead=ahead,
                                position=opening(settings.mode, settings.bpm, budget, ahead))
        self.epoch, self.ticks = 0, 0
        self.state = engine.init(settings, seed, budget, making=making)
        self.work, self.dead_until = None, -1.0
        self.answers = deque()
        self.jobs, self.evals, self.bars, self.tempos = [], [], [], []  # each with the reading of its moment
        self.moves = []  # of each tick: the target before and after, grids sent and missed, bars from grid to grid
        self.ruled = []  # starts of grids that no network made

    def reading(self):
        heard = self.clock.position(self.now)
        return Reading(heard, self.clock.frontier(self.now), self.clock.cps, False, self.epoch)

    def answer(self):
        if self.answers:
            return self.answers.popleft()
        if self.work and self.now >= self.work[0]:
            made = self.work[1]
            self.work = None
            return made
        if 0.0 <= self.dead_until <= self.now:
            self.dead_until = -1.0
            return Ready(FAST.per_call, FAST.overhead, 0.1)
        return None

    def kill(self, until):
        self.work, self.dead_until = None, until
        self.answers.append(Failed(None, "died"))

    def tick(self, frames=REST_FRAME[None]):
        answer = self.answer()
        reading = self.reading()
        before = self.state
        self.state, info = engine.tick(self.weights, self.state, frames, reading, answer=answer,
                                       idle=self.work is None and self.dead_until < 0.0)
        if info.job is not None:
            per_call, besides = self.cost(info.job)
            calls = SCORING + min(27, info.job.most or 27) if info.job.mode == "diffusion" else 0
            self.jobs.append((reading, info.job))
            self.work = (self.now + per_call * calls + besides, pretend(info.job, per_call * calls, calls, besides))
        for message in info.messages:
            (self.tempos if isinstance(message, SetParam) else self.evals).append((reading, message))
        self.bars += [(reading, bar) for bar in info.bars]
        happened = sum(self.state.misses.values()) - sum(before.misses.values())
        happened += sum(not isinstance(message, SetParam) for message in info.messages)
        if self.state.epoch == before.epoch:
            wanted = self.state.wanted
            self.moves.append((before.target, self.state.target, happened,
                               pace(wanted.mode, wanted.bpm, self.state.budget)))
        for message in info.messages:
            if not isinstance(message, SetParam) and self.state.newest.job.mode != "diffusion":
                self.ruled.append(self.state.newest.at)
        self.ticks += 1
        self.now = self.ticks / 60.0
        return info

    def run(self, seconds):
        for _ in range(round(seconds * 60)):
            self.tick()
        return self


def starts(room):
    """The cycles at which a new grid began to sound, by the log."""
    return [bar.bar for _, bar in room.bars if bar.bar == bar.playing.at]


@pytest.mark.parametrize(("mode", "bars"), [("diffusion", 1), ("threshold", 2), ("modulate", 2)])
def test_every_bar_or_even_bar_has_a_new_grid_sent_in_time(weights, mode, bars):
    room = Room(weights, Settings(mode)).run(130.0)
    assert not room.state.misses
    assert starts(room) == list(range(0, room.bars[-1][1].bar + 1, bars)) and len(starts(room)) > 30
    assert [bar.bar for _, bar in room.bars] == list(range(room.bars[-1][1].bar + 1))
    for at, (reading, message) in zip(range(0, 1000, bars), room.evals, strict=False):
        assert at - bars <= reading.frontier < at - RESERVE * reading.cps
        assert message.id == at // bars and message.at == "bar" and message.bars == bars
    assert [job.window for _, job in room.jobs] == list(range(len(room.jobs)))
    assert {job.bars for _, job in room.jobs} == {bars}


def test_each_grid_starts_from_the_one_that_sounds_before_it(weights):
    room = Room(weights, making=Making(3, 0.5, OTHER_RULES)).run(60.0)
    assert (room.jobs[0][1].previous == PROCESS.mask).all() and room.jobs[0][1].previous_conditioning is None
    assert room.jobs[0][1].bucket == 0
    tokens = {message.id: np.array(message.tokens) for _, message in room.evals}
    for _, job in room.jobs[1:]:
        np.testing.assert_array_equal(job.previous, tokens[job.window - 1])
        assert job.previous_conditioning[0] == job.window - 1
        assert job.bucket == 7 * job.window  # what the grid before left
        np.testing.assert_array_equal(job.activations, instrument_activations(tokens[job.window - 1]))
    assert {(job.candidates, job.control) for _, job in room.jobs} == {(3, 0.5)}
    assert all(job.rules == OTHER_RULES for _, job in room.jobs)
    for (_, before), (_, after) in zip(room.evals, room.evals[1:], strict=False):
        assert after.changed == np.argwhere(np.array(before.tokens) != after.tokens).tolist()


def cuts(room, count):
    """The ticks at which windows close."""
    at = []
    while len(at) < count:
        if room.tick().job is not None:
            at.append(room.ticks)
    return at


@pytest.mark.parametrize("bpm", [120.0, 126.0, 97.3, 40.0, 240.0])
@pytest.mark.parametrize(("mode", "bars"), [("diffusion", 1), ("threshold", 2)])
def test_windows_close_at_the_frames_that_offline_windows_close_at(weights, bpm, mode, bars):
    at = cuts(Room(weights, Settings(mode, bpm=bpm)), 20)
    np.testing.assert_array_equal(at, boundaries(at[-1] + 30, bpm * GRID_BARS / bars)[1:21])
    assert np.abs(np.diff(at) - bars * 60 * 240 / bpm).max() <= 1.0


def test_a_slow_network_takes_fewer_steps_and_misses_nothing(weights):
    room = Room(weights, budget=Budget(0.03, (), 0.05), cost=lambda job: (0.03, 0.05)).run(120.0)
    assert not room.state.misses and np.diff(starts(room)).tolist() == [1] * (len(starts(room)) - 1)
    assert {message.steps for _, message in room.evals} <= set(range(STEPS_MIN, 15))
    assert all(job.most * 0.03 < LATEST * 2.0 for _, job in room.jobs)


def test_a_network_too_slow_for_a_bar_gives_a_grid_in_each_two(weights):
    room = Room(weights, budget=SLOW, cost=lambda job: (SLOW.per_call, SLOW.overhead)).run(120.0)
    assert not room.state.misses
    assert starts(room) == list(range(0, room.bars[-1][1].bar + 1, 2)) and len(starts(room)) > 25
    assert {job.bars for _, job in room.jobs} == {2}
    at = cuts(room, 5)
    assert np.abs(np.diff(at) - 240).max() <= 1  # windows of two bars


def test_a_network_too_slow_for_a_window_gives_every_other_grid(weights):
    """The fewest steps take 6 s of 4: the boundary between two grids is a miss with its reason, and none comes late."""
    call = 6.0 / (STEPS_MIN + SCORING) / SAFETY
    room = Room(weights, budget=Budget(call, (), 0.0), cost=lambda job: (call, 0.0)).run(200.0)
    assert set(room.state.misses) == {"slow"}
    assert {b - a for a, b in zip(starts(room), starts(room)[1:], strict=False)} == {4}
    assert all(at % 2 == 0 for at in starts(room))
    assert {message.steps for _, message in room.evals} == {STEPS_MIN}


def test_a_sudden_slowdown_is_late_once_and_then_adapted_to(weights):
    room = Room(weights, cost=lambda job: (0.01 if job.window < 10 else 0.035, 0.02)).run(160.0)
    assert room.state.misses == {"late": 1}
    missing = set(range(starts(room)[-1])) - set(starts(room))
    assert missing == {10}  # the next grid is for the next bar
    reasons = {bar.bar: bar.missed for _, bar in room.bars if bar.missed}
    assert list(reasons.values()) == [("late",)] and set(reasons) <= {9, 10}
    # The thrown away grid left no trace: the next one starts from what plays.
    later = next(job for _, job in room.jobs if job.window == 11)
    np.testing.assert_array_equal(later.previous, dict((m.id, m.tokens) for _, m in room.evals)[9])
    assert later.bucket == 7 * 10


@pytest.mark.parametrize("first", [9, 10])
def test_while_a_network_is_too_slow_for_a_bar_grids_come_at_even_bars(weights, first):
    slow = range(first, first + 12)
    room = Room(weights, cost=lambda job: (0.25 if job.window in slow else 0.01, 0.02)).run(220.0)
    started = {bar.playing.made.window: bar.bar for _, bar in room.bars if bar.bar == bar.playing.at}
    inside = [started[window] for window in slow[2:] if window in started]
    assert len(inside) >= 8 and all(at % 2 == 0 for at in inside)
    assert {job.bars for _, job in room.jobs if job.window in slow[2:]} == {2}
    assert set(np.diff(inside)) == {2}
    assert {job.bars for _, job in room.jobs[-20:]} == {1} and set(np.diff(starts(room)[-20:])) == {1}
    assert set(room.state.misses) <= {"late", "slow"} and room.state.misses["late"] >= 1


def test_a_dead_worker_costs_grids_but_not_the_music(weights):
    room = Room(weights).run(30.0)
    room.kill(until=room.now + 15.0)
    before = room.state.playing.made.window
    room.run(14.0)
    assert room.state.playing.made.window <= before + 1
    room.run(40.0)
    assert set(room.state.misses) == {"worker"} and 6 <= room.state.misses["worker"] <= 9
    assert [bar.bar for _, bar in room.bars] == list(range(room.bars[-1][1].bar + 1))
    assert starts(room)[-8:] == list(range(starts(room)[-8], starts(room)[-8] + 8))


def test_damaged_weights_are_one_miss_each(weights):
    room = Room(weights).run(20.0)
    while not room.state.misses:  # tried again as long as there is time
        room.tick()
        if room.work:
            room.work = (room.now, Failed(room.work[1].window, "NaN"))
    room.run(20.0)
    assert room.state.misses == {"network": 1}
    assert starts(room)[-4:] == list(range(starts(room)[-1] - 3, starts(room)[-1] + 1))


def test_a_grid_that_the_page_refuses_is_not_built_upon(weights):
    room = Room(weights).run(20.0)
    while not room.state.coming:
        room.tick()
    bad = room.state.coming[-1].made
    room.state = engine.refused(room.state, bad.window)
    good = room.state.playing.made
    assert room.state.misses == {"page": 1} and good.window == bad.window - 1
    room.run(8.0)
    following = next(job for _, job in room.jobs if job.window == bad.window + 1)
    np.testing.assert_array_equal(following.previous, good.tokens)
    assert bad.window not in [bar.playing.made.window for _, bar in room.bars]


def test_a_grid_that_the_page_starts_late_is_logged_where_it_sounds(weights):
    room = Room(weights).run(20.0)
    while not room.state.coming:
        room.tick()
    late = room.state.coming[-1]
    room.state = engine.evaluated(room.state, late.made.window, late.at + 1.0)
    room.run(20.0)
    assert room.state.misses == {"page": 1}
    assert next(bar.bar for _, bar in room.bars if bar.playing.made.window == late.made.window) == late.at + 1
    assert late.at not in starts(room) and late.at + 2 in starts(room)
    assert engine.evaluated(room.state, 10**6, 3.0) is room.state


@pytest.mark.parametrize("position", [0.0, 1.2, 1.95, 733.7])
def test_a_page_that_starts_sets_the_bars(weights, position):
    """The music's position jumps to the page's: what was sent plays, and grids go on at its bars."""
    room = Room(weights).run(23.3)
    newest = room.state.newest.made.window
    room.clock.seek(room.now, position, room.clock.cps)
    room.epoch += 1
    room.bars.clear()
    room.run(30.0)
    assert not room.state.misses
    bars = [bar for _, bar in room.bars]
    assert bars[0].bar == int(position) + 1 and bars[0].playing.made.window >= newest
    started = [b for b in starts(room) if b > position + 2]
    assert started == list(range(started[0], started[-1] + 1)) and started[0] <= position + 4


def test_tempo_begins_at_an_even_bar_and_windows_follow(weights):
    room = Room(weights).run(20.5)
    room.state = room.state._replace(wanted=room.state.wanted._replace(bpm=90.0))
    while not room.tempos:
        room.tick()
    (reading, message), = room.tempos
    assert message == SetParam("bpm", 90.0) and 0 <= reading.heard % 2 < 0.02
    room.clock.seek(room.now, reading.heard, 90.0 / 240.0)
    room.run(40.0)
    assert len(room.tempos) == 1 and not room.state.misses
    assert {bar.bpm for _, bar in room.bars[-10:]} == {90.0}
    assert [job.bpm for _, job in room.jobs][-5:] == [90.0] * 5


@pytest.mark.parametrize("begun", [20.0, 22.0])  # before an odd bar, and before an even one
def test_mode_and_genre_begin_with_a_grid(weights, begun):
    room = Room(weights).run(begun)
    room.state = room.state._replace(wanted=Settings("threshold", "house", 120.0))
    room.run(12.0)
    modes = [(job.mode, job.genre) for _, job in room.jobs]
    assert modes == sorted(modes) and {("diffusion", None), ("threshold", "house")} == set(modes)
    assert room.jobs[-1][1].most == 0 and not room.state.misses
    fades = [message for _, message in room.evals if isinstance(message, Crossfade)]
    first = modes.index(("threshold", "house"))
    assert [(message.id, message.bars) for message in fades] == [(first, 2)]
    ruled = sorted({bar.playing.at for _, bar in room.bars if bar.playing.made.mode == "threshold"})
    assert len(ruled) >= 2 and all(at % 2 == 0 for at in ruled) and set(np.diff(ruled)) == {2}
    room.state = room.state._replace(wanted=STANDARD)
    room.run(12.0)
    assert not room.state.misses and room.evals[-1][1].bars == 1
    fades = [message for _, message in room.evals if isinstance(message, Crossfade)]
    assert [message.bars for message in fades] == [2, 1] and np.diff(starts(room)[-3:]).tolist() == [1, 1]


def test_late_frames_all_count(weights):
    limbs = motion.demo("groove", 1.5, 0)  # less than a window
    one, many = Room(weights), Room(weights)
    for frame in limbs:
        one.tick(frame[None])
    for i in range(0, len(limbs), 6):
        many.tick(limbs[i:i + 6])
    assert one.state.frames == many.state.frames == len(limbs)
    np.testing.assert_array_equal(one.state.total, many.state.total)
    np.testing.assert_array_equal(one.state.late, many.state.late)


def test_a_body_that_stops_is_still_in_the_next_window(weights):
    """Energy is a low-pass that takes its time; the window reads what went into it."""
    room = Room(weights, Settings("diffusion"))
    moving, begun = motion.demo("groove", 30.0, 0), 0
    moving[..., 3:6] *= 5.0  # in a hurry
    still = moving[-1:] * np.repeat([1.0, 0.0, 1.0], (3, 3, 2)).astype(np.float32)
    moving = iter(moving)
    while room.now < 6.0 or len(room.jobs) == begun:  # to the end of a window
        begun = len(room.jobs)
        room.tick(next(moving)[None])
    for tick in range(120):
        room.tick(next(moving)[None] if tick < 20 else still)
    loud, quiet = (job.dynamics.energy for _, job in room.jobs[begun:begun + 2])
    assert loud > 0.3 > 0.03 > quiet, (loud, quiet)


class Perfect(Room):
    """A worker that takes no time: the true `make`, answered at the next tick."""

    def tick(self, frames):
        info = super().tick(frames)
        if info.job is not None:
            self.work = (0.0, make(self.params, info.job)._replace(seconds=0.0, overhead=0.0))
        return info


def ramped_means(frames, edges):
    """`window_means` with a ramp of weights over each window, energy of the power that its low-pass took in."""
    dynamics = frames.dynamics._replace(phase=phase_slot(frames.dynamics.phase))

    def means(values):
        windows = np.split(np.asarray(values, np.float64)[:edges[-1]], edges[1:-1])
        found = [np.average(w, axis=0, weights=np.arange(1.0, len(w) + 1.0) ** engine.RAMP) for w in windows]
        return np.stack(found).astype(np.float32)

    energy = np.asarray(dynamics.energy, np.float64)
    passed = ENERGY_HALF * energy / (1.0 - energy)
    kept = np.exp(-1.0 / (60.0 * 0.4))
    power = (passed - kept * np.append(0.0, passed[:-1])) / (1.0 - kept)
    return means(frames.z), means(frames.velocity), jax.tree.map(means, dynamics)._replace(
        energy=half(means(np.maximum(power, 0.0)), ENERGY_HALF))


@pytest.mark.parametrize(("bpm", "seed", "genre", "mode", "bars", "making"), [
    (120.0, 0, None, "diffusion", 1, Making()), (126.0, 7, "techno", "diffusion", 1, Making(3, 0.5, OTHER_RULES)),
    (97.3, 3, "ambient", "threshold", 2, Making())])
def test_with_all_the_time_it_plays_what_performance_plays(
        params, weights, monkeypatch, tmp_path, bpm, seed, genre, mode, bars, making):
    """Offline windows are of two bars: here they are cut and weighed as live ones are, and the Conductor is told so."""
    (tmp_path / "targets.toml").write_text(formatted(making.rules or DEFAULT_RULES))
    monkeypatch.setattr(performance, "conduct", partial(conduct, bars=bars))
    if bars == 1:
        monkeypatch.setattr(performance, "window_means", ramped_means)
    limbs = motion.demo("show", 7.5 * bars * 240.0 / bpm, seed)
    edges = boundaries(len(limbs), bpm * GRID_BARS / bars)
    want, _ = performance.perform(params, limbs, edges, performance.Settings(
        seed=seed, genre=genre, bpm=bpm, mode=mode, candidates=making.candidates, control=making.control,
        targets=str(tmp_path / "targets.toml")))
    room = Perfect(weights, Settings(mode, genre, bpm), Budget(), seed=seed, making=making)
    room.params = params | {"weights": weights}
    for frame in limbs:
        room.tick(frame[None])
    assert len(room.evals) == len(edges) - 1 == 7 and not room.state.misses
    got = [message for _, message in room.evals]
    # Stepping and scanning differ by rounding, and so does a mean of them: the conditioning may, by as much.
    np.testing.assert_allclose([job.z for _, job in room.jobs], want.z, atol=2e-6)
    np.testing.assert_array_equal([message.tokens for message in got], want.tokens)
    np.testing.assert_array_equal([message.steps for message in got], want.steps)
    np.testing.assert_allclose([message.temperature for message in got], want.temperature, atol=1e-6)
    np.testing.assert_array_equal([message.cascade["budget"] for message in got], want.budget)
    assert all(len(message.cascade["targets"]) == 7 for message in got)


# How often, and how early.

budgets = st.builds(Budget, st.floats(0.0, 1.0), st.lists(st.floats(0.0, 1.0), max_size=4).map(tuple),
                    st.floats(0.0, 0.5))


@given(st.sampled_from(["diffusion", "modulate", "threshold"]), st.floats(40.0, 240.0), budgets)
def test_a_grid_at_each_bar_is_promised_only_where_the_fewest_steps_fit(mode, bpm, budget):
    bars = pace(mode, bpm, budget)
    needed = LEEWAY * budget.seconds(STEPS_MIN) + SLACK + RESERVE
    assert bars == (1 if mode == "diffusion" and needed <= 240.0 / bpm else GRID_BARS)
    if bars == 1:  # what is promised can be kept: a window cut when its lead begins leaves the fewest steps
        assert lead(mode, bpm, budget) + RESERVE <= 240.0 / bpm + 1e-9


@given(st.floats(40.0, 240.0), budgets)
def test_a_window_is_cut_late_but_never_too_late_for_the_fewest_steps(bpm, budget):
    early = lead("diffusion", bpm, budget)
    fewest, eased = (ease * budget.seconds(STEPS_MIN) + SLACK for ease in (1.0, LEEWAY))
    between = window_seconds(bpm) * pace("diffusion", bpm, budget) / GRID_BARS
    fits = eased + RESERVE <= between
    assert early >= max(eased if fits else fewest, LEAST_LEAD)
    assert early <= max(LATEST * between - RESERVE, eased if fits else fewest, LEAST_LEAD) + 1e-9
    assert budget.steps(early) >= STEPS_MIN


def test_before_the_first_grid_a_call_is_taken_to_last_longer_than_alone():
    """And after a few grids that are as quick as alone, no more."""
    budget = expected(Ready(0.02, 0.1, 0.1))
    assert budget.seconds(STEPS_MIN) > Budget(0.02, (), 0.1).seconds(STEPS_MIN) * 1.4
    for _ in range(12):
        budget = budget.measured(SimpleNamespace(calls=10, seconds=0.2, overhead=0.1))
    assert budget.seconds(STEPS_MIN) == pytest.approx(Budget(0.02, (), 0.1).seconds(STEPS_MIN), rel=0.02)


def test_a_fast_network_is_cut_later_than_the_cap_and_a_slower_one_at_it():
    cap = LATEST * 2.0 - RESERVE  # s, at 120 bpm
    quick, middling = Budget(0.001, (), 0.01), Budget(0.6 * cap / SAFETY / (STEPS_MIN + SCORING))
    assert lead("diffusion", 120.0, quick) == LEAST_LEAD < cap == lead("diffusion", 120.0, middling)
    assert quick.steps(lead("diffusion", 120.0, quick)) == STEPS_MAX
    assert STEPS_MIN < middling.steps(lead("diffusion", 120.0, middling)) < STEPS_MAX
    # Where the fewest steps take more than the cap, they decide.
    assert lead("diffusion", 120.0, SLOW) == LEEWAY * SLOW.seconds(STEPS_MIN) + SLACK > LATEST * 4.0


events = st.lists(st.tuples(st.sampled_from(["slow", "kill", "jump", "nan", "refuse", "late", "tempo",
                                             "mode"]),
                            st.floats(0.3, 9.0)), max_size=12)


@thorough(deadline=None, max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(events)
def test_whatever_happens_every_start_of_a_grid_is_a_grid_or_a_counted_miss(weights, happenings):
    room, speed, refused = Room(weights, cost=lambda job: (speed[0], 0.02)), [0.01], set()
    for what, seconds in [("slow", 0.01), *happenings, ("slow", 0.01), ("slow", 15.0)]:
        if what == "slow":
            speed[0] = 0.3 if speed[0] < 0.1 else 0.01
        elif what == "kill":
            room.kill(room.now + seconds)
        elif what == "jump":
            room.clock.seek(room.now, 100.0 * seconds, room.clock.cps)
            room.epoch += 1
        elif what == "nan" and room.work:
            room.work = (room.now, Failed(room.work[1].window, "NaN"))
        elif what == "refuse" and room.state.coming:
            refused.add(room.state.coming[-1].made.window)
            room.state = engine.refused(room.state, room.state.coming[-1].made.window)
        elif what == "late" and room.state.coming:
            coming = room.state.coming[-1]
            room.state = engine.evaluated(room.state, coming.made.window, coming.at + 2.0)
        elif what == "mode":
            mode = "threshold" if room.state.wanted.mode == "diffusion" else "diffusion"
            room.state = room.state._replace(wanted=room.state.wanted._replace(mode=mode))
        elif what == "tempo":
            room.clock.seek(room.now, room.clock.position(room.now), (40.0 + 20.0 * seconds) / 240.0)
        room.run(seconds)
    ids = [message.id for _, message in room.evals]
    assert ids == sorted(set(ids)) and set(ids) <= {job.window for _, job in room.jobs}
    sent = {message.id: np.array(message.tokens) for _, message in room.evals}
    for _, job in room.jobs:  # always made from a grid that was sent, never from one that was thrown away
        before = {i for i in sent if i < job.window}
        nothing = before <= refused and (job.previous == PROCESS.mask).all()
        assert nothing or any(np.array_equal(job.previous, sent[i]) for i in before)
    for (reading, bar), (_, following) in zip(room.bars, room.bars[1:], strict=False):
        assert bar.playing.at <= reading.heard or reading.epoch
        assert following.playing.made.window >= bar.playing.made.window
    # The account closes: the target moves on for each grid that was sent or missed, by one bar or two; what is left is
    # one bar up to an even one, where grids come in each two from then on.
    for before, after, happened, bars in room.moves:
        assert happened <= after - before <= 2 * happened + (after % 2 == 0 and bars == 2)
    assert all(at % 2 == 0 for at in room.ruled)
