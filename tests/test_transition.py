"""transition: the change that is allowed, whatever network and motion do, and the phrases that grids are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CAP, KAPPA, SLACK, STATISTICS

from eqdiff_jax import composer
from eqdiff_jax.composer import PROCESS, compose, pairs, transition
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.diffusion import legal_log_posterior, sample
from eqdiff_jax.diffusion.bounded_change import UNITS
from eqdiff_jax.music import LEGAL
from eqdiff_jax.music.grid import BAR, REST, SHAPE
from eqdiff_jax.paths import SHIPPED
from eqdiff_jax.training import checkpoint

MANY, FEW, CANDIDATES = 250, 6, 3


def random_grids(rng, count):
    return np.stack([rng.choice(np.flatnonzero(LEGAL[t]), (count, 32)) for t in range(12)], axis=1).astype(np.int32)


def random_predictor(seed):
    """A cheap wild network: logits from a random mix of the cells around and the conditioning. No two calls agree."""
    table, mix, pull = (jax.random.normal(k, shape) for k, shape in zip(
        jax.random.split(jax.random.key(seed), 3), ((82, 8), (8, 81), (104, 81)), strict=True))

    def bind(conditioning):
        def predict(tokens, t):
            del t
            around = sum(jnp.roll(table[tokens], (i, j), (1, 2)) for i, j in ((0, 1), (1, 0), (0, -1), (3, 5)))
            return legal_log_posterior(2.0 * around @ mix + (conditioning @ pull)[:, None, None], LEGAL[:, None])
        return predict

    return bind


def wild(candidates, batch):
    """`transition` of random predictors, jitted; rows `broken` [B candidates] of the candidates' say NaN.

    Gives the change and, where there are several, the candidates [B, candidates, 12, 32].
    """
    @jax.jit
    def step(key, seed, now, tokens, before, bucket, control, asked, kappa, slack, cap, broken):
        own = random_predictor(seed)
        drawn = own(jnp.repeat(now, candidates, axis=0))

        def predict(tokens, t):
            return jnp.where(broken[:, None, None, None], jnp.nan, drawn(tokens, t))

        change = transition(key, predict, own(now), now, tokens, before, bucket, candidates=candidates,
                            steps=jnp.full(batch, 2), temperature=jnp.ones(batch), control=control, asked=asked,
                            weight=jnp.ones(7), statistics=STATISTICS, kappa=kappa, slack=slack, cap=cap,
                            sampler="analytic")
        if candidates == 1:
            return change, None
        key_sample = jax.random.split(key, 3)[0]
        return change, sample(key_sample, predict, PROCESS, (batch * candidates, *SHAPE), steps=2).tokens

    def call(key, seed, now, tokens, before, *, bucket=0, control=1.0, kappa=0.05, slack=8, cap=128, broken=()):
        def each(x, kind):
            return jnp.broadcast_to(jnp.asarray(x, kind), (batch,))

        asked = jax.random.uniform(jax.random.fold_in(key, 99), (batch, 7))
        change, drawn = step(
            jax.random.fold_in(key, 0), seed, jnp.asarray(now, jnp.float32), jnp.asarray(tokens, jnp.int32),
            jnp.asarray(before, jnp.float32), each(bucket, jnp.int32), each(control, jnp.float32), asked,
            each(kappa, jnp.float32), each(slack, jnp.int32), each(cap, jnp.int32),
            jnp.isin(jnp.arange(batch * candidates), jnp.asarray(broken, jnp.int32)))
        drawn = drawn if drawn is None else np.asarray(drawn).reshape(batch, candidates, *SHAPE)
        return jax.tree.map(np.asarray, change), drawn

    return call


@pytest.fixture(scope="module")
def many():
    """One candidate and a short chain, for thousands of transitions: the bound may not depend on the chain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composer, "WARM", 12)
        patch.setattr(composer, "MOVES", 4)
        patch.setattr(composer, "ROUNDS", 1)
        yield wild(1, MANY)


@pytest.fixture(scope="module")
def few():
    return wild(CANDIDATES, FEW)


def length(now, before):
    """||W dc|| of what float32 arrays hold, in float64."""
    return np.linalg.norm((now.astype(np.float64) - before) * composer.SLOT_WEIGHTS, axis=1)


