"""Guidance and legality on posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax.diffusion import classifier_free, legal_log_posterior

LOGITS = jax.random.normal(jax.random.key(0), (2, 5, 7))
OTHER = jax.random.normal(jax.random.key(1), (2, 5, 7))
LEGAL = jnp.array([True, False, True, True, False, True, True])


def test_illegal_tokens_have_no_probability_and_the_rest_sums_to_one():
    p = np.exp(legal_log_posterior(LOGITS, LEGAL))
    assert (p[..., ~np.asarray(LEGAL)] == 0).all()
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(("weight", "expected"), [(1.0, LOGITS), (0.0, OTHER)])
def test_weight_one_is_conditional_zero_unconditional(weight, expected):
    a, b = legal_log_posterior(LOGITS, LEGAL), legal_log_posterior(OTHER, LEGAL)
    np.testing.assert_allclose(classifier_free(a, b, weight), legal_log_posterior(expected, LEGAL), atol=1e-6)


@pytest.mark.parametrize("weight", [-1.0, 0.5, 1.5, 4.0])
def test_guided_posterior_is_the_normalised_geometric_mix(weight):
    a, b = legal_log_posterior(LOGITS, LEGAL), legal_log_posterior(OTHER, LEGAL)
    want = np.exp(weight * np.asarray(a)[..., LEGAL] + (1 - weight) * np.asarray(b)[..., LEGAL])
    got = np.exp(classifier_free(a, b, weight))
    np.testing.assert_allclose(got[..., np.asarray(LEGAL)], want / want.sum(-1, keepdims=True), rtol=1e-5)
    assert (got[..., ~np.asarray(LEGAL)] == 0).all()
