"""The evaluation, as its command runs it, on a tiny network: its figures, its files, what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CAP, STORED

from configs.tiny import get_config
from eqdiff_jax import data, motion
from eqdiff_jax.composer import MOST_CANDIDATES, PROCESS, posterior
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.diffusion import classifier_free, nelbo
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL, instrument_activations
from eqdiff_jax.training import baselines, checkpoint, report, response, systems
from eqdiff_jax.training.evaluate import Settings, _by_source, _played, check, evaluate, main, responses
from eqdiff_jax.training.score import TRUSTS, Scored, compare, fit_trust, groups, observed, rate, score
from eqdiff_jax.training.state import init_params

SMALL = Settings(draws=2, limit=9, samples=8, steps=2, candidates=1)
FLAGS = ["--data", "tiny", "--draws", "2", "--limit", "9", "--samples", "8", "--steps", "2", "--candidates", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, parameters of a random network, the tiny pairs); the folder holds weights/ and data/."""
    folder = tmp_path_factory.mktemp("evaluation")
    config = get_config()
    config.depth = 1
    chain, rng = motion.init_params(jax.random.key(0)), np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape), init_params(jax.random.key(1), config))
    checkpoint.export(folder / "weights", params, chain, config, "random", STORED)
    return folder, checkpoint.load(folder / "weights"), data.prepare("tiny", folder / "data")


@pytest.fixture(scope="module")
def found(world):
    return evaluate(world[1], world[2], SMALL)


def _columns(world, count=6):
    rows = data.arrays(world[2], "test")
    return {name: column[:count] for name, column in rows.items()}


def test_score_is_the_nelbo_gathered_by_track(world):
    columns, key = _columns(world), jax.random.key(3)
    bits = score(key, world[1], columns, draws=4)
    # One batch of 32, the last row repeated; noise belongs to places in it.
    rows = np.minimum(np.arange(32), 5)
    predict = posterior(world[1], jnp.asarray(columns["conditioning"][rows]), jnp.ones(32, bool))
    expected = nelbo(jax.random.fold_in(key, 0), predict, PROCESS, jnp.asarray(columns["tokens"][rows]), draws=4)
    np.testing.assert_allclose(bits.sum(1) / 384, np.asarray(expected.per_example[:6]) / np.log(2), rtol=1e-4)
    assert (bits > 0).all() and bits.shape == (6, 12)


def test_tracks_that_are_not_observed_cost_nothing_and_are_not_read(world):
    columns = _columns(world)
    seen = np.ones((6, 12), bool)
    seen[:, [2, 7]] = False
    seen[0, :] = False
    masked, junk = (columns | {"observed": seen, "tokens": np.where(seen[..., None], columns["tokens"], value)}
                    for value in (PROCESS.mask, 50))
    bits = [score(jax.random.key(0), world[1], part, draws=2) for part in (masked, junk)]
    np.testing.assert_array_equal(*bits)
    assert (bits[0][~seen] == 0).all() and (bits[0][seen] > 0).all()
    assert np.isnan(rate(bits[0][:1], seen[:1], np.zeros(1, int)).bits)


def test_unconditioned_scores_do_not_read_the_conditioning(world):
    columns = _columns(world)
    other = columns | {"conditioning": columns["conditioning"][::-1]}
    a, b, c = (score(jax.random.key(0), world[1], part, draws=2, guidance=guidance)
               for part, guidance in ((columns, 0.0), (other, 0.0), (columns, 1.0)))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)
    some = columns | {"paired": np.arange(6) % 2 == 0}
    d = score(jax.random.key(0), world[1], some, draws=2)
    np.testing.assert_allclose(d, np.where(some["paired"][:, None], c, a), rtol=1e-5)


def test_a_guided_score_is_that_of_the_guided_law(world):
    columns, key = _columns(world) | {"paired": np.arange(6) % 3 > 0}, jax.random.key(3)
    bits = score(key, world[1], columns, draws=4, guidance=0.3)
    rows = np.minimum(np.arange(32), 5)
    c = jnp.asarray(columns["conditioning"][rows])
    both = [posterior(world[1], c, jnp.full(32, given)) for given in (True, False)]

    def predict(tokens, t):
        w = 0.3 * jnp.asarray(columns["paired"])[rows][:, None, None, None]
        return classifier_free(*(one(tokens, t) for one in both), w)

    expected = nelbo(jax.random.fold_in(key, 0), predict, PROCESS, jnp.asarray(columns["tokens"][rows]), draws=4)
    np.testing.assert_allclose(bits.sum(1) / 384, np.asarray(expected.per_example[:6]) / np.log(2), rtol=1e-4)


