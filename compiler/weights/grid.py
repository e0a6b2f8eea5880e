"""Grids: the scale and zero point of each group, chosen by the least weighted error, not by the range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.calibration.affine import ScaleDtype, exact_scales
from edgeq.compiler.weights.spec import Bytes, Floats, QuantizedWeight, WeightSpec

# Fractions of the scale that reaches the largest weight. The fewer the levels and the larger the group, the
# more it pays to clip: a normal distribution's best 2-bit grid ends at 1.5 standard deviations.
_CLIPS: dict[int, Floats] = {
    8: np.linspace(0.7, 1.0, 13, dtype=np.float32),
    4: np.linspace(0.5, 1.1, 31, dtype=np.float32),
    3: np.linspace(0.35, 1.1, 31, dtype=np.float32),
    2: np.linspace(0.2, 1.1, 37, dtype=np.float32),
}


@dataclass(frozen=True)
class GridRules:
    """What a format asks of grids (see :class:`edgeq.targets.capabilities.WeightRules`)."""

    negative_scales: bool = False
    scale_dtype: ScaleDtype = "float16"
    lowest_zero_point: int = 0


@dataclass(frozen=True)
class Grids:
    """``scales`` float32 and ``zeros`` uint8, both [N, groups]; zeros are the centre in symmetric weights."""

    scales: Floats
    zeros: Bytes

    def quantized(self, spec: WeightSpec, codes: Bytes) -> QuantizedWeight:
        """``codes`` [N, K] with these grids."""
        return QuantizedWeight(spec, codes, self.scales, None if spec.symmetric else self.zeros)


def grouped(weight: Floats, spec: WeightSpec) -> Floats:
    """[N * groups, group size] of ``weight`` [N, K]; a smaller last group is filled up with zeros."""
    outputs, inputs = weight.shape
    group, groups = spec.group_of(inputs), spec.groups(inputs)
    if groups * group != inputs:
        weight = np.pad(weight, ((0, 0), (0, groups * group - inputs)))
    return np.ascontiguousarray(weight, np.float32).reshape(outputs * groups, group)


def search_grids(weight: Floats, spec: WeightSpec, rules: GridRules, importance: Floats | None) -> Grids:
    """The grids of ``weight`` float32 [N, K] whose rounding errors, squared and weighted, are least.

    ``importance`` float32 [K] weights the inputs; None: all alike.
    """
    from edgeq.compiler.weights import kernels

    outputs, inputs = weight.shape
    weights = np.ones(inputs, np.float32) if importance is None else _bounded(importance)
    scales, zeros = kernels.search_grids(
        grouped(weight, spec),
        grouped(weights[None], spec),
        (1 << spec.bits) - 1,
        0 if spec.symmetric else rules.lowest_zero_point,
        spec.centre if spec.symmetric else -1,
        _CLIPS[spec.bits],
        rules.negative_scales,
    )
    scales = exact_scales(scales, rules.scale_dtype)
    return Grids(scales.reshape(outputs, -1), zeros.reshape(outputs, -1))


def range_grids(weight: Floats, spec: WeightSpec, rules: GridRules) -> Grids:
    """The grids of ``weight`` float32 [N, K] that span each group from its smallest to its largest weight."""
    groups, top = grouped(weight, spec), (1 << spec.bits) - 1
    if spec.symmetric:
        spans = 2 * np.abs(groups).max(axis=1)
    else:
        lowest = np.minimum(groups.min(axis=1), 0)
        spans = np.maximum(groups.max(axis=1), 0) - lowest
    scales = np.where(spans > 0, spans / top, np.float32(1))
    zeros = np.full(len(groups), spec.centre)
    if not spec.symmetric:
        zeros = np.clip(np.rint(-lowest / scales), rules.lowest_zero_point, top)
    scales = exact_scales(scales, rules.scale_dtype)
    return Grids(scales.reshape(len(weight), -1), zeros.astype(np.uint8).reshape(len(weight), -1))


def nearest_codes(weight: Floats, spec: WeightSpec, grids: Grids) -> Bytes:
    """The codes uint8 [N, K] nearest to ``weight``."""
    from edgeq.compiler.weights import kernels

    outputs, inputs = weight.shape
    found = kernels.nearest_codes(
        grouped(weight, spec), grids.scales.reshape(-1), grids.zeros.reshape(-1), (1 << spec.bits) - 1
    )
    return np.ascontiguousarray(found.reshape(outputs, -1)[:, :inputs])


def nearest_values(part: Floats, scales: Floats, zeros: Bytes, spec: WeightSpec) -> Floats:
    """``part`` float32 [N, n], one group of every row, rounded to the grids ``scales`` and ``zeros`` [N]."""
    from edgeq.compiler.weights import kernels

    top = (1 << spec.bits) - 1
    codes = kernels.nearest_codes(part, np.ascontiguousarray(scales), np.ascontiguousarray(zeros), top)
    return np.asarray((codes - zeros[:, None].astype(np.float32)) * scales[:, None], np.float32)


def _bounded(importance: Floats) -> Floats:
    """Between 1e-4 and 1 of the largest: sums stay in float32's range and dead inputs keep a say."""
    largest = float(importance.max(initial=0))
    if not 0 < largest < np.inf:
        return np.ones_like(importance, np.float32)
    return np.asarray(np.clip(importance / np.float32(largest), 1e-4, 1), np.float32)
