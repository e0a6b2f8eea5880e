"""AWQ: input channels that matter are scaled up before rounding, what produces them is scaled down.

Lin et al., "AWQ: Activation-aware Weight Quantization", 2023: scales s = mean(abs(x))^a, optionally
divided by mean(abs(w))^(1-a), with a from a search. The search's loss is the squared error of the layers'
outputs; with H the sum of x xᵀ it is tr(Δ H Δᵀ), so that no activations are needed. At 4 bits and fewer both
the search and the weights have scales widened again (see :mod:`edgeq.compiler.weights.shrinkage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.clipping import clip_grids
from edgeq.compiler.weights.grid import GridRules, Grids, nearest_codes, search_grids
from edgeq.compiler.weights.output_error import output_energy, relative_error
from edgeq.compiler.weights.result import MethodResult
from edgeq.compiler.weights.scaling import WORTH, centred, relative_sizes, searched_rows
from edgeq.compiler.weights.shrinkage import SHRINKING, unshrunk_groups, unshrunk_outputs
from edgeq.compiler.weights.spec import Floats, WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics

_EXPONENTS = (0.2, 0.4, 0.6, 0.8, 1.0)
# What is then tried on both sides of the best.
_REFINEMENTS = (0.1, 0.05)
# Weights whose rows are clipped at once: they do not depend on each other.
_AT_ONCE = 1 << 23


def awq_scales(
    weights: Sequence[Floats],
    statistics: InputStatistics,
    specs: Sequence[WeightSpec],
    rules: GridRules,
    shared: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Scales float32 [K] of the inputs that layers with ``weights`` [N_i, K] share; ones where none help.

    Weights are to be multiplied by them, the inputs divided; ``statistics`` must have a Hessian. ``shared``
    [K]: inputs with the same number get the same scale.
    """
    rows = [searched_rows(weight) for weight in weights]
    shares = [len(weight) / max(len(part), 1) for weight, part in zip(weights, rows, strict=True)]
    ones = np.ones(len(statistics.squares), np.float32)

    def loss(scales: Floats) -> float:
        return sum(
            share * _loss(part, scales, statistics, spec, rules)
            for part, share, spec in zip(rows, shares, specs, strict=True)
        )

    plain = loss(ones)
    best, best_loss, exponent, duo = ones, plain * (1 - WORTH), 0.0, False
    for tried, both, scales in _candidates(statistics, rows, _EXPONENTS, (False, True), shared):
        found = loss(scales)
        if found < best_loss:
            best, best_loss, exponent, duo = scales, found, tried, both
    if best is ones:
        return ones
    for step in _REFINEMENTS:
        around = (exponent - step, exponent + step)
        for tried, _, scales in _candidates(statistics, rows, around, (duo,), shared):
            found = loss(scales)
            if found < best_loss:
                best, best_loss, exponent = scales, found, tried
    return best


def quantize_awq(
    weight: Floats,
    spec: WeightSpec,
    statistics: InputStatistics,
    rules: GridRules,
) -> MethodResult:
    """Round float32 ``weight`` [N, K] to nearest, clipped where that makes the outputs' error least.

    ``weight`` and ``statistics`` (with a Hessian) are those after :func:`awq_scales` were applied.
    """
    assert statistics.hessian is not None
    scales, zeros, codes = [], [], []
    step = max(_AT_ONCE // weight.shape[1], 1)
    for start in range(0, len(weight), step):
        part = weight[start : start + step]
        found = search_grids(part, spec, rules, statistics.squares)
        found = clip_grids(part, found, statistics.hessian, spec, rules)
        codes.append(nearest_codes(part, spec, found))
        if spec.bits in SHRINKING:
            found = unshrunk_outputs(part, spec, found, codes[-1], statistics.hessian, rules)
        scales.append(found.scales)
        zeros.append(found.zeros)
    grids = Grids(np.concatenate(scales), np.concatenate(zeros))
    quantized = grids.quantized(spec, np.concatenate(codes))
    return MethodResult(quantized, {"error": relative_error(weight, quantized, statistics)})


def _candidates(
    statistics: InputStatistics,
    rows: Sequence[Floats],
    exponents: Sequence[float],
    both: Sequence[bool],
    shared: npt.NDArray[np.int64] | None,
) -> Iterator[tuple[float, bool, Floats]]:
    """Exponent, whether the weights' sizes count too, and the scales, geometrically around 1."""
    inputs = relative_sizes(statistics.absolute)
    weights = relative_sizes(sum(np.abs(part).mean(axis=0) for part in rows) / np.float32(len(rows)))
    for duo in both:
        for exponent in exponents:
            scales = inputs**exponent / (weights ** max(1 - exponent, 0) if duo else 1)
            if shared is not None:
                scales = _averaged(scales, shared)
            yield exponent, duo, centred(scales)


def _averaged(scales: Floats, shared: npt.NDArray[np.int64]) -> Floats:
    """The geometric mean of those that must be the same."""
    logarithms = np.bincount(shared, np.log(scales)) / np.maximum(np.bincount(shared), 1)
    return np.asarray(np.exp(logarithms[shared]), np.float64)


def _loss(
    rows: Floats, scales: Floats, statistics: InputStatistics, spec: WeightSpec, rules: GridRules
) -> float:
    scaled = rows * scales
    grids = search_grids(scaled, spec, rules, statistics.squares / scales**2)
    codes = nearest_codes(scaled, spec, grids)
    if spec.bits in SHRINKING:
        grids = unshrunk_groups(scaled, spec, grids, codes, rules)
    values = grids.quantized(spec, codes).dequantize()
    return output_energy(rows - values / scales, statistics)