def test_the_fitted_guidance_is_the_best_on_validation(world):
    columns = _columns(world)
    found = fit_trust(jax.random.key(3), world[1], columns, draws=2)
    totals = {w: score(jax.random.key(3), world[1], columns, draws=2, guidance=w).sum() for w in TRUSTS}
    assert found == min(totals, key=totals.get) and len(set(totals.values())) == len(TRUSTS)


def test_rate_is_the_mean_per_cell_with_the_error_of_groups():
    bits = np.array([[32.0], [64.0], [96.0], [64.0]])
    seen = np.ones((4, 1), bool)
    got = rate(bits, seen, np.arange(4))
    assert got.bits == 2.0 and got.stderr == pytest.approx(np.std([1, 2, 3, 2], ddof=1) / 2)
    paired = rate(bits, seen, np.array([0, 0, 1, 1]))
    assert paired.bits == 2.0 and paired.stderr == pytest.approx(np.std([1.5, 2.5], ddof=1) / np.sqrt(2))
    assert np.isnan(rate(bits, seen, np.zeros(4, int)).stderr)
    two = np.array([[1, 1], [1, 0]], bool)
    assert rate(np.array([[32.0, 64.0], [96.0, 0.0]]), two, np.arange(2)).bits == pytest.approx(192 / 96)


def test_groups_are_pieces_or_else_clips():
    tokens = np.zeros((4, 12, 32), int)
    clip, piece = np.array([b"a", b"b", b"a", b"c"]), np.array([b"x", b"x", b"y", b"y"])
    assert groups({"tokens": tokens, "clip": clip}).tolist() == [0, 1, 0, 2]
    assert groups({"tokens": tokens, "clip": clip, "piece": piece}).tolist() == [0, 0, 1, 1]
    assert groups({"tokens": tokens}).tolist() == [0, 1, 2, 3]
    assert observed({"tokens": tokens}).all()


def test_the_movement_is_that_of_the_held_out_pairs(world):
    movement = systems.held_out_movement(world[1]["motion"], systems.held_out_clips(data.CONFIGS["tiny"]), 40)
    test = data.arrays(world[2], "test")
    rows = {row.tobytes(): tokens for row, tokens in zip(test["conditioning"], test["tokens"], strict=True)}
    assert len(movement.conducted) == len(test["tokens"])  # all there are
    for conditioning, conducted in zip(movement.conditioning, movement.conducted, strict=True):
        np.testing.assert_array_equal(rows[conditioning.tobytes()], conducted)
    assert (np.diff(movement.performance) >= 0).all() and movement.performance[0] == 0
    beats = np.concatenate(movement.beats)
    assert len(beats) and (beats >= 0).all() and (beats < 32).all()
    few = systems.held_out_movement(world[1]["motion"], systems.held_out_clips(data.CONFIGS["tiny"]), 4)
    assert len(few.conducted) == 4 and set(few.performance) == {0}


@pytest.fixture(scope="module")
def movement(world):
    return systems.held_out_movement(world[1]["motion"], systems.held_out_clips(data.CONFIGS["tiny"]), 40)


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_played_is_legal_bounded_and_hears_itself(world, movement, monkeypatch, fresh):
    heard = []
    real = systems.compose
    monkeypatch.setattr(systems, "compose", lambda key, params, conditioning, previous, **options: heard.append(
        conditioning) or real(key, params, conditioning, previous, **options))
    tokens = systems.play(jax.random.key(0), world[1], movement, fresh=fresh, steps=2)
    assert LEGAL[np.arange(12)[:, None], tokens].all()
    follows = np.flatnonzero(np.diff(movement.performance) == 0)
    changed = (tokens[follows + 1] != tokens[follows]).sum((1, 2))
    assert (changed > CAP).any() if fresh else (changed <= CAP).all()
    np.testing.assert_array_equal(heard[0][:, LAYOUT["activations"]], 0.0)
    np.testing.assert_allclose(heard[1][0, LAYOUT["activations"]], instrument_activations(tokens[0]))


