"""Round to nearest: every group by itself, with the grid of the least squared error. Needs no data."""

from __future__ import annotations

from edgeq.compiler.weights.grid import GridRules, nearest_codes, search_grids
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec


def quantize_rtn(
    weight: Floats,
    spec: WeightSpec,
    rules: GridRules,
) -> QuantizedWeight:
    """Round float32 ``weight`` [N, K]."""
    grids = search_grids(weight, spec, rules, None)
    return grids.quantized(spec, nearest_codes(weight, spec, grids))
