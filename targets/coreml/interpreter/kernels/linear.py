"""Kernels of the MIL matrix products."""

from __future__ import annotations

from typing import cast

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel


def linear(call: Call) -> Array:
    """MIL ``linear``: x [*d, i] and weight [o, i] → [*d, o]."""
    x, weight, bias = call["x"], call["weight"], call.get("bias")
    # one product over all rows: a stack of matrices would be multiplied one by one
    rows = np.matmul(x.reshape(-1, x.shape[-1]), weight.T)
    if bias is not None:
        rows += bias
    return cast(Array, rows.reshape(*x.shape[:-1], weight.shape[0]))


def matmul(call: Call) -> Array:
    """MIL ``matmul``: NumPy's rules; the transpose flags do nothing to vectors."""
    x = _transposed(call["x"], bool(call.get("transpose_x", False)))
    y = _transposed(call["y"], bool(call.get("transpose_y", False)))
    if y.ndim == 2 and x.ndim > 2:
        rows = np.matmul(x.reshape(-1, x.shape[-1]), y)
        return cast(Array, rows.reshape(*x.shape[:-1], y.shape[-1]))
    return np.asarray(np.matmul(x, y))


def _transposed(array: Array, wanted: bool) -> Array:
    return np.swapaxes(array, -1, -2) if wanted and array.ndim > 1 else array


def einsum(call: Call) -> Array:
    """MIL ``einsum``: ``nchw,nwhu->nchu`` or ``chw,whr->chr``, sizes of 1 broadcast in n and h."""
    x, y = call["values"]
    product = np.matmul(np.swapaxes(x, -3, -2), np.swapaxes(y, -3, -2))
    return np.swapaxes(product, -3, -2)


KERNELS: dict[str, Kernel] = {"einsum": einsum, "linear": linear, "matmul": matmul}