def test_a_performance_depends_on_the_key_and_not_on_its_neighbours(world, movement):
    a, b, c = (systems.play(jax.random.key(k), world[1], movement, fresh=True, steps=2) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    own = movement.performance == 0
    altered = np.where(own[:, None], movement.conditioning, 0.0)
    again = systems.play(jax.random.key(0), world[1], movement._replace(conditioning=altered), fresh=True, steps=2)
    assert not own.all()
    np.testing.assert_array_equal(again[own], a[own])


def test_a_network_that_gives_nan_is_refused(world, movement):
    broken = world[1] | {"denoiser": jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), world[1]["denoiser"])}
    with pytest.raises(InputError, match="the network gave NaN"):
        systems.play(jax.random.key(0), broken, movement, fresh=True, steps=2)


def test_every_law_is_scored_on_the_same_cells(world):
    train, validation, test = (data.arrays(world[2], split) for split in ("train", "validation", "test"))
    markov = baselines.fit_markov(train["tokens"], validation["tokens"])
    scored = compare(jax.random.key(0), world[1], markov, train, validation, test, draws=2)
    assert [s.kind for s in scored] == ["bound"] * 3 + ["exact"] * 4
    assert all(s.bits.shape == (len(test["tokens"]), 12) and np.isfinite(s.bits).all() for s in scored)
    means = {s.name: rate(s.bits, observed(test), groups(test)).bits for s in scored}
    # The network is random.
    assert means["Markov within tracks"] < means["unigram per cell"] < means["this checkpoint, guidance 1"]


def test_the_report_names_every_system_and_every_figure(found):
    names = [row["name"] for row in found.metrics]
    assert names == ["network alone, guidance 3, fresh", "network alone, guidance 1, fresh",
                     "network alone, bounded", "controlled, fresh", "controlled, bounded", "Conductor",
                     "network, unconditional", "Markov within tracks", "unigram per track", *report.REAL]
    assert [row["name"] for row in found.fidelity] == [*names[:6], "held-out pairs"]
    assert all(row["legality"]["mean"] == 1.0 for row in found.metrics)
    assert all(0 <= row["overlapping_area_mean"] <= 1 for row in found.metrics[:-1])
    assert np.isnan(found.metrics[-1]["overlapping_area_mean"])  # the reference itself
    assert all(-1 <= pair["rho"] <= 1 for row in found.fidelity for pair in row["pairs"].values()
               if not np.isnan(pair["rho"]))
    conductor = found.metrics[names.index("Conductor")]
    assert conductor["beat_score"]["counted"] <= conductor["grids"] == found.windows <= 8
    text = report.markdown(found, "somewhere", "tiny")
    assert all(f"| {name} |" in text for name in names) and " nan" not in text


def test_whole_performances_are_told_apart_by_how_they_are_played(found):
    """Two test clips of five windows at 140 bpm."""
    ways = ["the network alone, bounded", "controlled, bounded", "controlled, fresh", "Conductor"]
    assert list(found.response) == [f"played through: {way}" for way in ways]
    alone, bounded, fresh, conductor = found.response.values()
    assert (alone.windows, bounded.windows, fresh.windows, conductor.windows) == (8, 8, 10, 8)
    assert max(alone.cells, bounded.cells) <= CAP < fresh.cells and fresh.allowed == conductor.allowed == 384
    assert all(row.bits > 0 and row.notes > 0 and 0 <= row.rough <= 1 for row in found.response.values())
    text = report.markdown(found, "somewhere", "tiny")
    assert text.count("| played through: controlled, bounded |") == 5 and "## Whole performances" in text
    grids = {row["name"]: row["grids"] for row in found.metrics}
    assert grids["controlled, bounded"] == grids["network alone, bounded"] < grids["controlled, fresh"] == found.windows


def test_performances_of_one_window_have_no_bounded_row(world, movement, monkeypatch):
    asked = []
    monkeypatch.setattr(systems, "play", lambda *_, fresh, **__: asked.append(fresh) or alone.conducted)
    alone = movement._replace(performance=np.arange(len(movement.conducted)))
    names = [grids.name for grids in _played(jax.random.key(0), world[1], alone, SMALL, True)]
    assert all(asked) and not any("bounded" in name for name in names) and "controlled, fresh" in names


def test_each_recording_is_played_once_however_many_performances_it_has(world, monkeypatch):
    gathered = []
    monkeypatch.setattr(response, "played_through", lambda chain, recordings, bpm: gathered.append(
        [name for name, _ in recordings]) or [])
    clips = systems.held_out_clips(data.CONFIGS["tiny"])
    assert responses(jax.random.key(0), world[1], [*clips, *clips], SMALL) == {}  # too long to be joined, too
    assert gathered == [[clip.name for clip in clips]]


