"""The performance under an injected clock: grids on their bars, misses accounted for, and the same grids as offline."""

from collections import deque

import jax
import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as thorough
from hypothesis import strategies as st
from test_sample import export

from eqdiff_jax import motion, performance
from eqdiff_jax.composer import PROCESS
from eqdiff_jax.live import engine
from eqdiff_jax.live.budget import RESERVE, Budget, opening
from eqdiff_jax.live.clock import InnerClock, Reading
from eqdiff_jax.live.engine import Settings
from eqdiff_jax.live.wire import Crossfade, SetParam
from eqdiff_jax.live.worker import Failed, Made, Ready, make
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.windows import boundaries
from eqdiff_jax.music.conductor import instrument_activations
from eqdiff_jax.training import checkpoint

FAST = Budget(0.01, (), 0.02)  # a small network
STANDARD = Settings()


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
                min(27, job.most or 27), 0.95, 8, int((tokens != job.previous).sum()), calls, seconds, besides, 0.3)


class Room:
    """Clock, engine and a worker whose grids take as long as `cost(job)` says, in seconds that pass at will."""

    def __init__(self, weights, settings=STANDARD, budget=FAST, *, seed=0, ahead=0.3, cost=None):
        self.weights, self.now = weights, 0.0
        self.cost = cost or (lambda job: (0.01, 0.02))  # seconds per call, and besides
        self.clock = InnerClock(0.0, settings.bpm / 240.0, ahead=ahead,
                                position=opening(settings.mode, settings.bpm, budget, ahead))
        self.epoch, self.ticks = 0, 0
        self.state = engine.init(settings, seed, budget)
        self.work, self.dead_until = None, -1.0
        self.answers = deque()
        self.jobs, self.evals, self.bars, self.tempos = [], [], [], []  # each with the reading of its moment

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
        self.state, info = engine.tick(self.weights, self.state, frames, reading, answer=answer,
                                       idle=self.work is None and self.dead_until < 0.0)
        if info.job is not None:
            per_call, besides = self.cost(info.job)
            calls = 2 + min(27, info.job.most or 27) if info.job.mode == "diffusion" else 0
            self.jobs.append((reading, info.job))
            self.work = (self.now + per_call * calls + besides, pretend(info.job, per_call * calls, calls, besides))
        for message in info.messages:
            (self.tempos if isinstance(message, SetParam) else self.evals).append((reading, message))
        self.bars += [(reading, bar) for bar in info.bars]
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


def test_every_even_bar_has_a_new_grid_sent_in_time(weights):
    room = Room(weights).run(130.0)
    assert not room.state.misses
    assert starts(room) == list(range(0, room.bars[-1][1].bar + 1, 2)) and len(starts(room)) > 30
    assert [bar.bar for _, bar in room.bars] == list(range(room.bars[-1][1].bar + 1))
    for at, (reading, message) in zip(range(0, 1000, 2), room.evals, strict=False):
        assert at - 2 <= reading.frontier < at - RESERVE * reading.cps
        assert message.id == at // 2 and message.at == "bar" and message.bars == 2
    assert [job.window for _, job in room.jobs] == list(range(len(room.jobs)))


def test_each_grid_starts_from_the_one_that_sounds_before_it(weights):
    room = Room(weights).run(60.0)
    assert (room.jobs[0][1].previous == PROCESS.mask).all() and room.jobs[0][1].previous_conditioning is None
    tokens = {message.id: np.array(message.tokens) for _, message in room.evals}
    for _, job in room.jobs[1:]:
        np.testing.assert_array_equal(job.previous, tokens[job.window - 1])
        assert job.previous_conditioning[0] == job.window - 1
        np.testing.assert_array_equal(job.activations, instrument_activations(tokens[job.window - 1]))
    for (_, before), (_, after) in zip(room.evals, room.evals[1:], strict=False):
        assert after.changed == np.argwhere(np.array(before.tokens) != after.tokens).tolist()


@pytest.mark.parametrize("bpm", [120.0, 126.0, 97.3, 40.0, 240.0])
def test_windows_close_at_the_frames_that_offline_windows_close_at(weights, bpm):
    room, at = Room(weights, Settings(bpm=bpm)), []
    while len(at) < 20:
        if room.tick().job is not None:
            at.append(room.ticks)
    np.testing.assert_array_equal(at, boundaries(at[-1] + 30, bpm)[1:21])


def test_a_slow_network_takes_fewer_steps_and_misses_nothing(weights):
    budget = Budget(0.25, (), 0.05)
    room = Room(weights, budget=budget, cost=lambda job: (0.25, 0.05)).run(120.0)
    assert not room.state.misses
    assert {message.steps for _, message in room.evals} <= set(range(8, 12))
    assert all(job.most * 0.25 < 4.0 for _, job in room.jobs)


def test_a_network_too_slow_for_a_window_gives_every_other_grid(weights):
    """Four steps take 6 s of 4: the boundary between two grids is a miss with its reason, and none comes late."""
    room = Room(weights, budget=Budget(0.8, (), 0.0), cost=lambda job: (0.8, 0.0)).run(200.0)
    assert set(room.state.misses) == {"slow"}
    assert {b - a for a, b in zip(starts(room), starts(room)[1:], strict=False)} == {4}
    assert {message.steps for _, message in room.evals} == {4}


