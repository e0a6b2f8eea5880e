"""Kernel of MIL's ``resample``: an image read at computed positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, Kernel

_HALF = np.float32(0.5)


def _reflection(index: Array, size: int) -> Array:
    """Mirrored at the centers of the first and last pixel: 2 1 | 0 1 2 | 1 0."""
    if size == 1:
        return np.zeros_like(index)
    turned: Array = np.mod(index, 2 * (size - 1))
    return np.asarray(np.minimum(turned, 2 * (size - 1) - turned))


def _symmetric(index: Array, size: int) -> Array:
    """Mirrored at the edges of the first and last pixel: 1 0 | 0 1 2 | 2 1."""
    turned: Array = np.mod(index, 2 * size)
    return np.asarray(np.minimum(turned, 2 * size - 1 - turned))


def _clamped(index: Array, size: int) -> Array:
    return np.clip(index, 0, size - 1)


# Padding mode → which pixel stands at an index outside the image.
_INSIDE: Mapping[str, Callable[[Array, int], Array]] = MappingProxyType(
    {"border": _clamped, "constant": _clamped, "reflection": _reflection, "symmetric": _symmetric}
)


def _pixels(call: Call, coordinates: Array, size: int) -> Array:
    """Coordinates of one axis in pixels; the center of the first pixel is 0."""
    mode = call["coordinates_mode"]
    if mode == "unnormalized":
        return coordinates
    unit = coordinates if mode == "normalized_zero_to_one" else (coordinates + 1) * _HALF
    return unit * np.float32(size - 1) if call["align_corners"] else unit * np.float32(size) - _HALF


def _read(call: Call, x: Array, row: Array, column: Array) -> Array:
    """The pixels [B, C, H2, W2] of ``x`` at whole rows and columns [B, H2, W2]."""
    height, width = x.shape[2:]
    inside = _INSIDE[call["padding_mode"]]
    batch = np.arange(len(x))[:, None, None]
    found = x[batch, :, inside(row, height), inside(column, width)]
    if call["padding_mode"] == "constant":
        outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
        found[outside] = call["padding_value"]
    return np.moveaxis(found, -1, 1)


def resample(call: Call) -> Array:
    """MIL ``resample``: x [B, C, H, W] at coordinates [B, H2, W2, (x, y)]; ``nearest`` or ``bilinear``."""
    x: Array = call["x"]
    coordinates = call["coordinates"].astype(np.float32, copy=False)
    height, width = x.shape[2:]
    row: Any = _pixels(call, coordinates[..., 1], height)
    column: Any = _pixels(call, coordinates[..., 0], width)
    if call["sampling_mode"] == "nearest":
        return _read(call, x, np.rint(row).astype(np.int64), np.rint(column).astype(np.int64))
    top, left = np.floor(row), np.floor(column)
    down, right = (row - top)[:, None], (column - left)[:, None]
    top, left = top.astype(np.int64), left.astype(np.int64)
    upper = _read(call, x, top, left) * (1 - right) + _read(call, x, top, left + 1) * right
    lower = _read(call, x, top + 1, left) * (1 - right) + _read(call, x, top + 1, left + 1) * right
    return np.asarray(upper * (1 - down) + lower * down)


KERNELS: dict[str, Kernel] = {"resample": resample}
