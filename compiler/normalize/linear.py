"""Conv, ConvTranspose, Gemm and MatMul with constant weights, seen as one kind of node: a linear layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.normalize.affine import Channels
from edgeq.compiler.normalize.editing import (
    FLOATS,
    add_constant,
    array,
    get_float,
    get_input,
    get_int,
    is_constant,
    is_op,
    set_input,
)

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Linear:
    """A linear layer: the output's channel axis and rank, and the number of output channels.

    ``rank`` is the weight's for convolutions, 2 for Gemm and the output's for MatMul (at least 2 when unknown
    is not accepted). ``has_bias`` tells whether the operator itself takes a bias.
    """

    node: ir.Node
    channels: int
    axis: int
    rank: int

    @property
    def has_bias(self) -> bool:
        return self.node.op_type != "MatMul"


def linear_of(node: ir.Node | None) -> Linear | None:
    """The node as a linear layer; None when it is none, or its weight or bias is not constant."""
    if node is None or not is_op(node, *LINEAR) or not is_constant(node.inputs[1]):
        return None
    weight = node.inputs[1]
    if weight is None or weight.dtype not in FLOATS or weight.shape is None:
        return None
    bias = get_input(node, 2)
    if bias is not None and (not is_constant(bias) or _bias(node, bias) is None):
        return None
    shape = [int(d) for d in weight.shape if isinstance(d, int)]
    return _DESCRIBE[node.op_type](node, shape)


def _conv(node: ir.Node, shape: list[int]) -> Linear | None:
    return Linear(node, shape[0], 1, len(shape)) if len(shape) > 2 else None


def _conv_transpose(node: ir.Node, shape: list[int]) -> Linear | None:
    group = get_int(node, "group", 1)
    return Linear(node, shape[1] * group, 1, len(shape)) if len(shape) > 2 else None


def _gemm(node: ir.Node, shape: list[int]) -> Linear | None:
    return Linear(node, shape[0 if get_int(node, "transB", 0) else 1], 1, 2)


def _matmul(node: ir.Node, shape: list[int]) -> Linear | None:
    output = node.outputs[0].shape
    # A weight with batch dimensions has no single set of channels.
    if len(shape) != 2 or output is None or len(output) < 2:
        return None
    return Linear(node, shape[1], len(output) - 1, len(output))


_DESCRIBE: Mapping[str, Callable[[ir.Node, list[int]], Linear | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def bias_of(layer: Linear) -> Channels:
    """The bias as the layer adds it, float64 [channels]; zeros without one."""
    bias = get_input(layer.node, 2)
    content = None if bias is None else _bias(layer.node, bias)
    if content is None:
        return np.zeros(layer.channels)
    beta = get_float(layer.node, "beta", 1.0) if layer.node.op_type == "Gemm" else 1.0
    return np.broadcast_to(content.astype(np.float64) * beta, (layer.channels,)).copy()


def _bias(node: ir.Node, bias: ir.Value) -> Array | None:
    """A bias as [channels] or [1]; None for a Gemm's C that differs from row to row."""
    shape = bias.shape
    if shape is None or (len(shape) == 2 and shape[0] != 1) or len(shape) > 2:
        return None
    content = array(bias)
    return None if content is None else content.reshape(-1)


def scale_outputs(model: ir.Model, layer: Linear, scale: Channels) -> None:
    """Multiply the weights so that output channel c is ``scale[c]`` times as large."""
    weight = layer.node.inputs[1]
    content = array(weight)
    assert content is not None
    scaled = (content.astype(np.float64) * _along_outputs(layer, content, scale)).astype(content.dtype)
    set_weight(model, layer.node, scaled)


def _along_outputs(layer: Linear, weight: Array, scale: Channels) -> Array:
    if layer.node.op_type == "Conv":
        return scale.reshape([-1] + [1] * (weight.ndim - 1))
    if layer.node.op_type == "ConvTranspose":
        # Weight [in, out / group, …]: the inputs of group g have the outputs of group g.
        group = get_int(layer.node, "group", 1)
        rows = np.repeat(scale.reshape(group, -1), weight.shape[0] // group, axis=0)
        return rows.reshape([weight.shape[0], weight.shape[1]] + [1] * (weight.ndim - 2))
    if layer.node.op_type == "Gemm" and get_int(layer.node, "transB", 0):
        return scale.reshape(-1, 1)
    return scale.reshape(1, -1)


def set_weight(model: ir.Model, node: ir.Node, content: Array) -> None:
    """Give the node a weight of its own, named after the old one."""
    old = node.inputs[1]
    node.replace_input_with(1, add_constant(model, content, f"{'' if old is None else old.name}/folded"))


def set_bias(model: ir.Model, layer: Linear, bias: Channels) -> None:
    """Give the layer this bias, in the weight's dtype; a Gemm's beta becomes 1."""
    weight = layer.node.inputs[1]
    assert weight is not None
    assert weight.dtype is not None
    old = get_input(layer.node, 2)
    hint = f"{layer.node.name}/bias" if old is None else f"{old.name}/folded"
    set_input(layer.node, 2, add_constant(model, bias.astype(weight.dtype.numpy()), hint))
    layer.node.attributes.pop("beta", None)
