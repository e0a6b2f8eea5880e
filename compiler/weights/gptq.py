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
from edgeq.compiler.weights.grid import GridRules, Grids, search_grids
from edgeq.compiler.weights.output_error import relative_error
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

# Columns that are rounded before their errors are carried to all that follow.
_BLOCK = 128
# Weights whose rows are in work at once: they do not depend on each other.
_AT_ONCE = 1 << 23
# Sweeps at most, by bits, and the bits at which weights are rounded again from the scales that sweeps found.
_SWEEPS = {8: 1, 4: 1, 3: 2, 2: 4}
_AGAIN = (2,)


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
    grids = search_grids(weight, spec, rules, factors.diagonal)
    codes = np.empty(weight.shape, np.uint8)
    step = max(_AT_ONCE // weight.shape[1], 1)
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        part = Grids(grids.scales[rows], grids.zeros[rows])
        best, codes[rows] = _rounds(np.ascontiguousarray(weight[rows]), spec, part, factors, rules)
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


def _rounds(
    weight: Floats, spec: WeightSpec, grids: Grids, factors: Factors, rules: GridRules
) -> tuple[Grids, Bytes]:
    """Round and improve; then again from the scales that this gave, which each row keeps where it pays."""
    sweeps = _SWEEPS[spec.bits]
    first = _round(weight, spec, grids, factors)
    best_grids, best = improve(weight, first, grids, factors, spec, rules, sweeps)
    if spec.bits not in _AGAIN:
        return best_grids, best
    codes = _round(weight, spec, best_grids, factors)
    grids, codes = improve(weight, codes, best_grids, factors, spec, rules, sweeps)
    old, new = (
        _energies(weight - tried.quantized(spec, coded).dequantize(), factors)
        for tried, coded in ((best_grids, best), (grids, codes))
    )
    better = (new < old)[:, None]
    return Grids(np.where(better, grids.scales, best_grids.scales), grids.zeros), np.where(
        better, codes, best
    )


def _energies(left: Floats, factors: Factors) -> Floats:
    """The damped output error of each row."""
    return np.asarray(np.einsum("nk,nk->n", factors.pull(left, slice(None)), left), np.float32)


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
