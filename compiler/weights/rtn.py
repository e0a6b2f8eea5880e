"""Round to nearest: every group by itself, with the grid of the least squared error. Needs no data."""

from __future__ import annotations

from edgeq.calibration.affine import ScaleDtype
from edgeq.compiler.weights.grid import GridRules, nearest_codes, search_grids
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec


def quantize_rtn(
    weight: Floats,
    spec: WeightSpec,
    *,
    negative_scales: bool,
    scale_dtype: ScaleDtype = "float16",
    lowest_zero_point: int = 0,
) -> QuantizedWeight:
    """Round float32 ``weight`` [N, K]."""
    rules = GridRules(negative_scales, scale_dtype, lowest_zero_point)
    grids = search_grids(weight, spec, rules, None)
    return grids.quantized(spec, nearest_codes(weight, spec, grids))
