"""Blocks hold edgeq's codes as they are, in the order of llama.cpp's heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from edgeq.calibration.affine import exact_scales
from edgeq.compiler.weights.spec import QuantizedWeight, WeightSpec
from edgeq.errors import TargetError
from edgeq.targets.gguf.blocks import pack
from edgeq.targets.gguf.tensors import TensorPlace


def _weight(bits: int, *, symmetric: bool, outputs: int = 8, inputs: int = 96) -> QuantizedWeight:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (outputs, inputs)).astype(np.uint8)
    scales = rng.normal(size=(outputs, inputs // 32)).astype(np.float32) * 0.01
    if symmetric:
        return QuantizedWeight(WeightSpec(bits, 32), codes, exact_scales(scales, "float16"))
    zeros = rng.integers(0, 1 << bits, scales.shape).astype(np.uint8)
    return QuantizedWeight(WeightSpec(bits, 32, False), codes, exact_scales(np.abs(scales), "half7"), zeros)


@pytest.mark.parametrize(
    ("kind", "bits", "symmetric"), [("Q8_0", 8, True), ("Q4_0", 4, True), ("Q4_1", 4, False)]
)
def test_blocks_dequantize_to_the_same_bits(kind: str, bits: int, symmetric: bool) -> None:
    weight = _weight(bits, symmetric=symmetric)
    found = dequantize(pack(weight, kind), GGMLQuantizationType[kind])
    np.testing.assert_array_equal(found, weight.dequantize())


def test_a_scale_that_float16_has_not_is_refused() -> None:
    weight = _weight(4, symmetric=True)
    with pytest.raises(TargetError, match="float16"):
        pack(replace(weight, scales=weight.scales * np.float32(1.0001)), "Q4_0")


def test_products_of_half7_scales_with_zero_points_are_float16() -> None:
    scales = exact_scales(np.random.default_rng(0).lognormal(-4, 2, 5000).astype(np.float32), "half7")
    products = scales[:, None] * np.arange(16, dtype=np.float32)
    np.testing.assert_array_equal(products, products.astype(np.float16).astype(np.float32))


def test_rows_of_heads_change_places_and_back() -> None:
    place = TensorPlace("blk.0.attn_q.weight", "q.weight", (16, 32), heads=2)
    values = np.arange(16 * 32, dtype=np.float32).reshape(16, 32)
    moved = place.to_file(values)
    # Rows i and i + 4 of a head of 8, which turn together, are neighbours.
    np.testing.assert_array_equal(moved[:4, 0] // 32, [0, 4, 1, 5])
    np.testing.assert_array_equal(place.from_file(moved), values)


def test_codes_change_places_as_their_values() -> None:
    weight = _weight(4, symmetric=False)
    place = TensorPlace("k", "k.weight", (8, 96), heads=2)
    found = place.codes_to_file(weight).dequantize()
    np.testing.assert_array_equal(found, place.to_file(weight.dequantize()))
