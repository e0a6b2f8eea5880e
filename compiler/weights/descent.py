"""Coordinate descent on the output error tr(Δ H Δᵀ): each scale and each code at its best given all others.

Sweeps over the groups refit the scale by least squares, then set the codes column by column (Behdin et al.,
"QuantEase", 2023). No step makes the error larger.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import exact_scales
from edgeq.compiler.weights.factors import Factors
from edgeq.compiler.weights.grid import GridRules, Grids
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec

# Columns of a sweep whose pulls are computed together.
_BLOCK = 128
# Sweeps end when fewer than this part of the codes still move.
_SETTLED = 1e-3


def improve(
    weight: Floats,
    codes: Bytes,
    grids: Grids,
    factors: Factors,
    spec: WeightSpec,
    rules: GridRules,
    sweeps: int,
) -> tuple[Grids, Bytes]:
    """Better grids and codes of ``weight`` float32 [N, K] after at most ``sweeps``."""
    codes = codes.copy()
    grids = Grids(grids.scales.copy(), grids.zeros)
    left = weight - grids.quantized(spec, codes).dequantize()
    group = spec.group_of(weight.shape[1])
    for _ in range(sweeps):
        moved = 0
        for index, start in enumerate(range(0, weight.shape[1], group)):
            columns = slice(start, min(start + group, weight.shape[1]))
            pull = _refit_scales(left, codes, grids, factors, columns, index, rules)
            moved += _set_codes(left, codes, grids, factors, columns, index, spec, pull)
        if moved < _SETTLED * codes.size:
            break
    return grids, codes


def _refit_scales(
    left: Floats, codes: Bytes, grids: Grids, factors: Factors, columns: slice, group: int, rules: GridRules
) -> Floats:
    """Set the scales of a group by least squares; what then pulls at its columns, [N, group size]."""
    centred = codes[:, columns] - grids.zeros[:, group, None].astype(np.float32)
    pull = factors.pull(left, columns)
    spread = centred @ factors.block(columns)
    along = np.einsum("nk,nk->n", pull, centred)
    square = np.einsum("nk,nk->n", spread, centred)
    old = grids.scales[:, group]
    wanted = old + np.divide(along, square, out=np.zeros_like(along), where=square > 0)
    change = exact_scales(wanted, rules.scale_dtype) - old
    # Rounded to the scale's type, the step may lead past the best point: taken only where it pays.
    pays = (2 * change * along > change * change * square) & (rules.negative_scales | (wanted > 0))
    change = np.where(pays, change, np.float32(0))[:, None]
    grids.scales[:, group] += change[:, 0]
    left[:, columns] -= change * centred
    pull -= change * spread
    return pull


def _set_codes(
    left: Floats,
    codes: Bytes,
    grids: Grids,
    factors: Factors,
    columns: slice,
    group: int,
    spec: WeightSpec,
    pull: Floats,
) -> int:
    """Set the codes of a group; how many moved."""
    from edgeq.compiler.weights import kernels

    moved = 0
    for start in range(columns.start, columns.stop, _BLOCK):
        block = slice(start, min(start + _BLOCK, columns.stop))
        # The pull at later blocks has changed with the codes of earlier ones.
        asked = pull[:, :_BLOCK] if start == columns.start else factors.pull(left, block)
        coded = np.ascontiguousarray(codes[:, block])
        change = np.empty(coded.shape, np.float32)
        kernels.descend(
            np.ascontiguousarray(asked),
            factors.block(block),
            group,
            grids.scales,
            grids.zeros,
            (1 << spec.bits) - 1,
            coded,
            change,
        )
        codes[:, block] = coded
        left[:, block] -= change
        moved += int(np.count_nonzero(change))
    return moved