def just_below(rng, kappa, most=100):
    """Changes [N, 104] for which 384 kappa ||W dc|| is within 3e-7 below an integer: what float32 rounds up."""
    d = rng.normal(size=(len(kappa), 104))
    aim = rng.integers(1, most, len(kappa)) / (384 * kappa) * (1.0 - 3e-7 * rng.random(len(kappa)))
    return d * (aim / np.linalg.norm(d * composer.SLOT_WEIGHTS, axis=1))[:, None]


def kept(change, tokens, level):
    """Cells changed: within the budget, which is, as is what is left, within the level [B] of the bucket."""
    changed = (change.tokens != tokens).sum((1, 2))
    np.testing.assert_array_equal(changed, change.changed)
    assert (changed <= change.budget).all() and not change.invalid.any()
    assert (change.budget.astype(np.int64) * UNITS <= level).all()
    assert (change.bucket >= 0).all() and (change.bucket + UNITS * changed.astype(np.int64) <= level).all()
    return changed


def every_stretch(spent, inflow, cap):
    """From any call to any other: spent <= inflow + cap. [calls, B]"""
    total, paid = (np.cumsum(np.concatenate([np.zeros((1, x.shape[1])), x]), axis=0) for x in (spent, inflow))
    for start in range(len(spent)):
        assert (total[start + 1:] - total[start] <= paid[start + 1:] - paid[start] + cap).all()


def test_ten_thousand_transitions_keep_the_buckets_law(many):
    """Conditioning teleports, stands still, drifts, and ends just below a whole cell; every chain has its own knobs."""
    rng, calls = np.random.default_rng(0), 40
    tokens, before = random_grids(rng, MANY), np.zeros((MANY, 104), np.float32)
    kappa = rng.uniform(0.01, 0.2, MANY).astype(np.float32).astype(np.float64)
    slack, cap = rng.integers(0, 20, MANY), rng.integers(0, 200, MANY)
    control, bucket = rng.choice([0.0, 0.02, 1.0], MANY), np.zeros(MANY, np.int32)
    spent, inflow, budgets = np.zeros((3, calls, MANY))
    for call in range(calls):
        scale = 10.0 ** rng.uniform(-4, 2, (MANY, 1))
        kind = rng.integers(0, 3, (MANY, 1))  # stands still, moves by any amount, by a tuned one
        d = np.select([kind == 1, kind == 2], [rng.normal(size=(MANY, 104)) * scale, just_below(rng, kappa)])
        now = d.astype(np.float32) if call % 2 else (before + d).astype(np.float32)  # half of them teleport
        change, _ = many(jax.random.key(call), call % 4, now, tokens, before, bucket=bucket, control=control,
                         kappa=kappa, slack=slack, cap=cap)
        moved = length(now, before)
        level = np.minimum(cap * UNITS, bucket + np.floor(kappa * 384 * UNITS * moved) + slack * UNITS)
        changed = kept(change, tokens, level)
        assert (change.budget <= cap).all() and LEGAL[np.arange(12)[:, None], change.tokens].all()
        spent[call], inflow[call], budgets[call] = changed, kappa * 384 * moved + slack, change.budget
        tokens, before, bucket = change.tokens, now, change.bucket
    every_stretch(spent, inflow, cap)
    assert spent.sum() > 0.5 * np.minimum(inflow, cap).sum()  # the budget is used, not merely respected
    assert np.mean(spent[budgets > 64] > 0.5 * budgets[budgets > 64]) > 0.5


