"""Integer constants with their scales: ``constexpr`` ops, which stay integers in the package, or floats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.toolkit import builder, mil_types

# A block of scales that does not divide its axis is cut into equal smaller ones; below this many weights the
# scales would take more room than the weights.
SMALLEST_BLOCK = 8


@dataclass(frozen=True)
class Codes:
    """Integers ``data`` of ``bits`` (4 or 8), read as ``scale * (data - offset)``.

    ``scale`` and ``offset`` (None: 0) have the rank of ``data``; every dimension of theirs divides that of
    ``data``. ``data`` and ``offset`` are int16 here, whatever the stored type.
    """

    data: npt.NDArray[np.int16]
    scale: Array
    offset: npt.NDArray[np.int16] | None
    bits: int
    signed: bool

    def dequantized(self) -> Array:
        """The float tensor, in the dtype of the scale."""
        values = self.data.astype(np.float32)
        if self.offset is not None:
            values -= spread(self.offset, self.data.shape).astype(np.float32)
        scaled = values * spread(self.scale, self.data.shape).astype(np.float32)
        return np.asarray(scaled, self.scale.dtype)

    def centred(self) -> Codes:
        """The same numbers as signed codes without an offset, where the offset allows it."""
        if self.offset is None or not self.offset.any():
            return replace(self, offset=None)
        middle = np.int16(1 << (self.bits - 1))
        if not self.signed and np.all(self.offset == middle):
            return replace(self, data=self.data - middle, offset=None, signed=True)
        return self


@dataclass(frozen=True)
class Parts:
    """Codes with scales and offsets of their rank, whose dimensions divide those of the codes."""

    data: npt.NDArray[np.int16]
    scale: Array
    offset: npt.NDArray[np.int16] | None


def divided_blocks(values: Array, axis: int, block: int, size: int) -> Array | None:
    """Scales of blocks along ``axis`` as scales of smaller blocks that divide ``size``; None: too small."""
    if size % block == 0 or values.shape[axis] == 1:
        return values
    smaller = gcd(block, size)
    if smaller < SMALLEST_BLOCK:
        return None
    return np.repeat(values, block // smaller, axis=axis).take(range(size // smaller), axis=axis)


def unpacked(packed: Array, bits: int) -> npt.NDArray[np.int16]:
    """Codes of uint8 ``packed``, along the last axis: two of 4 bits per byte, the first in its low half."""
    if bits == 8:
        return packed.astype(np.int16)
    halves = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    return halves.reshape(*packed.shape[:-1], -1).astype(np.int16)


def fitted(codes: npt.NDArray[np.int16], scale: Array, offset: Array | None, block: int, size: int) -> Parts:
    """Blocks along the last axis of rows that have ``size`` codes: cut to equal blocks, or padded.

    The arguments' last block is padded, as files store it. Where no equal blocks fit, the rows keep their
    padding, whose numbers the reader must not use.
    """
    last = codes.ndim - 1
    found = divided_blocks(scale, last, block, size)
    if found is None:
        return Parts(codes, scale, offset)
    zeros = None if offset is None else divided_blocks(offset, last, block, size)
    return Parts(codes[..., :size], found, zeros)


def constexpr(node: OnnxNode, codes: Codes) -> Var:
    """A MIL ``constexpr`` op of ``codes``: iOS16 for 8 bits with a scale per channel, iOS18 for the rest."""
    codes = codes.centred()
    if node.lowering.ios >= 18:
        return _blockwise(codes)
    if node.lowering.ios < 16:
        node.refuse("integer weights need iOS16 or later", "Choose a later deployment target.")
    if codes.bits != 8:
        node.refuse("4-bit weights need iOS18 or later", "Choose iOS18, or int8-weight.")
    axes = [axis for axis, count in enumerate(codes.scale.shape) if count > 1]
    if len(axes) > 1 or any(codes.scale.shape[axis] != codes.data.shape[axis] for axis in axes):
        node.refuse("weights in blocks need iOS18 or later", "Choose iOS18, or one scale per channel.")
    return _affine(codes, axes[0] if axes else None)


def flipped(node: OnnxNode, matrix: Var) -> Var:
    """The ``constexpr`` matrix [K, N] as one of [N, K]: the integers are reordered in the package."""
    codes = _codes_of(matrix)
    offset = None if codes.offset is None else codes.offset.T
    return constexpr(node, replace(codes, data=codes.data.T, scale=codes.scale.T, offset=offset))


def _codes_of(matrix: Var) -> Codes:
    """What :func:`constexpr` made ``matrix`` of."""
    operation, types = matrix.op, mil_types()
    offset: npt.NDArray[np.int16] | None
    if operation.op_type == "constexpr_affine_dequantize":
        data = operation.quantized_data
        shape = [-1 if axis == operation.axis.val else 1 for axis in range(data.rank)]
        scale = np.asarray(operation.scale.val).reshape(shape if operation.scale.rank else [1] * data.rank)
        zero = np.asarray(operation.zero_point.val).astype(np.int16)
        offset = zero.reshape(shape if zero.ndim else [1] * data.rank)
    else:
        data, scale = operation.data, np.asarray(operation.scale.val)
        offset = None if operation.offset is None else operation.offset.val.astype(np.int16)
    signed = data.dtype in (types.int8, types.int4)
    bits = 4 if data.dtype in (types.int4, types.uint4) else 8
    return Codes(data.val.astype(np.int16), scale, offset, bits, signed)


def _blockwise(codes: Codes) -> Var:
    dtype = _mil_dtype(codes)
    offset = None if codes.offset is None else codes.offset.astype(dtype)
    return builder().constexpr_blockwise_shift_scale(
        data=codes.data.astype(dtype), scale=codes.scale, offset=offset
    )


def _affine(codes: Codes, axis: int | None) -> Var:
    dtype = np.int8 if codes.signed else np.uint8
    shape = () if axis is None else (-1,)
    offset = np.zeros(codes.scale.shape, np.int16) if codes.offset is None else codes.offset
    zero, scale = offset.reshape(shape).astype(dtype), codes.scale.reshape(shape)
    return builder().constexpr_affine_dequantize(
        quantized_data=codes.data.astype(dtype),
        zero_point=zero if zero.ndim else zero[()],
        scale=scale if scale.ndim else scale[()],
        axis=np.int32(axis or 0),
    )


def _mil_dtype(codes: Codes) -> npt.DTypeLike:
    if codes.bits == 8:
        return np.int8 if codes.signed else np.uint8
    types = mil_types()
    found: npt.DTypeLike = types.np_int4_dtype if codes.signed else types.np_uint4_dtype
    return found


def spread(values: Array, shape: tuple[int, ...]) -> Array:
    """Values per block as values per element of ``shape``, which has the same rank."""
    for axis, (count, size) in enumerate(zip(values.shape, shape, strict=True)):
        if count != size:
            values = np.repeat(values, size // count, axis=axis)
    return values
