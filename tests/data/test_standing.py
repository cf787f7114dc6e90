"""The tables of what is asked and had."""

import jax
import numpy as np

from eqdiff_jax.asked import HEARD, SLOTS, spread
from eqdiff_jax.data import standing
from eqdiff_jax.data.standing import tables
from eqdiff_jax.music import LEGAL, descriptors


def test_tables_are_quantiles_of_the_pairs():
    rng = np.random.default_rng(4)
    grids = np.array([[rng.choice(np.flatnonzero(LEGAL[t]), 32) for t in range(12)] for _ in range(30)])
    c = rng.uniform(size=(30, 104))
    wanted, has, spreads = tables(c, grids)
    assert wanted.shape == has.shape == (5, 13) and spreads.shape == (13,)
    heard = np.array([descriptors(g) for g in grids])[:, HEARD]
    np.testing.assert_allclose(wanted[:, [0, 6, 12]], np.stack(
        [f(c[:, SLOTS], axis=0) for f in (np.min, np.median, np.max)], axis=1))
    np.testing.assert_allclose(has[:, [0, 6, 12]], np.stack([f(heard, axis=0) for f in (np.min, np.median, np.max)], 1))
    wide = np.array([float(spread(jax.nn.one_hot(g, 81)[None])[0]) for g in grids])
    np.testing.assert_allclose(spreads[[0, 12]], [wide.min(), wide.max()], rtol=1e-5)


def test_the_command_prints_them_or_says_what_is_wrong(tmp_path, capsys):
    assert standing.main(["--data", "tiny", "--data_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("ASKED", "HAS", "SPREADS"))
    assert standing.main(["--data", "nonsense", "--data_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("standing: unknown data config 'nonsense'") and error.count("\n") == 1
