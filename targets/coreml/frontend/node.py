"""An ONNX node as handlers see it: everything they do not read is an error, so nothing is ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.errors import TargetError

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.lowering import Lowering

Var = Any  # coremltools.converters.mil.mil.Var: coremltools has no types


class RefusedNodeError(TargetError):
    """A node that cannot be expressed in Core ML exactly; ``reason`` groups refusals in tables."""

    def __init__(self, node: ir.Node, reason: str, fix: str | None = None) -> None:
        name = f" {node.name!r}" if node.name else ""
        domain = f"{node.domain}." if node.domain else ""
        super().__init__(f"Core ML: {domain}{node.op_type}{name}: {reason}.", fix=fix)
        self.op_type = node.op_type
        self.reason = reason


class OnnxNode:
    """Inputs and attributes of one node. Reading is recorded; :meth:`finish` refuses what was not read."""

    def __init__(self, node: ir.Node, lowering: Lowering) -> None:
        self.node = node
        self.lowering = lowering
        self._read_inputs: set[int] = set()
        self._read_attributes: set[str] = set()

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def op_type(self) -> str:
        return self.node.op_type

    def refuse(self, reason: str, fix: str | None = None) -> NoReturn:
        """Raise: this node cannot be lowered exactly. ``reason`` names attribute, mode, dtype or rank."""
        raise RefusedNodeError(self.node, reason, fix)

    # --- attributes -------------------------------------------------------------------------------------

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value: int, float, str, list, or a numpy array for tensors."""
        self._read_attributes.add(name)
        found = self.node.attributes.get(name)
        if found is None:
            return default
        value = found.value
        if found.type == ir.AttributeType.TENSOR:
            return cast(ir.TensorProtocol, value).numpy()
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, (list, tuple)):
            return [item.decode() if isinstance(item, bytes) else item for item in value]
        return value

    # --- inputs -----------------------------------------------------------------------------------------

    @property
    def input_count(self) -> int:
        """Number of inputs, trailing ones that are left out not counted."""
        names = [value is not None for value in self.node.inputs]
        return max((index + 1 for index, there in enumerate(names) if there), default=0)

    def has_input(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def input(self, index: int) -> Var:
        """Input ``index`` as MIL variable (a constant becomes a MIL const); refused when it is left out."""
        return self.lowering.variable(self._value(index))

    def optional(self, index: int) -> Var | None:
        """Input ``index`` as MIL variable, None when it is left out."""
        return self.input(index) if self.has_input(index) else None

    def constant(self, index: int) -> Array | None:
        """Input ``index`` as numpy array in its ONNX dtype when it is known at compile time, else None.

        Also None when it is left out (see :meth:`has_input`).
        """
        return self.lowering.constant(self._value(index)) if self.has_input(index) else None

    def known(self, index: int, what: str) -> Array:
        """Input ``index`` as numpy array; refused when it is computed at run time."""
        found = self.lowering.constant(self._value(index))
        if found is None:
            self.refuse(
                f"its {what} is computed at run time and Core ML needs it constant",
                "Export the model with it constant, or fix the dynamic dimension that it depends on.",
            )
        return found

    def dtype(self, index: int) -> ir.DataType:
        """ONNX dtype of input ``index``; reading it does not count as reading the input."""
        return self.lowering.dtype(self._peek(index))

    def rank(self, index: int) -> int:
        """Rank of input ``index``; reading it does not count as reading the input."""
        return len(self.shape(index))

    def shape(self, index: int) -> tuple[int | None, ...]:
        """Shape of input ``index``, None for a dimension that is only known at run time."""
        return self.lowering.shape(self._peek(index))

    def _value(self, index: int) -> ir.Value:
        self._read_inputs.add(index)
        return self._peek(index)

    def _peek(self, index: int) -> ir.Value:
        if not self.has_input(index):
            self.refuse(f"its input {index} is left out")
        return cast(ir.Value, self.node.inputs[index])

    # --- outputs ----------------------------------------------------------------------------------------

    @property
    def output_count(self) -> int:
        """Number of outputs, those left out included."""
        return len(self.node.outputs)

    def wants(self, index: int) -> bool:
        """Whether somebody reads output ``index``."""
        if index >= len(self.node.outputs):
            return False
        output = self.node.outputs[index]
        return bool(output.name) and (bool(list(output.uses())) or output.is_graph_output())

    def output_dtype(self, index: int = 0) -> ir.DataType:
        """ONNX dtype of output ``index``."""
        return self.lowering.dtype(self.node.outputs[index])

    def output_shape(self, index: int = 0) -> tuple[int | None, ...] | None:
        """Shape that ONNX inference found for output ``index``; None when even the rank is unknown."""
        shape = self.node.outputs[index].shape
        return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)

    # --- strictness -------------------------------------------------------------------------------------

    def require_float(self, *indices: int) -> None:
        """Refuse inputs that are no float32 or float16 tensors."""
        self.require_dtype((ir.DataType.FLOAT, ir.DataType.FLOAT16), *indices)

    def require_dtype(self, allowed: tuple[ir.DataType, ...], *indices: int) -> None:
        """Refuse inputs of another dtype."""
        for index in indices:
            found = self.dtype(index)
            if found not in allowed:
                names = " or ".join(dtype.name.lower() for dtype in allowed)
                self.refuse(
                    f"its input {index} is {found.name.lower()}, and it is lowered for {names} only",
                    "Cast it in the model.",
                )

    def finish(self) -> None:
        """Refuse attributes and inputs that the handler did not read."""
        unread = sorted(set(self.node.attributes) - self._read_attributes)
        if unread:
            self.refuse(f"the attribute {unread[0]!r} is not supported")
        for index, value in enumerate(self.node.inputs):
            if value is not None and index not in self._read_inputs:
                self.refuse(f"the input {index} ({value.name!r}) is not supported")


def int32(array: Array) -> Array:
    """ONNX's int64 as Core ML's int32; values outside saturate (INT64_MAX stands for "to the end")."""
    bounds = np.iinfo(np.int32)
    return np.clip(array, bounds.min, bounds.max).astype(np.int32)
