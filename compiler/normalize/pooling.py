"""Means over the whole feature map become GlobalAveragePool, which has INT8 kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from edgeq.compiler.normalize.editing import (
    add_constant,
    get_input,
    get_int,
    get_ints,
    insert_before,
    integers,
    is_op,
    nodes,
    rank,
    replace_node,
)


class GlobalAveragePoolPass(ir.passes.InPlacePass):
    """ReduceMean over the two last of four dimensions and AveragePool over the full map become global.

    A ReduceMean that drops the dimensions is followed by a Squeeze. Requires: inferred shapes, explicit pads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: Counter[str] = Counter()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = self.applied.total()
        for node in nodes(model):
            is_global = _averages_map(node) if is_op(node, "ReduceMean") else _is_full_pool(node)
            if is_global:
                self.applied[f"{node.op_type} to GlobalAveragePool"] += 1
                _replace(model, node)
        return ir.passes.PassResult(model, self.applied.total() > before)


def _averages_map(node: ir.Node) -> bool:
    axes = integers(get_input(node, 1))
    # Of four dimensions only: over the last of three it is the mean of a layer norm.
    return rank(node.inputs[0]) == 4 and axes is not None and sorted(a % 4 for a in axes) == [2, 3]


def _is_full_pool(node: ir.Node) -> bool:
    if not is_op(node, "AveragePool") or "auto_pad" in node.attributes:
        return False
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    kernel = get_ints(node, "kernel_shape")
    dilations = get_ints(node, "dilations") or [1]
    if shape is None or kernel is None or any(get_ints(node, "pads") or []) or set(dilations) != {1}:
        return False
    return tuple(shape[2:]) == tuple(kernel)


def _replace(model: ir.Model, node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None
    if node.op_type != "ReduceMean" or get_int(node, "keepdims", 1):
        replace_node(node, ir.node("GlobalAveragePool", [source]))
        return
    pooled = insert_before(node, "GlobalAveragePool", [source])
    maker = pooled.producer()
    assert maker is not None
    maker.name = f"{node.name}/pool"
    pooled.name, pooled.dtype = f"{node.name}/pooled", source.dtype or ir.DataType.FLOAT
    axes = add_constant(model, np.array([2, 3]), f"{node.name}/axes")
    replace_node(node, ir.node("Squeeze", [pooled, axes]))
