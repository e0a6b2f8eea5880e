"""NormalFloat4: 16 values that a normal distribution takes equally often, scaled by each block's largest."""

from __future__ import annotations

import numpy as np

from edgeq.compiler.weights.grid import grouped
from edgeq.compiler.weights.spec import NF4_VALUES, Floats, QuantizedWeight, WeightSpec

# Where one code ends and the next begins, as bitsandbytes has them: halfway, rounded to float32; a value on
# a boundary has the lower code.
_BOUNDS: Floats = (NF4_VALUES[:-1] + NF4_VALUES[1:]) / np.float32(2)
_SMALLEST = np.float32(1e-38)


def quantize_nf4(weight: Floats, spec: WeightSpec) -> QuantizedWeight:
    """Float32 ``weight`` [N, K] in blocks along K, with float32 scales: the codes of bitsandbytes 0.50."""
    outputs, inputs = weight.shape
    blocks = grouped(weight, spec)
    largest = np.abs(blocks).max(axis=1)
    inverse = np.float32(1) / np.maximum(largest, _SMALLEST)
    scaled = np.clip(blocks * inverse[:, None], -1, 1)
    codes = np.searchsorted(_BOUNDS, scaled.reshape(-1)).astype(np.uint8)
    whole = codes.reshape(outputs, -1)[:, :inputs]
    return QuantizedWeight(spec, np.ascontiguousarray(whole), largest.reshape(outputs, -1))
