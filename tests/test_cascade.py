"""The Lipschitz cascade: no search, no noise and no violent edit of a motion exceeds a proved bound."""

import json
import math
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CAP, KAPPA, SLACK

from eqdiff_jax import cascade, compose, lipschitz_cascade, motion
from eqdiff_jax.composer import PROCESS, SLOT_WEIGHTS, music, predictor
from eqdiff_jax.conditioning import LAYOUT, assemble
from eqdiff_jax.control import controlled
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.targets import DEFAULT, NAMES, targets
from eqdiff_jax.training import checkpoint
from eqdiff_jax.types import Kind

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "default"
SMALL = cascade.CascadeConfig(starts=3, ascent=2, steps=4, token_steps=2)


@pytest.fixture(scope="module")
def params():
    return checkpoint.load(SHIPPED)


@pytest.fixture(scope="module")
def demo():
    return motion.demo("show", 8.0, 0)


@pytest.fixture(scope="module")
def rows(params, demo):
    return lipschitz_cascade(params, SMALL, limbs=demo)


def test_every_bound_is_above_the_worst_found(rows):
    for row in rows:
        assert row.bound >= 0 and row.measured >= 0 and math.isfinite(row.bound + row.measured + row.offset)
        assert row.measured <= row.bound * (1 + 1e-4), row.stage
    print("\n" + cascade.markdown(rows))


def test_the_table_says_how_sure_each_stage_is(rows):
    kinds = {row.stage: row.kind for row in rows}
    assert len(kinds) == len(rows) == 21
    assert [k for k, v in kinds.items() if v == Kind.ESTIMATED] == ["conditioning -> embedding",
                                                                    "conditioning -> p(tokens)"]
    ranged, = (row for row in rows if row.kind == Kind.RANGE)
    assert all(name in ranged.method for name in ("internal_tempo", "section", "activations", "phase"))
    by_stage = {row.stage: row for row in rows}
    assert "10^264" in by_stage["conditioning -> p(tokens)"].method
    grid = by_stage["conditioning -> grid"]
    assert grid.kind == Kind.PROVED and grid.bound == pytest.approx(384 * KAPPA) and grid.offset == SLACK
    assert by_stage["limbs -> grid"].offset == CAP
    asked = [row for row in rows if row.stage.startswith("conditioning -> target")]
    assert [row.stage.split()[-1] for row in asked] == list(NAMES)
    assert all(row.kind == Kind.PROVED and row.bound < 100 for row in asked)


def test_slack_of_the_frozen_stages(rows):
    """Bound over worst found: 1.5 for single layers, 1.6 for DELL with LIM-RPS, 9 in real time, 60 conditioning.

    A target's bound multiplies the steepest pieces of a table and of a curve, which need not meet.
    """
    limits = {"limb frame -> features, same": 1.01, "limb frame -> features, conf": 1.01, "z_raw -> z*": 1.01,
              "features -> z_raw": 1.5, "limb frame -> z*": 1.6,
              "limbs -> z,": 8, "limbs -> velocity": 9, "limbs -> conditioning, slots": 60,
              **{f"conditioning -> target {name}": 3 for name in NAMES}}
    for start, limit in limits.items():
        row, = (row for row in rows if row.stage.startswith(start))
        assert row.bound <= limit * row.measured, row.stage


def test_same_key_same_table_and_stages_follow_the_parameters(params, demo, rows):
    only = lipschitz_cascade({name: params[name] for name in ("motion", "statistics")}, SMALL, limbs=demo)
    assert [row.stage for row in only] == [row.stage for row in rows][:9 + len(NAMES)]
    assert only == rows[:9 + len(NAMES)]


