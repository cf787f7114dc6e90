"""Gain matrices by hand, and decisions that rounding must not make."""

from fractions import Fraction

import numpy as np
import pytest

from eqdiff_jax import contraction
from eqdiff_jax.contraction.gains import perron_limits, perron_root, row_sum_limits
from eqdiff_jax.errors import InputError


def test_product_space_norms():
    gains = [[0.6, 0.3], [0.5, 0.4]]
    assert contraction.max_norm(gains) == pytest.approx(0.9)
    assert contraction.max_norm(gains, [1.0, 2.0]) == pytest.approx(1.2)  # (0.6 + 0.6, 0.25 + 0.4)
    root, weights = contraction.perron([[0.5, 0.9], [0.1, 0.5]])
    assert root == pytest.approx(0.8)  # 0.5 + sqrt(0.09), although a row sums to 1.4
    np.testing.assert_allclose(weights, [1, 1 / 3], rtol=1e-6)
    assert contraction.max_norm([[0.5, 0.9], [0.1, 0.5]], weights) == pytest.approx(0.8)
    one_way, weights = contraction.perron([[0.5, 10.0], [0.0, 0.4]])
    assert one_way == pytest.approx(0.5)
    assert (weights > 0).all()


def test_limits_where_coupling_never_or_always_hurts():
    assert row_sum_limits([[0.5, 0.0], [0.2, 0.5]]).slow_to_fast == np.inf
    assert perron_limits([[0.5, 0.0], [7.0, 0.5]]).both == np.inf  # one-way coupling
    assert perron_limits([[1.0, 0.1], [0.1, 0.5]]) == row_sum_limits([[1.0, 0.1], [0.1, 0.5]]) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_two_forms_of_the_perron_condition_agree(seed):
    (a, b), (c, d) = gains = np.random.default_rng(seed).uniform(0, 1, (2, 2))
    root = perron_root(gains)
    assert root == pytest.approx(np.abs(np.linalg.eigvals(gains)).max())
    assert (root < 1) == (a < 1 and d < 1 and b * c < (1 - a) * (1 - d))
    limit = perron_limits(gains).both
    assert perron_root([[a, limit * b], [limit * c, d]]) == pytest.approx(1.0)


def test_rounding_never_proves():
    """bc = (1-a)(1-d) up to one float: what float arithmetic calls 1 - 1e-16 is decided in rationals."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        a, d, b = rng.uniform(0.01, 0.99, 3)
        edge = (1 - a) * (1 - d) / b
        for c in (np.nextafter(edge, 0), edge, np.nextafter(edge, 9)):
            holds = Fraction(b) * Fraction(c) < (1 - Fraction(a)) * (1 - Fraction(d))
            root = perron_root([[a, b], [c, d]])
            assert not (root < 1 and not holds)
            assert root >= 1 or holds
            assert abs(root - 1) < 1e-13
    third = 1 / 3
    assert contraction.max_norm([[third, third, third]] * 3) >= Fraction(third) * 3
    assert contraction.max_norm([[0.1, 0.9], [0.0, 0.0]]) > 1  # as floats 0.1 + 0.9 is 1 + 3e-17
    assert perron_root([[0.5, 0.4], [0.4, 0.5]]) == pytest.approx(0.9, abs=1e-16)


@pytest.mark.parametrize("gains", [[[1.0, -0.1], [0.0, 1.0]], [[1.0, 2.0]]])
def test_gains_that_are_none_are_refused(gains):
    with pytest.raises(InputError, match="gains"):
        contraction.perron(gains)


def test_weights_must_be_positive():
    with pytest.raises(InputError, match="positive"):
        contraction.max_norm(np.eye(2), [1.0, 0.0])