def test_the_command_writes_everything_and_the_same_again(world, found, tmp_path, capsys):
    folder = world[0]
    flags = [*FLAGS, "--checkpoint", str(folder / "weights"), "--data_dir", str(folder / "data"),
             "--out", str(tmp_path / "deep" / "out")]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "deep" / "out"
    assert sorted(p.name for p in out.iterdir()) == ["bits.png", "fidelity.png", "nearest.png", "report.json",
                                                     "report.md"]
    assert (out / "report.md").read_text() in printed
    assert (out / "report.md").read_text() == report.markdown(found, str(folder / "weights"), "tiny")
    written = json.loads((out / "report.json").read_text())
    assert written["data"] == "tiny" and written["examples"] == 9 and len(written["tracks"]) == 7
    assert all((out / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in ("bits", "fidelity", "nearest"))


def test_what_a_source_cannot_say_and_rows_without_movement_are_left_out(world, monkeypatch):
    """Real rows may leave tracks unobserved and have no movement: the report has figures for all the same."""
    real = data.arrays

    def partly(builder, split):
        columns = real(builder, split)
        rng, count = np.random.default_rng(len(columns["tokens"])), len(columns["tokens"])
        seen = np.repeat(np.arange(12)[None] != 4, count, axis=0) & (rng.random((count, 12)) < 0.9)
        return columns | {"observed": seen, "tokens": np.where(seen[..., None], columns["tokens"], PROCESS.mask),
                          "paired": rng.random(count) < 0.7, "source": np.resize([b"one", b"two"], count)}

    monkeypatch.setattr(data, "arrays", partly)
    got = evaluate(world[1], world[2], SMALL)
    assert np.isnan(got.tracks["this checkpoint, guidance 1"]["BASS"]["bits"])
    assert all(np.isfinite(row["bits"]) for row in got.bits) and set(got.sources) == {"one", "two"}
    pairs = got.fidelity[-1]["pairs"]
    assert np.isnan(pairs["grounding -> bass_weight"]["rho"])  # no bass is observed
    assert not np.isnan(pairs["periodicity -> density"]["rho"])
    assert all(row["legality"]["mean"] == 1.0 for row in got.metrics)
    assert " nan" not in report.markdown(got, "somewhere", "partly")


def test_sources_are_told_apart(world):
    columns = _columns(world) | {"source": np.array([b"here", b"there"] * 3)}
    law = Scored("law", "exact", np.repeat([[1.0], [3.0]] * 3, 12, axis=1) * 32)
    got = _by_source([law], columns)
    assert [got[name]["law"]["bits"] for name in ("here", "there")] == [1.0, 3.0]
    assert _by_source([law], _columns(world)) == {}


@pytest.mark.parametrize(("flags", "says"), [
    (["--draws", "0"], "--draws is 0: use 1 or more"), (["--limit", "1"], "--limit is 1"),
    (["--candidates", "0"], "--candidates is 0: use 1 .."), (["--bpm", "nan"], "--bpm is nan: use 40 .. 240"),
    (["--samples", "1"], "--samples is 1"), (["--steps", "-1"], "--steps is -1"), (["--seed", "-1"], "--seed is -1"),
    (["--checkpoint", "{dir}/nothing"], "no checkpoint there"), (["--data", "nosuch"], "unknown data config"),
    (["--out", "{dir}/file"], "cannot write to --out")])
def test_bad_flags_get_one_line(world, flags, says, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    usual = ["--checkpoint", str(world[0] / "weights"), "--data_dir", str(tmp_path / "data"), "--data", "tiny"]
    assert main([*usual, *(flag.format(dir=tmp_path) for flag in flags)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("evaluate: ") and error.count("\n") == 1 and says in error
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nothing_half_written(found, tmp_path, monkeypatch):
    def fails(found):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_distances", fails)
    with pytest.raises(InputError, match="No space left on device"):
        report.write(tmp_path, found, "text", {})
    assert not list(tmp_path.iterdir())


def test_settings_that_can_be_used_are_not_refused():
    for settings in (Settings(), SMALL, Settings(dancers=("salsa", "bandai"))):
        assert check(settings) is None  # it raises otherwise
    with pytest.raises(InputError, match="unknown motion source 'ballet'"):
        check(Settings(dancers=("salsa", "ballet")))
    for count in (0, MOST_CANDIDATES + 1):
        with pytest.raises(InputError, match=f"--candidates is {count}: use 1 .. {MOST_CANDIDATES}"):
            check(Settings(candidates=count))
