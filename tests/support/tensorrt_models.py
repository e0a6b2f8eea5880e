"""Small ONNX graphs with explicit quantization, as TensorRT reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from edgeq.compiler.plan import NodePlan, Plan, Precision, QuantSpec

Scheme = Literal["float", "int8", "int8-weight", "int4-64", "int4-128", "fp8"]
Rest = Literal["fp32", "fp16", "bf16"]

_FLOATS: Mapping[Rest, tuple[int, Any]] = {
    "fp32": (TensorProto.FLOAT, np.float32),
    "fp16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
_CODES: Mapping[Scheme, tuple[int, int]] = {
    "int8": (TensorProto.INT8, 127),
    "int8-weight": (TensorProto.INT8, 127),
    "int4-64": (TensorProto.INT4, 7),
    "int4-128": (TensorProto.INT4, 7),
    "fp8": (TensorProto.FLOAT8E4M3FN, 16),
}
_UNSIGNED = (TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16)
_BLOCKS: Mapping[Scheme, int] = {"int4-64": 64, "int4-128": 128}


class GraphBuilder:
    """Nodes and initializers of one graph; every node is named like its only output."""

    def __init__(self, scheme: Scheme = "int8", rest: Rest = "fp32", *, opset: int = 21) -> None:
        self.scheme = scheme
        self.rest = rest
        self.opset = opset
        self.elem_type, self.float = _FLOATS[rest]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._rng = np.random.default_rng(0)

    def input(self, name: str, shape: Sequence[int | str], elem_type: int | None = None) -> str:
        kind = self.elem_type if elem_type is None else elem_type
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, elem_type: int | None = None) -> None:
        kind = self.elem_type if elem_type is None else elem_type
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def constant(self, name: str, numbers: Any, elem_type: int | None = None) -> str:
        """An initializer in the float type of the graph, in its own type if it has integers."""
        array = np.asarray(numbers)
        if elem_type is None:
            kinds = {np.dtype(np.int64): TensorProto.INT64, np.dtype(np.int32): TensorProto.INT32}
            elem_type = kinds.get(array.dtype, self.elem_type)
        self.initializers.append(_tensor(name, elem_type, array))
        return name

    def numbers(self, shape: Sequence[int], size: float = 0.1) -> Array:
        return np.asarray(self._rng.normal(0, size, shape), np.float32)

    def op(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def quantized(self, value: str, scale: float = 0.02) -> str:
        """``value`` rounded to the scheme's activations; as it is where the scheme has none."""
        if self.scheme not in ("int8", "fp8"):
            return value
        return self.pair(value, scale)

    def pair(self, value: str, scale: Any = 0.02, *, axis: int | None = None, zero: Any = 0,
             codes: int | None = None, other_scale: Any = None, tag: str = "") -> str:  # fmt: skip
        """QuantizeLinear and DequantizeLinear behind ``value``, per tensor unless an axis is given."""
        name = f"{value}{tag}"
        codes = _CODES[self.scheme][0] if codes is None else codes
        scales = self.constant(f"{name}_scale", np.asarray(scale))
        zeros = self.constant(f"{name}_zero", np.broadcast_to(zero, np.shape(scale)), codes)
        back = scales if other_scale is None else self.constant(f"{name}_back", np.asarray(other_scale))
        attributes = {} if axis is None else {"axis": axis}
        q = self.op("QuantizeLinear", [value, scales, zeros], f"{name}_Q", **attributes)
        return self.op("DequantizeLinear", [q, back, zeros], f"{name}_DQ", **attributes)

    def weights(self, name: str, shape: Sequence[int], axis: int | None, *, along: int | None = None) -> str:
        """Weights of the scheme: floats, or integers per channel of ``axis``, in blocks ``along`` an axis."""
        if self.scheme == "float":
            return self.constant(name, self.numbers(shape))
        codes, largest = _CODES[self.scheme]
        block = _BLOCKS.get(self.scheme)
        if block is None or along is None:
            return self.dequantized(name, shape, codes, largest, axis)
        return self.dequantized(name, shape, codes, largest, along, block)

    def dequantized(self, name: str, shape: Sequence[int], codes: int, largest: int, axis: int | None,
                    block: int | None = None, *, zero: int | None = None) -> str:  # fmt: skip
        """Integer weights and their DequantizeLinear; ``axis`` None is per tensor."""
        numbers = self._rng.integers(0 if codes in _UNSIGNED else -largest, largest + 1, shape)
        scales: tuple[int, ...] = () if axis is None else (shape[axis],)
        attributes = {} if axis is None else {"axis": axis}
        if block is not None and axis is not None:
            scales = tuple(-(-n // block) if i == axis % len(shape) else n for i, n in enumerate(shape))
            attributes["block_size"] = block
        inputs = [
            self.constant(f"{name}_codes", numbers, codes),
            # Equal scales would let the compiler take them for one.
            self.constant(f"{name}_scale", self._rng.uniform(0.005, 0.02, scales)),
        ]
        if zero is not None:
            inputs.append(self.constant(f"{name}_zero", np.full(scales, zero), codes))
        return self.op("DequantizeLinear", inputs, f"{name}_DQ", **attributes)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, self.initializers)
        others = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(name, 1) for name in others)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=11 if self.opset > 22 else 10)
        return onnx.shape_inference.infer_shapes(made)


def _tensor(name: str, elem_type: int, numbers: Array) -> onnx.TensorProto:
    values = numbers.astype(np.float64 if numbers.dtype.kind == "f" else np.int64)
    return helper.make_tensor(name, elem_type, numbers.shape, values.ravel().tolist())


_PRECISIONS: Mapping[Scheme, Precision] = {
    "float": "fp32",
    "int8": "int8",
    "int8-weight": "int8",
    "int4-64": "int4",
    "int4-128": "int4",
    "fp8": "fp8",
}


def planned(model: onnx.ModelProto, scheme: Scheme) -> Plan:
    """A plan that wants every node in the scheme's precision."""
    nodes = [node for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    precision = _PRECISIONS[scheme]
    plan = Plan(nodes={n.name: NodePlan(n.name, n.op_type, precision, "", asked=True) for n in nodes})
    if scheme in ("int8", "fp8"):
        plan.activations = {value.name: QuantSpec("int8", symmetric=True) for value in model.graph.input}
    return plan
