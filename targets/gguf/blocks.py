"""GGUF blocks of 32 weights from edgeq's codes: no weight is rounded again.

The layouts are those of ggml (``ggml-common.h``): Q8_0 is d float16 and 32 int8; Q4_0 is d float16 and 16
bytes, of which byte i holds weight i in its lower half and weight i + 16 in its upper; Q4_1 has m float16
behind d, and its values are d * code + m.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.compiler.weights.spec import Bytes, QuantizedWeight
from edgeq.errors import TargetError

BLOCK = 32


def pack(weight: QuantizedWeight, tensor: str) -> Bytes:
    """The rows of ``weight`` as blocks of the type ``tensor``: uint8 [N, bytes of a row].

    Raises:
        TargetError: the type cannot hold the weights exactly.
    """
    packed = _PACKERS[tensor](weight)
    return packed.reshape(len(weight.codes), -1)


def type_of(weight_bits: int, symmetric: bool) -> str:
    """The type that stores such codes as they are."""
    return _TYPES[weight_bits, symmetric]


_TYPES = {(8, True): "Q8_0", (4, True): "Q4_0", (4, False): "Q4_1"}


def _q8_0(weight: QuantizedWeight) -> Bytes:
    blocks = (weight.codes ^ np.uint8(0x80)).reshape(-1, BLOCK)
    return np.concatenate([_half(weight.scales), blocks], axis=1)


def _q4_0(weight: QuantizedWeight) -> Bytes:
    return np.concatenate([_half(weight.scales), _nibbles(weight.codes)], axis=1)


def _q4_1(weight: QuantizedWeight) -> Bytes:
    assert weight.zero_points is not None
    least = -weight.scales * weight.zero_points
    return np.concatenate([_half(weight.scales), _half(least), _nibbles(weight.codes)], axis=1)


_PACKERS: dict[str, Callable[[QuantizedWeight], Bytes]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}


def _half(values: np.ndarray) -> Bytes:
    """A float16 per block as two bytes; raises TargetError when a value is none."""
    found = values.astype("<f2")
    if not np.array_equal(found.astype(np.float32), values):
        raise TargetError("A scale of a block is no float16 number, which GGUF blocks store.")
    return found.reshape(-1, 1).view(np.uint8)


def _nibbles(codes: Bytes) -> Bytes:
    halves = codes.reshape(-1, 2, BLOCK // 2)
    return halves[:, 0] | (halves[:, 1] << np.uint8(4))
