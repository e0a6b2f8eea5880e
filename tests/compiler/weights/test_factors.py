from __future__ import annotations

import numpy as np
import pytest

from edgeq.compiler.weights.factors import Factors, factorize
from tests.support.layer_inputs import inputs_of, statistics_of


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("inputs", [40, 128, 300])
def test_factors_multiply_to_the_damped_hessian(inputs: int, act_order: bool) -> None:
    hessian = statistics_of(inputs_of(inputs)).hessian
    assert hessian is not None
    before = hessian.copy()
    found = factorize(hessian, 0.01, act_order)
    assert isinstance(found, Factors)
    np.testing.assert_array_equal(hessian, before)
    damped = found.block(slice(None)).astype(np.float64)
    np.testing.assert_allclose(np.diag(damped) - np.diag(hessian), 0.01 * np.diag(hessian).mean(), rtol=1e-2)
    # H = (I + U) D (I + U)ᵀ of the ordered columns, so D is what (I + U)⁻¹ makes of it.
    upper = np.eye(inputs) + np.triu(found.feedback.astype(np.float64), 1)
    inverse = np.linalg.inv(upper)
    middle = inverse @ damped[np.ix_(found.order, found.order)] @ inverse.T
    size = np.sqrt(np.diag(middle))
    assert size.min() > 0
    np.testing.assert_allclose(middle / size / size[:, None], np.eye(inputs), atol=2e-3)


def test_pull_is_that_of_the_damped_hessian() -> None:
    hessian = statistics_of(inputs_of(96)).hessian
    assert hessian is not None
    found = factorize(hessian, 0.1, True)
    assert isinstance(found, Factors)
    left = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    wanted = left @ found.block(slice(None))
    np.testing.assert_allclose(found.pull(left, slice(32, 64)), wanted[:, 32:64], rtol=1e-3, atol=1e-2)
