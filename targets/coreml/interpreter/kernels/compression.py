"""Kernels of MIL's ``constexpr_*`` ops: weights out of their compressed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel


def affine_dequantize(call: Call) -> Array:
    """MIL ``constexpr_affine_dequantize``: scale * (data - zero point), scalars or vectors along ``axis``."""
    data: Array = call["quantized_data"]
    shape = [1] * data.ndim
    shape[int(call["axis"])] = -1
    result = data.astype(np.float32)
    result -= _vector(call["zero_point"], shape)
    result *= _vector(call["scale"], shape)
    return result


def _vector(parameter: Any, shape: list[int]) -> Array:
    array = np.asarray(parameter).astype(np.float32)
    return array.reshape(shape) if array.ndim else array


def blockwise_shift_scale(call: Call) -> Array:
    """MIL ``constexpr_blockwise_shift_scale``: scale * (data - offset), one pair per block.

    The sizes of scale say the number of blocks along every axis.
    """
    return _shift_scale(call["data"], call["scale"], call.get("offset"))


def _shift_scale(data: Array, scale: Array, offset: Array | None) -> Array:
    blocks = [
        size for whole, count in zip(data.shape, scale.shape, strict=True) for size in (count, whole // count)
    ]
    each = [size for count in scale.shape for size in (count, 1)]
    result = data.astype(np.float32).reshape(blocks)
    if offset is not None:
        result -= offset.astype(np.float32).reshape(each)
    result *= scale.reshape(each)
    return result.reshape(data.shape)


def lut_to_dense(call: Call) -> Array:
    """MIL ``constexpr_lut_to_dense``: packed indices and ``shape`` (iOS16), or an index tensor (iOS18)."""
    if "shape" not in call.inputs:
        return _look_up(call["indices"], call["lut"], call.get("vector_axis"))
    lut, shape = call["lut"], _shape(call)
    bits = int(np.log2(lut.size))
    return np.asarray(lut[_unpacked(call["indices"], bits, int(np.prod(shape)))].reshape(shape))


def _unpacked(packed: Array, bits: int, count: int) -> Array:
    """``count`` numbers of ``bits`` bits each, least significant bit first, across byte borders."""
    stream = np.unpackbits(packed.astype(np.uint8), count=bits * count, bitorder="little")
    return stream.reshape(count, bits) @ (1 << np.arange(bits))


def _shape(call: Call) -> list[int]:
    return [int(size) for size in call["shape"]]


def _look_up(indices: Array, lut: Array, vector_axis: Any) -> Array:
    """Table entries, [*indices]; vectors lie one after the other along ``vector_axis``.

    The table has a leading axis per axis of ``indices``: its size is the number of groups there.
    """
    grid = np.ogrid[tuple(slice(size) for size in indices.shape)]
    groups = [
        place // (size // count) for place, size, count in zip(grid, indices.shape, lut.shape, strict=False)
    ]
    found = lut[(*groups, indices.astype(np.intp))]
    if lut.shape[-1] == 1:
        return np.asarray(found[..., 0])
    axis = int(vector_axis) % indices.ndim
    shape = [size * lut.shape[-1] if place == axis else size for place, size in enumerate(indices.shape)]
    return np.moveaxis(found, -1, axis + 1).reshape(shape)


def sparse_to_dense(call: Call) -> Array:
    """MIL ``constexpr_sparse_to_dense``: a packed mask and ``shape`` (iOS16), or a mask tensor (iOS18)."""
    mask: Array = call["mask"]
    if "shape" in call.inputs:
        shape = _shape(call)
        mask = _unpacked(mask, 1, int(np.prod(shape))).reshape(shape)
    return _scattered(call["nonzero_data"], mask)


def _scattered(values: Array, mask: Array) -> Array:
    result = np.zeros(mask.shape, values.dtype)
    result[mask.astype(np.bool_)] = values
    return result


def lut_to_sparse(call: Call) -> tuple[Array, Array]:
    """MIL ``constexpr_lut_to_sparse``: the mask of the result, and its values where the mask is set."""
    mask, lut = call["indices_mask"], call["lut"]
    dense = _look_up(_scattered(call["indices_nonzero_data"], mask), lut, call.get("vector_axis"))
    if lut.shape[-1] > 1:
        mask = np.repeat(mask, lut.shape[-1], axis=int(call["vector_axis"]))
    return mask, dense[mask.astype(np.bool_)]


def sparse_blockwise_shift_scale(call: Call) -> tuple[Array, Array]:
    """MIL ``constexpr_sparse_blockwise_shift_scale``: the mask, and the scaled values where it is set."""
    mask: Array = call["data_mask"]
    dense = _shift_scale(_scattered(call["nonzero_data"], mask), call["scale"], call.get("offset"))
    return mask, dense[mask.astype(np.bool_)]


def cast(call: Call) -> Array:
    """MIL ``constexpr_cast``: float16 to float32."""
    return np.asarray(call["source_val"]).astype(np.float32)


KERNELS: dict[str, Kernel] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
