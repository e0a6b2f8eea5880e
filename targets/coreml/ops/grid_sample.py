"""GridSample and AffineGrid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_RANK = 4
_LINEAR = ("linear", "bilinear")  # the second before opset 20


def grid_sample(node: OnnxNode) -> Var:
    """GridSample of images, bilinear: MIL ``resample``."""
    node.require_float(0, 1)
    if node.rank(0) != _RANK:
        node.refuse(f"its input has rank {node.rank(0)}, and MIL samples rank {_RANK} only")
    mode, align = node.attribute("mode", "linear"), bool(node.attribute("align_corners", 0))
    if mode not in _LINEAR:
        node.refuse(f"mode={mode} (MIL documents no rounding for nearest, and has no cubic)")
    x = node.input(0)
    return builder().resample(
        x=x,
        coordinates=node.input(1),
        sampling_mode="bilinear",
        padding_mode=_padding(node, align),
        padding_value=scalar(x, 0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=align,
    )


def _padding(node: OnnxNode, align: bool) -> str:
    """MIL's word for ONNX's ``padding_mode``; without aligned corners ONNX reflects at the pixels' edges."""
    padding = node.attribute("padding_mode", "zeros")
    words = {
        "zeros": "constant",
        "border": "border",
        "reflection": "reflection" if align else "symmetric",
    }
    if padding not in words:
        node.refuse(f"padding_mode={padding}")
    return words[padding]


def affine_grid(node: OnnxNode) -> Var:
    """AffineGrid: the constant grid times theta, [N, H, W, 2] or [N, D, H, W, 3]."""
    node.require_float(0)
    mb, align = builder(), bool(node.attribute("align_corners", 0))
    size = [int(number) for number in node.known(1, "size")]
    spatial = size[2:]
    if align and 1 in spatial:
        node.refuse("align_corners=1 with a size of 1 (the step between corners is 0/0)")
    theta = node.input(0)
    points = _points(spatial, align=align).astype(scalar(theta, 0).dtype)
    moved = mb.matmul(x=points, y=theta, transpose_y=True)
    return mb.reshape(x=moved, shape=[size[0], *spatial, len(spatial)])


def _points(spatial: list[int], *, align: bool) -> Array:
    """Normalized coordinates of all positions with a 1 behind, last axis first: [positions, axes + 1]."""
    axes = [_steps(size, align=align) for size in spatial]
    grid = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(spatial)], axis=-1)
    return grid.reshape(-1, len(spatial) + 1)


def _steps(size: int, *, align: bool) -> Array:
    positions = np.arange(size)
    return positions * 2 / (size - 1) - 1 if align else (positions * 2 + 1) / size - 1


HANDLERS: dict[str, Handler] = {"AffineGrid": affine_grid, "GridSample": grid_sample}
