"""The Conductor-pairs builder: legal grids, finite conditioning, splits by clip, determinism."""

import sys

import numpy as np
import pytest

from eqdiff_jax import data
from eqdiff_jax.data.pairs import salsa_clips
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return data.prepare("tiny", tmp_path_factory.mktemp("pairs"))


def test_every_pair_is_legal_and_finite(builder):
    for split in ("train", "validation", "test"):
        rows = data.arrays(builder, split)
        assert len(rows["tokens"]) > 10 and rows["tokens"].shape[1:] == (12, 32)
        assert LEGAL[np.arange(12)[:, None], rows["tokens"]].all()
        assert np.isfinite(rows["conditioning"]).all() and np.abs(rows["conditioning"]).max() < 10


def test_splits_share_no_clip(builder):
    clips = [set(data.arrays(builder, split)["clip"].tolist()) for split in ("train", "validation", "test")]
    assert not clips[0] & clips[1] and not clips[0] & clips[2] and not clips[1] & clips[2]


def test_building_twice_gives_the_same_pairs(builder, tmp_path):
    again = data.arrays(data.prepare("tiny", tmp_path), "test")
    first = data.arrays(builder, "test")
    for name in ("tokens", "conditioning", "clip"):
        np.testing.assert_array_equal(first[name], again[name])


def test_no_tensorflow_at_run_time(builder):
    assert "tensorflow" not in sys.modules


def test_salsa_couples_stay_together(eqdiff_data, monkeypatch):
    monkeypatch.setenv("EQDIFF_DATA", str(eqdiff_data))
    names = {split: [clip.name for clip in salsa_clips(split)] for split in ("validation", "test", "train")}
    numbers = {split: {(int(n.split("-")[1]) - 1) % 15 for n in members} for split, members in names.items()}
    assert sum(map(len, names.values())) == 16 and all(names.values())
    assert not numbers["train"] & (numbers["validation"] | numbers["test"])


def test_salsa_without_data_says_what_to_set(monkeypatch):
    monkeypatch.delenv("EQDIFF_DATA", raising=False)
    with pytest.raises(InputError, match="set EQDIFF_DATA"):
        next(salsa_clips("train"))


def test_unknown_data_config():
    with pytest.raises(InputError, match="unknown data config 'lakh': choose one of tiny"):
        data.prepare("lakh", "nowhere")


def test_batch_rows_visit_every_row_once_an_epoch_and_depend_on_the_step_alone():
    rows = np.concatenate([data.batch_rows(7, step, 4, [10]) for step in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    np.testing.assert_array_equal(data.batch_rows(7, 3, 4, [10]), rows[12:16])
    assert (rows[:10] != rows[10:]).any()


def test_a_mixture_gives_each_part_its_share_and_every_row_once_an_epoch():
    rows = np.concatenate([data.batch_rows(7, step, 4, [9, 5], [3, 1]) for step in range(15)])
    first, second = rows[rows < 9], rows[rows >= 9]
    assert len(first) == 45 and len(second) == 15
    for start in range(0, 45, 9):
        assert sorted(first[start:start + 9]) == list(range(9))
    for start in range(0, 15, 5):
        assert sorted(second[start:start + 5]) == list(range(9, 14))
    assert (rows.reshape(-1, 4)[:, 3] >= 9).all()
    np.testing.assert_array_equal(data.batch_rows(7, 3, 4, [9, 5], [3, 1]), rows[12:16])


def test_a_mixture_is_one_array_per_field(builder):
    twice = data.mixture("tiny*2+tiny", builder.data_dir_root, "test")
    once = data.arrays(builder, "test")
    assert twice.sizes == (len(once["tokens"]),) * 2 and twice.shares == (2, 1)
    assert set(twice.columns) == {"tokens", "observed", "conditioning", "paired"}
    np.testing.assert_array_equal(twice.columns["tokens"][len(once["tokens"]):], once["tokens"])
    assert twice.columns["observed"].all() and twice.columns["paired"].all()


@pytest.mark.parametrize(("name", "says"), [
    ("tiny*0", "whole share"), ("tiny*x", "whole share"), ("tiny+lakh", "unknown data config 'lakh'"),
    ("", "unknown data config ''")])
def test_a_mixture_that_cannot_be(name, says):
    with pytest.raises(InputError, match=says):
        data.check(name)
