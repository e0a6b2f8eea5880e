"""Kernel of MIL's crop_resize: boxes cut out of images and resized to one size."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call
from edgeq.targets.coreml.interpreter.kernels.interpolation import lerp

# Where the coordinates (top, left, bottom, right) stand. MIL does not say how a size relates to corners.
_CORNERS = {"CORNERS_HEIGHT_FIRST": (0, 1, 2, 3), "CORNERS_WIDTH_FIRST": (1, 0, 3, 2)}
# How sampling inside a box works is documented for these only.
_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS")


def crop_resize(call: Call) -> Array:
    """MIL ``crop_resize``: x [b, c, h, w] → [n, c, height, width] (iOS17: ``boxes``).

    With ``roi`` (before iOS17): [n, b, c, height, width], or [n, 1, c, …] when the boxes name their image.
    """
    x: Array = call["x"]
    if "boxes" in call.inputs:
        boxes = np.asarray(call["boxes"], np.float32)
        images = np.asarray(call.get("box_indices", np.arange(len(boxes))))
        return np.stack([_cut(call, x[image], box) for image, box in zip(images, boxes, strict=True)])
    roi = call["roi"].reshape(len(call["roi"]), -1)
    if roi.shape[1] == 4:
        return np.stack([_cut(call, x, box) for box in roi])
    return np.stack([_cut(call, x[int(box[0]), None], box[1:]) for box in roi])


def _cut(call: Call, image: Array, box: Array) -> Array:
    """``image`` [..., h, w] sampled inside ``box``, bilinear."""
    order = _CORNERS.get(str(call.get("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")))
    mode = str(call.get("sampling_mode", "DEFAULT"))
    if order is None or mode not in _MODES:
        raise TargetError(f"Core ML: MIL does not define crop_resize ({call.name!r}) with these modes.")
    scale = np.float32(call.get("spatial_scale", 1.0))
    top, left, bottom, right = (box[place] * scale for place in order)
    sizes = int(call.get("target_height", 1)), int(call.get("target_width", 1))
    result = image
    outside = np.zeros(sizes, np.bool_)
    for axis, start, end in ((-2, top, bottom), (-1, left, right)):
        last = image.shape[axis] - 1
        reach = last if bool(call.get("normalized_coordinates", False)) else 1
        points = _points(start * reach, end * reach, sizes[axis], mode)
        beyond = (points < 0) | (points > last)
        outside |= beyond[:, None] if axis == -2 else beyond
        result = lerp(result, result.ndim + axis, np.clip(points, 0, last))
    # before iOS16 there is no pad_value and points are moved to the border
    padded = outside & (call.opset >= 16)
    return np.where(padded, np.float32(call.get("pad_value", 0.0)), result)


def _points(start: float, end: float, count: int, mode: str) -> Array:
    if count == 1:
        return np.array([start if mode == "STRICT_ALIGN_CORNERS" else (start + end) / 2])
    return np.linspace(start, end, count)
