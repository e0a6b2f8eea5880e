"""GPTQ: columns are rounded one after the other, each to make up for the errors of those before it.

With the Hessian factored as H = (I + U) D (I + U)ᵀ, U strictly upper triangular, the output error of a row is
sum_k D_k (delta_k + sum_{i<k} delta_i U_ik)²: so column k is best rounded from w_k + sum_{i<k} delta_i U_ik,
where delta = w - value. This is GPTQ (Frantar et al., "GPTQ", 2023) as Chee et al., "QuIP", 2023, theorem 6,
write it: it needs one Cholesky factorization and no inverse. Sweeps of coordinate descent follow
(:mod:`edgeq.compiler.weights.descent`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.compiler.weights.descent import improve
from edgeq.compiler.weights.factors import Factors, factorize
from edgeq.compiler.weights.grid import GridRules, Grids, range_grids, search_grids
from edgeq.compiler.weights.output_error import relative_error
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

# Columns that are rounded before their errors are carried to all that follow.
_BLOCK = 128
# Weights whose rows are in work at once: they do not depend on each other.
_AT_ONCE = 1 << 23
# Sweeps at most, by bits: from the whole range, more of them fit the calibration text alone.
_SWEEPS = {8: 1, 4: 1, 3: 2, 2: 1}
# Bits at which grids start from the whole range: clipped ones leave no room for what is carried over.
_WHOLE_RANGE = (3, 2)


def quantize_gptq(
    weight: Floats,
    spec: WeightSpec,
    statistics: InputStatistics,
    rules: GridRules,
    *,
    damping: float,
    act_order: bool,
) -> MethodResult:
    """Quantize float32 ``weight`` [N, K] for the inputs that ``statistics`` (with a Hessian) has seen.

    ``damping``: fraction of the Hessian's mean diagonal that is added to it; more where it cannot be factored
    otherwise, which is recorded. ``act_order``: columns with large inputs are rounded first. Where nothing
    helps, the weights are rounded to nearest and the record's ``fallback`` says why.
    """
    assert statistics.hessian is not None
    factors = factorize(statistics.hessian, damping, act_order)
    if isinstance(factors, str):
        return _fallen_back(weight, spec, statistics, rules, factors)
    if spec.bits in _WHOLE_RANGE:
        grids = range_grids(weight, spec, rules)
    else:
        grids = search_grids(weight, spec, rules, factors.diagonal)
    codes = np.empty(weight.shape, np.uint8)
    step = max(_AT_ONCE // weight.shape[1], 1)
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        part = Grids(grids.scales[rows], grids.zeros[rows])
        own = np.ascontiguousarray(weight[rows])
        rounded = _round(own, spec, part, factors)
        best, codes[rows] = improve(own, rounded, part, factors, spec, rules, _SWEEPS[spec.bits])
        grids.scales[rows] = best.scales
    quantized = grids.quantized(spec, codes)
    error = relative_error(weight, quantized, statistics)
    return MethodResult(quantized, {"damping": factors.damping, "error": error})


def _fallen_back(
    weight: Floats, spec: WeightSpec, statistics: InputStatistics, rules: GridRules, why: str
) -> MethodResult:
    quantized = quantize_rtn(weight, spec, rules)
    error = relative_error(weight, quantized, statistics)
    record: dict[str, Any] = {"fallback": f"rounded to nearest: {why}"}
    return MethodResult(quantized, record if not np.isfinite(error) else {**record, "error": error})


def _round(weight: Floats, spec: WeightSpec, grids: Grids, factors: Factors) -> Bytes:
    """Codes [N, K], column after column in the order of ``factors``."""
    from edgeq.compiler.weights import kernels

    inputs, order, feedback = weight.shape[1], factors.order, factors.feedback
    left = np.take(weight, order, axis=1)
    codes = np.empty(weight.shape, np.uint8)
    groups = order // spec.group_of(inputs)
    for start in range(0, inputs, _BLOCK):
        block = slice(start, min(start + _BLOCK, inputs))
        wanted = left[:, :start] @ feedback[:start, block]
        wanted += left[:, block]
        own = np.ascontiguousarray(feedback[block, block])
        kernels.feed_back(
            wanted, own, groups[block], grids.scales, grids.zeros, (1 << spec.bits) - 1,
            codes[:, block], left[:, block],
        )  # fmt: skip
    return np.take(codes, np.argsort(order), axis=1)
