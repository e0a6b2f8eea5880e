from __future__ import annotations

import numpy as np
import pytest

from edgeq.compiler.weights.grid import GridRules, Grids, grouped, nearest_codes, search_grids
from edgeq.compiler.weights.shrinkage import unshrunk_groups, unshrunk_outputs
from edgeq.compiler.weights.spec import Floats, WeightSpec
from tests.support.layer_inputs import inputs_of, statistics_of, weight_of

# 160 inputs: the last group of 64 is smaller.
WEIGHT = weight_of(48, 160)
STATISTICS = statistics_of(inputs_of(160))
# Scales are float16.
TOLERANCE = 2**-10


def rounded(spec: WeightSpec, weight: Floats = WEIGHT) -> tuple[Grids, np.ndarray]:
    grids = search_grids(weight, spec, GridRules(), STATISTICS.squares)
    return grids, nearest_codes(weight, spec, grids)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [32, 64, -1])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_groups_project_onto_their_weights_as_these_do(bits: int, group: int, symmetric: bool) -> None:
    spec = WeightSpec(bits, group, symmetric)
    grids, codes = rounded(spec)
    found = unshrunk_groups(WEIGHT, spec, grids, codes, GridRules())
    widened = found.scales != grids.scales
    assert widened.mean() > 0.5
    wanted, values = grouped(WEIGHT, spec), grouped(found.quantized(spec, codes).dequantize(), spec)
    ratio = (wanted * values).sum(axis=1) / (wanted * wanted).sum(axis=1)
    np.testing.assert_allclose(ratio[widened.reshape(-1)], 1, rtol=TOLERANCE)


@pytest.mark.parametrize("group", [32, 64, -1])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_project_onto_the_float_ones_as_these_do(bits: int, group: int) -> None:
    spec = WeightSpec(bits, group)
    grids, codes = rounded(spec)
    assert STATISTICS.hessian is not None
    found = unshrunk_outputs(WEIGHT, spec, grids, codes, STATISTICS.hessian, GridRules())
    widened = (found.scales != grids.scales).any(axis=1)
    assert widened.mean() > 0.5
    wanted = inputs_of(160) @ WEIGHT.T
    values = inputs_of(160) @ found.quantized(spec, codes).dequantize().T
    ratio = (wanted * values).sum(axis=0) / (wanted * wanted).sum(axis=0)
    np.testing.assert_allclose(ratio[widened], 1, rtol=TOLERANCE)


def test_rows_of_zeros_and_dead_inputs_keep_their_scales() -> None:
    spec = WeightSpec(3, 32)
    weight = WEIGHT.copy()
    weight[:4] = 0
    grids, codes = rounded(spec, weight)
    dead = np.zeros((160, 160), np.float32)
    for found in (
        unshrunk_groups(weight, spec, grids, codes, GridRules()),
        unshrunk_outputs(weight, spec, grids, codes, STATISTICS.hessian, GridRules()),  # type: ignore[arg-type]
    ):
        np.testing.assert_array_equal(found.scales[:4], grids.scales[:4])
    unused = unshrunk_outputs(weight, spec, grids, codes, dead, GridRules())
    np.testing.assert_array_equal(unused.scales, grids.scales)
