from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.compiler.weights.grid import GridRules, nearest_codes, range_grids
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics
from tests.support.layer_inputs import inputs_of, statistics_of, weight_of


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [32, 64, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_better_than_the_range_of_each_group(bits: int, group: int, symmetric: bool) -> None:
    weight = weight_of(32, 128)
    found = quantize_rtn(weight, WeightSpec(bits, group, symmetric), GridRules())
    groups = weight.reshape(32 * found.scales.shape[1], -1)
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    if symmetric:
        scale = np.maximum(-low, high) / max((1 << (bits - 1)) - 1, 1)
        plain = np.clip(np.rint(groups / scale), -(1 << (bits - 1)), (1 << (bits - 1)) - 1) * scale
    else:
        scale = (high - low) / ((1 << bits) - 1)
        zero = np.rint(-low / scale)
        plain = (np.clip(np.rint(groups / scale) + zero, 0, (1 << bits) - 1) - zero) * scale
    error = ((found.dequantize() - weight) ** 2).sum()
    assert error <= 1.001 * ((plain - groups) ** 2).sum()
    np.testing.assert_array_equal(found.scales.astype(np.float16).astype(np.float32), found.scales)


def test_what_is_on_a_grid_is_kept() -> None:
    weight = np.tile(np.arange(-8, 8, dtype=np.float32), (4, 4)) * np.float32(0.25)
    found = quantize_rtn(weight, WeightSpec(4, 32), GridRules())
    np.testing.assert_array_equal(found.dequantize(), weight)


def test_negative_scales_use_the_longer_side() -> None:
    weight = -np.tile(np.arange(-8, 8, dtype=np.float32), (4, 4))
    found = quantize_rtn(weight, WeightSpec(4, 32), GridRules(negative_scales=True))
    np.testing.assert_array_equal(found.dequantize(), weight)
    assert (found.scales < 0).all()


def test_zero_points_keep_their_lower_bound() -> None:
    weight = np.abs(weight_of(8, 64))
    found = quantize_rtn(weight, WeightSpec(4, 32, symmetric=False), GridRules(lowest_zero_point=1))
    assert found.zero_points is not None
    assert found.zero_points.min() == 1


@given(st.integers(1, 63), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_statistics_of_shards_add_up(cut: int, seed: int) -> None:
    inputs = inputs_of(12, 64, seed)
    first, second = statistics_of(inputs[:cut]), statistics_of(inputs[cut:])
    first.merge(second)
    whole = statistics_of(inputs)
    assert first.tokens == whole.tokens
    np.testing.assert_array_equal(first.largest, whole.largest)
    assert first.hessian is not None
    assert whole.hessian is not None
    np.testing.assert_allclose(first.hessian, whole.hessian, rtol=1e-3, atol=1e-4 * whole.squares.max())
    np.testing.assert_allclose(first.absolute, whole.absolute, rtol=1e-4)


def test_merging_nothing_changes_nothing() -> None:
    whole = statistics_of(inputs_of(12, 64))
    before = whole.squares.copy()
    whole.merge(InputStatistics.empty(12, hessian=True))
    np.testing.assert_array_equal(whole.squares, before)


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_values_are_not_smaller_than_weights(bits: int, symmetric: bool) -> None:
    """A grid of the least squared error alone makes 2-bit values 0.9 times as large."""
    weight = np.random.default_rng(5).standard_normal((32, 256)).astype(np.float32)
    weight[0, :64] = 0
    weight[1] *= 1e-3
    spec = WeightSpec(bits, 64, symmetric)
    values = quantize_rtn(weight, spec, GridRules(scale_dtype="float32")).dequantize()
    groups, wanted = values.reshape(-1, 64), weight.reshape(-1, 64)
    along, square = (groups * wanted).sum(axis=1), (wanted * wanted).sum(axis=1)
    np.testing.assert_allclose(along, square, rtol=1e-4)
    assert (values[0, :64] == 0).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_grids_of_the_whole_range_reach_every_weight(symmetric: bool) -> None:
    weight = np.random.default_rng(6).standard_normal((16, 128)).astype(np.float32)
    weight[2, :32] = 0
    spec, rules = WeightSpec(2, 32, symmetric), GridRules(scale_dtype="float32")
    grids = range_grids(weight, spec, rules)
    values = grids.quantized(spec, nearest_codes(weight, spec, grids)).dequantize()
    # A zero point is rounded to a level, and the upper end of symmetric grids has half a level less.
    assert (np.abs(values - weight).reshape(16, -1, 32) <= 1.01 * grids.scales[..., None]).all()
    assert (values[2, :32] == 0).all()
