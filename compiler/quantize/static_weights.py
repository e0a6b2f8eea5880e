"""Constant weights to int8, per channel, with the least squared error that the target's kernels allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.calibration.affine import ScaleDtype, exact_scales
from edgeq.compiler.plan import QuantParams, QuantSpec
from edgeq.compiler.quantize.saturation import Codes, Floats, limit_pairs, pair_scale

LARGEST = 127
# Rows whose largest weight is below this are dead: dividing by their scale would overflow in float32.
DEAD = np.float32(1e-30)
# Fractions of the scale without clipping that are tried; below 1 the largest weights are clipped.
FRACTIONS = (1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.78, 0.74, 0.7)


@dataclass(frozen=True)
class QuantizedWeight:
    """Integers of the weight's shape; one scale, or one per index of ``params.spec.axis``."""

    codes: npt.NDArray[np.generic]
    params: QuantParams

    def dequantized(self) -> Floats:
        """The float32 weights that the kernel computes with."""
        scale = self.params.scale
        if self.params.spec.axis is not None:
            shape = [1] * self.codes.ndim
            shape[self.params.spec.axis] = -1
            scale = scale.reshape(shape)
        return self.codes.astype(np.float32) * scale


def quantize_weight(
    weights: Floats,
    spec: QuantSpec,
    order: tuple[int, ...],
    depth: int,
    *,
    floor: Floats,
    pairs: bool,
    scale_dtype: ScaleDtype = "float32",
) -> QuantizedWeight:
    """Quantize ``weights`` symmetrically to int8.

    Args:
        weights: float32, finite, two or more dimensions.
        spec: ``axis`` None for one scale, else the axis that has a scale per index.
        order: permutation of the axes that gives [output channels, K in the order of the kernel].
        depth: K, the number of products that the kernel adds up.
        floor: smallest allowed scale, float32 [channels] or scalar: what the bias needs to fit INT32.
        pairs: whether adjacent products must not saturate in int16.
        scale_dtype: type that holds the scales exactly.
    """
    ordered = weights.transpose(order)
    rows = np.ascontiguousarray(ordered.reshape(-1, depth), dtype=np.float32)
    codes, scales = _round(rows, floor, pairs, spec.axis is None, scale_dtype)
    restored = codes.reshape(ordered.shape).transpose(np.argsort(order)).astype(np.int8)
    scale = scales.reshape(-1)[0] if spec.axis is None else scales
    zero = np.zeros(np.shape(scale), np.int8)
    return QuantizedWeight(
        np.ascontiguousarray(restored), QuantParams(spec, np.asarray(scale, np.float32), zero)
    )


def _round(
    rows: Floats, floor: Floats, pairs: bool, shared: bool, scale_dtype: ScaleDtype
) -> tuple[Codes, Floats]:
    full = unclipped_scale(rows, pairs)
    if shared:
        full = np.full_like(full, full.max(initial=0))
    full = np.maximum(full, floor)
    dead = np.abs(rows).max(axis=1, initial=0) < DEAD
    full[dead] = (
        np.maximum(floor, _typical(full[~dead]))
        if floor.ndim == 0
        else np.maximum(floor[dead], _typical(full[~dead]))
    )
    full = exact_scales(full, scale_dtype)
    best_codes = np.zeros(rows.shape, np.int16)
    best_scale, best_error = full.copy(), np.full(len(rows), np.inf)
    for fraction in (1.0,) if shared else FRACTIONS:
        scale = exact_scales(np.maximum(full * np.float32(fraction), floor), scale_dtype)
        codes = _codes(rows, scale, pairs)
        error = np.square(rows - codes * scale[:, None]).sum(axis=1, dtype=np.float64)
        better = (error < best_error) & ~dead
        best_codes[better], best_scale[better] = codes[better], scale[better]
        best_error[better] = error[better]
    return best_codes, best_scale


def unclipped_scale(rows: Floats, pairs: bool) -> Floats:
    """The scale per row that clips nothing and, with ``pairs``, cannot saturate."""
    scale = np.asarray(np.abs(rows).max(axis=1, initial=0) / LARGEST, np.float32)
    return np.maximum(scale, pair_scale(rows)) if pairs else scale


def _typical(scales: Floats) -> np.float32:
    return np.float32(np.median(scales)) if scales.size else np.float32(1)


def _codes(rows: Floats, scale: Floats, pairs: bool) -> Codes:
    exact = rows / scale[:, None]
    codes = np.clip(np.rint(exact), -LARGEST, LARGEST).astype(np.int16)
    return limit_pairs(codes, exact) if pairs else codes
