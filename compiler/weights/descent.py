"""Coordinate descent on the output error tr(Δ H Δᵀ): each scale and each code at its best given all others.

Sweeps over the groups refit the scale by least squares, then set the codes column by column (Behdin et al.,
"QuantEase", 2023). No step makes the error larger.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import exact_scales
from edgeq.compiler.weights.grid import GridRules, Grids
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec

_BLOCK = 128


def improve(
    weight: Floats,
    codes: Bytes,
    grids: Grids,
    hessian: Floats,
    spec: WeightSpec,
    rules: GridRules,
    sweeps: int,
) -> tuple[Grids, Bytes]:
    """Better grids and codes of ``weight`` float32 [N, K]; ``hessian`` [K, K] is positive definite."""
    codes, scales = codes.copy(), grids.scales.copy()
    grids = Grids(scales, grids.zeros)
    left = weight - grids.quantized(spec, codes).dequantize()
    group = spec.group_of(weight.shape[1])
    for _ in range(sweeps):
        for start in range(0, weight.shape[1], group):
            columns = slice(start, min(start + group, weight.shape[1]))
            _refit_scales(left, codes, grids, hessian, columns, start // group, rules)
            _set_codes(left, codes, grids, hessian, columns, start // group, spec)
    return grids, codes


def _refit_scales(
    left: Floats, codes: Bytes, grids: Grids, hessian: Floats, columns: slice, group: int, rules: GridRules
) -> None:
    centred = codes[:, columns].astype(np.float32) - grids.zeros[:, group, None]
    pull = left @ hessian[:, columns]
    along = np.einsum("nk,nk->n", pull, centred)
    square = np.einsum("nk,nk->n", centred @ hessian[columns, columns], centred)
    old = grids.scales[:, group]
    step = np.divide(along, square, out=np.zeros_like(along), where=square > 0)
    scales = exact_scales(old + step, rules.scale_dtype)
    if not rules.negative_scales:
        scales = np.where(old + step > 0, scales, old)
    # Rounded to the scale's type, the step may lead past the best point: kept only where it pays.
    change = scales - old
    better = 2 * change * along > change * change * square
    change = np.where(better, change, np.float32(0))
    grids.scales[:, group] = old + change
    left[:, columns] -= change[:, None] * centred


def _set_codes(
    left: Floats, codes: Bytes, grids: Grids, hessian: Floats, columns: slice, group: int, spec: WeightSpec
) -> None:
    from edgeq.compiler.weights import kernels

    for start in range(columns.start, columns.stop, _BLOCK):
        block = slice(start, min(start + _BLOCK, columns.stop))
        pull = left @ hessian[:, block]
        coded = np.ascontiguousarray(codes[:, block])
        change = np.empty(pull.shape, np.float32)
        kernels.descend(
            pull,
            np.ascontiguousarray(hessian[block, block]),
            np.full(pull.shape[1], group),
            grids.scales,
            grids.zeros,
            (1 << spec.bits) - 1,
            coded,
            change,
        )
        codes[:, block] = coded
        left[:, block] -= change
