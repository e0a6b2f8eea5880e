from __future__ import annotations

import numpy as np

from edgeq.compiler.weights.awq import awq_scales, quantize_awq
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.spec import WeightSpec
from tests.support.layer_inputs import inputs_of, statistics_of, weight_of

SPEC = WeightSpec(3, 32)
STATISTICS = statistics_of(inputs_of(128))


def test_scales_of_shared_inputs_take_error_away() -> None:
    weights = [weight_of(64, 128, seed=2), weight_of(16, 128, seed=3)]
    scales = awq_scales(weights, STATISTICS, [SPEC, SPEC], GridRules())
    assert scales.shape == (128,)
    assert scales.max() > 1 > scales.min() > 0
    scaled = statistics_of(inputs_of(128) / scales)
    for weight in weights:
        plain = quantize_awq(weight, SPEC, STATISTICS, GridRules()).record["error"]
        found = quantize_awq(weight * scales, SPEC, scaled, GridRules()).record["error"]
        assert found < plain


def test_no_scales_where_none_help() -> None:
    """Eight bits of a weight that its grid holds exactly: nothing is left to gain."""
    weight = np.tile(np.arange(-16, 16, dtype=np.float32), (8, 4))
    scales = awq_scales([weight], STATISTICS, [WeightSpec(8, 32)], GridRules())
    np.testing.assert_array_equal(scales, 1)
