"""Packing of small integers into words."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.targets.language.packing import pack, packed_words, unpack


def _as_bits(values: np.ndarray, bits: int) -> list[int]:
    """The words of one row by arithmetic on one large integer."""
    number = sum(int(value) << (bits * index) for index, value in enumerate(values))
    return [(number >> (32 * word)) & 0xFFFFFFFF for word in range(packed_words(len(values), bits))]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("count", [32, 64, 40])
def test_values_lie_one_behind_the_other(bits: int, count: int) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (3, count)).astype(np.uint8)
    words = pack(values, bits)
    assert words.dtype == np.int32
    assert [list(row) for row in words.view(np.uint32)] == [_as_bits(row, bits) for row in values]
    assert np.array_equal(unpack(words, bits, count), values)
