"""Control: hidden cells whose distribution is tilted towards the targets, and what a grid costs that misses them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import STATISTICS

from eqdiff_jax import control
from eqdiff_jax.composer import PROCESS
from eqdiff_jax.control import spread
from eqdiff_jax.diffusion import legal_log_posterior
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.music.attributes import harsh, of_sums, sums
from eqdiff_jax.music.grid import BAR, SHAPE, SOUNDS, events
from eqdiff_jax.statistics import LEVELS
from eqdiff_jax.targets import NAMES, achieved

EMPTY = np.full((4, *SHAPE), PROCESS.mask)
PITCHED = np.isin(np.arange(81), VOCABULARY.ranges["pitch"])
PITCH = np.where(PITCHED, np.arange(81) - VOCABULARY.ranges["pitch"][0] + 36, 0)
LEAP = grid_of(BASS="C2 ~ C3 ~ C2 ~ C3", LEAD="C5", KICK="bd bd bd")
WEIGHT = jnp.ones(7)
HARSH = float(STATISTICS.harsh)
FAR = 10.0  # a strength with which every goal is in reach


def controlled(predict, asked, weight, *options):
    return control.controlled(predict, asked, weight, STATISTICS, *options)


def goals(asked, weight):
    return control.goals(asked, weight, STATISTICS)


def law(seed, batch):
    """A predictor that is not sure: fixed logits over the legal tokens. [B, 12, 32, 81]"""
    logits = jnp.asarray(np.random.default_rng(seed).normal(0, 1.5, (batch, *SHAPE, 81)), jnp.float32)
    return lambda tokens, t: legal_log_posterior(logits, LEGAL[:, None])


def tilted(seed, asked, strength, tokens, heat=1.0):
    return np.asarray(controlled(law(seed, len(asked)), asked, WEIGHT, strength, heat)(jnp.asarray(tokens), 0.0))


def one_hot(tokens):
    return jax.nn.one_hot(jnp.asarray(tokens), len(VOCABULARY))


def asking(*rows, default=0.5):
    """Targets [N, 7], `default` but where a row says otherwise."""
    return jnp.asarray([[row.get(name, default) for name in NAMES] for row in rows], jnp.float32)


ASKED = asking({"density": 0.2, "intensity": 0.3, "range": 0.45}, {"range": 0.4}, {"density": 0.9, "range": 0.7},
               {"density": 0.8, "intensity": 0.9, "range": 0.9, "layers": 0.7})


def half_given():
    """Four grids [4, 12, 32], half of their cells masked; what is given lies within a fifth, with rests."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((4, *SHAPE), np.int32)
    for t in range(12):
        pitches = np.flatnonzero(LEGAL[t] & SOUNDS)
        tokens[:, t] = rng.choice([*[0] * 40, *pitches[:7]], (4, 32))
    return np.where(rng.random(tokens.shape) < 0.5, PROCESS.mask, tokens)


BOTH = pytest.mark.parametrize("tokens", [EMPTY, half_given()], ids=["empty", "half"])


def test_the_spread_of_a_grid_and_of_a_distribution():
    """The bass is 6 semitones from its centre four times, the lead 0 once; drums do not count."""
    assert float(spread(one_hot(LEAP)[None])[0]) == pytest.approx(24 / 5)
    half = 0.5 * (one_hot(LEAP) + one_hot(grid_of()))  # half as likely notes lie as far apart
    assert float(spread(half[None])[0]) == pytest.approx(24 / 5)
    assert float(spread(one_hot(grid_of(KICK="bd bd"))[None])[0]) == 0.0


def test_goals_are_quantiles_and_go_with_the_targets():
    ranks = np.linspace(0, 1, 21)
    _, semitones = goals(asking(*({"range": r} for r in LEVELS)), WEIGHT)
    np.testing.assert_allclose(semitones, STATISTICS.spreads[np.clip(np.arange(13), 1, 11)], rtol=1e-5)  # no extremes
    for name in ("density", "intensity"):
        notes = np.asarray(goals(asking(*({name: r} for r in ranks)), WEIGHT)[0])
        assert (np.diff(notes) >= 0).all() and notes[-1] > notes[0] + 10
    notes = np.asarray(goals(asking(*({"layers": r} for r in ranks)), WEIGHT)[0])
    assert (np.diff(notes) <= 0).all() and notes[0] > notes[-1]  # as many notes in fewer tracks
    extremes = np.asarray(goals(asking({}, {}, default=0.0), WEIGHT)[0]), np.asarray(goals(asking({}, default=1.0),
                                                                                          WEIGHT)[0])
    for found in (notes, *extremes):
        assert (found >= STATISTICS.notes[0]).all() and (found <= STATISTICS.notes[1]).all()


def test_who_does_not_weigh_has_no_say_in_the_notes():
    asked = asking({"density": 0.4, "intensity": 0.9}, {"density": 0.4, "intensity": 0.1})
    only = jnp.asarray([float(name != "intensity") for name in NAMES])
    notes = np.asarray(goals(asked, only)[0])
    assert notes[0] == notes[1] != float(goals(asked, WEIGHT)[0][0])
    assert np.isfinite(goals(asked, jnp.zeros(7))[0]).all()


