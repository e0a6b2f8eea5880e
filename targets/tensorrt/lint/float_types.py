"""Element types as a strongly typed network has them: a DequantizeLinear gives the type of its scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import onnx
import onnx_ir as ir

from edgeq.targets.tensorrt.lint.constants import Constants

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# Op type → inputs that must be of one type (None: all).
ALIKE: dict[str, tuple[int, ...] | None] = {
    "Conv": None, "ConvTranspose": None, "MatMul": None, "Gemm": None, "Add": None, "Sub": None, "Mul": None,
    "Div": None, "Max": None, "Min": None, "Sum": None, "Concat": None, "PRelu": None, "Where": (1, 2),
    "LayerNormalization": None,
}  # fmt: skip


@dataclass(frozen=True)
class FloatTypes:
    """Type of each value; values whose type depends on a mixture are left out."""

    known: dict[ir.Value, ir.DataType]
    constants: Constants

    @classmethod
    def of(cls, nodes: Iterable[ir.Node], opset: int, constants: Constants) -> FloatTypes:
        """Follow the types from the inputs on; declared ones are taken where no schema tells."""
        types = cls({}, constants)
        for node in nodes:
            for index, value in enumerate(node.outputs):
                found = types._result(node, index, opset)
                if found is not None:
                    types.known[value] = found
        return types

    def get(self, value: ir.Value | None) -> ir.DataType | None:
        """The type of a value, None where it is not known."""
        if value is None:
            return None
        if value.producer() is None:
            return self.constants.dtype(value)
        return self.known.get(value)

    def mixed(self, node: ir.Node) -> list[tuple[ir.Value, ir.DataType]]:
        """The inputs with their types where they must be alike and are not."""
        if node.domain or node.op_type not in ALIKE:
            return []
        chosen = ALIKE[node.op_type]
        inputs = [v for i, v in enumerate(node.inputs) if v is not None and (chosen is None or i in chosen)]
        floats = [(value, kind) for value in inputs if (kind := self.get(value)) in FLOATS]
        return floats if len({kind for _, kind in floats}) > 1 else []

    def narrows(self, node: ir.Node) -> bool:
        """Whether a Cast changes nothing, or makes float32 shorter."""
        before, after = self.get(node.inputs[0]), self.get(node.outputs[0])
        return before is not None and (before == after or (before == ir.DataType.FLOAT and after in FLOATS))

    def _result(self, node: ir.Node, index: int, opset: int) -> ir.DataType | None:
        if node.op_type == "DequantizeLinear" and len(node.inputs) > 1:
            return data_type(node, "output_dtype") or self.get(node.inputs[1])
        if node.op_type == "Cast" and not node.domain:
            return data_type(node, "to")
        if node.op_type == "Constant":
            return self.constants.dtype(node.outputs[index])
        if self.mixed(node):
            return None
        source = None if node.domain else _alike_input(node.op_type, index, opset)
        if source is None:
            return node.outputs[index].dtype
        return self.get(node.inputs[source]) if source < len(node.inputs) else None


def data_type(node: ir.Node, name: str) -> ir.DataType | None:
    """The element type that an attribute names; None without one."""
    found = node.attributes.get(name)
    number = found.value if found is not None else 0
    return ir.DataType(number) if number in {kind.value for kind in ir.DataType} and number else None


@cache
def _alike_input(op_type: str, output: int, opset: int) -> int | None:
    """The input whose type the output has, by the operator's schema."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    if not schema.outputs:
        return None
    kind = schema.outputs[min(output, len(schema.outputs) - 1)].type_str
    names = [constraint.type_param_str for constraint in schema.type_constraints]
    inputs = [index for index, entry in enumerate(schema.inputs) if entry.type_str == kind]
    return inputs[0] if kind in names and inputs else None
