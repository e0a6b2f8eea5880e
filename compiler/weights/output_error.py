"""How much of a layer's output an error of its weights changes: tr(Δ H Δᵀ) / tr(W H Wᵀ)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.spec import Floats, QuantizedWeight
from edgeq.compiler.weights.statistics import InputStatistics

_ROWS = 2048
# Rows of which a layer's relative error is that of all: an average over many of them.
_SAMPLED = 256


def relative_error(weight: Floats, quantized: QuantizedWeight, statistics: InputStatistics) -> float:
    """The squared error of the outputs divided by their square sum, of rows evenly spaced where many are.

    All rows would take as long as rounding them does.
    """
    rows = judged_rows(len(weight))
    weight, quantized = weight[rows], quantized.rows(rows)
    lost = output_energy(weight - quantized.dequantize(), statistics)
    return lost / max(output_energy(weight, statistics), float(np.finfo(np.float32).tiny))


def judged_rows(outputs: int) -> npt.NDArray[np.int64]:
    """The numbers of the rows that a layer's error is taken of, evenly spaced."""
    return np.arange(0, outputs, max(outputs // _SAMPLED, 1))


def output_energy(weight: Floats, statistics: InputStatistics) -> float:
    """tr(W H Wᵀ) of float32 ``weight`` [N, K]; by the Hessian's diagonal where that is all there is."""
    if statistics.hessian is None:
        return float(np.einsum("nk,nk,k->", weight, weight, statistics.squares, dtype=np.float64))
    total = 0.0
    for start in range(0, len(weight), _ROWS):
        total += float(row_energies(weight[start : start + _ROWS], statistics.hessian).sum(dtype=np.float64))
    return max(total, 0.0)


def row_energies(weight: Floats, hessian: Floats) -> Floats:
    """Energy w H wᵀ of each row of float32 ``weight`` [N, K]: float32 [N]."""
    return np.asarray(np.einsum("nk,nk->n", weight @ hessian, weight), np.float32)