@pytest.mark.parametrize("heat", [0.7, 1.2])
@BOTH
def test_the_notes_and_the_spread_are_those_that_are_wanted(tokens, heat):
    """At the temperature at which cells are drawn, with what is given counted in."""
    hidden = tokens == PROCESS.mask
    notes, semitones = goals(ASKED, WEIGHT)
    log = tilted(1, ASKED, FAR, tokens, heat)
    whole = np.where(hidden[..., None], jax.nn.softmax(log / heat), one_hot(tokens))
    np.testing.assert_allclose((whole * SOUNDS).sum((1, 2, 3)), notes, rtol=1e-3)
    plain = np.where(hidden[..., None], jax.nn.softmax(law(1, 4)(tokens, 0.0) / heat), one_hot(tokens))
    # The centres are those of the distribution before, and the number of notes is set afterwards: near, not equal.
    off, was = (np.abs(spread(jnp.asarray(x)) - semitones) for x in (whole, plain))
    assert (off < 0.3 * was).all()
    assert (np.isneginf(log) == ~LEGAL[:, None]).all()


@BOTH
def test_the_spread_moves_pitches_and_no_notes(tokens, monkeypatch):
    """Distances from the centres before add up to the goal; how likely a cell is pitched stays."""
    monkeypatch.setattr(control, "NOTES", 0.0)
    hidden, semitones = tokens == PROCESS.mask, goals(ASKED, WEIGHT)[1]
    plain, log = law(1, 4)(tokens, 0.0), tilted(1, ASKED, FAR, tokens)
    before, after = (np.where(hidden[..., None], np.exp(x), one_hot(tokens)) * PITCHED for x in (plain, log))
    np.testing.assert_allclose(before.sum(-1), after.sum(-1), atol=1e-5)
    centre = (before * PITCH).sum((2, 3)) / before.sum((2, 3)).clip(1e-9)
    distance = np.abs(PITCH - centre[..., None])[:, :, None]
    np.testing.assert_allclose((after * distance).sum((1, 2, 3)) / after.sum((1, 2, 3)), semitones, rtol=1e-3)
    assert (np.abs((before * distance).sum((1, 2, 3)) / before.sum((1, 2, 3)) - semitones) > 0.4).all()


@BOTH
def test_more_strength_comes_no_less_near(tokens):
    """From the network's own numbers to the goals, monotonically."""
    hidden, (notes, semitones) = tokens == PROCESS.mask, goals(ASKED, WEIGHT)
    strengths = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0)
    wholes = [np.where(hidden[..., None], np.exp(tilted(1, ASKED, s, tokens)), one_hot(tokens)) for s in strengths]
    off = np.abs(np.array([(x * SOUNDS).sum((1, 2, 3)) for x in wholes]) - notes)
    assert (np.diff(off, axis=0) <= 0.05).all() and (off[-1] < 0.2).all() and (off[0] > 2.0).all()
    wide = np.abs(np.array([spread(jnp.asarray(x)) for x in wholes]) - semitones)
    assert (np.diff(wide, axis=0) <= 0.1 * wide[0]).all() and (wide[-1] < 0.3 * wide[0]).all()


def test_a_track_that_is_silent_stays_silent():
    """One note in 1e9 has no centre that counts, and pulls nobody."""
    logits = np.random.default_rng(1).normal(0, 1.5, (1, *SHAPE, 81))
    quiet = [t for t in range(12) if (LEGAL[t] & PITCHED).any()][1:4]
    logits[:, quiet] -= 22.0 * PITCHED
    log = controlled(lambda tokens, t: legal_log_posterior(jnp.asarray(logits, jnp.float32), LEGAL[:, None]),
                     asking({"density": 0.99, "range": 0.95}), WEIGHT, 1.0)(jnp.asarray(EMPTY[:1]), jnp.zeros(1))
    assert (np.exp(log)[0, quiet] * PITCHED).sum() < 1e-4
    assert not np.isnan(log).any()


def test_no_strength_is_the_network_itself_and_the_limit_holds():
    asked = asking({"density": 0.99, "range": 0.9}, {"density": 0.0, "range": 0.1})
    plain = np.asarray(law(2, 2)(EMPTY[:2], 0.0))
    np.testing.assert_allclose(tilted(2, asked, 0.0, EMPTY[:2]), plain, atol=1e-5)
    np.testing.assert_allclose(jax.nn.log_softmax(tilted(2, asked, 0.0, EMPTY[:2], 0.8) / 0.8),
                               jax.nn.log_softmax(plain / 0.8), atol=1e-5)
    one = tilted(2, asked, jnp.array([0.1, 0.0]), EMPTY[:2])  # a strength of its own for every example
    np.testing.assert_allclose(one[1], plain[1], atol=1e-5)
    drums = np.flatnonzero(LEGAL[0] & SOUNDS)  # the kick's row: no pitch, so only the notes' odds move
    odds = (one[0, 0][:, drums] - one[0, 0][:, [0]]) - (plain[0, 0][:, drums] - plain[0, 0][:, [0]])
    assert (np.abs(odds) <= 0.1 * control.NOTES + 1e-4).all() and (np.abs(odds) > 0.01).any()


