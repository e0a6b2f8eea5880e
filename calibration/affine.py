"""Scale and zero point of a range: the affine quantization of ONNX QuantizeLinear.

``q = clip(round(x / scale) + zero_point)``, with the zero point an integer of the range, so that 0.0 is exact
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018; gemmlowp's quantization_example).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeq.errors import InternalError

Dtype = Literal["uint8", "int8", "uint16", "int16", "uint4", "int4"]
# ``half7``: float16 with 7 significant bits, whose products with zero points of 4 bits are float16 too.
ScaleDtype = Literal["float32", "float16", "bfloat16", "half7"]
Floats = npt.NDArray[np.float32]
_BITS: dict[str, int] = {"uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "uint4": 4, "int4": 4}
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# The smallest normal float32: kernels that flush subnormals to zero would divide by zero below it.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
# The same for float16: 6.1e-5.
SMALLEST_HALF_SCALE = float(np.finfo(np.float16).tiny)
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Range:
    """The real numbers from ``low`` to ``high`` that quantized values cover. It always contains 0."""

    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", self.low + 0.0)  # -0.0 becomes 0.0
        object.__setattr__(self, "high", self.high + 0.0)
        if not (-_FLOAT32_MAX <= self.low <= 0 <= self.high <= _FLOAT32_MAX):
            raise InternalError(f"Not a quantization range: {self.low} to {self.high}.")

    def union(self, other: Range) -> Range:
        """The smallest range that covers both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def integer_limits(dtype: Dtype, symmetric: bool) -> tuple[int, int]:
    """Smallest and largest quantized value. Symmetric leaves out the smallest (int8: ±127)."""
    bits = _BITS[dtype]
    if dtype.startswith("u"):
        return 0, 2**bits - 1
    top = int(2 ** (bits - 1)) - 1
    return (-top if symmetric else -top - 1), top


def exact_scales(scales: npt.ArrayLike, dtype: ScaleDtype) -> Floats:
    """The nearest scales that ``dtype`` holds exactly, as float32.

    float16: normal numbers only, at least 6.1e-5. Smaller ones lose bits there, and where subnormals are
    flushed to zero they would divide by zero. bfloat16 has float32's exponents and 8 bits of its numbers.
    """
    values = np.asarray(scales, np.float32)
    if dtype == "float32":
        return values
    if dtype == "bfloat16":
        return _nearest_bfloat16(values)
    if dtype == "half7":
        values = _nearest_half7(values)
    magnitude = np.clip(np.abs(values), SMALLEST_HALF_SCALE, _LARGEST_HALF)
    return np.asarray(np.copysign(magnitude, values).astype(np.float16), np.float32)


def _nearest_half7(values: Floats) -> Floats:
    """7 significant bits of each float32; their products with 15 stay within float16."""
    fraction, exponent = np.frexp(np.clip(values, -_LARGEST_HALF / 16, _LARGEST_HALF / 16))
    return np.asarray(np.ldexp(np.rint(fraction * 128) / 128, exponent), np.float32)


def nearest(values: Floats, dtype: ScaleDtype) -> Floats:
    """``values`` rounded to what ``dtype`` holds, as float32; beyond its largest number they stay."""
    if dtype == "bfloat16":
        return _nearest_bfloat16(values)
    if dtype == "half7":
        return _nearest_half7(values)
    if dtype == "float32" or np.abs(values).max(initial=0) > _LARGEST_HALF:
        return values
    return values.astype(np.float16).astype(np.float32)


def _nearest_bfloat16(values: Floats) -> Floats:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.asarray((rounded & np.uint32(0xFFFF0000)).view(np.float32))


def quant_params(
    span: Range, dtype: Dtype, symmetric: bool, scale_dtype: ScaleDtype = "float32"
) -> tuple[np.float32, int]:
    """Scale and zero point that cover ``span``.

    Symmetric: the scale covers the larger side; the zero point is 0, or the middle (uint8: 128) of an
    unsigned dtype. Otherwise the zero point is the integer nearest to where 0.0 falls. The scale is a normal
    number of ``scale_dtype``, never 0; a range of width 0 gets scale 1 (every value of the tensor is zero).
    """
    lowest, highest = integer_limits(dtype, symmetric)
    if symmetric:
        middle = (highest + 1) // 2 if lowest == 0 else 0
        return _scale(max(-span.low, span.high) / (highest - middle), scale_dtype), middle
    scale = _scale(span.high / (highest - lowest) - span.low / (highest - lowest), scale_dtype)
    zero_point = round(lowest - span.low / float(scale))
    return scale, min(max(zero_point, lowest), highest)


def float_scale(span: Range, largest: float, scale_dtype: ScaleDtype = "float32") -> np.float32:
    """The scale that maps the larger side of ``span`` to the largest number of a float type."""
    return _scale(max(-span.low, span.high) / largest, scale_dtype)


def _scale(exact: float, dtype: ScaleDtype) -> np.float32:
    if exact == 0:
        return np.float32(1)
    scale = np.float32(max(exact, SMALLEST_SCALE))
    return _upwards(scale, dtype)


def _upwards(scale: np.float32, dtype: ScaleDtype) -> np.float32:
    """The scale of ``dtype`` at or above ``scale``: the range keeps its ends."""
    found = np.float32(exact_scales(scale, dtype))
    if found >= scale or (dtype == "float16" and found >= _LARGEST_HALF):
        return found
    if dtype == "bfloat16":
        return np.float32((found.view(np.uint32) + np.uint32(0x10000)).view(np.float32))
    return np.float32(np.nextafter(np.float16(found), np.float16(np.inf)))
