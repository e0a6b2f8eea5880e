"""The state of lowering one graph: which MIL variable, or which constant, stands for each ONNX value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.frontend.node import OnnxNode, Var, int32
from edgeq.targets.coreml.toolkit import builder, mil_types

_ONNX_TYPES = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bool": ir.DataType.BOOL,
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
}


class Lowering:
    """ONNX value → MIL variable or numpy constant. ``ios`` is the deployment target: 15, 16, 17, 18.

    ``reserved`` are names that inner values may not have: those of the package's inputs and outputs.
    """

    def __init__(self, ios: int, reserved: frozenset[str] = frozenset()) -> None:
        self.ios = ios
        self._reserved = reserved
        self._variables: dict[ir.Value, Var] = {}
        self._constants: dict[ir.Value, Array] = {}

    def set(self, value: ir.Value, result: Var | Array) -> None:
        """Record what a node's output is: a MIL variable, or a numpy array in the ONNX dtype."""
        if isinstance(result, np.ndarray):
            self._constants[value] = result
        else:
            self._variables[value] = result

    def constant(self, value: ir.Value) -> Array | None:
        """The value's numbers in its ONNX dtype when they are known at compile time."""
        if value in self._constants:
            return self._constants[value]
        if value.const_value is not None and not value.is_graph_input():
            self._constants[value] = value.const_value.numpy()
            return self._constants[value]
        variable = self._variables.get(value)
        if variable is None or variable.val is None:
            return None
        dtype = self.dtype(value).numpy()
        self._constants[value] = np.asarray(variable.val).astype(dtype)
        return self._constants[value]

    def variable(self, value: ir.Value) -> Var:
        """The MIL variable of the value; constants become MIL consts, int64 as int32."""
        if value not in self._variables:
            found = self.constant(value)
            if found is None:
                raise TargetError(f"Core ML: the value {value.name!r} is used before it is computed.")
            self._variables[value] = self.const(found, value.name or "")
        return self._variables[value]

    def const(self, array: Array, name: str = "") -> Var:
        """A MIL const of ``array`` (int64 becomes int32, float64 float32)."""
        return builder().const(val=_mil_array(array, name))

    def dtype(self, value: ir.Value) -> ir.DataType:
        """ONNX dtype of the value."""
        if value.dtype is not None:
            return value.dtype
        found = self._constants.get(value)
        if found is not None:
            return ir.DataType.from_numpy(found.dtype)
        variable = self._variables.get(value)
        # int32 stands for int64 too: only the other types of MIL tell the ONNX type
        if variable is not None and (known := _ONNX_TYPES.get(mil_type_name(variable))) is not None:
            return known
        raise TargetError(f"Core ML: the dtype of the value {value.name!r} is unknown.")

    def shape(self, value: ir.Value) -> tuple[int | None, ...]:
        """Shape as MIL knows it; None for dimensions that are only known at run time."""
        variable = self._variables.get(value)
        if variable is not None:
            return tuple(known_dimension(d) for d in variable.shape)
        found = self.constant(value)
        if found is not None:
            return found.shape
        raise TargetError(f"Core ML: the shape of the value {value.name!r} is unknown.")

    def finish(self, node: OnnxNode, results: Sequence[Var | Array | None]) -> None:
        """Record a handler's results as the node's outputs, named after them."""
        for output, result in zip(node.node.outputs, results, strict=False):
            if result is None or not output.name:
                continue
            self._name(result, output.name)
            self.set(output, result)

    def _name(self, result: Any, name: str) -> None:
        """Name the MIL op after the ONNX value, unless it already stands for another one."""
        if isinstance(result, np.ndarray) or result.op is None or result in self._variables.values():
            return
        # ports keep their names: an inner value called like one gets another
        result.name = f"{name}_inner" if name in self._reserved else name
        if len(result.op.outputs) == 1:
            result.op.name = result.name


def mil_type_name(variable: Var) -> str:
    """The element type of a MIL variable in MIL's words: ``fp32``, ``int8`` …"""
    return str(mil_types().builtin_to_string(variable.dtype))


def known_dimension(dimension: Any) -> int | None:
    """A MIL dimension as int, None when it is a symbol."""
    return int(dimension) if isinstance(dimension, (int, np.integer)) else None


def _mil_array(array: Array, name: str) -> Any:
    if array.dtype in (np.int64, np.uint32, np.uint64):
        return int32(array) if array.ndim else np.int32(int32(array))
    if array.dtype == np.float64:
        return array.astype(np.float32) if array.ndim else np.float32(array)
    if array.dtype.kind not in "fiub":
        raise TargetError(f"Core ML: the constant {name!r} is {array.dtype}, which MIL has no type for.")
    return array if array.ndim else array[()]
