"""Reading constants and changing nodes of an onnx-ir graph, the same in the main graph and in subgraphs.

Every constant that normalization makes is an initializer of the main graph, which subgraphs see too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether ``node`` is one of these operators of the ONNX domain."""
    return node is not None and node.domain == "" and node.op_type in op_types


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes ``value`` when it is one of these ONNX operators."""
    node = None if value is None else value.producer()
    return node if is_op(node, *op_types) else None


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes, subgraphs included, in order. The graph may change between two steps."""
    for graph in list(model.graphs()):
        yield from list(graph)


def array(value: ir.Value | None) -> Array | None:
    """The value of an initializer as numpy, None when it is no constant."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether ``value`` is an initializer (its data is not read)."""
    return value is not None and value.const_value is not None and value.is_initializer()


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element, whatever its rank."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    content = array(value)
    return None if content is None or content.dtype.kind not in "fiub" else float(content.reshape(-1)[0])


def integers(value: ir.Value | None) -> list[int] | None:
    """The content of a small integer constant."""
    content = array(value)
    return (
        None if content is None or content.dtype.kind not in "iu" else [int(i) for i in content.reshape(-1)]
    )


def get_input(node: ir.Node, index: int) -> ir.Value | None:
    """Input ``index`` or None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def get_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return int(node.attributes[name].as_int()) if name in node.attributes else default


def get_ints(node: ir.Node, name: str) -> list[int] | None:
    """A list of integers, None when it is left out."""
    return list(node.attributes[name].as_ints()) if name in node.attributes else None


def get_float(node: ir.Node, name: str, default: float) -> float:
    """A floating-point attribute."""
    return float(node.attributes[name].as_float()) if name in node.attributes else default


def get_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    return str(node.attributes[name].as_string()) if name in node.attributes else default


def dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a constant as numbers."""
    return tuple(int(d) for d in tensor.shape.numpy())


def other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other input of a node with two inputs, None when ``value`` is none of them or both."""
    first, second = node.inputs
    if (first is value) == (second is value):
        return None
    return second if first is value else first


def rank(value: ir.Value | None) -> int | None:
    """The rank of a value when it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def only_user(value: ir.Value) -> ir.Node | None:
    """The single node that reads ``value`` (once), None when there are more or it is a graph output."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def add_constant(model: ir.Model, content: Array, hint: str) -> ir.Value:
    """A new initializer of the main graph, named after ``hint``."""
    name, count = hint, 0
    while name in model.graph.initializers:
        count += 1
        name = f"{hint}_{count}"
    tensor = ir.Tensor(np.ascontiguousarray(content).reshape(np.shape(content)), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(dims(tensor)), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Set input ``index``, growing the inputs when needed."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let everything that reads ``old`` read ``new``.

    A graph output keeps its name and declared type: it moves to ``new``, or to an Identity node when ``new``
    cannot be renamed (a graph input, an initializer, a value of another graph, another graph output).
    """
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    node = old.producer()
    assert node is not None
    if new.producer() is None or new.graph is not old.graph or new.is_graph_output():
        new = _identity_before(node, new)
    name, kind, shape = old.name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}/replaced"
    new.name, new.type, new.shape = name, kind, shape


def _identity_before(node: ir.Node, value: ir.Value) -> ir.Value:
    assert node.graph is not None
    identity = ir.node("Identity", [value])
    node.graph.insert_before(node, identity)
    return identity.outputs[0]


def replace_node(node: ir.Node, new: ir.Node) -> None:
    """Put ``new`` in the place of ``node``; names of node and outputs stay."""
    assert node.graph is not None
    graph = node.graph
    new.name = node.name
    for old, fresh in zip(node.outputs, new.outputs, strict=False):
        fresh.type, fresh.shape, name = old.type, old.shape, old.name
        old.replace_all_uses_with(fresh, replace_graph_outputs=True)
        old.name = f"{name}/replaced"
        fresh.name = name
    graph.insert_before(node, new)
    graph.remove(node, safe=True)


def insert_before(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: object
) -> ir.Value:
    """A new node in front of ``node``; its first output."""
    assert node.graph is not None
    new = ir.node(op_type, inputs, attributes=attributes)  # type: ignore[arg-type]
    node.graph.insert_before(node, new)
    return new.outputs[0]


def remove_if_unused(node: ir.Node) -> bool:
    """Remove ``node`` when nothing reads its outputs."""
    if node.graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
        return False
    node.graph.remove(node, safe=True)
    return True
