"""Rules about the axis of scales: weights by output channel, activations by tensor."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.targets.tensorrt.lint.graph import MATRIX, Graph, Operand, Problem, integer, rank


def weight_axis(graph: Graph) -> Iterator[Problem]:
    """Weights of an INT8 op with scales along another axis than its output channels."""
    for node in graph.computing("Conv", *MATRIX):
        sides = (graph.operand(node, 0), graph.operand(node, 1))
        if any(side.quantizer is None for side in sides):
            continue
        for index, side in enumerate(sides):
            if side.constant and (axis := stray_axis(node, index, side)) is not None:
                right = _right_axis(node, index, side)
                yield Problem(
                    node,
                    f"its weights have their scales along axis {axis}",
                    f"Quantize them per output channel, along axis {right}, or with one scale.",
                )


def activation_axis(graph: Graph) -> Iterator[Problem]:
    """Activations with several scales."""
    for node in graph.computing("Conv", *MATRIX):
        sides = (graph.operand(node, 0), graph.operand(node, 1))
        if any(side.quantizer is None for side in sides):
            continue
        for index, side in enumerate(sides):
            quantizer = side.quantizer
            if side.constant or quantizer is None or quantizer.per_tensor or _by_row(node, index, side):
                continue
            count = "several" if quantizer.scale is None else quantizer.scale.size
            yield Problem(
                node,
                f"the activations of its input {index} have {count} scales",
                "Quantize activations with one scale for the tensor.",
            )


def stray_axis(node: ir.Node, index: int, side: Operand) -> int | None:
    """The axis of the scales of constant weights where it is none of the output channels, else None."""
    quantizer = side.quantizer
    if quantizer is None or quantizer.per_tensor or quantizer.axis is None or quantizer.block:
        return None
    axis = quantizer.axis
    here = _carried_axis(side)
    if here is None:
        return None
    return None if here == _output_axis(node, index, side) else axis


def _carried_axis(side: Operand) -> int | None:
    """The axis as the op sees it: behind the Transposes that lie between; None where that is not known."""
    quantizer = side.quantizer
    assert quantizer is not None
    assert quantizer.axis is not None
    dims = rank(quantizer.source)
    if dims is None:
        return quantizer.axis if quantizer.axis >= 0 and not side.carriers else None
    axis = quantizer.axis % dims
    for carrier in reversed(side.carriers):
        order = carrier.attributes.get("perm")
        if carrier.op_type == "Identity":
            continue
        if carrier.op_type != "Transpose":
            return None
        perm = list(order.as_ints()) if order is not None else list(range(dims))[::-1]
        axis = perm.index(axis)
    return axis


def _output_axis(node: ir.Node, index: int, side: Operand) -> int:
    """The axis of output channels: Conv 0; matrices their columns, or rows on the left."""
    if node.op_type == "Conv":
        return 0
    assert side.quantizer is not None
    dims = rank(side.quantizer.source) or 2
    swapped = node.op_type == "Gemm" and bool(integer(node, "transB" if index else "transA", 0))
    return dims - 1 if (index == 1) != swapped else dims - 2


def _right_axis(node: ir.Node, index: int, side: Operand) -> int:
    """The axis of output channels as it is in the stored weights."""
    axis = _output_axis(node, index, side)
    for carrier in side.carriers:
        if carrier.op_type == "Transpose":
            order = carrier.attributes.get("perm")
            dims = rank(carrier.inputs[0]) or 2
            perm = list(order.as_ints()) if order is not None else list(range(dims))[::-1]
            axis = perm[axis]
    return axis


def _by_row(node: ir.Node, index: int, side: Operand) -> bool:
    """One scale for each row of a single matrix can be taken out of the product, so it stays INT8."""
    quantizer = side.quantizer
    if node.op_type not in MATRIX or quantizer is None or quantizer.axis is None or side.carriers:
        return False
    shape = quantizer.source.shape
    if shape is None or any(dim != 1 for dim in list(shape)[:-2]):
        return False
    return quantizer.axis % len(shape) == _output_axis(node, index, side)