def test_a_sudden_slowdown_is_late_once_and_then_adapted_to(weights):
    room = Room(weights, cost=lambda job: (0.01 if job.window < 10 else 0.12, 0.02)).run(160.0)
    assert room.state.misses == {"late": 1}
    missing = set(range(0, starts(room)[-1], 2)) - set(starts(room))
    assert missing == {20}
    reasons = {bar.bar: bar.missed for _, bar in room.bars if bar.missed}
    assert list(reasons.values()) == [("late",)] and set(reasons) <= {19, 20}
    # The thrown away grid left no trace: the next one starts from what plays.
    later = next(job for _, job in room.jobs if job.window == 11)
    np.testing.assert_array_equal(later.previous, dict((m.id, m.tokens) for _, m in room.evals)[9])


def test_a_dead_worker_costs_grids_but_not_the_music(weights):
    room = Room(weights).run(30.0)
    room.kill(until=room.now + 15.0)
    before = room.state.playing.made.window
    room.run(14.0)
    assert room.state.playing.made.window <= before + 1
    room.run(40.0)
    assert set(room.state.misses) == {"worker"} and 3 <= room.state.misses["worker"] <= 5
    assert [bar.bar for _, bar in room.bars] == list(range(room.bars[-1][1].bar + 1))
    assert starts(room)[-8:] == list(range(starts(room)[-8], starts(room)[-1] + 1, 2))


def test_damaged_weights_are_one_miss_each(weights):
    room = Room(weights).run(20.0)
    while not room.state.misses:  # tried again as long as there is time
        room.tick()
        if room.work:
            room.work = (room.now, Failed(room.work[1].window, "NaN"))
    room.run(20.0)
    assert room.state.misses == {"network": 1}
    assert starts(room)[-4:] == list(range(starts(room)[-1] - 6, starts(room)[-1] + 1, 2))


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
    room.state = engine.evaluated(room.state, late.made.window, late.at + 2.0)
    room.run(20.0)
    assert room.state.misses == {"page": 1}
    assert next(bar.bar for _, bar in room.bars if bar.playing.made.window == late.made.window) == late.at + 2
    assert late.at + 4 in starts(room)
    assert engine.evaluated(room.state, 10**6, 3.0) is room.state


@pytest.mark.parametrize("position", [0.0, 1.2, 1.95, 733.7])
def test_a_page_that_starts_sets_the_bars(weights, position):
    """The music's position jumps to the page's: what was sent plays, and grids go on at its even bars."""
    room = Room(weights).run(23.3)
    newest = room.state.newest.made.window
    room.clock.seek(room.now, position, room.clock.cps)
    room.epoch += 1
    room.bars.clear()
    room.run(30.0)
    assert not room.state.misses
    bars = [bar for _, bar in room.bars]
    assert bars[0].bar == int(position) + 1 and bars[0].playing.made.window >= newest
    started = [b for b in starts(room) if b > position + 3]
    assert started == list(range(started[0], started[-1] + 1, 2)) and started[0] <= position + 6


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


def test_mode_and_genre_begin_with_a_grid(weights):
    room = Room(weights).run(20.0)
    room.state = room.state._replace(wanted=Settings("threshold", "house", 120.0))
    room.run(8.0)
    modes = [(job.mode, job.genre) for _, job in room.jobs]
    assert modes == sorted(modes) and {("diffusion", None), ("threshold", "house")} == set(modes)
    assert room.jobs[-1][1].most == 0 and not room.state.misses
    fades = [message for _, message in room.evals if isinstance(message, Crossfade)]
    assert [message.id for message in fades] == [modes.index(("threshold", "house"))]


def test_late_frames_all_count(weights):
    limbs = motion.demo("groove", 2.0, 0)
    one, many = Room(weights), Room(weights)
    for frame in limbs:
        one.tick(frame[None])
    for i in range(0, len(limbs), 6):
        many.tick(limbs[i:i + 6])
    assert one.state.frames == many.state.frames == len(limbs)
    np.testing.assert_array_equal(one.state.total, many.state.total)


class Perfect(Room):
    """A worker that takes no time: the true `make`, answered at the next tick."""

    def tick(self, frames):
        info = super().tick(frames)
        if info.job is not None:
            self.work = (0.0, make(self.params, info.job)._replace(seconds=0.0, overhead=0.0))
        return info


@pytest.mark.parametrize(("bpm", "seed", "genre", "mode", "takes", "follow"), [
    (120.0, 0, None, "diffusion", 1, 1.0), (126.0, 7, "techno", "diffusion", 3, 0.5),
    (97.3, 3, "ambient", "threshold", 1, 1.0)])
def test_with_all_the_time_it_plays_what_performance_plays(params, weights, bpm, seed, genre, mode, takes, follow):
    limbs = motion.demo("show", 7.5 * 480.0 / bpm, seed)
    edges = boundaries(len(limbs), bpm)
    want, _ = performance.perform(params, limbs, edges, performance.Settings(
        seed=seed, genre=genre, bpm=bpm, mode=mode, takes=takes, follow=follow))
    room = Perfect(weights, Settings(mode, genre, bpm), Budget(), seed=seed)
    room.state = room.state._replace(takes=takes, follow=follow)
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


events = st.lists(st.tuples(st.sampled_from(["slow", "kill", "jump", "nan", "refuse", "late", "tempo"]),
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
    # Without jumps the account closes: each target was sent for, or missed.
    if all(what not in ("jump", "refuse") for what, _ in happenings):
        assert room.state.target == 2 * (len(room.evals) + sum(room.state.misses.values()))
