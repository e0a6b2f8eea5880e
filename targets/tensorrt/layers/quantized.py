"""What of each node is quantized in the ONNX model that an engine is built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

# Ops that only move or select values: the compiler takes a rounding through them.
MOVES = frozenset(
    {
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Slice", "Split",
        "MaxPool", "DepthToSpace", "SpaceToDepth", "Concat", "Gather", "Resize", "Pad", "Tile",
    }
)  # fmt: skip


@dataclass(frozen=True)
class StoredWeight:
    """Integer weights in the file: the DequantizeLinear that expands them, their type, how many there are."""

    node: str
    dtype: ir.DataType
    count: int


@dataclass(frozen=True)
class Rounded:
    """A rounded activation: the names of the QuantizeLinear and DequantizeLinear, and of what reads it."""

    quantize: str
    dequantize: str
    readers: frozenset[str]


class QuantizedGraph:
    """A quantized model: its nodes by name, and which values do not depend on its inputs."""

    def __init__(self, model: ir.Model) -> None:
        self.nodes = {node.name or "": node for node in model.graph.all_nodes()}
        self._constants: set[ir.Value] = set()
        for node in model.graph.all_nodes():
            if node.inputs and all(self.is_constant(value) for value in node.inputs if value is not None):
                self._constants.update(node.outputs)

    def is_constant(self, value: ir.Value) -> bool:
        """Whether ``value`` does not depend on the model's inputs."""
        producer = value.producer()
        if producer is None:
            return value.is_initializer()
        return value in self._constants or producer.op_type == "Constant"

    def computed(self, node: ir.Node) -> list[ir.Value]:
        """The float inputs of ``node`` that depend on the model's inputs."""
        return [v for v in node.inputs if v is not None and not self.is_constant(v) and not _integers(v)]

    def rounded(self, value: ir.Value) -> Rounded | None:
        """The rounding that ``value`` comes from, moved at most."""
        node = _through_moves(value)
        if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
            return None
        if self.is_constant(node.inputs[0]):
            return None
        quantize = node.inputs[0].producer()
        readers = frozenset(user.name or "" for user in _readers(node))
        return Rounded("" if quantize is None else quantize.name or "", node.name or "", readers)

    def rounds_any(self, node: ir.Node) -> bool:
        """Whether the model rounds an input of ``node``."""
        return any(self.rounded(value) is not None for value in self.computed(node))

    def roundings_after(self, node: ir.Node) -> list[str]:
        """The names of the QuantizeLinear nodes that round what ``node`` writes, moved at most."""
        return [user.name or "" for user in _readers(node) if user.op_type == "QuantizeLinear"]

    def stored_weights(self, node: ir.Node) -> Iterator[StoredWeight]:
        """The inputs of ``node`` that are integers in the file."""
        for value in node.inputs:
            source = None if value is None or not self.is_constant(value) else _through_moves(value)
            if source is None or source.op_type != "DequantizeLinear" or source.inputs[0] is None:
                continue
            codes = source.inputs[0]
            if codes.is_initializer() and codes.dtype is not None and codes.shape is not None:
                yield StoredWeight(source.name or "", codes.dtype, prod(codes.shape.numpy()))


def _through_moves(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and node.op_type in MOVES:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    """What reads the values that ``node`` writes, also where they were moved."""
    waiting, seen = list(node.successors()), set[ir.Node]()
    while waiting:
        user = waiting.pop()
        if user in seen:
            continue
        seen.add(user)
        yield user
        if user.op_type in MOVES:
            waiting += user.successors()


def _integers(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()
