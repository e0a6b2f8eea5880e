"""Clip search by output error: scales and zero points at their best for weights rounded to nearest.

The error of all outputs is judged, tr(Δ H Δᵀ), not that of the group alone: a group's errors may cancel those
of its neighbours. The search is that of Lin et al., "AWQ", 2023, section 4.1, with this error in place of the
group's.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import exact_scales
from edgeq.compiler.weights.grid import GridRules, Grids, nearest_values
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec

_FACTORS = (0.8, 0.85, 0.9, 0.94, 0.97, 1.03, 1.06, 1.1)
_SWEEPS = 2


def clip_grids(weight: Floats, grids: Grids, hessian: Floats, spec: WeightSpec, rules: GridRules) -> Grids:
    """Better grids for ``weight`` [N, K], ``hessian`` [K, K]; no step makes the error larger."""
    grids = Grids(grids.scales.copy(), grids.zeros.copy())
    inputs, group = weight.shape[1], spec.group_of(weight.shape[1])
    starts = range(0, inputs, group)
    left = np.empty_like(weight)
    for index, start in enumerate(starts):
        part = np.ascontiguousarray(weight[:, start : start + group])
        left[:, start : start + group] = part - _values(part, grids, index, spec)
    for _ in range(_SWEEPS):
        for index, start in enumerate(starts):
            columns = slice(start, min(start + group, inputs))
            _clip_group(weight, left, grids, hessian, columns, index, spec, rules)
    return grids


def _clip_group(
    weight: Floats,
    left: Floats,
    grids: Grids,
    hessian: Floats,
    columns: slice,
    index: int,
    spec: WeightSpec,
    rules: GridRules,
) -> None:
    part = np.ascontiguousarray(weight[:, columns])
    own = np.ascontiguousarray(hessian[columns, columns])
    # What the other groups ask of this one; the error is a quadratic in this group's with that slope.
    others = left @ hessian[:, columns] - left[:, columns] @ own
    best, best_error = left[:, columns].copy(), _error(left[:, columns], others, own)
    scales, zeros = grids.scales[:, index].copy(), grids.zeros[:, index].copy()
    for tried_scales, tried_zeros in _candidates(scales, zeros, spec, rules):
        tried = part - nearest_values(part, tried_scales, tried_zeros, spec)
        error = _error(tried, others, own)
        better = error < best_error
        best[better], best_error[better] = tried[better], error[better]
        grids.scales[better, index] = tried_scales[better]
        grids.zeros[better, index] = tried_zeros[better]
    left[:, columns] = best


def _candidates(
    scales: Floats, zeros: Bytes, spec: WeightSpec, rules: GridRules
) -> list[tuple[Floats, Bytes]]:
    tried = [(exact_scales(scales * np.float32(f), rules.scale_dtype), zeros) for f in _FACTORS]
    if spec.symmetric:
        return tried
    top = (1 << spec.bits) - 1
    moved = [np.clip(zeros.astype(np.int16) + by, rules.lowest_zero_point, top) for by in (-1, 1)]
    return tried + [(scales, zero.astype(np.uint8)) for zero in moved]


def _error(left: Floats, others: Floats, own: Floats) -> Floats:
    """Of each row, less what this group has no part in."""
    return np.asarray(np.einsum("nk,nk->n", left @ own + 2 * others, left), np.float32)


def _values(part: Floats, grids: Grids, index: int, spec: WeightSpec) -> Floats:
    return nearest_values(part, grids.scales[:, index], grids.zeros[:, index], spec)