def test_five_hundred_of_the_shipped_network():
    """As above, through `compose` as it is shipped: what the bound rests on may not depend on the network either."""
    params, rng, count = checkpoint.load(SHIPPED), np.random.default_rng(3), 100
    tokens, before, bucket = random_grids(rng, count), np.zeros((count, 104), np.float32), np.zeros(count, np.int32)
    kappa = np.full(count, KAPPA, np.float32).astype(np.float64)
    spent, inflow = np.zeros((2, 5, count))
    for call in range(5):
        scale = 10.0 ** rng.uniform(-2, 1, (count, 1))
        d = np.where(rng.random((count, 1)) < 0.5, rng.normal(size=(count, 104)) * scale, just_below(rng, kappa))
        now = (before + d).astype(np.float32)
        change = jax.tree.map(np.asarray, compose(
            jax.random.key(call), composer.music(params), jnp.asarray(now),
            jnp.asarray(tokens), previous_conditioning=jnp.asarray(before), bucket=jnp.asarray(bucket), steps=2))
        moved = length(now, before)
        level = np.minimum(CAP * UNITS, bucket + np.floor(kappa * 384 * UNITS * moved)
                           + SLACK * UNITS)
        spent[call], inflow[call] = kept(change, tokens, level), kappa * 384 * moved + SLACK
        tokens, before, bucket = change.tokens, now, change.bucket
    every_stretch(spent, inflow, CAP)
    assert spent.sum() > 0.3 * np.minimum(inflow, CAP).sum()


def test_the_floor_is_taken_downward(many):
    """From nothing, with nothing for nothing: the budget is the whole cells that the motion pays, or one less."""
    rng = np.random.default_rng(1)
    kappa = rng.choice(np.array([0.05, KAPPA, 0.1875], np.float32), MANY).astype(np.float64)
    before = np.zeros((MANY, 104), np.float32)
    now = just_below(rng, kappa, 384).astype(np.float32)
    change, _ = many(jax.random.key(0), 0, now, random_grids(rng, MANY), before, kappa=kappa, slack=0, cap=384)
    true = 384 * kappa * length(now, before)
    assert (change.budget <= true).all() and (change.budget >= true - 1.01).all()
    assert (true < np.round(true)).mean() > 0.2  # the aim survives float32: some do lie just below


def test_slots_that_report_the_music_pay_for_nothing(many):
    rng = np.random.default_rng(2)
    before = rng.normal(size=(MANY, 104)).astype(np.float32)
    now = before.copy()
    now[:, LAYOUT["activations"]] += 1000 * rng.normal(size=(MANY, 12))
    change, _ = many(jax.random.key(0), 0, now, random_grids(rng, MANY), before, slack=5)
    assert (change.budget == 5).all() and (change.changed <= 5).all()
    now[:, LAYOUT["tension"]] += 1.0
    assert (many(jax.random.key(0), 0, now, random_grids(rng, MANY), before, slack=5)[0].budget > 5).all()


@pytest.mark.parametrize("control", [0.0, 5.0])
def test_without_a_budget_everything_stays(many, control):
    """Bit for bit, however far the body went."""
    rng = np.random.default_rng(3)
    tokens, before = random_grids(rng, MANY), rng.normal(size=(MANY, 104))
    change, _ = many(jax.random.key(1), 1, before + 9.0, tokens, before, control=control, kappa=0.0, slack=0, cap=0)
    np.testing.assert_array_equal(change.tokens, tokens)
    assert not change.changed.any() and not change.budget.any() and not change.bucket.any()


def origins(row, sources):
    """Pairs of `composer.pairs` that give this row [32] of a track, sources [2 + candidates, 32]."""
    return [(a, b) for a, b in pairs(len(sources) - 2)
            if (row[:BAR] == sources[a, :BAR]).all() and (row[BAR:] == sources[b, BAR:]).all()]


def rows(tokens, previous, drawn):
    """(row, its sources) of every track of every example."""
    for x, before, new in zip(tokens, previous, drawn, strict=True):
        sources = np.concatenate([before[None], np.full((1, *SHAPE), REST), new])
        yield from ((x[t], sources[:, t]) for t in range(12))


def test_pairs_keep_first_and_never_mix_two_candidates():
    for n in (1, 2, 5):
        found = pairs(n)
        assert found[0] == (0, 0) and len(set(found)) == len(found) == (2 + n) ** 2 - n * (n - 1)
        assert not any(a != b and min(a, b) > 1 for a, b in found)


