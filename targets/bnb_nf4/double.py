"""Scales rounded once more, to 8 bits in blocks of 256 (double quantization).

Dettmers et al., "QLoRA", 2023, section 3; the 256 values are bitsandbytes' dynamic map of "8-bit Optimizers
via Block-wise Quantization", 2021: signs, decades from 1e-6 to 1, and fractions that grow finer with these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from edgeq.compiler.weights.spec import Bytes, Floats

BLOCK = 256
_DECADES = 7


@dataclass(frozen=True)
class DoubleScales:
    """``codes`` uint8 of every scale, ``largest`` of every block of them; ``offset`` is their mean."""

    codes: Bytes
    largest: Floats
    offset: np.float32

    def values(self) -> Floats:
        """float32: the scales that these stand for, in one row."""
        blocks = np.repeat(self.largest, BLOCK)[: self.codes.size]
        found: Floats = dynamic_map()[self.codes] * blocks + self.offset
        return found


def round_scales(scales: Floats) -> DoubleScales:
    """Round scales of any shape, row by row."""
    flat = scales.reshape(-1)
    offset = np.float32(flat.mean(dtype=np.float64))
    centred = np.zeros(-(-flat.size // BLOCK) * BLOCK, np.float32)
    centred[: flat.size] = flat - offset
    blocks = centred.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(axis=1)
    scaled = np.clip(blocks * (np.float32(1) / np.maximum(largest, np.float32(1e-38)))[:, None], -1, 1)
    values = dynamic_map()
    codes = np.searchsorted((values[:-1] + values[1:]) / np.float32(2), scaled.reshape(-1)[: flat.size])
    return DoubleScales(codes.astype(np.uint8), largest, offset)


@cache
def dynamic_map() -> Floats:
    """float32 [256], ascending."""
    found = [0.0, 1.0]
    for index in range(_DECADES):
        bounds = np.linspace(0.1, 1, 2**index + 1, dtype=np.float32)
        means = (bounds[:-1] + bounds[1:]) / np.float32(2)
        decade = np.float32(10.0 ** (index - _DECADES + 1))
        found += [float(value) for sign in (1, -1) for value in sign * decade * means]
    return np.array(sorted(found), np.float32)
