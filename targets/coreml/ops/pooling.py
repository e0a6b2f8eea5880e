"""MaxPool, AveragePool, LpPool and their global forms.

MIL's own ``ceil_mode`` needs symmetric pads and counts windows by another rule than ONNX, so it is never
used: the padding behind the input is computed instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.limits import MAX_RANK
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.pool_window import Window, windows
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.ops.window_pads import pad_arguments
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def max_pool(node: OnnxNode) -> list[Var | None]:
    """MaxPool: MIL ``max_pool``; dilated ones are maxima of gathered taps."""
    node.require_float(0)
    if node.wants(1):
        node.refuse("its output Indices is used", "Core ML has no maximum pooling that returns indices.")
    node.attribute("storage_order")  # it only says how Indices count
    axes = windows(node)
    if any(axis.dilation != 1 for axis in axes):
        return [_dilated_max(node, axes), None]
    return [builder().max_pool(x=node.input(0), **_arguments(axes)), None]


def _arguments(axes: Sequence[Window]) -> dict[str, Any]:
    padding = pad_arguments((axis.before, axis.after + axis.extra) for axis in axes)
    sizes = {"kernel_sizes": [axis.kernel for axis in axes], "strides": [axis.stride for axis in axes]}
    return {**sizes, **padding}


def _dilated_max(node: OnnxNode, axes: Sequence[Window]) -> Var:
    """Maxima are separable: one axis after the other, one gather per tap."""
    result = node.input(0)
    for place, axis in enumerate(axes, start=2):
        if axis.kernel == axis.stride == 1 and not axis.padded:
            continue
        if axis.size is None:
            node.refuse("dilations on a dynamic axis", "Fix the input's size.")
        result = _max_of_taps(result, place, _inner_taps(node, axis.taps(axis.size), axis.size))
    return result


def _inner_taps(node: OnnxNode, taps: Array, size: int) -> Array:
    """Taps in the padding replaced by another tap of their window: it changes no maximum."""
    inside = (taps >= 0) & (taps < size)
    if not inside.any(axis=1).all():
        node.refuse("a window lies in the padding only (dilations larger than the input)")
    first = np.take_along_axis(taps, inside.argmax(axis=1)[:, None], axis=1)
    return np.where(inside, taps, first).astype(np.int32)


def _max_of_taps(x: Var, place: int, taps: Array) -> Var:
    mb = builder()
    columns = [mb.gather(x=x, indices=column, axis=place) for column in np.ascontiguousarray(taps.T)]
    return reduce(lambda a, b: mb.maximum(x=a, y=b), columns)


def average_pool(node: OnnxNode) -> Var:
    """AveragePool: MIL ``avg_pool``; dilated ones are a depthwise convolution."""
    node.require_float(0)
    mb, axes = builder(), windows(node)
    count_pads = bool(node.attribute("count_include_pad", 0))
    if any(axis.dilation != 1 for axis in axes):
        return _dilated_average(node, axes, count_pads=count_pads)
    x = node.input(0)
    has_extra = any(axis.extra for axis in axes)
    if count_pads and has_extra:
        # MIL counts all padding or none, ONNX counts its pads but not what ceil_mode adds
        x, axes = _pad_zeros(x, axes), [_unpadded(axis) for axis in axes]
    exclude = has_extra or not count_pads
    return mb.avg_pool(x=x, exclude_padding_from_average=exclude, **_arguments(axes))


def _pad_zeros(x: Var, axes: Sequence[Window]) -> Var:
    pads = [0, 0, 0, 0, *(pad for axis in axes for pad in (axis.before, axis.after))]
    return builder().pad(x=x, pad=pads, mode="constant", constant_val=scalar(x, 0)) if any(pads) else x


def _unpadded(axis: Window) -> Window:
    size = None if axis.size is None else axis.size + axis.before + axis.after
    return Window(size, axis.kernel, axis.stride, axis.dilation, 0, 0, axis.extra)


def _dilated_average(node: OnnxNode, axes: Sequence[Window], *, count_pads: bool) -> Var:
    mean = _dilated_mean(node, node.input(0), axes)
    partial = [axis.extra or (axis.padded and not count_pads) for axis in axes]
    if not any(partial):
        return mean
    factor = np.ones((), np.float64)
    for axis in axes:
        if axis.size is None:
            node.refuse("dilations with padding on a dynamic axis", "Fix the input's size.")
        counts = axis.counts(axis.size, padding=count_pads)
        if not counts.all():
            node.refuse("a window lies in the padding only (dilations larger than the input)")
        factor = np.multiply.outer(factor, axis.kernel / counts)
    return builder().mul(x=mean, y=factor[None, None].astype(_numpy_dtype(mean)))


def _dilated_mean(node: OnnxNode, x: Var, axes: Sequence[Window]) -> Var:
    """Sum of the taps over the kernel's size, padding as zeros."""
    channels = node.shape(0)[1]
    if channels is None:
        node.refuse("dilations with a dynamic number of channels")
    kernel = [axis.kernel for axis in axes]
    weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), _numpy_dtype(x))
    return builder().conv(
        x=x,
        weight=weight,
        groups=channels,
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        pad_type="custom",
        pad=[pad for axis in axes for pad in (axis.before, axis.after + axis.extra)],
    )


