"""The certified encoder: its constant is proved for every parameter and covers what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from eqdiff_jax.conditioning import encoder
from eqdiff_jax.conditioning.encoder import (
    GELU_ERROR,
    GELU_SLOPE,
    CertifiedEncoder,
    certificate,
    forward,
    layers_of,
    local_constant,
)

module = CertifiedEncoder()
init = jax.jit(module.init)
constant = jax.jit(local_constant, static_argnums=0)
apply = jax.jit(lambda params, c: module.apply({"params": params}, c))


@pytest.fixture(scope="module")
def params():
    return init(jax.random.key(0), jnp.zeros((1, 104)))["params"]


def wild(params, scale, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: np.float32(scale * rng.normal(size=p.shape)), params)


def test_gelu_slope_is_its_supremum():
    """Rigorous: GELU'' = phi(x) (2 - x^2) lies in [-0.23, 0.80], so a grid of step h errs by less than h."""
    x = np.linspace(-12, 12, 2_400_001)
    slope = 0.5 * (1 + erf(x / 2**0.5)) + x * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5
    assert np.abs(slope).max() <= GELU_SLOPE <= slope.max() + 1e-9
    assert f"{GELU_SLOPE:.4f}" == "1.1289"


def test_gelu_errs_by_less_than_assumed():
    x = np.concatenate([np.logspace(-6, 2, 200_001), -np.logspace(-6, 2, 200_001)]).astype(np.float32)
    exact = 0.5 * np.float64(x) * (1 + erf(np.float64(x) / 2**0.5))
    got = np.asarray(jax.jit(lambda x: jax.nn.gelu(x, approximate=False))(x), np.float64)
    assert (np.abs(got - exact) <= GELU_ERROR * 2.0**-24 * np.abs(x) + 1e-37).all()


def test_same_widths_without_the_layer_norms(params):
    assert sum(x.size for x in jax.tree.leaves(params)) == 553_984 - 2 * (256 + 512)
    embedding = apply(params, jnp.ones((3, 104)))
    assert embedding.shape == (3, 768)
    layers = layers_of(params)
    np.testing.assert_allclose(embedding, module.gain * forward(layers, jnp.ones((3, 104))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [None, 0.0, 1e-3, 1.0, 1e4])
def test_no_pair_exceeds_the_certificate(params, scale):
    params = params if scale is None else wild(params, scale)
    # biases of that size would leave the domain on which the rounding is stated
    params = params | {f"bias_{i}": jnp.clip(params[f"bias_{i}"], -1, 1) for i in range(3)}
    found = certificate(params)
    assert found.bound <= module.gain * GELU_SLOPE**2 * (1 + 1e-12)
    rng = np.random.default_rng(1)
    x, d = rng.normal(size=(2, 400, 104))
    y = x + d * 10.0 ** rng.uniform(-3, 0, (400, 1))
    x, y = np.float32(x), np.float32(y)
    changed = np.linalg.norm(np.float64(apply(params, x)) - apply(params, y), axis=1)
    apart = np.linalg.norm(np.float64(x) - y, axis=1)
    assert (changed <= found.bound * apart + found.rounding).all()
    near = apart < 0.3
    assert (changed[near] <= found.bound * apart[near] + 1e-3).all()


def test_both_variants_measured(params, capsys):
    """LayerNorm's local constant grows without limit as its input shrinks; the certified one's does not."""
    c = 0.4 * jax.random.normal(jax.random.key(1), (8, 104))
    plain = encoder.init(jax.random.key(2), jnp.zeros((1, 104)))["params"]
    ordinary, tiny = (np.max(constant(encoder, plain, c * s)) for s in (1.0, 1e-3))
    certified, small = (np.max(constant(module, params, c * s)) for s in (1.0, 1e-3))
    bound = certificate(params).bound
    with capsys.disabled():
        print(f"\nencoder: measured {ordinary:.3g}, near 0 {tiny:.3g}; certified: {certified:.3g}, near 0 {small:.3g}, "
              f"proved {bound:.4g}")
    assert tiny > 20 * ordinary
    assert bound / 4 < max(certified, small) <= bound


def test_training_cannot_leave_the_bound(params):
    """Steps of plain gradient ascent on the embedding's size, at a rate that blows the raw parameters up."""
    c = jax.random.normal(jax.random.key(3), (16, 104))
    gradient = jax.jit(jax.grad(lambda p: -jnp.sum(apply(p, c) ** 2)))
    for _ in range(3):
        params = jax.tree.map(lambda p, g: p - 10.0 * g, params, gradient(params))
    assert max(np.abs(x).max() for x in jax.tree.leaves(params)) > 100
    assert certificate(params).bound <= module.gain * GELU_SLOPE**2 * (1 + 1e-12)
