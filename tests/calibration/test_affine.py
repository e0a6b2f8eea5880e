"""Scale and zero point: zero is exact, the range is covered, the scale is a normal float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeq.calibration.affine import SMALLEST_SCALE, Range, exact_scales, integer_limits, quant_params
from edgeq.errors import InternalError
from tests.support.calibration_models import model_bytes

SIDE = st.floats(0, float(np.finfo(np.float32).max), width=32)
DTYPES = st.sampled_from(["uint8", "int8", "uint16", "int16", "uint4", "int4"])


@given(SIDE, SIDE, DTYPES, st.booleans())
def test_zero_is_exact_and_the_range_is_covered(down: float, up: float, dtype, symmetric: bool) -> None:
    scale, zero_point = quant_params(Range(-down, up), dtype, symmetric)
    lowest, highest = integer_limits(dtype, symmetric)
    assert scale.dtype == np.float32
    assert float(scale) >= SMALLEST_SCALE
    assert np.isfinite(scale)
    assert lowest <= zero_point <= highest
    reach = float(scale) * (lowest - zero_point), float(scale) * (highest - zero_point)
    assume(max(down, up) > 0)
    # The zero point is rounded: either end may miss by half a step, and float32 rounds the scale.
    slack = float(scale) * 0.5001 + 1e-6 * max(down, up)
    assert reach[0] <= -down + slack
    assert reach[1] >= up - slack


@pytest.mark.parametrize(
    ("span", "dtype", "symmetric", "scale", "zero_point"),
    [
        (Range(0, 255), "uint8", False, 1.0, 0),
        (Range(-255, 0), "uint8", False, 1.0, 255),
        (Range(-1, 1.55), "uint8", False, 0.01, 100),
        (Range(-1, 1.55), "int8", False, 0.01, -28),
        (Range(-1.27, 0.5), "int8", True, 0.01, 0),
        (Range(-1.27, 0.5), "uint8", True, 0.01, 128),
        (Range(-7, 3), "int4", True, 1.0, 0),
        (Range(0, 0), "uint8", False, 1.0, 0),
        (Range(0, 0), "int8", True, 1.0, 0),
        (Range(0, 1e-45), "uint8", False, SMALLEST_SCALE, 0),
    ],
)
def test_known_values(span: Range, dtype, symmetric: bool, scale: float, zero_point: int) -> None:
    found = quant_params(span, dtype, symmetric)
    assert found == (pytest.approx(scale), zero_point)


def test_extreme_ranges_do_not_overflow() -> None:
    top = float(np.finfo(np.float32).max)
    scale, zero_point = quant_params(Range(-top, top), "uint8", False)
    assert (float(scale), zero_point) == (pytest.approx(2 * (top / 255)), 128)


@pytest.mark.parametrize("ends", [(1.0, 2.0), (-2.0, -1.0), (np.nan, 1.0), (0.0, np.inf), (-1e39, 0.0)])
def test_a_range_contains_zero_and_fits_float32(ends: tuple[float, float]) -> None:
    with pytest.raises(InternalError, match="Not a quantization range"):
        Range(*ends)


def test_union_and_negative_zero() -> None:
    assert Range(-1, 2).union(Range(-3, 1)) == Range(-3, 2)
    assert not np.signbit(Range(-0.0, -0.0).low)


def test_onnx_runtime_rounds_to_these_params() -> None:
    """QuantizeLinear and DequantizeLinear with our params reproduce the ends and zero."""
    span = Range(-0.7, 3.1)
    scale, zero_point = quant_params(span, "uint8", False)
    model = model_bytes(
        "g (float[3] x) => (float[3] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        {"s": np.array(scale), "z": np.array(zero_point, np.uint8)},
    )
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.float32([span.low, 0, span.high])})
    assert y[1] == 0
    np.testing.assert_allclose(y, [span.low, 0, span.high], atol=float(scale) / 2 * 1.001)


SMALLEST_HALF = 2.0**-14


@given(st.floats(-1e4, 0), st.floats(0, 1e4), st.booleans())
def test_float16_scales_are_exact_and_cover_the_range(low: float, high: float, symmetric: bool) -> None:
    span = Range(low, high)
    scale, zero = quant_params(span, "int8", symmetric, "float16")
    assert np.float32(np.float16(scale)) == scale
    assert scale >= SMALLEST_HALF
    wanted, _ = quant_params(span, "int8", symmetric)
    if wanted > SMALLEST_HALF:
        assert wanted <= scale <= wanted * 1.001
    lowest, highest = integer_limits("int8", symmetric)
    assert (highest - zero) * float(scale) >= high - 0.51 * float(scale)
    assert (lowest - zero) * float(scale) <= low + 0.51 * float(scale)


def test_exact_scales_are_the_nearest_normal_numbers() -> None:
    given_scales = np.array([1e-9, 3e-5, 0.1, -0.1, 1e9], np.float32)
    got = exact_scales(given_scales, "float16")
    expected = [SMALLEST_HALF, SMALLEST_HALF, np.float16(0.1), np.float16(-0.1), 65504]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))
    np.testing.assert_array_equal(exact_scales(given_scales, "float32"), given_scales)


@given(st.floats(-1e30, 0), st.floats(0, 1e30), st.booleans())
def test_bfloat16_scales_are_exact_and_cover_the_range(low: float, high: float, symmetric: bool) -> None:
    scale, _ = quant_params(Range(low, high), "int8", symmetric, "bfloat16")
    assert scale.astype(ml_dtypes.bfloat16).astype(np.float32) == scale
    wanted, _ = quant_params(Range(low, high), "int8", symmetric)
    assert wanted <= scale <= wanted * (1 + 2**-7) * (1 + 2**-20)


def test_bfloat16_scales_are_the_nearest() -> None:
    given_scales = np.exp(np.random.default_rng(0).uniform(-80, 80, 1000)).astype(np.float32)
    expected = given_scales.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(exact_scales(given_scales, "bfloat16"), expected)
