"""Round to nearest: every group by itself, with the scale of the least squared error."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import ScaleDtype
from edgeq.compiler.quantize.rounding import round_bits
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec


def quantize_rtn(
    weight: Floats, spec: WeightSpec, *, negative_scales: bool, scale_dtype: ScaleDtype = "float16"
) -> QuantizedWeight:
    """Round float32 ``weight`` [N, K]."""
    n, inputs = weight.shape
    group, groups = spec.group_of(inputs), spec.groups(inputs)
    padded = np.zeros((n, groups * group), np.float32)
    padded[:, :inputs] = weight
    rounded = round_bits(
        padded.reshape(n * groups, group),
        spec.bits,
        symmetric=spec.symmetric,
        negative_scales=negative_scales,
        scale_dtype=scale_dtype,
    )
    codes = rounded.codes.reshape(n, -1)[:, :inputs]
    scales = rounded.scales.reshape(n, groups)
    if rounded.zero_points is None:
        return QuantizedWeight(spec, (codes + spec.centre).astype(np.uint8), scales)
    zeros = rounded.zero_points.reshape(n, groups).astype(np.uint8)
    return QuantizedWeight(spec, codes.astype(np.uint8), scales, zeros)
