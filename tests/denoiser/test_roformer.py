"""The Roformer: sizes, rotary embedding, conditioning paths, batch independence."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.denoiser import Roformer, roformer_of
from eqdiff_jax.denoiser.embeddings import axial_rotary, rotate
from eqdiff_jax.training.state import network

TOKENS, EMBEDDING = jnp.zeros((1, 12, 32), jnp.int32), jnp.zeros((1, 768))


def config(name):
    return importlib.import_module(f"configs.{name}").get_config()


def size(net):
    shapes = jax.eval_shape(net.init, jax.random.key(0), TOKENS, EMBEDDING)
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("name", "low", "high"), [
    ("roformer_86m", 86e6 * 0.98, 86e6 * 1.02), ("default", 4.5e6, 5.5e6), ("tiny", 2e5, 4e5)])
def test_parameter_counts(name, low, high):
    assert low <= size(network(config(name))) <= high


def test_default_fits_the_repository_in_bfloat16():
    assert 2 * (size(network(config("default"))) + 553_984) < 16e6


def test_rotation_keeps_norms_and_sees_relative_places_only():
    cos, sin = axial_rotary(12, 32, 64)
    q, k = jax.random.normal(jax.random.key(0), (2, 64))

    def product(a, b):
        at = [rotate(x[None, None, None], cos[i:i + 1], sin[i:i + 1])[0, 0, 0] for x, i in ((q, a), (k, b))]
        for turned, plain in zip(at, (q, k), strict=True):
            np.testing.assert_allclose(jnp.linalg.norm(turned), jnp.linalg.norm(plain), rtol=1e-5)
        return float(at[0] @ at[1])

    def cell(track, step):
        return track * 32 + step

    # The same offset (2 tracks, 5 sixteenths) from two places, and a different one.
    assert product(cell(0, 0), cell(2, 5)) == pytest.approx(product(cell(7, 20), cell(9, 25)), rel=1e-4)
    assert product(cell(0, 0), cell(2, 5)) != pytest.approx(product(cell(0, 0), cell(2, 6)), rel=1e-3)


@pytest.fixture(scope="module")
def small():
    net = Roformer(width=64, depth=2)
    params = net.init(jax.random.key(0), TOKENS, EMBEDDING)["params"]
    noise = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    leaves = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(jax.tree.leaves(params), noise, strict=True)]
    return net, jax.tree.unflatten(jax.tree.structure(params), leaves)


def test_fresh_network_says_uniform():
    net = Roformer(width=64, depth=1)
    params = net.init(jax.random.key(0), TOKENS, EMBEDDING)
    assert not np.asarray(net.apply(params, TOKENS, EMBEDDING)).any()


def test_batch_elements_do_not_influence_each_other(small):
    net, params = small
    x = jax.random.randint(jax.random.key(2), (3, 12, 32), 0, 82)
    e = jax.random.normal(jax.random.key(3), (3, 768))
    run = jax.jit(lambda x, e: net.apply({"params": params}, x, e))
    whole = run(x, e)
    other = run(x.at[1:].set(0), e.at[1:].set(9.0))
    np.testing.assert_array_equal(whole[0], other[0])
    np.testing.assert_allclose(run(x[:1], e[:1])[0], whole[0], atol=2e-5)


def test_null_embedding_replaces_the_conditioning(small):
    net, params = small
    x, e = TOKENS, jax.random.normal(jax.random.key(3), (1, 768))
    run = jax.jit(lambda e, given: net.apply({"params": params}, x, e, given))
    off = jnp.array([False])
    np.testing.assert_array_equal(run(e, off), run(2 * e, off))
    np.testing.assert_allclose(run(jnp.asarray(params["null"])[None], ~off), run(e, off), atol=1e-6)
    assert np.abs(run(e, ~off) - run(e, off)).max() > 1e-2


def test_every_cell_hears_every_other(small):
    net, params = small
    grad = jax.grad(lambda place: net.apply(
        {"params": params | {"step": place}}, TOKENS, EMBEDDING)[0, 11, 31].sum())(params["step"])
    assert (np.abs(np.asarray(grad)).sum(-1) > 0).all()


def test_shape_is_read_off_the_parameters(small):
    net, params = small
    assert roformer_of(params) == net


def test_bfloat16_computes_close_to_float32(small):
    net, params = small
    x = jax.random.randint(jax.random.key(2), (1, 12, 32), 0, 82)
    exact = net.apply({"params": params}, x, EMBEDDING)
    rough = net.clone(dtype=jnp.bfloat16).apply({"params": params}, x, EMBEDDING)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=0.05 * float(jnp.abs(exact).max()))
