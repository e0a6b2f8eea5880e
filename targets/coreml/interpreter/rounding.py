"""Rounds results to the dtype that the program declares; float16 values are kept in float32 arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import ModelError
from edgeq.targets.coreml.interpreter.blobs import storage
from edgeq.targets.coreml.interpreter.call import TensorType
from edgeq.targets.coreml.interpreter.half import round_half

FLOATS = frozenset({"float16", "float32", "float64"})

# Operations whose results are values of their inputs (or integers that float16 has): float16 stays float16.
_KEEPS_VALUES = frozenset(
    {
        "abs",
        "band_part",
        "batch_to_space",
        "ceil",
        "clip",
        "concat",
        "crop",
        "depth_to_space",
        "expand_dims",
        "fill",
        "fill_like",
        "flatten2d",
        "floor",
        "gather",
        "gather_along_axis",
        "gather_nd",
        "identity",
        "max_pool",
        "maximum",
        "minimum",
        "one_hot",
        "pad",
        "pixel_shuffle",
        "pixel_unshuffle",
        "reduce_max",
        "reduce_min",
        "relu",
        "relu6",
        "reshape",
        "reshape_like",
        "resize_nearest_neighbor",
        "reverse",
        "reverse_sequence",
        "round",
        "select",
        "sign",
        "slice_by_index",
        "slice_by_size",
        "slice_update",
        "sliding_windows",
        "space_to_batch",
        "space_to_depth",
        "split",
        "squeeze",
        "stack",
        "threshold",
        "tile",
        "topk",
        "transpose",
        "upsample_nearest_neighbor",
    }
)

# Takes a kernel's result and the arrays that it must not overwrite.
Finish = Callable[[Any, Iterable[Array]], Array]


def keeps_values(op_type: str) -> bool:
    """Whether results of the operation need no rounding when its floating inputs have their dtype."""
    return op_type in _KEEPS_VALUES


def finisher(type_: TensorType, where: str, *, rounds: bool) -> Finish:
    """What turns a kernel's result into a value of type ``type_``; ``rounds`` for float16 rounding."""
    shape = type_.shape
    sized = any(size is not None for size in shape)
    dtype = np.dtype(np.float32 if type_.dtype in FLOATS else storage(type_.dtype))
    half = rounds and type_.dtype == "float16"

    def finish(result: Any, shared: Iterable[Array]) -> Array:
        array = result if type(result) is np.ndarray else np.asarray(result)
        if array.dtype != dtype:
            array = _convert(array, dtype, where)
        if array.shape != shape and (array.ndim != len(shape) or (sized and not _fits(array.shape, shape))):
            raise ModelError(f"{where} gives the shape {array.shape}, the package declares {shape}.")
        return round_half(array, shared) if half else array

    return finish


def _fits(found: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return all(size in (None, there) for there, size in zip(found, declared, strict=True))


def _convert(array: Array, dtype: np.dtype[Any], where: str) -> Array:
    """``array`` as ``dtype``; integers must fit."""
    if dtype.kind not in "iu" or array.dtype.kind == "b":
        return array.astype(dtype)
    if array.dtype.kind not in "iu":
        raise ModelError(f"{where} gives {array.dtype}, the package declares {dtype}.")
    bounds = np.iinfo(dtype)
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        raise ModelError(f"{where} gives integers outside {dtype}, which the package declares.")
    return array.astype(dtype)
