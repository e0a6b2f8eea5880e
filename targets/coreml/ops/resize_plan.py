"""What a Resize node asks for: which axes change, from which size to which, and how they are sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.targets.coreml.frontend.node import OnnxNode
from edgeq.targets.coreml.ops.data_movement import normalized_axis
from edgeq.targets.coreml.ops.interpolation import COORDINATES, Sampling, coordinates

_CROP = "tf_crop_and_resize"
# The only coordinates that move an axis of scale 1. Neither ONNX nor ONNX Runtime do that to batches and
# channels, nor where elements are copied.
_SHIFTED, _SPATIAL = "tf_half_pixel_for_nn", 2


@dataclass(frozen=True)
class Factor:
    """A dynamic axis that becomes ``scale`` times as long."""

    scale: int


@dataclass(frozen=True)
class Plan:
    """``axes``: the axes that change. ``mode``: coordinate_transformation_mode."""

    axes: dict[int, Sampling | Factor]
    mode: str


def plan_of(node: OnnxNode, *, copies: bool) -> Plan:
    """The plan of a Resize node; refused where ONNX and ONNX Runtime disagree on what it means.

    ``copies``: the mode is nearest.
    """
    mode = str(node.attribute("coordinate_transformation_mode", "half_pixel"))
    if mode not in COORDINATES:
        node.refuse(f"coordinate_transformation_mode={mode}")
    rank = node.rank(0)
    given = node.attribute("axes")
    axes = list(range(rank)) if given is None else [normalized_axis(node, axis, rank) for axis in given]
    regions = _regions(node, mode, axes)
    found = _by_scales(node, mode, axes) if _given(node, 2) else _by_sizes(node, axes, regions)
    same = all(isinstance(axis, Sampling) and axis.size == axis.output for axis in found.values())
    changed = {
        place: axis
        for place, axis in found.items()
        if not (axis.scale == 1 and mode == _SHIFTED and (copies or place < _SPATIAL))
        and _changes(node, mode, axis, copied=same)
    }
    return Plan(changed, mode)


def _given(node: OnnxNode, index: int) -> bool:
    """Whether an input is there and not empty (empty stood for left out before opset 13)."""
    known = node.constant(index)
    return node.has_input(index) and (known is None or known.size > 0)


def _regions(node: OnnxNode, mode: str, axes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Region of interest of each axis; ONNX reads ``roi`` for one mode only."""
    if mode != _CROP:
        node.constant(1)
        return dict.fromkeys(axes, (0.0, 1.0))
    roi = [float(number) for number in node.known(1, "roi")]
    return {axis: (roi[i], roi[i + len(axes)]) for i, axis in enumerate(axes)}


def _by_scales(node: OnnxNode, mode: str, axes: Sequence[int]) -> dict[int, Sampling | Factor]:
    if mode == _CROP:
        node.refuse(f"{_CROP} with scales (its output size depends on the region)", "Give sizes instead.")
    if _given(node, 3):
        node.refuse("both scales and sizes are given")
    scales = [float(scale) for scale in node.known(2, "scales").ravel()]
    shape = node.shape(0)
    return {axis: _scaled(node, mode, shape[axis], scale) for axis, scale in zip(axes, scales, strict=True)}


def _scaled(node: OnnxNode, mode: str, size: int | None, scale: float) -> Sampling | Factor:
    if size is None:
        if scale != int(scale):
            node.refuse(f"scale {scale:g} on a dynamic axis", "Fix the input's size, or scale by an integer.")
        return Factor(int(scale))
    output = math.floor(np.float32(scale) * np.float32(size))
    if mode == "align_corners" and not math.isclose(scale * size, output, rel_tol=1e-6):
        node.refuse("align_corners with scales that give fractional sizes (ONNX Runtime rounds them)")
    return Sampling(size, output, scale)


def _by_sizes(
    node: OnnxNode, axes: Sequence[int], regions: dict[int, tuple[float, float]]
) -> dict[int, Sampling | Factor]:
    shape, sizes = node.shape(0), _sizes(node, axes)
    wanted = {axis: (shape[axis], size) for axis, size in zip(axes, sizes, strict=True)}
    ratios = {
        axis: size / old for axis, (old, size) in wanted.items() if old is not None and size is not None
    }
    policy = str(node.attribute("keep_aspect_ratio_policy", "stretch"))
    if policy != "stretch":
        if len(ratios) < len(axes):
            node.refuse(f"keep_aspect_ratio_policy={policy} on a dynamic axis", "Fix the input's size.")
        kept = min(ratios.values()) if policy == "not_larger" else max(ratios.values())
        ratios = dict.fromkeys(ratios, kept)
        wanted = {axis: (old, math.floor(kept * old + 0.5)) for axis, (old, _) in wanted.items() if old}
    found: dict[int, Sampling | Factor] = {}
    for axis, (old, size) in wanted.items():
        if old is None or size is None:
            found[axis] = Factor(1)
        else:
            found[axis] = Sampling(old, size, ratios[axis], *regions[axis])
    return found


def _sizes(node: OnnxNode, axes: Sequence[int]) -> list[int | None]:
    """The wanted sizes, None for a dynamic axis that keeps its own."""
    known = node.constant(3)
    if known is not None:
        return [int(size) for size in known.ravel()]
    x, sizes = node.input(0), node.input(3)
    symbolic = sizes.sym_val
    if symbolic is None or len(symbolic) != len(axes):
        node.known(3, "sizes")
    return [_size(node, x.shape[axis], size) for axis, size in zip(axes, symbolic, strict=True)]


def _size(node: OnnxNode, old: Any, size: Any) -> int | None:
    if isinstance(size, (int, np.integer)):
        return int(size)
    if size != old:
        node.refuse(
            "its sizes are computed at run time",
            "Give constant sizes or integer scales, or fix the input's size.",
        )
    return None


def _changes(node: OnnxNode, mode: str, axis: Sampling | Factor, *, copied: bool) -> bool:
    """Whether sampling the axis moves anything.

    ONNX Runtime copies tensors that keep their shape, and some axes of scale 1, without looking at the
    coordinates; ONNX looks at the scales and at the region of interest.
    """
    if isinstance(axis, Factor):
        return axis.scale != 1
    if axis.output < 1:
        node.refuse("its result is empty", "Core ML has no empty tensors.")
    source = coordinates(axis, mode)
    if axis.size == axis.output and np.allclose(source, np.arange(axis.size), rtol=0, atol=1e-6):
        return False
    if copied or axis.scale == 1:
        node.refuse(
            f"{mode} moves an axis that keeps its size (ONNX Runtime copies it)",
            "Give sizes that differ from the input's.",
        )
    return True
