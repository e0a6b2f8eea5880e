"""Rounding weights to integers with the least squared error, one row (channel or block) at a time.

A row w is stored as a scale s and integers q in [low, high], read back as s * q. For given integers the
best scale is s = <w, q> / <q, q> (least squares), and what is left of the error is
<w, w> - <w, q>^2 / <q, q>. So every candidate scale is judged by <w, q>^2 / <q, q> of the integers that it
gives, and the winner's scale is refitted. Starting candidates surround max|w| / high. With a negative
scale the largest magnitude of a row may use the longer side of the range (-8 of -8..7).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.calibration.affine import ScaleDtype, exact_scales

Floats = npt.NDArray[np.float32]

# Denominators of max|w| that the search tries: 1 is no clipping, above it the largest weights are clipped.
_CLIP_INT8 = np.array([1.0, 1.02, 1.05, 1.1, 1.16, 1.25, 1.4, 1.6, 2.0], dtype=np.float32)
_CLIP_INT4 = np.linspace(0.8, 1.5, 29, dtype=np.float32)
_CLIP_PAIRS = np.array([63 / 127, 0.55, 0.6, 0.66, 0.72, 0.8, 0.88, 0.94, 1.0, 1.05, 1.1], dtype=np.float32)


@dataclass(frozen=True)
class Rounded:
    """Integers [rows, n], scales float32 [rows], zero points [rows] (None: all zero)."""

    codes: npt.NDArray[np.int16]
    scales: Floats
    zero_points: npt.NDArray[np.int16] | None = None

    def dequantized(self) -> Floats:
        """What the kernel sees, float32 [rows, n]."""
        zero = np.int16(0) if self.zero_points is None else self.zero_points[:, None]
        return (self.codes - zero).astype(np.float32) * self.scales[:, None]


def round_int8(rows: Floats, scale_dtype: ScaleDtype = "float32") -> Rounded:
    """Symmetric int8 in [-127, 127]: ``rows`` float32 [rows, n]."""
    from edgeq.compiler.quantize import rounding_kernels as kernels

    codes, scales = kernels.search_symmetric(np.ascontiguousarray(rows), -127, 127, _CLIP_INT8, False)
    return _with_exact_scales(rows, Rounded(codes, scales), -127, 127, scale_dtype)


def round_int8_pairs(rows: Floats) -> Rounded:
    """Symmetric int8 where no aligned pair of neighbours adds up to more than 128 in magnitude.

    Kernels of x86 CPUs without VNNI (vpmaddubsw) add two products of u8 activations and s8 weights in
    int16, which saturates; such rows cannot reach that limit whatever the activations are.
    """
    from edgeq.compiler.quantize import rounding_kernels as kernels

    codes, scales = kernels.search_pairs(np.ascontiguousarray(rows), _CLIP_PAIRS)
    return Rounded(codes, scales)


def round_bits(
    rows: Floats,
    bits: int,
    *,
    symmetric: bool,
    negative_scales: bool = True,
    scale_dtype: ScaleDtype = "float32",
) -> Rounded:
    """Signed symmetric codes in [-2^(bits-1), 2^(bits-1) - 1], or unsigned codes with zero points."""
    from edgeq.compiler.quantize import rounding_kernels as kernels

    rows = np.ascontiguousarray(rows)
    clip = _CLIP_INT4 if bits == 4 else _CLIP_INT8
    if symmetric:
        half = 1 << (bits - 1)
        codes, scales = kernels.search_symmetric(rows, -half, half - 1, clip, negative_scales)
        return _with_exact_scales(rows, Rounded(codes, scales), -half, half - 1, scale_dtype)
    top = (1 << bits) - 1
    codes, scales, zeros = kernels.search_asymmetric(rows, top, clip)
    return _with_exact_scales(rows, Rounded(codes, scales, zeros), 0, top, scale_dtype)


def _with_exact_scales(rows: Floats, found: Rounded, low: int, high: int, scale_dtype: ScaleDtype) -> Rounded:
    """Rounded again by the nearest scales that ``scale_dtype`` holds."""
    if scale_dtype == "float32":
        return found
    scales = exact_scales(found.scales, scale_dtype)
    zeros = 0 if found.zero_points is None else found.zero_points[:, None]
    codes = np.clip(np.rint(rows / scales[:, None]) + zeros, low, high).astype(np.int16)
    return Rounded(codes, scales, found.zero_points)
