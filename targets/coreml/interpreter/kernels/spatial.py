"""Kernels of MIL's moves between space, depth and batch (rank 4: batch, channels, height, width)."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.shape import integers


def _depth_to_space(call: Call) -> Array:
    """``depth_to_space``: the block's position is the slow part of the channel (ONNX: DCR)."""
    x: Array = call["x"]
    n, c, h, w = x.shape
    b = int(call["block_size"])
    parts = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // (b * b), h * b, w * b)


def _pixel_shuffle(call: Call) -> Array:
    """``pixel_shuffle``: the block's position is the fast part of the channel (ONNX: CRD)."""
    x: Array = call["x"]
    n, c, h, w = x.shape
    b = int(call["upscale_factor"])
    parts = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // (b * b), h * b, w * b)


def _blocks(x: Array, b: int) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b)


def _space_to_depth(call: Call) -> Array:
    """``space_to_depth``: the inverse of ``depth_to_space``."""
    x: Array = call["x"]
    n, c, h, w = x.shape
    b = int(call["block_size"])
    return _blocks(x, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _pixel_unshuffle(call: Call) -> Array:
    """``pixel_unshuffle``: the inverse of ``pixel_shuffle``."""
    x: Array = call["x"]
    n, c, h, w = x.shape
    b = int(call["downscale_factor"])
    return _blocks(x, b).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _space_to_batch(call: Call) -> Array:
    """``space_to_batch``: as TensorFlow's SpaceToBatchND, the block's position is the slow part."""
    padded = np.pad(call["x"], [(0, 0), (0, 0), *np.asarray(call["paddings"]).tolist()])
    n, c, h, w = padded.shape
    rows, columns = integers(call["block_shape"])
    parts = padded.reshape(n, c, h // rows, rows, w // columns, columns).transpose(3, 5, 0, 1, 2, 4)
    return parts.reshape(n * rows * columns, c, h // rows, w // columns)


def _batch_to_space(call: Call) -> Array:
    """``batch_to_space``: the inverse of ``space_to_batch``, then crops."""
    x: Array = call["x"]
    n, c, h, w = x.shape
    rows, columns = integers(call["block_shape"])
    parts = x.reshape(rows, columns, n // (rows * columns), c, h, w).transpose(2, 3, 4, 0, 5, 1)
    whole = parts.reshape(n // (rows * columns), c, h * rows, w * columns)
    (top, bottom), (left, right) = np.asarray(call["crops"]).tolist()
    return whole[:, :, top : h * rows - bottom, left : w * columns - right]


KERNELS: dict[str, Kernel] = {
    "batch_to_space": _batch_to_space,
    "depth_to_space": _depth_to_space,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
}
