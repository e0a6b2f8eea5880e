"""Round to nearest: every group by itself, with the grid of the least squared error. Needs no data.

At 4 bits and fewer the scales are then widened again, as such grids make all values too small.
"""

from __future__ import annotations

from edgeq.compiler.weights.grid import GridRules, nearest_codes, search_grids
from edgeq.compiler.weights.shrinkage import SHRINKING, unshrunk_groups
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec


def quantize_rtn(
    weight: Floats,
    spec: WeightSpec,
    rules: GridRules,
) -> QuantizedWeight:
    """Round float32 ``weight`` [N, K]."""
    grids = search_grids(weight, spec, rules, None)
    codes = nearest_codes(weight, spec, grids)
    if spec.bits in SHRINKING:
        grids = unshrunk_groups(weight, spec, grids, codes, rules)
    return grids.quantized(spec, codes)
