from __future__ import annotations

import numpy as np
import pytest

from edgeq.compiler.weights.nf4 import quantize_nf4
from edgeq.compiler.weights.spec import NF4_VALUES, Floats, WeightSpec
from tests.support.layer_inputs import weight_of


def theirs(weight: Floats, block: int) -> tuple[np.ndarray, np.ndarray]:
    functional = pytest.importorskip("bitsandbytes.functional")
    import torch

    packed, state = functional.quantize_4bit(torch.from_numpy(weight), blocksize=block, quant_type="nf4")
    both = packed.numpy().reshape(-1)
    codes = np.stack([both >> 4, both & 15], axis=1).reshape(weight.shape)
    return codes, state.absmax.numpy().reshape(len(weight), -1)


@pytest.mark.parametrize("block", [32, 64, 128])
def test_codes_and_scales_of_bitsandbytes(block: int) -> None:
    weight = weight_of(16, 256)
    # Values on the boundaries between codes, zeros, and a block without any weight.
    bounds = (NF4_VALUES[:-1] + NF4_VALUES[1:]) / np.float32(2)
    weight[0, :block] = 0
    weight[1, :16] = [1, *bounds]
    weight[2] *= np.float32(1e-20)
    found = quantize_nf4(weight, WeightSpec(4, block, form="nf4"))
    codes, scales = theirs(weight, block)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.scales, scales)


def test_a_smaller_last_block_has_its_own_scale() -> None:
    weight = weight_of(4, 80)
    found = quantize_nf4(weight, WeightSpec(4, 64, form="nf4"))
    np.testing.assert_array_equal(found.scales[:, 1], np.abs(weight[:, 64:]).max(axis=1))
    assert np.abs(found.dequantize() - weight).max() <= 0.16 * np.abs(weight).max()
