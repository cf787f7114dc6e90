"""benchmarks/response.py: its figures on made-up runs, and one short run of everything."""

import json

import jax
import numpy as np
import pytest
from test_sample import export

from benchmarks import response
from benchmarks.response import PHASE, SETTLED, Heard, step

SECONDS = 2.0  # of a bar
UP, DOWN = PHASE + 1.0, 2.0 * PHASE + 1.0  # in the middle of a bar


def heard(column, up=UP, down=DOWN):
    """A run whose bars have these onsets."""
    column = np.asarray(column, float)
    return Heard(SECONDS * np.arange(len(column)), column, column, column, 0, up, down)


def bars(low, high, back, rise=0, fall=0):
    """low, then high from `rise` bars after the change on, then back from `fall` bars after the change back on."""
    start = SECONDS * np.arange(int(3.0 * PHASE / SECONDS))
    column = np.where(start < UP - 1.0 + SECONDS * rise, low, high)
    return np.where(start < DOWN - 1.0 + SECONDS * fall, column, back)


def found(column):
    run = heard(column)
    return step(run, run.onsets)


def test_levels_are_means_of_whole_bars_once_settled():
    column = bars(2.0, 10.0, 3.0, rise=1, fall=1)
    start = SECONDS * np.arange(len(column))
    wild = (start < SETTLED) | ((start >= UP) & (start < UP + SETTLED)) | ((start >= DOWN) & (start < DOWN + SETTLED))
    one, other = found(column), found(np.where(wild, column + 5.0, column))
    assert (one.before, one.during, one.after) == (2.0, 10.0, 3.0)
    assert (other.before, other.during, other.after) == (2.0, 10.0, 3.0)


@pytest.mark.parametrize(("rise", "seconds"), [(0, 0.0), (1, 1.0), (3, 5.0)])
def test_half_way_up_is_counted_from_the_change_to_the_start_of_a_bar(rise, seconds):
    """A bar that plays at the change counts as soon as it is heard."""
    assert found(bars(2.0, 10.0, 2.0, rise=rise)).up == seconds
    assert found(bars(2.0, 10.0, 2.0, rise=rise)).noticed == seconds


def test_half_is_half_and_down_counts_too():
    column = bars(2.0, 10.0, 2.0, rise=4)
    first = int(PHASE / SECONDS) + 1
    column[first] = 5.9  # not half way, but unlike the first part
    assert (found(column).up, found(column).noticed) == (7.0, 1.0)
    column[first] = 6.0
    assert found(column).up == 1.0
    falling = found(bars(10.0, 2.0, 10.0, rise=2))
    assert (falling.up, falling.noticed) == (3.0, 3.0)


@pytest.mark.parametrize(("fall", "seconds"), [(0, 0.0), (2, 3.0)])
def test_back_is_one_and_a_half_times_the_first_part(fall, seconds):
    assert found(bars(2.0, 10.0, 3.0, fall=fall)).down == seconds
    assert found(bars(2.0, 10.0, 3.01, fall=fall)).down == np.inf


def test_what_never_comes_is_infinitely_late():
    still = found(bars(2.0, 2.0, 2.0))
    assert still.noticed == np.inf and still.during == 2.0
    within = bars(2.0, 2.5, 2.0)
    within[int(SETTLED / SECONDS)] = 2.5  # the first part does so, too
    assert found(within).noticed == np.inf
    deaf = bars(2.0, 10.0, 10.0)
    assert found(deaf).down == np.inf and found(deaf).after == 10.0


def test_the_table_has_a_line_for_each_figure_and_medians():
    runs = [heard(bars(2.0, high, 2.0)) for high in (6.0, 8.0, 16.0)]
    lines = list(response.table(runs))
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["onsets", "velocity", "tracks"]
    assert "| 8.0 (6.0 to 16.0) |" in lines[2] and "| 4.0 (3.0 to 8.0) |" in lines[2]


def test_bodies_do_what_the_script_says():
    script = response.SCRIPTS["still_violent"]
    one, again, other = (response.body(script, number, 3.0) for number in (0, 0, 1))
    np.testing.assert_array_equal(one.local, again.local)
    moving = np.abs(np.diff(one.local, axis=0)).max((1, 2))
    part = one.times[1:]
    assert (moving[part < 2.9] == 0).all() and (moving[part > 3.1 + PHASE + response.EASE] == 0).all()
    assert moving.max() < 0.08  # a limb does not jump from one part to the next
    assert moving[(part > 3.1) & (part < 2.9 + PHASE)].mean() > 0.01
    assert (one.local != other.local).any() and one.times[-1] == pytest.approx(3.0 + 2.0 * PHASE)
    high = response.body(response.SCRIPTS["high_low"], 0, 3.0).world()[0][:, response.LIMB["l_hand"], 1]
    assert high[60:120].mean() > high[240:300].mean() + 0.3


def test_one_body_through_everything(tmp_path, monkeypatch, capsys):
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    weights = export(tmp_path / "small")
    monkeypatch.setattr(response, "PHASE", 6.0)
    monkeypatch.setattr(response, "SETTLED", 2.0)
    monkeypatch.setattr(response, "CACHE", before[0])
    written, picture = tmp_path / "runs.json", tmp_path / "runs.png"
    monkeypatch.setattr("sys.argv", [
        "response.py", "--checkpoint", str(weights), "--bodies", "1", "--seeds", "1", "--bpm", "180", "--json",
        str(written), "--picture", str(picture)])
    try:
        response.main()
    finally:
        for name, value in zip(("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"), before,
                               strict=True):
            jax.config.update(name, value)
    printed = capsys.readouterr().out
    assert "1 bodies x 1 seeds" in printed and "| tracks |" in printed and "; 0 grids missed" in printed
    run, = json.loads(written.read_text())
    assert np.allclose(np.diff(run["start"]), 240.0 / 180.0) and len(run["onsets"]) == len(run["start"]) > 8
    assert run["down"] - run["up"] == 6.0 and 6.0 <= run["up"] <= 10.0
    assert picture.read_bytes()[:4] == b"\x89PNG"