def test_examples_do_not_know_of_each_other():
    """NaN stays where it is, in the network's opinion as in the targets."""
    whole, other = tilted(3, ASKED, 1.0, half_given()), tilted(3, ASKED.at[1:3].set(0.9).at[3].set(jnp.nan), jnp.array(
        [1.0, 1.0, 2.0, 0.5]), np.concatenate([half_given()[:1], EMPTY[1:]]))
    np.testing.assert_array_equal(whole[0], other[0])
    assert not np.array_equal(whole[1], other[1])
    logits = jnp.asarray(np.random.default_rng(3).normal(0, 1.5, (4, *SHAPE, 81)), jnp.float32).at[2].set(jnp.nan)
    broken = controlled(lambda tokens, t: legal_log_posterior(logits, LEGAL[:, None]), ASKED, WEIGHT, 1.0)(
        jnp.asarray(half_given()), 0.0)
    np.testing.assert_array_equal(np.delete(broken, 2, axis=0), np.delete(whole, 2, axis=0))
    assert np.isnan(broken[2]).any()


def grid(seed, notes):
    """A grid with about so many notes, of the tracks' own tokens."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.choice(np.flatnonzero(LEGAL[t] & SOUNDS), 32) for t in range(12)])
    return np.where(rng.random(SHAPE) < notes / 384, rows, 0).astype(np.int32)


_total = jax.jit(lambda tokens: jax.tree.map(lambda x: x.sum(0), sums(tokens)))
_cost = jax.jit(lambda total, asked, weight: control.cost(total, asked, weight, STATISTICS))
_ranks = jax.jit(lambda total: achieved(of_sums(total), STATISTICS))


@given(st.integers(0, 10_000), st.integers(0, 150), st.lists(st.floats(0, 1), min_size=7, max_size=7),
       st.lists(st.floats(0, 10), min_size=7, max_size=7))
@settings(max_examples=60, deadline=None)
def test_the_cost_is_the_sum_it_says(seed, notes, asked, weight):
    tokens = grid(seed, notes)
    missed = (np.asarray(_ranks(_total(tokens)), np.float64) - asked) ** 2 @ np.array(weight)
    worse = max(float(harsh(_total(tokens))) - HARSH, 0.0)
    sides = [1 if note.onset < BAR else -1 for note in events(tokens)]
    uneven = max(abs(sum(sides)) / (len(sides) + control.FEW) - control.UNEVEN_ABOVE, 0.0)
    got = float(_cost(_total(tokens), jnp.asarray(asked, jnp.float32), jnp.asarray(weight, jnp.float32)))
    assert got == pytest.approx(
        missed + control.HARSH_WEIGHT * worse**2 + control.UNEVEN_WEIGHT * uneven**2, rel=1e-4, abs=1e-5)


def twice(tokens):
    """The first bar of a grid, two times."""
    return np.concatenate([tokens[:, :BAR], tokens[:, :BAR]], axis=1)


def test_nothing_is_to_pay_at_the_targets_but_for_harshness_and_uneven_bars():
    """Harshness below the threshold, that is, as recorded music has it, is free; and so is silence."""
    mild, rough = grid_of(PAD="C4 E4 G4", ARP="C5 G4 E4", KICK="bd"), grid_of(PAD="C4 E4 C4", ARP="C#5 F5 C#5")
    uneven = len(events(mild)) / (len(events(mild)) + control.FEW)
    assert float(harsh(_total(mild))) < HARSH < float(harsh(_total(rough))) == 1.0
    for tokens, want in ((twice(mild), 0.0), (twice(rough), control.HARSH_WEIGHT * (1 - HARSH) ** 2),
                         (mild, control.UNEVEN_WEIGHT * (uneven - control.UNEVEN_ABOVE) ** 2), (grid_of(), 0.0)):
        assert float(_cost(_total(tokens), _ranks(_total(tokens)), WEIGHT)) == pytest.approx(want, rel=1e-4, abs=1e-9)


def test_costs_of_many_at_once_are_those_of_each():
    totals = [[_total(grid(2 * i + j, 20 * (i + j))) for j in range(2)] for i in range(3)]
    many = _cost(jax.tree.map(lambda *x: jnp.stack(x).reshape(3, 2, *x[0].shape), *sum(totals, [])), ASKED[:3, None],
                 WEIGHT)
    for i in range(3):
        for j in range(2):
            assert float(many[i, j]) == pytest.approx(float(_cost(totals[i][j], ASKED[i], WEIGHT)), rel=1e-4)


@pytest.mark.parametrize("strength", [-0.1, control.MOST + 0.1, float("nan"), float("inf")])
def test_a_strength_that_cannot_be_used_is_refused_in_one_line(strength):
    with pytest.raises(InputError, match="--control is .*use 0") as error:
        control.check(strength)
    assert "\n" not in str(error.value)


def test_strengths_that_can_be_used():
    assert [control.check(strength) for strength in (0.0, 1.0, control.MOST)] == [None] * 3
