"""Normalizations by statistics of the data: batch, layer, instance, group, RMS, Lp and local response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import normalized_axis
from edgeq.targets.coreml.ops.normalization_scaling import (
    root_mean_square,
    standard_deviation_one,
    unit_norm,
)
from edgeq.targets.coreml.ops.tensors import like, product, reshape, scalar, size, sizes
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_MVN_EPSILON = 1e-9


def batch_normalization(node: OnnxNode) -> Var:
    """BatchNormalization at inference; statistics that are computed at run time are applied elementwise."""
    node.require_float(*range(5))
    if node.attribute("training_mode", 0) or any(node.wants(index) for index in range(1, node.output_count)):
        node.refuse("it is in training mode", "Export the model for inference.")
    node.attribute("momentum")  # moves the statistics while training only
    epsilon = node.attribute("epsilon", 1e-5)
    rank = node.rank(0)
    if not 2 <= rank <= 5:
        node.refuse(f"its input has rank {rank}, and 2 to 5 are supported")
    parameters = [node.constant(index) for index in range(1, 5)]
    if any(values is None for values in parameters):
        return _batch_norm_at_run_time(node, epsilon)
    x = node.input(0)
    gamma, beta, mean, variance = [like(x, values) for values in parameters]
    flat = builder().expand_dims(x=x, axes=[2]) if rank == 2 else x
    result = builder().batch_norm(
        x=flat, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=scalar(x, epsilon)
    )
    return builder().squeeze(x=result, axes=[2]) if rank == 2 else result


def _batch_norm_at_run_time(node: OnnxNode, epsilon: float) -> Var:
    mb, x = builder(), node.input(0)
    scale, offset, mean, variance = [_per_channel(node.input(index), x.rank) for index in range(1, 5)]
    deviation = mb.sqrt(x=mb.add(x=variance, y=scalar(variance, epsilon)))
    normalized = mb.real_div(x=mb.sub(x=x, y=mean), y=deviation)
    return mb.add(x=mb.mul(x=normalized, y=scale), y=offset)


def _per_channel(values: Var, rank: int) -> Var:
    """A vector over the channels, broadcastable to a tensor [N, C, …] of the given rank."""
    axes = list(range(1, rank - 1))
    return builder().expand_dims(x=values, axes=axes) if axes else values


def layer_normalization(node: OnnxNode) -> list[Var | None]:
    """LayerNormalization over the last axes; the outputs Mean and InvStdDev where somebody wants them."""
    node.require_float(0, 1)
    _stash_type(node)
    epsilon = node.attribute("epsilon", 1e-5)
    x = node.input(0)
    axes = _last_axes(node, x.rank)
    result = _layer_norm(node, x, axes, epsilon, scale=1, offset=2)
    return [result, *_statistics(node, x, axes, epsilon)]


def _stash_type(node: OnnxNode) -> None:
    """The statistics' precision is Core ML's affair, as long as it is asked to be float32 or less."""
    if node.attribute("stash_type", 1) not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        node.refuse("stash_type is neither float32 nor float16")


def _last_axes(node: OnnxNode, rank: int) -> list[int]:
    axis = node.attribute("axis", -1)
    if not -rank <= axis < rank:
        node.refuse(f"axis={axis} is outside of its input's {rank} dimensions")
    return list(range(axis % rank, rank))


def _layer_norm(node: OnnxNode, x: Var, axes: list[int], epsilon: float, scale: int, offset: int) -> Var:
    """MIL's layer_norm; scale and offset (inputs by index) are its parameters where they are constant."""
    mb = builder()
    shape = tuple(sizes(x)[axis] for axis in axes)
    gamma, beta = _parameter(node, scale, shape), _parameter(node, offset, shape)
    if gamma is not None and (beta is not None or not node.has_input(offset)):
        return mb.layer_norm(x=x, axes=axes, gamma=gamma, beta=beta, epsilon=scalar(x, epsilon))
    result = mb.mul(x=mb.layer_norm(x=x, axes=axes, epsilon=scalar(x, epsilon)), y=node.input(scale))
    return mb.add(x=result, y=node.input(offset)) if node.has_input(offset) else result


def _parameter(node: OnnxNode, index: int, shape: tuple[int | None, ...]) -> Array | None:
    """A constant input of exactly the normalized shape, None otherwise."""
    values = node.constant(index)
    return values if values is not None and values.shape == shape else None


def _statistics(node: OnnxNode, x: Var, axes: list[int], epsilon: float) -> list[Var | None]:
    if not (node.wants(1) or node.wants(2)):
        return []
    mb = builder()
    mean = mb.reduce_mean(x=x, axes=axes, keep_dims=True)
    _, inverse = root_mean_square(mb.sub(x=x, y=mean), axes, epsilon)
    return [mean, inverse]


def rms_normalization(node: OnnxNode) -> list[Var | None]:
    """RMSNormalization and SimplifiedLayerNormalization: ``x / sqrt(mean(x²) + epsilon) * scale``."""
    node.require_float(0, 1)
    _stash_type(node)
    x = node.input(0)
    axes = _last_axes(node, x.rank)
    normalized, inverse = root_mean_square(x, axes, node.attribute("epsilon", 1e-5))
    return [builder().mul(x=normalized, y=node.input(1)), inverse if node.wants(1) else None]