def test_json_table_and_picture(rows, tmp_path):
    assert json.loads(json.dumps(cascade.as_dicts(rows), allow_nan=False))[0]["kind"] == "proved"
    lost = cascade.as_dicts([rows[0]._replace(bound=math.inf)])[0]
    assert lost["bound"] is None and "bound" in lost["note"]
    table = cascade.markdown(rows)
    assert table.count("\n") == len(rows) + 2 and all(row.stage in table for row in rows)
    cascade.draw(rows, tmp_path / "cascade.png")
    assert (tmp_path / "cascade.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def variations(limbs):
    """name -> the motion changed: twice by sensor noise (5 mm, 1 cm on a person), once torn apart."""
    rng, moves = np.random.default_rng(0), np.arange(8) < 7
    made = {f"noise {size}": limbs + np.float32(size * rng.normal(size=limbs.shape) * moves) for size in (0.003, 0.006)}
    torn = limbs.copy()
    half = len(limbs) // 2
    torn[half:, :, :3] = 0.5 * torn[half:, ::-1, :3]
    torn[half:, :, 3:7] *= -3.0
    return made | {"violent edit": torn}


def assert_bounded(params, rows, limbs, capsys, title):
    """Measured changes beside their bounds, as a table; asserts that no proved one is exceeded."""
    by_stage = {row.stage: row for row in rows}
    edges = boundaries(len(limbs), 120.0)[:3]
    limbs = limbs[:edges[-1]]
    weights, statistics = music(params), params["statistics"]

    def play(limbs):
        frames = padded_trajectory(params["motion"], limbs)
        return frames, np.asarray(assemble(*window_means(frames, edges)), np.float64)

    base, c = play(limbs)
    start = jnp.float32(c[0])

    def step(now, key=1, grid=None):
        grid = first if grid is None else grid
        return compose(jax.random.key(key), weights, jnp.float32(now), grid, previous_conditioning=start,
                       bucket=jnp.int32(0))

    def law_of(now):
        guided = predictor(weights, now[None], statistics.guidance)
        predict = controlled(guided, targets(now[None], statistics), jnp.asarray(DEFAULT.weight), statistics, 1.0)
        return jnp.exp(predict(first[None].at[:, :, ::2].set(PROCESS.mask), jnp.zeros(1)))[0, :, ::2]

    first = step(start, 0, jnp.full(SHAPE, PROCESS.mask, jnp.int32)).tokens
    law = jax.jit(law_of)
    plain, p = step(c[1]), law(jnp.float32(c[1]))
    smooth = np.concatenate([np.arange(104)[LAYOUT[name]] for name in (
        "z", "velocity", "tension", "grounding", "verticality", "lr_pan", "energy", "transition_intensity",
        "prediction_confidence")])
    lines = [f"{title}: change of the limbs, then measured / bound", "| motion | limbs | z | velocity | conditioning "
             "(continuous) | all 104 | p(tokens), TV | cells |", "|---|---|---|---|---|---|---|---|"]
    for name, other in variations(limbs).items():
        size = np.linalg.norm((np.float64(other) - limbs).reshape(len(limbs), -1), axis=1).max()
        frames, d = play(other)
        moved = {
            "limbs -> z, real time": np.linalg.norm(np.float64(frames.z) - base.z, axis=1).max(),
            "limbs -> velocity, real time": np.linalg.norm(np.float64(frames.velocity) - base.velocity, axis=1).max(),
            "limbs -> conditioning, slots with a constant": np.linalg.norm((c - d)[:, smooth], axis=1).max(),
            "limbs -> conditioning, all 104": np.linalg.norm(c - d, axis=1).max(),
        }
        cells = []
        for stage, value in moved.items():
            bound = by_stage[stage].bound * size + by_stage[stage].offset
            assert value <= bound, (name, stage)
            cells.append(f"{value:.3g} / {bound:.3g}")
        change = np.linalg.norm(c[1] - d[1])
        variation = 0.5 * np.abs(np.asarray(law(jnp.float32(d[1])) - p)).sum(-1).max()
        estimate = by_stage["conditioning -> p(tokens)"].bound * change  # no bound: may be exceeded
        after = step(d[1])
        apart = int((np.asarray(after.tokens) != plain.tokens).sum())
        allowed = int(plain.budget) + int(after.budget)
        from_first = int((np.asarray(after.tokens) != first).sum())
        moved = np.linalg.norm(SLOT_WEIGHTS * (np.float32(d[1]).astype(np.float64) - np.float32(c[0])))
        assert from_first <= min(CAP, 384 * KAPPA * moved + SLACK)
        assert apart <= allowed <= 2 * CAP
        lines.append(f"| {name} | {size:.3g} | {' | '.join(cells)} | {variation:.3g} / ~{estimate:.3g} | "
                     f"{apart} / {allowed} |")
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def test_close_and_violent_motions_of_the_demo_dancer(params, demo, rows, capsys):
    assert_bounded(params, rows, demo, capsys, "demo dancer")


def test_close_and_violent_real_motions(params, rows, eqdiff_data, tmp_path, capsys):
    with tarfile.open(eqdiff_data / "motion" / "cmu_salsa_acrnn_MIT.tar.xz") as tar:
        members = [m for m in tar.getmembers() if m.name.endswith("salsa/01.bvh")]
        tar.extractall(tmp_path, members, filter="data")
    limbs = motion.clean(motion.load(next(tmp_path.rglob("*.bvh"))))[:480]
    assert_bounded(params, rows, limbs, capsys, "CMU salsa")
