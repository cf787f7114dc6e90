"""Statistics of a dataset: quantiles of its complete training pairs, and of nothing else."""

import json

import jax
import numpy as np
import pytest
from networks import STATISTICS

from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.control import spread
from eqdiff_jax.data import quantiles
from eqdiff_jax.music import LEGAL, descriptors
from eqdiff_jax.music.attributes import attributes, harsh, sums
from eqdiff_jax.music.grid import events
from eqdiff_jax.statistics import LEVELS, SOURCES, parse
from eqdiff_jax.targets import NAMES


@pytest.fixture(scope="module")
def grids(random_grid):
    rng = np.random.default_rng(4)
    return np.stack([np.zeros((12, 32), np.int32), *(random_grid(rng) for _ in range(29))])


def test_sources_are_quantiles_of_their_slots():
    c = np.random.default_rng(0).normal(size=(40, 104))
    found = quantiles.source_quantiles(c)
    assert list(found) == list(SOURCES)
    for name, row in found.items():
        np.testing.assert_allclose(row, np.quantile(c[:, LAYOUT[name].start], LEVELS))


def test_thinned_grids_are_grids_with_fewer_tracks(grids):
    """The sums are those of the grid in which only some sounding tracks play, at least one; any number is as likely."""
    parts, kept = quantiles.track_sums(grids), []
    for seed in range(20):
        thin = quantiles.thinned(parts, seed)
        sounding = parts.sounding.sum(1)
        assert (thin.sounding >= np.minimum(sounding, 1)).all() and (thin.sounding <= sounding).all()
        kept.append(thin.sounding / np.maximum(sounding, 1))
    assert 0.4 < np.mean(np.array(kept)[:, sounding > 3]) < 0.75
    rng, keep = np.random.default_rng(0), np.zeros((30, 12), bool)  # the documented seed
    for row, notes in zip(keep, grids, strict=True):
        tracks = rng.permutation(sorted({n.track for n in events(notes)}))
        row[tracks[:rng.integers(1, len(tracks) + 1)].astype(int) if len(tracks) else []] = True
    want = jax.jit(attributes)(np.where(keep[..., None], grids, 0))
    found = quantiles.achieved_quantiles(parts)
    assert list(found) == [name for name in NAMES if name != "layers"]  # which is its own rank
    for name in found:
        np.testing.assert_allclose(found[name], np.quantile(getattr(want, name), LEVELS), atol=1e-5)
    for name, value in zip(descriptors(grids[0])._fields, descriptors(np.where(keep[7, :, None], grids[7], 0)),
                           strict=True):
        assert float(getattr(want, name)[7]) == pytest.approx(value, abs=2e-5)


def test_spreads_and_harshness_are_those_of_whole_grids(grids):
    wide = spread(jax.nn.one_hot(grids, 81))
    np.testing.assert_allclose(quantiles.spread_quantiles(grids), np.quantile(wide, LEVELS), rtol=1e-4)
    means, errors = quantiles.rough_by_notes(grids)
    one = jax.jit(lambda grid: harsh(jax.tree.map(lambda x: x.sum(0), sums(grid))))
    share = np.array([float(one(grid)) for grid in grids])
    notes, edges = np.array([len(events(grid)) for grid in grids]), quantiles.NOTE_EDGES
    for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        rows = share[(notes >= low) & (notes < high)]
        if len(rows):
            assert means[i] == pytest.approx(rows.mean(), abs=1e-6)
            assert errors[i] == pytest.approx(rows.std() / np.sqrt(len(rows)), abs=1e-6)
        else:
            assert np.isnan(means[i]) and np.isnan(errors[i])


def test_the_command_reads_complete_training_pairs_only(monkeypatch, capsys):
    """Rows that are not observed, or not paired, count for nothing; no other split is opened."""
    rng, asked = np.random.default_rng(1), []
    tokens = np.array([[rng.choice(np.flatnonzero(LEGAL[t]), 32) for t in range(12)] for _ in range(12)], np.int32)
    columns = {"tokens": tokens, "conditioning": rng.uniform(size=(12, 104)), "observed": np.ones((12, 12), bool),
               "paired": np.ones(12, bool)}
    columns["observed"][3, 4], columns["paired"][5] = False, False
    monkeypatch.setattr(quantiles, "prepare", lambda name, folder: (name, folder))
    monkeypatch.setattr(quantiles, "arrays", lambda builder, split: asked.append((*builder, split)) or columns)
    assert quantiles.main(["--data", "some", "--data_dir", "there"]) == 0
    assert asked == [("some", "there", "train")]
    text, _, rest = capsys.readouterr().out.partition("\n\n")
    printed, complete = json.loads(text), np.delete(np.arange(12), [3, 5])
    for title, want in (("sources", quantiles.source_quantiles(columns["conditioning"][complete])),
                        ("achieved", quantiles.achieved_quantiles(quantiles.track_sums(tokens[complete])))):
        assert list(printed[title]) == list(want)
        for name, row in want.items():
            np.testing.assert_allclose(printed[title][name], row, atol=2e-5)
    notes = [len(events(grid)) for grid in tokens[complete]]
    np.testing.assert_allclose(printed["notes"], np.quantile(notes, LEVELS[[1, -2]]))
    assert parse(printed).sounding >= 10 and rest.startswith("harsh time by number of notes") and "| layers |" in rest


def test_statistics_are_written_into_a_checkpoint_that_has_none(monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(2)
    columns = {"tokens": np.zeros((5, 12, 32), np.int32), "conditioning": rng.uniform(size=(5, 104))}
    columns["tokens"][:, 0, :3] = np.flatnonzero(LEGAL[0])[1]
    monkeypatch.setattr(quantiles, "prepare", lambda name, folder: None)
    monkeypatch.setattr(quantiles, "arrays", lambda builder, split: columns)
    model = tmp_path / "model.json"
    assert quantiles.main(["--checkpoint", str(tmp_path)]) == 2 and "model.json" in capsys.readouterr().err
    model.write_text(json.dumps({"card": "old"}))
    assert quantiles.main(["--checkpoint", str(tmp_path), "--kappa", "0.5"]) == 0
    stored = json.loads(model.read_text())
    assert stored["card"] == "old" and parse(stored["statistics"]).kappa == np.float32(0.5)


def test_rows_count_all_when_none_is_complete():
    columns = {"tokens": np.zeros((4, 12, 32), np.int32), "conditioning": np.zeros((4, 104)),
               "observed": np.eye(4, 12, dtype=bool)}
    assert len(quantiles.complete(columns)[1]) == 4
    columns["observed"][2] = True
    assert len(quantiles.complete(columns)[1]) == 1


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert quantiles.main(["--data", "nonsense", "--data_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("quantiles: unknown data config 'nonsense'") and error.count("\n") == 1


def test_correlations_are_of_ranks_and_know_which_targets_share_a_source():
    rng = np.random.default_rng(0)
    conditioning = rng.random((400, 104)).astype(np.float32)
    found = quantiles.correlations(conditioning, STATISTICS)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    density, intensity, layers = (NAMES.index(name) for name in ("density", "intensity", "layers"))
    assert found[intensity, layers] > 0.9 and abs(found[density, intensity]) < 0.15
