from __future__ import annotations

import numpy as np
import pytest

from edgeq.compiler.weights.awq import quantize_awq
from edgeq.compiler.weights.gptq import quantize_gptq
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.output_error import relative_error
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics
from tests.support.layer_inputs import inputs_of, statistics_of, weight_of

# 160 inputs: the last group of 64 and of 128 is smaller.
INPUTS = inputs_of(160)
WEIGHT = weight_of(48, 160)
STATISTICS = statistics_of(INPUTS)


def gptq(
    spec: WeightSpec,
    weight: Floats = WEIGHT,
    statistics: InputStatistics = STATISTICS,
    *,
    damping: float = 0.01,
    act_order: bool = True,
) -> MethodResult:
    return quantize_gptq(weight, spec, statistics, GridRules(), damping=damping, act_order=act_order)


def measured(weight: QuantizedWeight) -> float:
    """The error of the outputs themselves, not of the sums."""
    wanted = INPUTS @ WEIGHT.T
    return float(((INPUTS @ weight.dequantize().T - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_learning_methods_beat_rounding_to_nearest(bits: int, group: int, symmetric: bool) -> None:
    spec = WeightSpec(bits, group, symmetric)
    plain = measured(quantize_rtn(WEIGHT, spec, GridRules()))
    learned = gptq(spec)
    clipped = quantize_awq(WEIGHT, spec, STATISTICS, GridRules())
    assert measured(learned.weight) < 0.5 * plain
    assert measured(clipped.weight) < plain
    for result in (learned, clipped):
        assert result.record["error"] == pytest.approx(measured(result.weight), rel=0.02, abs=1e-9)


@pytest.mark.parametrize("act_order", [True, False])
def test_the_same_every_time(act_order: bool) -> None:
    first, second = (gptq(WeightSpec(3, 32), act_order=act_order).weight for _ in range(2))
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.scales, second.scales)


def test_rows_do_not_depend_on_each_other() -> None:
    spec = WeightSpec(4, 32)
    whole, part = gptq(spec).weight, gptq(spec, WEIGHT[:7]).weight
    assert (whole.codes[:7] == part.codes).mean() > 0.99


@pytest.mark.parametrize("scale_dtype", ["float16", "bfloat16"])
def test_scales_are_values_of_their_type(scale_dtype: str) -> None:
    import ml_dtypes

    dtype = np.float16 if scale_dtype == "float16" else ml_dtypes.bfloat16
    found = quantize_gptq(
        WEIGHT,
        WeightSpec(4, 32, symmetric=False),
        STATISTICS,
        GridRules(scale_dtype=scale_dtype, lowest_zero_point=1),  # type: ignore[arg-type]
        damping=0.01,
        act_order=True,
    ).weight
    np.testing.assert_array_equal(found.scales.astype(dtype).astype(np.float32), found.scales)
    assert found.zero_points is not None
    assert (found.scales > 0).all()
    assert found.zero_points.min() >= 1


def test_damping_rises_until_a_singular_hessian_can_be_factored() -> None:
    one = np.ones((1, 160), np.float32)
    found = gptq(WeightSpec(4, 32), statistics=statistics_of(one), damping=1e-9)
    assert 1e-9 < found.record["damping"] <= 1
    assert "fallback" not in found.record


def test_what_cannot_be_factored_is_rounded_to_nearest_and_says_so() -> None:
    broken = statistics_of(INPUTS)
    assert broken.hessian is not None
    broken.hessian[:] = np.eye(160, dtype=np.float32)
    broken.hessian[0, 1] = broken.hessian[1, 0] = 10
    found = gptq(WeightSpec(4, 32), statistics=broken)
    assert found.record["fallback"].startswith("rounded to nearest: the Hessian")
    plain = quantize_rtn(WEIGHT, WeightSpec(4, 32), GridRules())
    np.testing.assert_array_equal(found.weight.codes, plain.codes)


def test_inputs_that_are_not_finite_are_named() -> None:
    broken = statistics_of(INPUTS)
    assert broken.hessian is not None
    broken.hessian[0, 0] = np.inf
    assert "not finite" in gptq(WeightSpec(4, 32), statistics=broken).record["fallback"]


def test_inputs_that_were_never_seen_are_rounded_to_nearest() -> None:
    inputs = INPUTS.copy()
    inputs[:, 32:64] = 0
    found = gptq(WeightSpec(4, 32), statistics=statistics_of(inputs)).weight.dequantize()
    assert np.abs(found - WEIGHT)[:, 32:64].max() < np.abs(WEIGHT[:, 32:64]).max() / 4


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e3])
def test_tiny_and_large_weights(size: float) -> None:
    weight = WEIGHT * np.float32(size)
    found = gptq(WeightSpec(4, 32), weight)
    assert np.isfinite(found.weight.dequantize()).all()
    assert relative_error(weight, found.weight, STATISTICS) < (0.01 if size >= 1 else 1.01)


def test_codes_of_two_bits_stay_below_four() -> None:
    assert gptq(WeightSpec(2, 32, symmetric=False)).weight.codes.max() <= 3
