"""Small integers in 32-bit words, without gaps: value i of a row begins at bit i * bits, lowest bits first.

32 values fill ``bits`` words. Where ``bits`` divides 32 no value lies across two words; of 3 bits the values
10 and 21 of every 32 do. AutoGPTQ and compressed-tensors pack so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.spec import Bytes

Words = npt.NDArray[np.int32]


def packed_words(count: int, bits: int) -> int:
    """Words that ``count`` values fill."""
    return -(-count * bits // 32)


def pack(values: Bytes, bits: int) -> Words:
    """int32 [rows, words] of ``values`` [rows, count], each below 2^bits."""
    rows, count = values.shape
    groups = -(-count // 32)
    padded = np.zeros((rows, groups * 32), np.uint8)
    padded[:, :count] = values
    lanes = padded.reshape(rows, groups, 32)
    words = np.zeros((rows, groups, bits), np.uint32)
    for index, word, shift in _places(bits):
        lane = lanes[:, :, index].astype(np.uint32)
        words[:, :, word] |= lane << np.uint32(shift)
        if shift + bits > 32:
            words[:, :, word + 1] |= lane >> np.uint32(32 - shift)
    flat = words.reshape(rows, groups * bits)[:, : packed_words(count, bits)]
    return np.ascontiguousarray(flat).view(np.int32)


def unpack(words: Words, bits: int, count: int) -> Bytes:
    """The ``count`` values of every row that :func:`pack` packed."""
    rows, present = words.shape
    groups = -(-count // 32)
    padded = np.zeros((rows, groups * bits), np.uint32)
    padded[:, :present] = np.ascontiguousarray(words).view(np.uint32)
    filled = padded.reshape(rows, groups, bits)
    values = np.empty((rows, groups, 32), np.uint8)
    mask = np.uint32((1 << bits) - 1)
    for index, word, shift in _places(bits):
        lane = filled[:, :, word] >> np.uint32(shift)
        if shift + bits > 32:
            lane |= filled[:, :, word + 1] << np.uint32(32 - shift)
        values[:, :, index] = lane & mask
    return values.reshape(rows, groups * 32)[:, :count]


def _places(bits: int) -> Iterator[tuple[int, int, int]]:
    """Index, word and shift of 32 values."""
    return ((index, *divmod(index * bits, 32)) for index in range(32))
