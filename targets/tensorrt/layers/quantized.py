"""What of a node is quantized in the ONNX model that an engine is built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

# Ops that move values; the compiler takes a DequantizeLinear through them.
MOVES = frozenset(
    {
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Slice", "Split",
        "MaxPool", "DepthToSpace", "SpaceToDepth",
    }
)  # fmt: skip


@dataclass(frozen=True)
class StoredWeight:
    """Integer weights in the file: the DequantizeLinear that expands them, their type, how many there are."""

    node: str
    dtype: ir.DataType
    count: int


def rounded_by(value: ir.Value) -> ir.Node | None:
    """The DequantizeLinear that ``value`` comes from, moved at most, if it expands a rounded activation."""
    node = _dequantize(value)
    return node if node is not None and _codes(node) is None else None


def stored_weights(node: ir.Node) -> Iterator[StoredWeight]:
    """The inputs of ``node`` that are integers in the file."""
    for value in node.inputs:
        source = None if value is None else _dequantize(value)
        codes = None if source is None else _codes(source)
        if source is not None and codes is not None and codes.dtype is not None:
            yield StoredWeight(source.name or "", codes.dtype, _count(codes))


def computed_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of ``node`` that depend on the model's inputs."""
    return [value for value in node.inputs if value is not None and not is_constant(value)]


def rounds_inputs(node: ir.Node) -> bool:
    """Whether the model rounds every computed input of ``node``."""
    computed = computed_inputs(node)
    return bool(computed) and all(rounded_by(value) is not None for value in computed)


def rounds_outputs(node: ir.Node) -> list[ir.Node]:
    """The QuantizeLinear nodes that read results of ``node``."""
    return [user for user in node.successors() if user.op_type == "QuantizeLinear"]


def is_constant(value: ir.Value) -> bool:
    """Whether ``value`` does not depend on the model's inputs."""
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop()
        producer = current.producer()
        if producer is None:
            if not current.is_initializer():
                return False
            continue
        for source in producer.inputs:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return True


def _dequantize(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and node.op_type in MOVES:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _codes(node: ir.Node) -> ir.Value | None:
    """The integers in the file that a DequantizeLinear expands, None if they are computed."""
    codes = node.inputs[0]
    return codes if codes is not None and codes.is_initializer() else None


def _count(value: ir.Value) -> int:
    return 0 if value.shape is None else prod(value.shape.numpy())
