"""SmoothQuant: channels of large activations are divided before they are rounded, their weights multiplied.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022,
equation 4: s = max(abs(x))^a / max(abs(w))^(1-a). The migration strength a is that with which products of
INT8 are nearest to those of floats, on a sample of what the layers read; no smoothing is a candidate too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.activations import round_tokens
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.output_error import judged_rows
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.scaling import WORTH, Scaling, centred, relative_sizes, searched_rows
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

_STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# What is then tried on both sides of the best.
_REFINEMENT = 0.05


def smoothing_scales(
    weights: Sequence[Floats],
    statistics: InputStatistics,
    specs: Sequence[WeightSpec],
    rules: GridRules,
    shared: npt.NDArray[np.int64] | None = None,
) -> Scaling:
    """The scales of the inputs that layers with ``weights`` [N_i, K] share, and the strength; 0: none help.

    ``statistics`` must have a sample. ``shared`` [K]: inputs with the same number get the same scale.
    """
    inputs = relative_sizes(_largest(statistics.largest, shared))
    sizes = relative_sizes(_largest(np.max([np.abs(w).max(axis=0) for w in weights], axis=0), shared))
    search = _Search([searched_rows(w) for w in weights], [len(w) for w in weights], statistics, specs, rules)

    def scales_of(strength: float) -> Floats:
        return centred(inputs**strength / sizes ** (1 - strength))

    losses = {strength: search.loss(scales_of(strength)) for strength in _STRENGTHS}
    best = min(losses, key=lambda strength: losses[strength])
    ones = np.ones(len(inputs), np.float32)
    if not losses[best] < search.loss(ones) * (1 - WORTH):
        return Scaling(ones, 0.0)
    for strength in (round(best - _REFINEMENT, 2), round(best + _REFINEMENT, 2)):
        losses[strength] = search.loss(scales_of(strength))
    best = min(losses, key=lambda strength: losses[strength])
    return Scaling(scales_of(best), best)


def integer_error(weight: Floats, quantized: QuantizedWeight, statistics: InputStatistics) -> float:
    """The squared error of products of INT8 divided by the square sum of the exact ones, on the sample.

    ``weight`` float32 [N, K]; of rows evenly spaced where many are.
    """
    rows = judged_rows(len(weight))
    inputs, weight = _sample(statistics), weight[rows]
    exact = inputs @ weight.T
    lost = exact - _rounded(inputs) @ quantized.rows(rows).dequantize().T
    return _energy(lost) / max(_energy(exact), float(np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class _Search:
    """``rows`` are some of the ``outputs`` of each layer."""

    rows: Sequence[Floats]
    outputs: Sequence[int]
    statistics: InputStatistics
    specs: Sequence[WeightSpec]
    rules: GridRules

    def loss(self, scales: Floats) -> float:
        """The squared error of all layers' products where their inputs are divided by ``scales``."""
        inputs = _sample(self.statistics)
        rounded = _rounded(inputs / scales)
        total = 0.0
        for rows, outputs, spec in zip(self.rows, self.outputs, self.specs, strict=True):
            values = quantize_rtn(rows * scales, spec, self.rules).dequantize()
            total += _energy(inputs @ rows.T - rounded @ values.T) * outputs / len(rows)
        return total


def _largest(sizes: Floats, shared: npt.NDArray[np.int64] | None) -> Floats:
    """For each input the largest of all that share its scale."""
    if shared is None:
        return sizes
    found = np.zeros(int(shared.max()) + 1, np.float32)
    np.maximum.at(found, shared, sizes)
    return found[shared]


def _sample(statistics: InputStatistics) -> Floats:
    assert statistics.sample is not None
    return statistics.sample.rows


def _rounded(inputs: Floats) -> Floats:
    import torch

    values: Floats = round_tokens(torch.from_numpy(inputs)).numpy()
    return values


def _energy(values: Floats) -> float:
    return float(np.square(values).sum(dtype=np.float64))