def _numpy_dtype(x: Var) -> Any:
    return scalar(x, 0).dtype


def lp_pool(node: OnnxNode) -> Var:
    """LpPool: (sum |x|^p)^(1/p), padding as zeros."""
    node.require_float(0)
    mb, axes, p = builder(), windows(node), _norm_order(node)
    x, dilated = node.input(0), any(axis.dilation != 1 for axis in axes)
    if p == 2 and len(axes) <= 2 and not dilated:
        return mb.l2_pool(x=x, **_arguments(axes))
    powers = _power(x, p)
    if dilated:
        mean = _dilated_mean(node, powers, axes)
    else:
        mean = mb.avg_pool(x=powers, exclude_padding_from_average=False, **_arguments(axes))
    total = float(math.prod(axis.kernel for axis in axes))
    return mb.mul(x=_root(mean, p), y=scalar(x, total ** (1 / p)))


def _norm_order(node: OnnxNode) -> int:
    p = int(node.attribute("p", 2))
    if p < 1:
        node.refuse(f"p={p}", "The norm's order has to be at least 1.")
    return p


def _power(x: Var, p: int) -> Var:
    mb = builder()
    magnitude = mb.abs(x=x)
    return magnitude if p == 1 else mb.pow(x=magnitude, y=scalar(x, p))


def _root(x: Var, p: int) -> Var:
    return x if p == 1 else builder().pow(x=x, y=scalar(x, 1 / p))


def _spatial_axes(node: OnnxNode) -> list[int]:
    node.require_float(0)
    rank = node.rank(0)
    if not 3 <= rank <= MAX_RANK:
        node.refuse(f"its input has rank {rank}, and it is lowered for ranks 3 to {MAX_RANK}")
    return list(range(2, rank))


def global_average_pool(node: OnnxNode) -> Var:
    """GlobalAveragePool: MIL ``reduce_mean`` over the spatial axes."""
    return builder().reduce_mean(x=node.input(0), axes=_spatial_axes(node), keep_dims=True)


def global_max_pool(node: OnnxNode) -> Var:
    """GlobalMaxPool: MIL ``reduce_max`` over the spatial axes."""
    return builder().reduce_max(x=node.input(0), axes=_spatial_axes(node), keep_dims=True)


def global_lp_pool(node: OnnxNode) -> Var:
    """GlobalLpPool: MIL ``reduce_l1_norm`` or ``reduce_l2_norm``, otherwise powers and their sum."""
    mb, axes, p, x = builder(), _spatial_axes(node), _norm_order(node), node.input(0)
    if p == 1:
        return mb.reduce_l1_norm(x=x, axes=axes, keep_dims=True)
    if p == 2:
        return mb.reduce_l2_norm(x=x, axes=axes, keep_dims=True)
    return _root(mb.reduce_sum(x=_power(x, p), axes=axes, keep_dims=True), p)


HANDLERS: dict[str, Handler] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
