"""Lowers a whole ONNX graph to a MIL program."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.errors import EdgeqError, InternalError, TargetError
from edgeq.targets.coreml.frontend.folding import folded
from edgeq.targets.coreml.frontend.limits import MAX_RANK, check_limits
from edgeq.targets.coreml.frontend.lowering import Lowering
from edgeq.targets.coreml.frontend.node import OnnxNode, RefusedNodeError, Var
from edgeq.targets.coreml.frontend.signature import Port, Signature, package_names
from edgeq.targets.coreml.frontend.table import Handler, Result, handler_of, op_key
from edgeq.targets.coreml.toolkit import builder, coremltools, mil_types
from edgeq.targets.dimensions import Dimension

_INPUT_TYPES = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int32",
    ir.DataType.BOOL: "int32",
}
_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.BOOL)

# Ops that look at constants themselves: folding would copy weights for nothing, or unpack compressed ones.
_UNFOLDED = frozenset(
    {
        "Constant", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear", "Shape", "Size",
        "com.microsoft.DequantizeLinear", "com.microsoft.GatherBlockQuantized", "com.microsoft.MatMulNBits",
        "com.microsoft.QuantizeLinear",
    }
)  # fmt: skip
# Exceptions that no model should cause in our own code.
_DEFECTS = (AttributeError, LookupError, NameError, TypeError)


@dataclass(frozen=True)
class Lowered:
    """The MIL program (before coremltools' passes) and how its ports stand for the ONNX model's.

    ``float32_values`` are names of MIL values that are to be computed in float32 whatever the arithmetic is.
    """

    program: Any
    signature: Signature
    float32_values: frozenset[str] = frozenset()


def lower(
    model: Model,
    *,
    ios: int,
    dimensions: Mapping[str, Dimension] | None = None,
    float32_nodes: Collection[str] = (),
) -> Lowered:
    """Lower the normalized or quantized ``model`` for the deployment target iOS ``ios`` (15 to 18).

    ``dimensions`` says what becomes of each dynamic dimension: its symbolic name, or ``input:axis`` for one
    without a name. ``float32_nodes`` are names of nodes that keep float32 in a float16 package.

    Raises:
        RefusedNodeError: an op, attribute, mode, dtype or rank that cannot be expressed exactly.
        TargetError: an input or output that Core ML cannot have, or a dynamic dimension without a size.
    """
    run = _Run(model, ios, dict(dimensions or {}), frozenset(float32_nodes))
    return run.program()


class _Run:
    def __init__(
        self, model: Model, ios: int, dimensions: dict[str, Dimension], float32_nodes: frozenset[str]
    ) -> None:
        self.graph = model.ir.graph
        self.ios = ios
        self.dimensions = dimensions
        self.inputs = [v for v in self.graph.inputs if v.name not in self.graph.initializers]
        names = package_names([v.name or "" for v in [*self.inputs, *self.graph.outputs]])
        self.names = names
        self.given: set[str] = set()
        self.lowering = Lowering(ios, reserved=frozenset(names.values()))
        self.symbols: dict[str, Any] = {}
        self.float32_nodes = float32_nodes
        self.float32_values: list[Var] = []

    def program(self) -> Lowered:
        _check_ranks(self.inputs, "input")
        _check_ranks(self.graph.outputs, "output")
        _check_names(self.inputs, self.graph.outputs)
        coremltools()
        from coremltools.converters.mil.mil import Function, Program

        # names must not depend on what was built before in this process: same model, same bytes
        builder().name_count.clear()
        program = Program()
        opset = _opset(self.ios)
        placeholders = {self.names[v.name or ""]: self._placeholder(v) for v in self.inputs}
        with Function(placeholders, opset_version=opset) as function:
            for value in self.inputs:
                self._take(value, function.inputs[self.names[value.name or ""]])
            for node in self.graph:
                before = len(function.operations)
                self._node(node)
                if node.name in self.float32_nodes:
                    made = list(function.operations)[before:]
                    self.float32_values += [out for op in made for out in op.outputs]
            function.set_outputs([self._give(value) for value in self.graph.outputs])
        program.add_function("main", function)
        signature = Signature(
            tuple(self._port(v) for v in self.inputs), tuple(self._port(v) for v in self.graph.outputs)
        )
        return Lowered(program, signature, frozenset(value.name for value in self.float32_values))

    def _placeholder(self, value: ir.Value) -> Any:
        dtype = _INPUT_TYPES.get(self.lowering.dtype(value))
        if dtype is None:
            raise TargetError(
                f"Core ML: the input {value.name!r} is {self.lowering.dtype(value).name.lower()}, and "
                "packages take float32, float16 and int32.",
                fix="Cast it in the model.",
            )
        if value.shape is None:
            raise TargetError(f"Core ML: the rank of the input {value.name!r} is unknown.")
        shape = [self._dimension(value, axis, size) for axis, size in enumerate(value.shape)]
        return builder().placeholder(shape or [1], dtype=getattr(mil_types(), dtype))

    def _dimension(self, value: ir.Value, axis: int, size: Any) -> Any:
        if isinstance(size, int):
            return size
        key = size.value or f"{value.name}:{axis}"
        chosen = self.dimensions.get(key)
        if chosen is None:
            raise TargetError(
                f"Core ML: axis {axis} of the input {value.name!r} ({key}) is dynamic and has no size.",
                fix=f"Say which sizes it may have: --dimension {key}=1, {key}=1..128 or {key}=32,64,128.",
            )
        if chosen.fixed is not None:
            return chosen.fixed
        if key not in self.symbols:
            from coremltools.converters.mil.mil import get_new_symbol

            self.symbols[key] = get_new_symbol()
        return self.symbols[key]

    def _take(self, value: ir.Value, variable: Var) -> None:
        mb = builder()
        if value.shape is not None and len(value.shape) == 0:
            variable = mb.squeeze(x=variable, axes=[0])
        if self.lowering.dtype(value) == ir.DataType.BOOL:
            variable = mb.cast(x=variable, dtype="bool")
        self.lowering.set(value, variable)

    def _node(self, node: ir.Node) -> None:
        if node.op_type == "If" and not node.domain:
            self._branch(node)
            return
        handler = handler_of(node.domain, node.op_type)
        view = OnnxNode(node, self.lowering)
        if handler is None:
            raise RefusedNodeError(node, "Core ML has no equivalent that edgeq knows")
        try:
            # coremltools prints warnings of its own while it infers types
            with contextlib.redirect_stdout(io.StringIO()):
                results = _results(handler, view)
        except EdgeqError:
            raise
        except Exception as error:
            raise _explained(node, error) from error
        view.finish()
        outputs = results if isinstance(results, Sequence) else [results]
        self.lowering.finish(view, outputs)

    def _branch(self, node: ir.Node) -> None:
        """An If whose condition is known, if only since dynamic dimensions are fixed: its branch's nodes."""
        condition = None if node.inputs[0] is None else self.lowering.constant(node.inputs[0])
        if condition is None:
            raise RefusedNodeError(
                node,
                "its condition is only known at run time",
                "Fix the dynamic dimensions that it depends on, or export the model for one of its branches.",
            )
        branch = node.attributes["then_branch" if condition.any() else "else_branch"].as_graph()
        for inner in branch:
            self._node(inner)
        for outer, result in zip(node.outputs, branch.outputs, strict=True):
            known = self.lowering.constant(result)
            self.lowering.set(outer, self.lowering.variable(result) if known is None else known)

    def _give(self, value: ir.Value) -> Var:
        mb, name = builder(), self.names[value.name or ""]
        variable = self._widened(value)
        if variable.rank == 0:
            variable = mb.expand_dims(x=variable, axes=[0])
        if variable.op is None or variable.op.op_type == "const" or variable.name in self.given:
            # an output may be an input, a constant, or another output as well
            variable = mb.identity(x=variable)
        variable.name = name
        if len(variable.op.outputs) == 1:
            variable.op.name = name
        self.given.add(name)
        return variable

    def _widened(self, value: ir.Value) -> Var:
        """The value with small integers and booleans as int32."""
        if self.lowering.dtype(value) not in _INTEGERS:
            return self.lowering.variable(value)
        known = self.lowering.constant(value)
        if known is not None:
            return self.lowering.const(known.astype(np.int32))
        return builder().cast(x=self.lowering.variable(value), dtype="int32")

    def _port(self, value: ir.Value) -> Port:
        dtype = np.dtype(self.lowering.dtype(value).numpy()).name
        shape = value.shape if value.shape is not None else self.lowering.shape(value)
        return Port(
            value.name or "",
            self.names[value.name or ""],
            dtype,
            tuple(self._size(value, axis, d) for axis, d in enumerate(shape)),
        )

    def _size(self, value: ir.Value, axis: int, size: Any) -> int | str | None:
        """A dimension as the package has it: fixed where one size was chosen."""
        if isinstance(size, int):
            return size
        name = None if size is None else size.value
        chosen = self.dimensions.get(name or f"{value.name}:{axis}")
        return name if chosen is None or chosen.fixed is None else chosen.fixed


def _check_ranks(values: Sequence[ir.Value], kind: str) -> None:
    """Refuse ports that Core ML cannot have, before anything is lowered for them."""
    for value in values:
        rank = 0 if value.shape is None else len(value.shape)
        if rank > MAX_RANK:
            raise TargetError(
                f"Core ML: the {kind} {value.name!r} has rank {rank}, and Core ML tensors have at most "
                f"{MAX_RANK}.",
                fix="Reshape it in the model, merging dimensions that are used together.",
            )


def _results(handler: Handler, node: OnnxNode) -> Result:
    """The node's outputs, computed here where all inputs are known."""
    if op_key(node.node.domain, node.op_type) in _UNFOLDED:
        return handler(node)
    known = folded(node)
    if known is not None:
        return known
    results = handler(node)
    for result in results if isinstance(results, Sequence) else [results]:
        check_limits(node, result)
    return results


def _explained(node: ir.Node, error: Exception) -> EdgeqError:
    """What a handler raised, as refusal; a defect of ours must not look like a limit of Core ML."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if _raised_by(error) == "coremltools":
        return RefusedNodeError(node, f"coremltools does not take it: {text}")
    if isinstance(error, _DEFECTS):
        what = f"Core ML: lowering {node.op_type} {node.name!r} fails with {type(error).__name__}: {text}."
        return InternalError(what, fix="Please report it with the model.")
    return RefusedNodeError(node, f"it is not lowered: {text}")


def _raised_by(error: Exception) -> str:
    """``edgeq`` or ``coremltools``, whichever called last before ``error`` was raised."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]
    return next(package for package in reversed(packages) if package in ("edgeq", "coremltools"))


def _check_names(inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> None:
    """Refuse an output that is an input: a package's ports have different names."""
    for value in outputs:
        if value in inputs:
            raise TargetError(
                f"Core ML: {value.name!r} is an input and an output of the model, and a package's "
                "inputs and outputs have different names.",
                fix="Leave it out of the outputs, or return an Identity of it under another name.",
            )


def _opset(ios: int) -> Any:
    return getattr(coremltools().target, f"iOS{ios}")
