"""Rules about what works, and could be faster or more accurate."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.targets.tensorrt.lint.graph import CARRIERS, DEQUANTIZE, MATRIX, QUANTIZE, Graph, Problem

_INT8_OPS = ("Conv", *MATRIX)
_ACTIVATIONS = frozenset(
    {
        "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Sigmoid",
        "Tanh",
    }
)  # fmt: skip
# Elementwise ops that the compiler computes in the kernel before or after a product.
_FUSED = _ACTIVATIONS | {"Add", "Mul", "BatchNormalization"}
# Ops before which a rounding may gain something, or of which it is not known.
_MAY_GAIN = _FUSED | CARRIERS | frozenset(
    {
        *_INT8_OPS, "Cast", "Concat", "ConvTranspose", "Einsum", "GRU", "If", "LSTM", "Loop", "Pad",
        "QuantizeLinear", "RNN", "Scan",
    }
)  # fmt: skip
# Ops of one kernel that are followed between two INT8 ops.
_FOLLOWED = 4


def float_between(graph: Graph) -> Iterator[Problem]:
    """A Conv with float weights that reads from an INT8 op and is read by one."""
    for node in graph.computing("Conv"):
        weights, activations = graph.operand(node, 1), graph.operand(node, 0)
        if not weights.constant or weights.quantizer is not None or activations.quantizer is not None:
            continue
        if _from_int8(graph, node.inputs[0]) and _to_int8(node.outputs[0]):
            yield Problem(
                node,
                "it runs in float between INT8 ops, and its input and output are converted",
                "Quantize its input and its weights, where accuracy allows it.",
            )


def float_skip(graph: Graph) -> Iterator[Problem]:
    """A residual Add behind a Conv that reads a tensor in float which is there in INT8."""
    for node in graph.computing("Add"):
        for index in (0, 1):
            skip, branch = node.inputs[index], node.inputs[1 - index]
            quantized = skip is not None and any(_is(user, QUANTIZE) for user in skip.consumers())
            if quantized and _computed_by(branch, ("Conv",)) and not _computed_by(skip, ("Conv",)):
                assert skip is not None
                yield Problem(
                    node,
                    f"it reads {skip.name!r} in float, which is quantized for another op",
                    "Read its DequantizeLinear instead, so that fewer bytes are moved.",
                )
                break


def rounded_before_activation(graph: Graph) -> Iterator[Problem]:
    """QuantizeLinear and DequantizeLinear between a product and its activation."""
    for node in graph.quantizers:
        after = [user for dequantize in _undone(node) for user in dequantize.outputs[0].consumers()]
        if not _computed_by(node.inputs[0], _INT8_OPS) or not after:
            continue
        if all(user.op_type in _ACTIVATIONS for user in after):
            yield Problem(
                node,
                f"it rounds between {_called(node.inputs[0])} and the {after[0].op_type} {after[0].name!r}, "
                "which are one kernel",
                f"Quantize after the {after[0].op_type} only.",
            )


def rounded_branch(graph: Graph) -> Iterator[Problem]:
    """An Add that reads the result of a product through QuantizeLinear and DequantizeLinear."""
    for node in graph.computing("Add"):
        if any(graph.operand(node, index).quantizer is None for index in (0, 1)):
            continue
        for index in (0, 1):
            quantizer = graph.operand(node, index).quantizer
            before = None if quantizer is None else quantizer.source.producer()
            if before is None or not _is(before, QUANTIZE) or len(before.outputs[0].consumers()) > 1:
                continue
            if _computed_by(before.inputs[0], _INT8_OPS):
                yield Problem(
                    node,
                    f"it rounds the result of {_called(before.inputs[0])}, which it is one kernel with",
                    "Quantize after the Add only."
                    if graph.operand(node, 1 - index).constant
                    else "Quantize the other input of the Add only.",
                )
                break


def idle(graph: Graph) -> Iterator[Problem]:
    """Activations that are rounded for ops without INT8 arithmetic alone."""
    for quantizer in graph.quantizers.values():
        node = quantizer.node
        if node.op_type != DEQUANTIZE or quantizer.of_weights or quantizer.source.producer() is None:
            continue
        users = list(quantizer.result.consumers())
        if users and all(_never_int8(user) for user in users) and not quantizer.result.is_graph_output():
            yield Problem(
                node,
                f"what it rounds is for the {users[0].op_type} {users[0].name!r}, which computes in float",
                "Leave this tensor in float: it costs accuracy and gains nothing.",
            )


def dynamic_shape(graph: Graph) -> Iterator[Problem]:
    """A dynamic dimension whose sizes nobody gave, told once, of the first op that reads such an input."""
    told = set(graph.sized)
    for value, name, position in _dynamic_dimensions(graph):
        if told & {name, position}:
            continue
        told.add(name)
        yield Problem(
            next(iter(value.consumers())),
            f"the graph input {value.name!r} has the dynamic dimension {name!r}: without an optimization "
            "profile nothing is built",
            f"Say which sizes it takes: --dimension {name}=1..32@8.",
        )


def _dynamic_dimensions(graph: Graph) -> Iterator[tuple[ir.Value, str, str]]:
    """Inputs that are read, with the names of their dynamic dimensions: symbolic, and by position."""
    for value in graph.model.ir.graph.inputs:
        if value.shape is None or not value.consumers() or graph.constants.known(value):
            continue
        for axis, dim in enumerate(value.shape):
            if not isinstance(dim, int):
                yield value, dim.value or f"{value.name}:{axis}", f"{value.name}:{axis}"


def _never_int8(node: ir.Node) -> bool:
    return node.op_type not in _MAY_GAIN and node.domain == ""


def _from_int8(graph: Graph, value: ir.Value | None) -> bool:
    """Whether an INT8 product or a quantized tensor feeds ``value``, through ops of the same kernel."""
    for _ in range(_FOLLOWED):
        producer = None if value is None else value.producer()
        if producer is None:
            return False
        if producer.op_type in _INT8_OPS and producer.domain == "":
            return all(graph.operand(producer, index).quantizer is not None for index in (0, 1))
        if producer.op_type not in _FUSED | CARRIERS:
            return False
        value = producer.inputs[0]
    return False


def _to_int8(value: ir.Value) -> bool:
    """Whether everything that reads ``value``, through ops of the same kernel, quantizes it."""
    for _ in range(_FOLLOWED):
        users = list(value.consumers())
        if users and all(_is(user, QUANTIZE) for user in users):
            return True
        if len(users) != 1 or users[0].op_type not in _FUSED | CARRIERS:
            return False
        value = users[0].outputs[0]
    return False


def _computed_by(value: ir.Value | None, op_types: tuple[str, ...]) -> bool:
    """Whether ``value`` is the result of such an op, or of the Add of a bias behind it."""
    producer = None if value is None else value.producer()
    if producer is None or producer.domain:
        return False
    if producer.op_type == "Add" and "MatMul" in op_types:
        sides = [v.producer() for v in producer.inputs if v is not None]
        return any(side is not None and side.op_type == "MatMul" for side in sides) and None in sides
    return producer.op_type in op_types


def _undone(node: ir.Node) -> Iterator[ir.Node]:
    return (user for user in node.outputs[0].consumers() if _is(user, DEQUANTIZE))


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in ("", "com.microsoft")


def _called(value: ir.Value | None) -> str:
    producer = None if value is None else value.producer()
    return "the graph" if producer is None else f"the {producer.op_type} {producer.name!r}"
