from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeq.compiler.quantize.blocks import dequantize, pack, quantize_blocks, unpack
from edgeq.compiler.quantize.rounding import Rounded, round_bits, round_int8, round_int8_pairs
from edgeq.compiler.quantize.saturation import worst_pair

Floats = npt.NDArray[np.float32]
_SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=33)
_VALUES = st.floats(-1000, 1000, width=32)
ROWS = arrays(np.float32, _SHAPES, elements=_VALUES)


def error(rows: Floats, rounded: Rounded) -> float:
    return float(((rows.astype(np.float64) - rounded.dequantized()) ** 2).sum())


def plain(rows: Floats, high: int, low: int) -> float:
    """The error of rounding to nearest with the scale max|w| / high."""
    scale = np.abs(rows.astype(np.float64)).max(axis=1, keepdims=True) / high
    scale[scale == 0] = 1
    codes = np.clip(np.rint(rows / scale), low, high)
    return float(((rows - codes * scale) ** 2).sum())


def tiny(rows: Floats) -> float:
    """What rounding scales to float32 may cost."""
    return 1e-6 + 1e-12 * float(np.square(rows.astype(np.float64)).sum())


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_int8_never_loses_to_rounding_to_nearest(rows: Floats) -> None:
    rounded = round_int8(rows)
    assert np.abs(rounded.codes).max() <= 127
    assert error(rows, rounded) <= plain(rows, 127, -127) * 1.001 + tiny(rows)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_pairs_stay_within_what_vpmaddubsw_can_add(rows: Floats) -> None:
    rounded = round_int8_pairs(rows)
    assert worst_pair(rounded.codes) <= 128
    assert error(rows, rounded) <= plain(rows, 63, -63) * 1.001 + tiny(rows), "worse than giving up a bit"


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@given(rows=ROWS)
@settings(max_examples=30, deadline=None)
def test_codes_stay_in_range(rows: Floats, bits: int, symmetric: bool) -> None:
    rounded = round_bits(rows, bits, symmetric=symmetric)
    half = 1 << (bits - 1)
    low, high = (-half, half - 1) if symmetric else (0, 2 * half - 1)
    assert low <= rounded.codes.min() <= rounded.codes.max() <= high
    assert np.isfinite(rounded.scales).all()
    if rounded.zero_points is not None:
        assert 0 <= rounded.zero_points.min() <= rounded.zero_points.max() <= 2 * half - 1
    if symmetric:
        assert error(rows, rounded) <= plain(rows, half - 1, -half) * 1.02 + tiny(rows)


def test_zero_rows_and_denormals_become_zero() -> None:
    rows = np.array([[0, 0], [1e-40, -1e-38], [1, -1]], np.float32)
    for rounded in (round_int8(rows), round_int8_pairs(rows), round_bits(rows, 4, symmetric=False)):
        assert np.isfinite(rounded.scales).all()
        np.testing.assert_allclose(rounded.dequantized(), [[0, 0], [0, 0], [1, -1]], atol=0.1)


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, max_side=9), elements=st.integers(0, 15)))
@settings(max_examples=50, deadline=None)
def test_packing_is_undone_by_unpacking(codes: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(unpack(pack(codes, 4), 4, codes.shape[-1]), codes)


@pytest.mark.parametrize("block", [16, 32, 128])
def test_symmetric_int4_beats_rounding_to_nearest_by_half_a_decibel(block: int) -> None:
    rows = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    ours = dequantize(quantize_blocks(rows, 4, block, symmetric=True), 256)
    noise = ((rows - ours) ** 2).sum()
    assert 10 * np.log10(plain(rows.reshape(-1, block), 7, -8) / noise) > 0.5
