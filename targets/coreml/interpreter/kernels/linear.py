"""Kernels of the MIL matrix products."""

from __future__ import annotations

from math import prod

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.product import products

# Rows of ``linear`` from which on transposing them is cheaper than transposing the weight.
_MANY_ROWS = 16


def linear(call: Call) -> Array:
    """MIL ``linear``: x [*d, i] and weight [o, i] → [*d, o]."""
    x, weight, bias = call["x"], call["weight"], call.get("bias")
    # one product over all rows: a stack of matrices would be multiplied one by one
    rows = _rows(x.reshape(prod(x.shape[:-1]), x.shape[-1]), weight)
    if bias is not None:
        rows += bias
    return rows.reshape(*x.shape[:-1], weight.shape[0])


def _rows(x: Array, weight: Array) -> Array:
    """The product of x [r, i] and weight [o, i] transposed."""
    if len(x) < 2 or x.dtype != np.float32:
        return np.asarray(np.matmul(x, weight.T))
    if len(x) < _MANY_ROWS:
        return _stack(x, weight.T)
    result = np.empty((1, 1, len(weight), len(x)), np.float32)
    products(weight[None], x.T[None, None], result, len(weight))
    return np.ascontiguousarray(result[0, 0].T)


def matmul(call: Call) -> Array:
    """MIL ``matmul``: NumPy's rules; the transpose flags do nothing to vectors."""
    x = _transposed(call["x"], bool(call.get("transpose_x", False)))
    y = _transposed(call["y"], bool(call.get("transpose_y", False)))
    if min(x.ndim, y.ndim) < 2 or x.dtype != np.float32 or y.dtype != np.float32:
        return np.asarray(np.matmul(x, y))
    if y.ndim == 2:
        rows = _stack(x.reshape(prod(x.shape[:-1]), x.shape[-1]), y)
        return rows.reshape(*x.shape[:-1], y.shape[-1])
    return _stack(x, y)


def _stack(x: Array, y: Array) -> Array:
    """Products of matrices, broadcast over the leading axes."""
    if x.shape[-2] < 2:
        # ONNX Runtime has another loop for one row, whose order depends on the processor
        return np.asarray(np.matmul(x, y))
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    result = np.empty((*leading, x.shape[-2], y.shape[-1]), np.float32)
    count = prod(leading)
    left = np.broadcast_to(x, (*leading, *x.shape[-2:])).reshape(count, *x.shape[-2:])
    right = np.broadcast_to(y, (*leading, *y.shape[-2:])).reshape(1, count, *y.shape[-2:])
    products(left, right, result.reshape(1, count, *result.shape[-2:]))
    return result


def _transposed(array: Array, wanted: bool) -> Array:
    return np.swapaxes(array, -1, -2) if wanted and array.ndim > 1 else array


def einsum(call: Call) -> Array:
    """MIL ``einsum``: ``nchw,nwhu->nchu`` or ``chw,whr->chr``, sizes of 1 broadcast in n and h."""
    x, y = call["values"]
    product = np.matmul(np.swapaxes(x, -3, -2), np.swapaxes(y, -3, -2))
    return np.swapaxes(product, -3, -2)


KERNELS: dict[str, Kernel] = {"einsum": einsum, "linear": linear, "matmul": matmul}
