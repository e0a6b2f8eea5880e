"""Kernels of the MIL image resizing ops: separable, one axis after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.crop_resize import crop_resize
from edgeq.targets.coreml.interpreter.kernels.interpolation import lerp
from edgeq.targets.coreml.interpreter.kernels.window import integers

# Input and output size of an axis → where each output element lies in the input, before clamping.
_Grid = Callable[[int, int], Array]


def _endpoints(size: int, output: int) -> Array:
    return np.linspace(0, size - 1, output) if output > 1 else np.zeros(1)


def _centred_endpoints(size: int, output: int) -> Array:
    return np.linspace(0, size - 1, output) if output > 1 else np.full(1, (size - 1) / 2)


def _asymmetric(size: int, output: int) -> Array:
    return np.arange(output) * (size / output)


def _offset_corners(size: int, output: int) -> Array:
    return (np.arange(output) + 0.5) * (max(1, size - 1) / output)


def _half_pixel(size: int, output: int) -> Array:
    return (np.arange(output) + 0.5) * (size / output) - 0.5


# MIL ``resize_bilinear``, parameter sampling_mode.
SAMPLING: dict[str, _Grid] = {
    "STRICT_ALIGN_CORNERS": _endpoints,
    "ALIGN_CORNERS": _centred_endpoints,
    "DEFAULT": _asymmetric,
    "OFFSET_CORNERS": _offset_corners,
    "UNALIGN_CORNERS": _half_pixel,
}


def resize(call: Call) -> Array:
    """MIL ``resize`` (iOS17): the last ``resized_dims`` axes get the last sizes of ``shape``; 0 keeps one."""
    x: Array = call["x"]
    count = int(call["resized_dims"])
    wanted = integers(call["shape"])
    sizes = [
        size or have
        for size, have in zip(wanted[len(wanted) - count :], x.shape[x.ndim - count :], strict=True)
    ]
    mode = str(call.get("sampling_mode", "DEFAULT"))
    if str(call.get("interpolation_mode", "LINEAR")) == "LINEAR":
        if x.dtype.kind != "f":
            raise _undefined(call, "linear interpolation of integers")
        return _interpolated(x, sizes, _grid(call, mode))
    return _picked(x, sizes, lambda size, output: _nearest(call, mode, size, output))


def resize_bilinear(call: Call) -> Array:
    """MIL ``resize_bilinear``: the last two axes to target sizes (1 when left out)."""
    sizes = [int(call.get("target_size_height", 1)), int(call.get("target_size_width", 1))]
    return _interpolated(call["x"], sizes, _grid(call, str(call.get("sampling_mode", "DEFAULT"))))


def resize_nearest_neighbor(call: Call) -> Array:
    """MIL ``resize_nearest_neighbor``: the last two axes to target sizes."""
    sizes = [int(call["target_size_height"]), int(call["target_size_width"])]
    return _picked(call["x"], sizes, lambda size, output: _nearest(call, "DEFAULT", size, output))


def upsample_bilinear(call: Call) -> Array:
    """MIL ``upsample_bilinear``: scales are recomputed from the rounded output sizes."""
    corners = bool(call.get("align_corners", True))
    centers = call.get("half_pixel_centers")
    half = not corners if centers is None else bool(centers)
    if corners and half:
        raise _undefined(call, "align_corners together with half_pixel_centers")
    grid = _endpoints if corners else _half_pixel if half else _asymmetric
    return _interpolated(call["x"], _scaled_sizes(call), grid)


def upsample_nearest_neighbor(call: Call) -> Array:
    """MIL ``upsample_nearest_neighbor``: output element i is input element ⌊i / scale⌋."""
    x, scales = call["x"], _scales(call)
    result = x
    for axis, output, scale in zip((-2, -1), _scaled_sizes(call), scales, strict=True):
        result = np.take(result, _upsampled(call, x.shape[axis], output, scale), axis=axis)
    return np.asarray(result)


def _upsampled(call: Call, size: int, output: int, scale: float) -> Array:
    index = np.floor(np.arange(output) / scale).astype(np.intp)
    if not np.array_equal(index, np.arange(output) * size // max(1, output)):
        raise _undefined(call, f"the scale {scale:g} for {size} elements, which rounds to {output},")
    return index


def _scales(call: Call) -> list[float]:
    return [float(call.get("scale_factor_height", 1)), float(call.get("scale_factor_width", 1))]


def _scaled_sizes(call: Call) -> list[int]:
    height, width = call["x"].shape[-2:]
    pairs = zip((height, width), _scales(call), strict=True)
    return [int(np.floor(np.float32(scale) * np.float32(size))) for size, scale in pairs]


def crop(call: Call) -> Array:
    """MIL ``crop``: cut (before, after) elements off height and width."""
    x: Array = call["x"]
    (top, bottom), (left, right) = integers(call["crop_height"]), integers(call["crop_width"])
    height, width = x.shape[-2:]
    return x[..., top : height - bottom, left : width - right]


def _grid(call: Call, mode: str) -> _Grid:
    if mode not in SAMPLING:
        raise _undefined(call, f"the sampling_mode {mode!r}")
    return SAMPLING[mode]


def _undefined(call: Call, what: str) -> TargetError:
    return TargetError(f"Core ML: MIL does not define {call.op_type} ({call.name!r}) with {what}.")


def _nearest(call: Call, mode: str, size: int, output: int) -> Array:
    """Input element of every output element.

    DEFAULT takes the element whose area the output's centre falls into (coremltools lowers TensorFlow's
    half-pixel nearest neighbour to it and checks that on macOS). The other modes take the element nearest to
    the documented grid point; MIL does not say which of two equally near ones.
    """
    if mode == "DEFAULT":
        return np.asarray((2 * np.arange(output) + 1) * size // (2 * output))
    points = np.clip(_grid(call, mode)(size, output), 0, size - 1)
    if np.any(np.abs(points - np.floor(points) - 0.5) < 1e-6):
        raise _undefined(call, f"{mode} and points midway between two elements ({size} to {output})")
    return np.asarray(np.rint(points), np.intp)


def _picked(x: Array, sizes: list[int], index: Callable[[int, int], Array]) -> Array:
    for place, output in enumerate(sizes):
        axis = x.ndim - len(sizes) + place
        x = np.take(x, index(x.shape[axis], output), axis=axis)
    return x


def _interpolated(x: Array, sizes: list[int], grid: _Grid) -> Array:
    """Linear interpolation of the last axes at the clamped grid points."""
    for place, output in enumerate(sizes):
        axis = x.ndim - len(sizes) + place
        points = np.clip(grid(x.shape[axis], output), 0, x.shape[axis] - 1)
        if not np.array_equal(points, np.arange(x.shape[axis])):
            x = lerp(x, axis, points)
    return x


KERNELS: dict[str, Kernel] = {
    "crop": crop,
    "crop_resize": crop_resize,
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
