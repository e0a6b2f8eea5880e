"""An explicitly quantized graph as the rules look at it: quantizers, operands, what lies between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.targets.tensorrt.lint.constants import Constants
from edgeq.targets.tensorrt.lint.float_types import FloatTypes, data_type

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# Ops whose first two inputs are the activations and the weights, or two matrices.
COMPUTE = ("Conv", "ConvTranspose", "MatMul", "Gemm")
MATRIX = ("MatMul", "Gemm")

# Ops that the compiler runs in INT8 where a DequantizeLinear comes before them: they only move values.
CARRIERS = frozenset(
    {
        "MaxPool", "GlobalMaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice",
        "Split", "Identity", "Dropout", "DepthToSpace", "SpaceToDepth", "Tile", "Expand", "Gather", "Abs",
        "Neg",
    }
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Quantizer:
    """A QuantizeLinear or DequantizeLinear; ``scale`` and ``zero`` are None where they are no constants."""

    node: ir.Node
    codes: ir.DataType | None
    scale: Array | None
    zero: Array | None
    axis: int | None
    block: int
    of_weights: bool

    @property
    def source(self) -> ir.Value:
        """What it reads."""
        value = self.node.inputs[0]
        assert value is not None  # the graph gives no Quantizer to a node without inputs
        return value

    @property
    def result(self) -> ir.Value:
        """What it writes."""
        return self.node.outputs[0]

    @property
    def per_tensor(self) -> bool:
        """One scale for all values."""
        return self.scale is None or self.scale.size == 1


@dataclass(frozen=True)
class Operand:
    """Where an input of an op comes from: its DequantizeLinear, the ops between, or the op in the way."""

    quantizer: Quantizer | None = None
    carriers: tuple[ir.Node, ...] = ()
    blocker: ir.Node | None = None
    constant: bool = False


@dataclass(frozen=True)
class Problem:
    """What a rule found: the node, what is wrong, what to do."""

    node: ir.Node
    what: str
    mend: str


@dataclass(frozen=True)
class Graph:
    """One model and the compute capabilities it shall run on; everything is derived once.

    ``sized``: names of dynamic dimensions whose sizes are given.
    """

    model: Model
    sm: tuple[int, ...]
    sized: frozenset[str] = frozenset()
    constants: Constants = field(default_factory=Constants)

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """All nodes, those of sub-graphs after the node that holds them."""
        return list(self.model.ir.graph.all_nodes())

    @cached_property
    def opset(self) -> int:
        return int(self.model.ir.opset_imports.get("", 0))

    @cached_property
    def quantizers(self) -> dict[ir.Node, Quantizer]:
        """Each well-formed QuantizeLinear and DequantizeLinear."""
        return {n: self._quantizer(n) for n in self.nodes if is_quantizer(n)}

    @cached_property
    def types(self) -> FloatTypes:
        """Element types as the compiler gives them."""
        return FloatTypes.of(self.nodes, self.opset, self.constants)

    @cached_property
    def has_activations(self) -> bool:
        """Whether any activations are quantized, or only weights."""
        return any(q.node.op_type == QUANTIZE and not q.of_weights for q in self.quantizers.values())

    def computing(self, *op_types: str) -> Iterator[ir.Node]:
        """Nodes of the default domain with at least two inputs."""
        for node in self.nodes:
            if node.domain == "" and node.op_type in (op_types or COMPUTE) and has_inputs(node, 2):
                yield node

    def operand(self, node: ir.Node, index: int) -> Operand:
        """Follow input ``index`` back to its DequantizeLinear."""
        value = node.inputs[index]
        carriers: list[ir.Node] = []  # from the op backwards
        while value is not None:
            producer = value.producer()
            if producer is None or self.constants.known(value):
                return Operand(None, tuple(carriers), None, self.constants.known(value))
            if producer in self.quantizers:
                return self._dequantized(producer, carriers)
            if not self._carries(producer):
                return Operand(None, tuple(carriers), producer)
            carriers.append(producer)
            value = producer.inputs[0]
        return Operand()

    def _dequantized(self, producer: ir.Node, carriers: list[ir.Node]) -> Operand:
        quantizer = self.quantizers[producer]
        if producer.op_type != DEQUANTIZE:
            return Operand(None, tuple(carriers), producer)
        return Operand(quantizer, tuple(carriers), None, quantizer.of_weights)

    def _carries(self, node: ir.Node) -> bool:
        if node.domain or not node.inputs:
            return False
        if node.op_type in CARRIERS:
            return True
        if node.op_type == "Cast":
            return self.types.narrows(node)
        if node.op_type == "Pad":
            return self._pads_zeros(node)
        return node.op_type == "Concat" and self.one_scale(node)

    def _pads_zeros(self, node: ir.Node) -> bool:
        """Padding with 0 or with values of the tensor itself; the mode before opset 2 is no matter here."""
        mode = node.attributes.get("mode")
        if mode is not None and mode.as_string() != "constant":
            return True
        value = node.inputs[2] if len(node.inputs) > 2 else None
        number = self.constants.array(value)
        return value is None or (number is not None and not number.any())

    def one_scale(self, node: ir.Node) -> bool:
        """Whether all inputs of a Concat are dequantized with the same scale."""
        operands = [self.operand(node, index) for index in range(len(node.inputs))]
        scales = [o.quantizer.scale for o in operands if o.quantizer is not None and o.quantizer.per_tensor]
        if len(scales) < len(operands) or any(scale is None for scale in scales):
            return False
        return len({float(np.ravel(scale)[0]) for scale in scales if scale is not None}) == 1

    def _quantizer(self, node: ir.Node) -> Quantizer:
        source, zero = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        codes = self.constants.dtype(zero)
        if codes is None:
            codes = self._codes_without_zero(node)
        scale = self.constants.array(node.inputs[1])
        values = self.constants.array(zero)
        block = integer(node, "block_size", 0)
        axis = integer(node, "axis", 1)
        rank_one = scale is not None and scale.ndim == 1 and scale.size > 1
        return Quantizer(
            node, codes, scale, values, axis if block or rank_one else None, block,
            source is not None and self._weights(source),
        )  # fmt: skip

    def _codes_without_zero(self, node: ir.Node) -> ir.DataType | None:
        if node.op_type == DEQUANTIZE:
            return node.inputs[0].dtype if node.inputs[0] is not None else None
        return data_type(node, "output_dtype") or ir.DataType.UINT8

    def _weights(self, source: ir.Value) -> bool:
        """Constant codes, or the codes of constant floats."""
        producer = source.producer()
        if self.constants.known(source):
            return True
        if producer is None or not is_quantizer(producer) or producer.op_type != QUANTIZE:
            return False
        return self.constants.known(producer.inputs[0])


def is_quantizer(node: ir.Node) -> bool:
    """A QuantizeLinear or DequantizeLinear with its data and its scale; the parser takes both domains."""
    return (
        node.op_type in (QUANTIZE, DEQUANTIZE)
        and node.domain in ("", "com.microsoft")
        and has_inputs(node, 2)
    )


def has_inputs(node: ir.Node, count: int) -> bool:
    """Whether the first ``count`` inputs are there."""
    return len(node.inputs) >= count and all(value is not None for value in node.inputs[:count])


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return int(found.value) if found is not None and isinstance(found.value, int) else default


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, None where it is not known."""
    return None if value is None or value.shape is None else len(value.shape)
