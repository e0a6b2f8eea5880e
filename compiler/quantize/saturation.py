"""Weights that cannot saturate in ONNX Runtime's U8S8 kernels, whatever the activations are.

On x86 CPUs without VNNI, MLAS multiplies u8 activations by s8 weights with ``vpmaddubsw``: the products of
two neighbours along K (2j, 2j + 1) are added in a saturating int16. With activations up to 255 the sum stays
within int16 if and only if the positive weights of every pair add up to at most 128 and the negative ones to
at least -128 (255 * 128 = 32640). A bound per pair costs 0.2 to 0.3 bit where ``reduce_range`` costs one, and
the numbers of the artefact no longer depend on the CPU.

The order along K, found by experiment: convolutions run in NHWC, so K = (kernel position, channel of the
group); MatMul and Gemm take their rows in order. Depthwise convolutions have a kernel of their own, which
widens before it adds and cannot saturate.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

PAIR_LIMIT = 128
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int16]
_Rows = TypeVar("_Rows", Floats, Codes)


def pair_scale(rows: Floats) -> Floats:
    """The smallest scale per row [rows] at which no pair of the weights [rows, K] exceeds the limit."""
    first, second = _pairs(rows)
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    widest = np.maximum(positive, -negative).max(axis=1, initial=0)
    return np.asarray(widest / PAIR_LIMIT, np.float32)


def limit_pairs(codes: Codes, exact: Floats) -> Codes:
    """Lower the integers [rows, K] of pairs that exceed the limit by as little as possible.

    The excess is taken from the members of the same sign: first where rounding went outwards the most
    (``exact`` are the weights over the scale), the rest in equal shares.
    """
    padded = _even(codes)
    target = _even(exact)
    for sign in (1, -1):
        _limit_side(padded, target, sign)
    return padded[:, : codes.shape[1]]


def worst_pair(codes: Codes) -> int:
    """The largest sum of one sign over any pair: at most 128 is safe."""
    first, second = _pairs(codes)
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    return int(max(positive.max(initial=0), -negative.min(initial=0)))


def _limit_side(codes: Codes, exact: Floats, sign: int) -> None:
    """In place, for the members of one sign."""
    first, second = codes[:, 0::2] * sign, codes[:, 1::2] * sign
    excess = np.maximum(first, 0) + np.maximum(second, 0) - PAIR_LIMIT
    where = np.nonzero(excess > 0)
    if where[0].size == 0:
        return
    # Both members are positive here: one alone is at most 127.
    over = excess[where]
    outward_first = first[where] - exact[:, 0::2][where] * sign
    outward_second = second[where] - exact[:, 1::2][where] * sign
    small = over // 2
    large = over - small
    from_first = np.where(outward_first >= outward_second, large, small)
    codes[:, 0::2][where] -= (sign * from_first).astype(np.int16)
    codes[:, 1::2][where] -= (sign * (over - from_first)).astype(np.int16)


def _pairs(rows: _Rows) -> tuple[_Rows, _Rows]:
    padded = _even(rows)
    return padded[:, 0::2], padded[:, 1::2]


def _even(rows: _Rows) -> _Rows:
    """A copy with an even number of columns; the kernel pads K with zeros as well."""
    return np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