def test_a_track_in_a_bar_is_the_unit(few):
    """Each comes whole from the grid before, from silence, or from one candidate; all of them occur."""
    rng, seen = np.random.default_rng(4), []
    for seed in range(6):
        tokens, before = random_grids(rng, FEW), rng.normal(size=(FEW, 104))
        change, drawn = few(jax.random.key(seed), seed, before + 1.0, tokens, before, control=0.05, cap=384)
        for row, sources in rows(change.tokens, tokens, drawn):
            found = origins(row, sources)
            assert found
            seen.append(found[0])
    assert {a for a, _ in seen} | {b for _, b in seen} == set(range(2 + CANDIDATES))
    assert any(a != b for a, b in seen) and any(a == b for a, b in seen)


def test_without_control_nothing_falls_silent(few):
    rng = np.random.default_rng(5)
    for seed in range(4):
        tokens, before = random_grids(rng, FEW), rng.normal(size=(FEW, 104))
        change, drawn = few(jax.random.key(seed), seed, before + 1.0, tokens, before, control=0.0, cap=384)
        assert (change.changed > 0).all()
        for row, sources in rows(change.tokens, tokens, drawn):
            assert any(1 not in pair for pair in origins(row, sources))


def test_candidates_of_nan_are_left_out_and_nothing_is_invented(few):
    """One of three: as if it were not there. All three of an example: its grid plays on, marked, and pays nothing."""
    rng = np.random.default_rng(6)
    tokens, before = random_grids(rng, FEW), rng.normal(size=(FEW, 104))
    tokens[3:5] = PROCESS.mask
    broken = [0, 6, 7, 8, 10, 12, 13, 14]  # example 0: one; 2: all; 3, a first grid: one; 4, a first grid: all
    clean, _ = few(jax.random.key(0), 2, before + 1.0, tokens, before, cap=384)
    change, drawn = few(jax.random.key(0), 2, before + 1.0, tokens, before, cap=384, broken=broken)
    assert change.invalid.tolist() == [False, False, True, False, True, False]
    np.testing.assert_array_equal(change.tokens[2], tokens[2])
    assert change.changed[2] == 0 and (change.tokens[4] == REST).all() and (change.tokens < PROCESS.mask).all()
    for i in (1, 5):
        np.testing.assert_array_equal(change.tokens[i], clean.tokens[i])
    for row, sources in rows(change.tokens[:1], tokens[:1], drawn[:1, 1:]):
        assert origins(row, sources)
    for row, sources in rows(change.tokens[3:4], drawn[3:4, 0], drawn[3:4, 2:]):  # nothing plays: the first stands in
        assert origins(row, sources)


def test_sounding_tracks_are_asked_to_rest_by_chance():
    """One in sixteen, silent ones and those of a first grid never; example i by its own key."""
    sounding = jnp.full((2000, *SHAPE), REST).at[:, 3:, 5].set(40)
    asked = np.asarray(composer.asked_to_rest(jax.random.key(0), sounding))
    assert not asked[:, :3].any()
    rate, count = composer.TIRED, asked[:, 3:].size
    assert abs(asked[:, 3:].mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
    np.testing.assert_array_equal(composer.asked_to_rest(jax.random.key(0), sounding[:7]), asked[:7])
    assert not np.asarray(composer.asked_to_rest(jax.random.key(0), jnp.full((2000, *SHAPE), REST))).any()


@pytest.mark.parametrize(("chance", "least", "most"), [(0.0, 0.0, 0.3), (1.0, 0.9, 1.0)])
def test_who_is_asked_to_rest_does(monkeypatch, chance, least, most):
    """Where nothing else counts and everything may change; without control nothing is asked for."""
    for name, value in {"TIRED": chance, "WARM": 288, "MOVES": 36, "ROUNDS": 4}.items():
        monkeypatch.setattr(composer, name, value)
    monkeypatch.setattr(composer.attributes, "SHARPNESS", 0.0)
    monkeypatch.setattr(composer, "FLUENCY", 0.0)
    rng, step = np.random.default_rng(7), wild(CANDIDATES, FEW)
    tokens, before = random_grids(rng, FEW), rng.normal(size=(FEW, 104))
    change, _ = step(jax.random.key(0), 3, before + 1.0, tokens, before, slack=384, cap=384)
    assert least <= (change.tokens == REST).all(-1).mean() <= most
    change, _ = step(jax.random.key(0), 3, before + 1.0, tokens, before, slack=384, cap=384, control=0.0)
    assert not (change.tokens == REST).all(-1).any()
