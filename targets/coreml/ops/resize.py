"""Resize, and what :mod:`rearrange` and :mod:`grid_sample` have: DepthToSpace, SpaceToDepth, grids.

MIL's own ops are used where they sample at exactly the coordinates that the node asks for. Everything else
is separable and known at compile time: nearest positions are gathered, and linear, cubic and antialiased
interpolation are products with a constant matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import FLOATS
from edgeq.targets.coreml.ops.grid_sample import HANDLERS as GRID_SAMPLE
from edgeq.targets.coreml.ops.interpolation import (
    NEAREST,
    Kernel,
    Sampling,
    coordinates,
    cubic,
    linear,
    matrix,
    mil_coordinates,
    nearest,
    outside,
)
from edgeq.targets.coreml.ops.rearrange import HANDLERS as REARRANGE
from edgeq.targets.coreml.ops.resize_plan import Axis, Computed, Factor, Plan, plan_of
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_CROP = "tf_crop_and_resize"
_COPIED = (*FLOATS, ir.DataType.INT32, ir.DataType.INT64)
_SAMPLING_MODES = ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS", "DEFAULT")

# (coordinates, rounding) that copy element i to positions i·factor … i·factor + factor - 1, whatever the size
_REPEATING = {
    ("asymmetric", "floor"),
    ("tf_half_pixel_for_nn", "floor"),
    *(
        (mode, rounding)
        for mode in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        for rounding in ("round_prefer_ceil", "round_prefer_floor")
    ),
}
# coordinates → align_corners of MIL upsample_bilinear, for integer factors
_BILINEAR = {
    "align_corners": True,
    "half_pixel": False,
    "half_pixel_symmetric": False,
    "pytorch_half_pixel": False,
}
# coordinates that MIL calls UNALIGN_CORNERS, whatever the sizes are
_CENTRED = ("half_pixel", "half_pixel_symmetric")
_RESIZE_SINCE = 17
_IMAGE_RANK = 4
_IMAGE_RANKS = (3, _IMAGE_RANK)


def resize(node: OnnxNode) -> Var:
    """Resize: nearest by copying, linear and cubic by interpolation."""
    mode = str(node.attribute("mode", "nearest"))
    # read whatever the mode is: ONNX says that each counts in one mode only
    rounding = str(node.attribute("nearest_mode", "round_prefer_floor"))
    a = float(node.attribute("cubic_coeff_a", -0.75))
    fill = float(node.attribute("extrapolation_value", 0.0))
    antialias, exclude = bool(node.attribute("antialias", 0)), bool(node.attribute("exclude_outside", 0))
    kernels = {"linear": linear(), "cubic": cubic(a)}
    if mode != "nearest" and mode not in kernels:
        node.refuse(f"mode={mode}")
    if exclude and not (mode == "cubic" or (mode == "linear" and antialias)):
        node.refuse(f"exclude_outside=1 with mode={mode} (it counts for cubic and antialiased linear only)")
    plan = plan_of(node, copies=mode == "nearest")
    if mode == "nearest":
        result = _nearest(node, plan, rounding, antialias=antialias)
    else:
        result = _interpolated(node, plan, kernels[mode], antialias=antialias, exclude=exclude)
    return _extrapolated(node, plan, result, fill) if plan.mode == _CROP else result


# --- nearest --------------------------------------------------------------------------------------------


def _nearest(node: OnnxNode, plan: Plan, rounding: str, *, antialias: bool) -> Var:
    node.require_dtype(_COPIED, 0)
    if antialias:
        node.refuse("antialias=1 with mode=nearest")
    if rounding not in NEAREST:
        node.refuse(f"nearest_mode={rounding}")
    mb, x = builder(), node.input(0)
    factors = _repeats(node, plan, rounding)
    if factors is not None and node.dtype(0) in FLOATS and x.rank in _IMAGE_RANKS:
        height, width = factors
        return _on_images(
            "upsample_nearest_neighbor", x, scale_factor_height=height, scale_factor_width=width
        )
    for axis, sampling in plan.axes.items():
        if not isinstance(sampling, Sampling):
            node.refuse(f"{plan.mode} and {rounding} on the dynamic axis {axis}", "Fix the input's size.")
        x = mb.gather(x=x, indices=_positions(node, plan, sampling, rounding), axis=axis)
    return mb.identity(x=x) if not plan.axes else x


def _positions(node: OnnxNode, plan: Plan, axis: Sampling, rounding: str) -> Array:
    found = nearest(axis, plan.mode, rounding)
    if found is None:
        node.refuse(
            f"{plan.mode} and {rounding} from {axis.size} to {axis.output}: rounding errors decide which "
            "element is nearest",
            "Export with mode asymmetric and floor, or give sizes instead of scales.",
        )
    return found


def _repeats(node: OnnxNode, plan: Plan, rounding: str) -> tuple[int, int] | None:
    """Integer factors of the last two axes when nothing but repeating happens, and only there."""
    rank = node.rank(0)
    if not plan.axes or any(axis < rank - 2 for axis in plan.axes):
        return None
    factors = [_repeat(node, plan, plan.axes.get(axis), rounding) for axis in (rank - 2, rank - 1)]
    height, width = factors
    return None if height is None or width is None else (height, width)


def _repeat(node: OnnxNode, plan: Plan, axis: Axis | None, rounding: str) -> int | None:
    if axis is None:
        return 1
    if isinstance(axis, Factor):
        return axis.scale if (plan.mode, rounding) in _REPEATING else None
    if isinstance(axis, Computed) or axis.output % axis.size:
        return None
    factor = axis.output // axis.size
    repeated = np.arange(axis.output) // factor
    return factor if np.array_equal(_positions(node, plan, axis, rounding), repeated) else None


# --- linear and cubic -----------------------------------------------------------------------------------


def _interpolated(node: OnnxNode, plan: Plan, kernel: Kernel, *, antialias: bool, exclude: bool) -> Var:
    node.require_float(0)
    x, left = node.input(0), dict(plan.axes)
    if not left:
        return builder().identity(x=x)
    smooth = kernel.radius == 1 and not (antialias and _shrinks(plan))
    if any(isinstance(axis, Computed) for axis in left.values()):
        return _resized(node, plan, x, smooth=smooth)
    if any(isinstance(axis, Factor) for axis in left.values()):
        return _upsampled(node, plan, x, smooth=smooth)
    if smooth and plan.mode != _CROP:
        x, left = _bilinear(node, plan, x)
    for axis, sampling in left.items():
        if isinstance(sampling, Sampling):
            x = _product(x, axis, _matrix(node, plan, sampling, kernel, antialias=antialias, exclude=exclude))
    return x


def _shrinks(plan: Plan) -> bool:
    """Whether an axis may become shorter."""
    return any(isinstance(axis, Computed) or axis.scale < 1 for axis in plan.axes.values())


def _matrix(
    node: OnnxNode, plan: Plan, axis: Sampling, kernel: Kernel, *, antialias: bool, exclude: bool
) -> Array:
    stretch = max(1.0, 1 / axis.scale) if antialias else 1.0
    if plan.mode == "pytorch_half_pixel" and axis.output == 1 and (kernel.radius > 1 or stretch > 1):
        node.refuse("pytorch_half_pixel to size 1 (ONNX and ONNX Runtime sample at different places)")
    source = coordinates(axis, plan.mode)
    return matrix(source, axis.size, kernel, stretch=stretch, exclude_outside=exclude)


def _product(x: Var, axis: int, weights: Array) -> Var:
    """Interpolate one axis; ``weights`` is [output, size]."""
    mb = builder()
    weights = weights.astype(scalar(x, 0).dtype)
    if axis == x.rank - 1 and x.rank > 1:
        return mb.matmul(x=x, y=np.ascontiguousarray(weights.T))
    if axis == x.rank - 2:
        return mb.matmul(x=weights, y=x)
    if x.rank == 1:
        column = mb.matmul(x=weights, y=mb.expand_dims(x=x, axes=[1]))
        return mb.squeeze(x=column, axes=[1])
    order = list(range(x.rank))
    order[axis], order[-1] = order[-1], order[axis]
    moved = mb.matmul(x=mb.transpose(x=x, perm=order), y=np.ascontiguousarray(weights.T))
    return mb.transpose(x=moved, perm=order)


def _bilinear(node: OnnxNode, plan: Plan, x: Var) -> tuple[Var, dict[int, Any]]:
    """The last two axes by MIL ``resize_bilinear`` where it samples there; and the axes that are left."""
    last = (x.rank - 2, x.rank - 1)
    if x.rank not in _IMAGE_RANKS or not any(axis in plan.axes for axis in last):
        return x, dict(plan.axes)
    axes = [plan.axes.get(axis) or _unchanged(node.shape(0)[axis]) for axis in last]
    for sampling_mode in _SAMPLING_MODES:
        if all(isinstance(axis, Sampling) and _samples(plan, axis, sampling_mode) for axis in axes):
            height, width = (axis.output for axis in axes if isinstance(axis, Sampling))
            sizes = {"target_size_height": height, "target_size_width": width}
            resized = _on_images("resize_bilinear", x, sampling_mode=sampling_mode, **sizes)
            return resized, {axis: s for axis, s in plan.axes.items() if axis not in last}
    return x, dict(plan.axes)


def _unchanged(size: int | None) -> Sampling | None:
    return None if size is None else Sampling(size, size, 1.0)


def _samples(plan: Plan, axis: Sampling, sampling_mode: str) -> bool:
    theirs = mil_coordinates(sampling_mode, axis.size, axis.output)
    if theirs is None:
        return False
    ours = np.clip(coordinates(axis, plan.mode, np.float64), 0, axis.size - 1)
    return np.allclose(ours, theirs, rtol=0, atol=1e-6 * axis.size)


def _upsampled(node: OnnxNode, plan: Plan, x: Var, *, smooth: bool) -> Var:
    """Dynamic axes by MIL ``upsample_bilinear``, which knows their sizes at run time."""
    factors = [_factor(plan.axes.get(axis)) for axis in (x.rank - 2, x.rank - 1)]
    align = _BILINEAR.get(plan.mode)
    known = smooth and align is not None and None not in factors and x.rank in _IMAGE_RANKS
    # an aligned axis of factor 1 may have size 1: 0/0
    if not known or any(axis < x.rank - 2 for axis in plan.axes) or (align and 1 in factors):
        node.refuse(f"{plan.mode} on a dynamic axis", "Fix the input's size.")
    height, width = factors
    return _on_images(
        "upsample_bilinear", x, scale_factor_height=height, scale_factor_width=width, align_corners=align
    )


def _factor(axis: Axis | None) -> int | None:
    if axis is None:
        return 1
    if isinstance(axis, Computed):
        return None
    if isinstance(axis, Factor):
        return axis.scale
    factor = axis.output // axis.size
    return factor if factor == axis.scale else None


def _resized(node: OnnxNode, plan: Plan, x: Var, *, smooth: bool) -> Var:
    """Sizes of the last two axes that the model computes, or that it gives to axes of unknown size."""
    last = (x.rank - 2, x.rank - 1)
    known = plan.mode in _CENTRED and smooth and x.rank in _IMAGE_RANKS
    if not known or plan.given[-2:] != last or not set(plan.axes) <= set(last):
        node.refuse(f"{plan.mode} to sizes known at run time only", "Fix the input's size, or give scales.")
    height, width = (_output(node, plan, axis) for axis in last)
    sampling = {"sampling_mode": "UNALIGN_CORNERS"}
    if height is not None and width is not None:
        return _on_images(
            "resize_bilinear", x, target_size_height=height, target_size_width=width, **sampling
        )
    if node.lowering.ios < _RESIZE_SINCE:
        node.refuse(f"sizes known at run time only, before iOS {_RESIZE_SINCE}", "Target a newer iOS.")
    sizes = {"shape": node.input(3), "resized_dims": np.uint32(2)}
    return _on_images("resize", x, interpolation_mode="LINEAR", **sizes, **sampling)


def _on_images(op: str, x: Var, **arguments: Any) -> Var:
    """MIL's ``op`` on rank 4, the only one that coremltools' own converters give to it."""
    mb = builder()
    if x.rank == _IMAGE_RANK:
        return getattr(mb, op)(x=x, **arguments)
    return mb.squeeze(x=getattr(mb, op)(x=mb.expand_dims(x=x, axes=[0]), **arguments), axes=[0])


def _output(node: OnnxNode, plan: Plan, axis: int) -> int | None:
    found = plan.axes.get(axis)
    return node.shape(0)[axis] if found is None or isinstance(found, Factor) else found.output


# --- tf_crop_and_resize ---------------------------------------------------------------------------------


def _extrapolated(node: OnnxNode, plan: Plan, x: Var, fill: float) -> Var:
    """``fill`` where the region of interest leaves the input."""
    inside = np.ones((1,) * x.rank, bool)
    for axis, sampling in plan.axes.items():
        if isinstance(sampling, Sampling):
            there = ~outside(coordinates(sampling, plan.mode), sampling.size)
            inside = inside & there.reshape(-1, *(1,) * (x.rank - 1 - axis))
    if inside.all():
        return x
    node.require_float(0)
    mb, dtype = builder(), scalar(x, 0).dtype
    return mb.add(x=mb.mul(x=x, y=inside.astype(dtype)), y=np.where(inside, 0, fill).astype(dtype))


HANDLERS: dict[str, Handler] = {"Resize": resize, **REARRANGE, **GRID_SAMPLE}
