"""Walk everything that an ONNX protobuf holds: graphs, sub-graphs, functions, nodes and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of ``node`` (branches and bodies), not the ones inside those."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """``graph`` and all graphs inside it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes of the model, its sub-graphs and its local functions."""
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _nodes(some: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in some:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner.node)


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """All dense tensors with a name to show: initializers everywhere, and tensors in attributes.

    The parts of sparse tensors are not among them.
    """
    for graph in _all_graphs(model):
        for tensor in graph.initializer:
            yield tensor.name, tensor
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute_name(node, attribute), attribute.t
            for tensor in attribute.tensors:
                yield attribute_name(node, attribute), tensor


def _all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield from graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for inner in subgraphs(node):
                yield from graphs(inner)


def all_graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The main graph, its sub-graphs, and the sub-graphs in local functions."""
    return list(_all_graphs(model))


def label(node: onnx.NodeProto) -> str:
    """How messages call a node: its name and op type, or its first output when it has no name."""
    named = node.name or next((o for o in node.output if o), "")
    return f"{named!r} ({node.op_type})" if named else f"of type {node.op_type}"


def attribute_name(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> str:
    """How messages call a tensor in an attribute."""
    return f"{node.name or next(iter(node.output), node.op_type)}.{attribute.name}"
