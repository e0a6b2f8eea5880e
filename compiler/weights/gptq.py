"""GPTQ: columns are rounded one after the other, each to make up for the errors of those before it.

With the Hessian factored as H = (I + U) D (I + U)ᵀ, U strictly upper triangular, the output error of a row is
sum_k D_k (delta_k + sum_{i<k} delta_i U_ik)²: so column k is best rounded from w_k + sum_{i<k} delta_i U_ik,
where delta = w - value. This is GPTQ (Frantar et al., "GPTQ", 2023) as Chee et al., "QuIP", 2023, theorem 6,
write it: it needs one Cholesky factorization and no inverse. Sweeps of coordinate descent follow
(:mod:`edgeq.compiler.weights.descent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.affine import ScaleDtype
from edgeq.compiler.weights.descent import improve
from edgeq.compiler.weights.grid import GridRules, Grids, search_grids
from edgeq.compiler.weights.output_error import relative_error
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

# Columns that are rounded before their errors are carried to all that follow.
_BLOCK = 128
# Rows that are in work at once: they do not depend on each other.
_ROWS = 2048
# Damping is multiplied by this until the Hessian can be factored, and given up beyond the largest.
_ESCALATION, _LARGEST_DAMPING = 10.0, 1.0


@dataclass(frozen=True)
class Factors:
    """``feedback`` [K, K], strictly upper triangular, and the fraction of damping that it took."""

    feedback: Floats
    damping: float


def quantize_gptq(
    weight: Floats,
    spec: WeightSpec,
    statistics: InputStatistics,
    *,
    damping: float,
    act_order: bool,
    negative_scales: bool,
    scale_dtype: ScaleDtype = "float16",
    lowest_zero_point: int = 0,
    sweeps: int = 4,
) -> MethodResult:
    """Quantize float32 ``weight`` [N, K] for the inputs that ``statistics`` (with a Hessian) has seen.

    ``damping``: fraction of the Hessian's mean diagonal that is added to it; more where it cannot be factored
    otherwise, which is recorded. ``act_order``: columns with large inputs are rounded first. Where nothing
    helps, the weights are rounded to nearest and the record's ``fallback`` says why.
    """
    rules = GridRules(negative_scales, scale_dtype, lowest_zero_point)
    hessian = statistics.hessian
    assert hessian is not None
    order = _order(hessian, act_order)
    factors = _factor(hessian, order, damping)
    if isinstance(factors, str):
        found = quantize_rtn(
            weight,
            spec,
            negative_scales=negative_scales,
            scale_dtype=scale_dtype,
            lowest_zero_point=lowest_zero_point,
        )
        return MethodResult(found, {"fallback": f"rounded to nearest: {factors}", "damping": damping})
    damped = damped_hessian(hessian, factors.damping)
    grids = search_grids(weight, spec, rules, np.diag(damped))
    codes = np.empty(weight.shape, np.uint8)
    for start in range(0, len(weight), _ROWS):
        rows = slice(start, start + _ROWS)
        part = Grids(grids.scales[rows], grids.zeros[rows])
        codes[rows] = _round(weight[rows], spec, part, order, factors.feedback)
        part, codes[rows] = improve(weight[rows], codes[rows], part, damped, spec, rules, sweeps)
        grids.scales[rows], grids.zeros[rows] = part.scales, part.zeros
    quantized = grids.quantized(spec, codes)
    record: dict[str, Any] = {"damping": factors.damping}
    record["error"] = relative_error(weight, quantized, statistics)
    return MethodResult(quantized, record)


def damped_hessian(hessian: Floats, damping: float) -> Floats:
    """``hessian`` plus ``damping`` of its mean diagonal; inputs that were never seen get 1 instead."""
    found = np.array(hessian, np.float32)
    diagonal = np.einsum("kk->k", found)
    alive = diagonal > 0
    mean = float(diagonal.mean()) if alive.any() else 1.0
    diagonal += np.float32(damping * mean)
    diagonal[~alive] = np.float32(mean)
    return found


def _order(hessian: Floats, act_order: bool) -> npt.NDArray[np.int64]:
    """The order in which columns are rounded."""
    if not act_order:
        return np.arange(len(hessian))
    return np.argsort(-np.diag(hessian), kind="stable")


def _factor(hessian: Floats, order: npt.NDArray[np.int64], damping: float) -> Factors | str:
    """The factors of ``hessian`` in ``order``, or why there are none."""
    if not np.isfinite(hessian).all():
        return "the layer's inputs are not finite"
    backwards = order[::-1]
    while True:
        damped = damped_hessian(hessian, damping)
        try:
            lower = np.linalg.cholesky(damped[np.ix_(backwards, backwards)])
        except np.linalg.LinAlgError:
            lower = np.full((1, 1), np.nan, np.float32)
        if np.isfinite(lower).all():
            break
        damping = max(damping * _ESCALATION, 1e-4)
        if damping > _LARGEST_DAMPING:
            return "the Hessian of its inputs is not positive definite"
    upper = lower[::-1, ::-1]
    feedback = upper / np.diag(upper)
    np.fill_diagonal(feedback, 0)
    return Factors(np.ascontiguousarray(feedback, np.float32), damping)


def _round(
    weight: Floats, spec: WeightSpec, grids: Grids, order: npt.NDArray[np.int64], feedback: Floats
) -> Bytes:
    from edgeq.compiler.weights import kernels

    inputs = weight.shape[1]
    left = np.ascontiguousarray(weight[:, order])
    codes = np.empty(weight.shape, np.uint8)
    groups = order // spec.group_of(inputs)
    for start in range(0, inputs, _BLOCK):
        block = slice(start, min(start + _BLOCK, inputs))
        wanted = left[:, block] + left[:, :start] @ feedback[:start, block]
        part = np.ascontiguousarray(left[:, block])
        coded = np.empty(part.shape, np.uint8)
        kernels.feed_back(
            wanted,
            np.ascontiguousarray(feedback[block, block]),
            groups[block],
            grids.scales,
            grids.zeros,
            (1 << spec.bits) - 1,
            coded,
            part,
        )
        left[:, block] = part
        codes[:, order[block]] = coded
    return codes
