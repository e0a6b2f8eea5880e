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
class Computed:
    """An axis that gets a size, and one of the sizes before and after is only known at run time."""

    output: int | None


Axis = Sampling | Factor | Computed


@dataclass(frozen=True)
class Plan:
    """``axes``: the axes that change; ``given``: those that the node speaks of, in its order.

    ``mode``: coordinate_transformation_mode.
    """

    axes: dict[int, Axis]
    given: tuple[int, ...]
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
        if _changes(node, mode, axis, copied=same, still=copies or place < _SPATIAL)
    }
    return Plan(changed, tuple(axes), mode)


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


def _by_scales(node: OnnxNode, mode: str, axes: Sequence[int]) -> dict[int, Axis]:
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
) -> dict[int, Axis]:
    policy = str(node.attribute("keep_aspect_ratio_policy", "stretch"))
    shape, sizes = node.shape(0), _sizes(node, axes)
    known = {
        axis: (old, size)
        for axis, size in sizes.items()
        if isinstance(size, int) and (old := shape[axis]) is not None
    }
    ratios = {axis: size / old for axis, (old, size) in known.items()}
    if policy != "stretch":
        if len(known) < len(axes):
            node.refuse(f"keep_aspect_ratio_policy={policy} on a dynamic axis", "Fix the input's size.")
        kept = min(ratios.values()) if policy == "not_larger" else max(ratios.values())
        ratios = dict.fromkeys(ratios, kept)
        known = {axis: (old, math.floor(kept * old + 0.5)) for axis, (old, _) in known.items()}
    found = {axis: Computed(size) if isinstance(size, int) else size for axis, size in sizes.items()}
    return found | {axis: Sampling(*known[axis], ratios[axis], *regions[axis]) for axis in known}


def _sizes(node: OnnxNode, axes: Sequence[int]) -> dict[int, int | Factor | Computed]:
    """The wanted size of each axis; an axis that keeps its own one at run time is a factor of 1."""
    known = node.constant(3)
    if known is not None:
        return {axis: int(size) for axis, size in zip(axes, known.ravel(), strict=True)}
    x, symbolic = node.input(0), node.input(3).sym_val
    if symbolic is None or len(symbolic) != len(axes):
        node.known(3, "sizes")
    return {axis: _size(x.shape[axis], size) for axis, size in zip(axes, symbolic, strict=True)}


def _size(old: Any, size: Any) -> int | Factor | Computed:
    if isinstance(size, (int, np.integer)):
        return int(size)
    return Factor(1) if size == old else Computed(None)


def _changes(node: OnnxNode, mode: str, axis: Axis, *, copied: bool, still: bool) -> bool:
    """Whether sampling the axis moves anything; ``copied``: all axes keep their size.

    ONNX Runtime copies tensors that keep their shape, and some axes of scale 1 (``still``), without looking
    at the coordinates; ONNX looks at the scales and at the region of interest.
    """
    if isinstance(axis, Computed):
        return True
    if isinstance(axis, Factor):
        return axis.scale != 1
    if axis.output < 1:
        node.refuse("its result is empty", "Core ML has no empty tensors.")
    if axis.scale == 1 and mode == _SHIFTED and still:
        return False
    source = coordinates(axis, mode)
    if axis.size == axis.output and np.allclose(source, np.arange(axis.size), rtol=0, atol=1e-6):
        return False
    if copied or axis.scale == 1:
        node.refuse(
            f"{mode} moves an axis that keeps its size (ONNX Runtime copies it)",
            "Give sizes that differ from the input's.",
        )
    return True
