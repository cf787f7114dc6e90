"""How training/response.py gathers performances from recordings, and plays them side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CAP, random_params

from eqdiff_jax import motion
from eqdiff_jax.composer import PROCESS
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.windows import FRAME_RATE, window_seconds
from eqdiff_jax.music import LEGAL, instrument_activations
from eqdiff_jax.training import response
from eqdiff_jax.training.response import (
    LEAST,
    LENGTH,
    Performance,
    conducted,
    joined,
    performance,
    play,
    played_through,
)
from eqdiff_jax.types import Change

BPM = 240.0
NOBODY = {"encoder": None, "denoiser": None, "statistics": None}


@pytest.fixture(scope="module")
def chain():
    return motion.init_params(jax.random.key(0))


@pytest.fixture(scope="module")
def dance():
    return motion.demo("show", 12 * window_seconds(BPM), 0)


def recordings(dance, *windows):
    """Pieces of the dance, of so many windows and a little more, each another one."""
    frames = round(window_seconds(BPM) * FRAME_RATE)
    return [(f"piece {i}", dance[10 * i:10 * i + n * frames + 5]) for i, n in enumerate(windows)]


def test_long_recordings_are_played_through_once(chain, dance):
    found = played_through(chain, recordings(dance, LEAST - 1, LEAST, LEAST + 2), BPM)
    assert [(p.name, len(p.conditioning), p.clips) for p in found] == [("piece 1", LEAST, 1), ("piece 2", LEAST + 2, 1)]
    for one in found:
        assert one.conditioning.shape[1] == 104 and not one.conditioning[:, LAYOUT["activations"]].any()
        assert len(one.speed) == len(one.conducted) == len(one.conditioning) and (one.speed > 0).all()
        assert LEGAL[np.arange(12)[:, None], one.conducted].all()
    limbs = recordings(dance, LEAST - 1, LEAST)[1][1]
    frames = round(window_seconds(BPM) * FRAME_RATE)
    assert found[0].speed[1] == pytest.approx(np.linalg.norm(limbs[frames:2 * frames, :, 3:6], axis=-1).mean())


def test_recordings_that_are_all_too_short_are_refused_in_one_line(chain, dance):
    with pytest.raises(InputError, match=f"no recording holds {LEAST} windows of two bars at 240 bpm: give") as e:
        played_through(chain, recordings(dance, 1, LEAST - 1), BPM)
    assert "\n" not in str(e.value)
    with pytest.raises(InputError):
        played_through(chain, [], BPM)


def test_short_clips_are_joined_and_long_ones_are_not(chain, dance):
    clips = recordings(dance, *[1, 2, 3] * 5, LEAST, 0)
    found = joined(chain, clips, BPM)
    assert len(found) == sum([1, 2, 3] * 5) // LENGTH and [p.name for p in found] == ["joined 1", "joined 2"]
    short = {round(float(s), 6) for name, limbs in clips[:15] for s in performance(chain, name, [limbs], BPM).speed}
    for one in found:
        assert len(one.conditioning) == len(one.speed) == len(one.conducted) == LENGTH and one.clips >= LENGTH // 3
        assert {round(float(s), 6) for s in one.speed} <= short
    again, other = joined(chain, clips, BPM), joined(chain, clips, BPM, seed=1)
    np.testing.assert_array_equal(again[0].conditioning, found[0].conditioning)
    assert (other[0].speed != found[0].speed).any()
    assert joined(chain, clips[15:], BPM) == [] == joined(chain, clips[:3], BPM)


def test_what_the_conductor_plays_is_bounded_by_nothing(chain, dance):
    made = conducted(played_through(chain, recordings(dance, LEAST, LEAST + 1), BPM))
    assert made.member.tolist() == [0] * LEAST + [1] * (LEAST + 1)
    np.testing.assert_array_equal(made.fresh, np.diff(made.member, prepend=-1) > 0)
    np.testing.assert_array_equal(made.changed[1:], (made.tokens[1:] != made.tokens[:-1]).sum((1, 2)))
    assert (made.budget == 384).all()


def performances(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for i, n in enumerate(sizes):
        c = rng.normal(0, 0.5, (n, 104)).astype(np.float32)
        c[:, LAYOUT["activations"]] = 0.0
        made.append(Performance(f"{i}", c, rng.random(n), 1, np.zeros((n, 12, 32), np.int32)))
    return made


@pytest.fixture
def asked(monkeypatch):
    """What `play` asks of a compose that makes up an answer, and what it was answered."""
    calls = []

    def compose(key, params, conditioning, previous, **options):
        rng = np.random.default_rng(len(calls))
        tokens = np.where(rng.random(previous.shape) < 0.3, 1, 0).astype(np.int32)
        n = len(tokens)
        change = Change(tokens, (tokens != np.asarray(previous)).sum((1, 2)), np.full(n, 300 + len(calls)), None, None,
                        0, jnp.zeros(n, bool), jnp.asarray(rng.integers(1, 9000, n), jnp.int32))
        calls.append((np.asarray(conditioning), np.asarray(previous), options, change))
        return change

    monkeypatch.setattr(response, "compose", compose)
    return calls


def test_each_performance_has_its_own_past(asked):
    made = performances(2, 4)
    played = play(jax.random.key(0), NOBODY, made, control=0.5, steps=3)
    assert len(asked) == 4 and (asked[0][1] == PROCESS.mask).all() and not np.asarray(asked[0][2]["bucket"]).any()
    for (_, _, _, was), (now, previous, options, _) in zip(asked[:-1], asked[1:], strict=True):
        np.testing.assert_array_equal(previous, was.tokens)
        np.testing.assert_array_equal(options["bucket"], was.bucket)
        np.testing.assert_allclose(now[:, LAYOUT["activations"]],
                                   np.stack([instrument_activations(x) for x in was.tokens]))
        assert options["control"] == 0.5 and options["steps"] == 3
    for (now, *_), (*_, later, _) in zip(asked[:-1], asked[1:], strict=True):
        np.testing.assert_array_equal(later["previous_conditioning"], now)
    rows = [(p, i) for p, n in enumerate((2, 4)) for i in range(n)]
    np.testing.assert_array_equal(played.tokens, [asked[i][3].tokens[p] for p, i in rows])
    np.testing.assert_array_equal(played.budget, [300 + i for _, i in rows])
    np.testing.assert_array_equal(played.conditioning, [asked[i][0][p] for p, i in rows])
    own = np.delete(np.arange(104), np.r_[LAYOUT["activations"]])
    np.testing.assert_array_equal(played.conditioning[:, own], np.concatenate([p.conditioning for p in made])[:, own])
    assert played.member.tolist() == [0, 0, 1, 1, 1, 1] and played.fresh.tolist() == [True, False, True] + [False] * 3
    np.testing.assert_array_equal(played.speed, np.concatenate([p.speed for p in made]))


def test_fresh_windows_start_from_nothing(asked):
    played = play(jax.random.key(0), NOBODY, performances(3, 2), fresh=True)
    for _, previous, options, _ in asked:
        assert (previous == PROCESS.mask).all() and not np.asarray(options["bucket"]).any()
    assert played.fresh.all() and len(asked) == 3


def test_a_performance_does_not_hear_its_neighbours():
    """With a real network: bounded, and the same whoever plays beside it."""
    params, made = random_params(0.5), performances(3, 2)
    played = play(jax.random.key(0), params, made, steps=2)
    other = play(jax.random.key(0), params, [made[0], performances(1, 3, seed=5)[1]], steps=2)
    np.testing.assert_array_equal(played.tokens[:3], other.tokens[:3])
    assert (played.tokens[3:] != other.tokens[3:5]).any()
    assert LEGAL[np.arange(12)[:, None], played.tokens].all()
    bounded = ~played.fresh
    assert (played.budget[~bounded] == 384).all() and (played.budget[bounded] <= CAP).all()
    assert (played.changed <= played.budget).all()
    np.testing.assert_array_equal(played.changed[1:][bounded[1:]],
                                  (played.tokens[1:] != played.tokens[:-1]).sum((1, 2))[bounded[1:]])
    broken = params | {"denoiser": jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params["denoiser"])}
    with pytest.raises(InputError, match="the network gave NaN"):
        play(jax.random.key(0), broken, made, steps=2)