def skip_layer_normalization(node: OnnxNode) -> list[Var | None]:
    """SkipLayerNormalization (com.microsoft): input, skip, gamma, beta, bias."""
    node.require_float(0, 1, 2)
    total, epsilon = _skip(node, bias=4), node.attribute("epsilon", 1e-12)
    axes = [total.rank - 1]
    result = _layer_norm(node, total, axes, epsilon, scale=2, offset=3)
    return [result, *(_statistics(node, total, axes, epsilon) or [None, None]), total]


def skip_simplified_layer_normalization(node: OnnxNode) -> list[Var | None]:
    """SkipSimplifiedLayerNormalization (com.microsoft): input, skip, gamma, bias; RMS norm of their sum."""
    node.require_float(0, 1, 2)
    if node.wants(1):
        node.refuse("its output mean is not supported")
    total = _skip(node, bias=3)
    normalized, inverse = root_mean_square(total, [total.rank - 1], node.attribute("epsilon", 1e-12))
    return [builder().mul(x=normalized, y=node.input(2)), None, inverse if node.wants(2) else None, total]


def _skip(node: OnnxNode, bias: int) -> Var:
    mb = builder()
    total = mb.add(x=node.input(0), y=node.input(1))
    return mb.add(x=total, y=node.input(bias)) if node.has_input(bias) else total


def instance_normalization(node: OnnxNode) -> Var:
    """InstanceNormalization: every channel of every sample by itself."""
    node.require_float(0, 1, 2)
    rank, epsilon = node.rank(0), node.attribute("epsilon", 1e-5)
    if not 3 <= rank <= 5:
        node.refuse(f"its input has rank {rank}, and 3 to 5 are supported")
    mb, x = builder(), node.input(0)
    gamma, beta = node.constant(1), node.constant(2)
    if rank < 5 and gamma is not None and beta is not None:
        return mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=scalar(x, epsilon))
    normalized = mb.layer_norm(x=x, axes=list(range(2, rank)), epsilon=scalar(x, epsilon))
    return _scale_and_shift(node, normalized, rank)


def _scale_and_shift(node: OnnxNode, normalized: Var, rank: int) -> Var:
    mb = builder()
    scaled = mb.mul(x=normalized, y=_per_channel(node.input(1), rank))
    return mb.add(x=scaled, y=_per_channel(node.input(2), rank))


def group_normalization(node: OnnxNode) -> Var:
    """GroupNormalization of opset 21, with a scale per channel."""
    node.require_float(0, 1, 2)
    _stash_type(node)
    groups, epsilon = node.attribute("num_groups"), node.attribute("epsilon", 1e-5)
    x = node.input(0)
    channels = sizes(x)[1]
    if x.rank < 3 or channels is None or channels % groups:
        node.refuse(f"num_groups={groups} on {channels} channels of an input of rank {x.rank}")
    parts = [size(x, axis) for axis in range(x.rank)]
    grouped = reshape(x, [parts[0], groups, product([channels // groups, *parts[2:]])])
    normalized = builder().layer_norm(x=grouped, axes=[2], epsilon=scalar(x, epsilon))
    return _scale_and_shift(node, reshape(normalized, parts), x.rank)


def lp_normalization(node: OnnxNode) -> Var:
    """LpNormalization of order 1 or 2 along one axis."""
    node.require_float(0)
    order, axis = node.attribute("p", 2), node.attribute("axis", -1)
    if order not in (1, 2):
        node.refuse(f"p={order} is neither 1 nor 2")
    return unit_norm(node.input(0), axis, order)


def mean_variance_normalization(node: OnnxNode) -> Var:
    """MeanVarianceNormalization: ``(x - mean) / (standard deviation + 1e-9)``."""
    node.require_float(0)
    given: Sequence[int] = node.attribute("axes", [0, 2, 3])
    axes = [normalized_axis(node, axis, node.rank(0)) for axis in given]
    return standard_deviation_one(node.input(0), axes, _MVN_EPSILON)


def local_response_normalization(node: OnnxNode) -> Var:
    """LRN over an odd number of channels, which lie evenly around each."""
    node.require_float(0)
    window, rank = node.attribute("size"), node.rank(0)
    if window % 2 == 0:
        node.refuse(f"size={window} is even, and Core ML does not say which neighbours count then")
    if not 3 <= rank <= 4:
        node.refuse(f"its input has rank {rank}, and Core ML takes 3 and 4")
    x = node.input(0)
    return builder().local_response_norm(
        x=x,
        size=window,
        alpha=scalar(x, node.attribute("alpha", 1e-4)),
        beta=scalar(x, node.attribute("beta", 0.75)),
        k=scalar(x, node.attribute("bias", 1.0)),
    )


HANDLERS: dict[str, Handler] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
    "SimplifiedLayerNormalization": rms_normalization,
    "com.microsoft.SimplifiedLayerNormalization": rms_normalization,
    "com.microsoft.SkipLayerNormalization": skip_layer_normalization,
    "com.microsoft.SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
}
