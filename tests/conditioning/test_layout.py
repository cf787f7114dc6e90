"""The 104 slots, the encoder and its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.conditioning import LAYOUT, SIZE, assemble, encoder, genre_vector
from eqdiff_jax.conditioning.layout import DISCONTINUOUS
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Dynamics

DYNAMICS = Dynamics(*(0.01 * (i + 1) for i in range(15)))


def test_slices_tile_the_104():
    ends = [(s.start, s.stop) for s in LAYOUT.values()]
    assert ends[0][0] == 0 and ends[-1][1] == SIZE == 104
    assert all(a[1] == b[0] for a, b in zip(ends, ends[1:], strict=False))
    assert LAYOUT["lr_pan"].stop == 74
    assert [LAYOUT[n].stop - LAYOUT[n].start for n in ("z", "velocity", "genre", "section", "activations")] == [
        32, 32, 8, 6, 12]
    assert set(DISCONTINUOUS) <= set(LAYOUT)


def test_each_value_lands_in_its_slot():
    z, velocity = np.arange(32.0), 100.0 + np.arange(32.0)
    c = np.asarray(assemble(z, velocity, DYNAMICS, genre="ambient", section=np.arange(6) / 10,
                            activations=np.arange(12) / 12, bpm=150.0))
    assert c.shape == (104,) and c.dtype == np.float32
    np.testing.assert_allclose(c[LAYOUT["z"]], z)
    np.testing.assert_allclose(c[LAYOUT["velocity"]], velocity / 0.25)
    assert c[LAYOUT["tension"]] == pytest.approx(DYNAMICS.tension)
    assert c[LAYOUT["internal_tempo"]] == pytest.approx((DYNAMICS.internal_tempo - 120) / 60)
    assert c[LAYOUT["prediction_confidence"]] == pytest.approx(DYNAMICS.prediction_confidence)
    assert c[LAYOUT["bpm"]] == pytest.approx(0.5)
    np.testing.assert_array_equal(c[LAYOUT["genre"]], np.eye(8)[4])
    np.testing.assert_allclose(c[LAYOUT["section"]], np.arange(6) / 10, rtol=1e-6)


def test_batched_equals_one_by_one():
    z = np.random.default_rng(0).normal(size=(5, 32))
    many = Dynamics(*(np.full(5, v) for v in DYNAMICS))
    np.testing.assert_allclose(assemble(z, z, many, genre="pop")[3], assemble(z[3], z[3], DYNAMICS, genre="pop"))


def test_genres():
    assert not genre_vector(None).any()
    with pytest.raises(InputError, match="unknown genre 'polka'.*house"):
        genre_vector("polka")


def test_encoder_has_553_984_parameters():
    params = encoder.init(jax.random.key(0), jnp.zeros((1, 104)))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == 553_984
    assert encoder.apply({"params": params}, jnp.ones((3, 104))).shape == (3, 768)
