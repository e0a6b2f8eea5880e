"""Kernels of MIL's quantize and dequantize; compressed weights are in :mod:`.compression`."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.compression import KERNELS as COMPRESSION


def quantize(call: Call) -> Array:
    """MIL ``quantize``: clip(round(input / scale) + zero_point), ties to even, as ONNX QuantizeLinear."""
    x: Array = call["input"]
    dtype = np.dtype(str(call["output_dtype"]))
    # the division decides ties, so it is one: the product with 1 / scale rounds differently
    result = np.divide(x, along_axis(call, call["scale"], x), dtype=np.float32)
    np.rint(result, out=result)
    if call.get("zero_point") is not None:
        result += along_axis(call, call["zero_point"], x).astype(np.float32)
    bounds = np.iinfo(dtype)
    np.clip(result, bounds.min, bounds.max, out=result)
    with np.errstate(invalid="ignore"):
        return result.astype(dtype)


def dequantize(call: Call) -> Array:
    """MIL ``dequantize``: scale * (input - zero_point), as ONNX DequantizeLinear."""
    x: Array = call["input"]
    result = x.astype(np.float32)
    if call.get("zero_point") is not None:
        result -= along_axis(call, call["zero_point"], x).astype(np.float32)
    result *= along_axis(call, call["scale"], x)
    return result


def along_axis(call: Call, parameter: Any, x: Array) -> Array:
    """A scalar as it is; a vector shaped to broadcast along ``axis`` of ``x``."""
    array = np.asarray(parameter)
    if array.ndim == 0:
        return array
    shape = [1] * x.ndim
    shape[int(call["axis"])] = -1
    return array.reshape(shape)


KERNELS: dict[str, Kernel] = {**COMPRESSION, "dequantize": dequantize, "quantize": quantize}
