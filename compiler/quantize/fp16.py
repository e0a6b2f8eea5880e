"""Scheme ``fp16``: weights and arithmetic in float16, inputs, outputs and unsafe operators in float32.

ONNX Runtime's CPU kernels compute most operators in float32 only: it puts Casts around them, which costs
time. On this target the scheme halves the file; it is no speed-up, and a note says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.overrides import resolve_overrides
from edgeq.compiler.plan import NodePlan
from edgeq.compiler.quantize.fp16_plan import check_precisions, plan_fp16
from edgeq.compiler.quantize.fp16_types import takes_half
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Rewriter, drop_unused
from edgeq.compiler.quantize.walk import computes_floats
from edgeq.compiler.recipe import Precision, Recipe
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import Capabilities

_UNSAFE = "it overflows or loses accuracy in float16"
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_MAX_HALF = float(np.finfo(np.float16).max)
# Smaller float32 numbers become 0 in float16 (half of its smallest subnormal, 2^-24).
_MIN_HALF = 2.0**-25


def quantize_fp16(
    model: Model, capabilities: Capabilities, recipe: Recipe, *, progress: Progress | None = None
) -> Quantized:
    """Convert every node that may compute in float16; store the weights of the others in it as well.

    Raises:
        UsageError: an override matches nothing or asks for a precision other than fp16 or fp32.
    """
    if capabilities.rounds_itself:
        return plan_fp16(model, recipe)
    result = model.clone()
    name_nodes(result.ir)
    nodes = list(result.ir.graph.all_nodes())
    wanted = resolve_overrides(nodes, recipe.overrides)
    check_precisions(wanted)
    state = Rewriter(result.ir, capabilities, recipe)
    weights = _Weights(state)
    precisions = _Precisions(state, weights, wanted)
    with (progress or SilentProgress()).task("Converting to fp16", len(nodes)) as advance:
        for node in nodes:
            plan = precisions.plan(node)
            state.plan.nodes[plan.name] = plan
            _convert(node, plan.precision == "fp16", state, weights)
            advance(1)
    _restore_outputs(state)
    drop_unused(result.ir)
    state.plan.notes.extend(weights.notes())
    return Quantized(result, state.plan, {})


@dataclass
class _Precisions:
    """Decides for each node, with the reason."""

    state: Rewriter
    weights: _Weights
    wanted: dict[str, tuple[Precision, str]]

    def plan(self, node: ir.Node) -> NodePlan:
        name = node.name or ""
        precision, pattern = self.wanted.get(name, ("fp16", ""))
        if not computes_floats(node):
            return NodePlan(name, node.op_type, "other", "it computes no floats", False)
        if precision == "fp32":
            reason = f"the override {pattern!r} keeps it in float32"
            return NodePlan(name, node.op_type, "fp32", reason, False)
        refusal = self._refusal(node, forced=bool(pattern))
        if refusal is not None:
            return NodePlan(name, node.op_type, "fp32", refusal, bool(pattern))
        reason = f"asked by the override {pattern!r}" if pattern else "its operator is safe in float16"
        return NodePlan(name, node.op_type, "fp16", reason, True)

    def _refusal(self, node: ir.Node, *, forced: bool) -> str | None:
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            return "control flow keeps float32 at its borders"
        if node.graph is not self.state.model.graph:
            return "it is in a branch or loop body, which keep float32"
        capabilities = self.state.capabilities
        opset = self.state.model.opset_imports.get(node.domain, 0)
        impossible = takes_half(node, opset)
        if impossible is not None:
            return impossible
        if node.op_type in self.state.capabilities.fp16_unsafe and not forced:
            return capabilities.fp16_reasons.get(node.op_type, _UNSAFE)
        large = [value.name for value in node.inputs if value is not None and self.weights.too_large(value)]
        if large:
            return f"its constant {large[0]!r} has values beyond {_MAX_HALF:.0f}"
        return None


class _Weights:
    """Float16 copies of constants: made once each, checked for overflow and underflow."""

    def __init__(self, state: Rewriter) -> None:
        self._state = state
        self._half: dict[ir.Value, ir.Value | None] = {}
        self._large: list[str] = []
        self._lost = 0
        self._total = 0

    def half(self, value: ir.Value) -> ir.Value | None:
        """The float16 copy of a constant, None when ``value`` is no float32 constant or does not fit."""
        if value not in self._half:
            self._half[value] = self._convert(value)
        return self._half[value]

    def too_large(self, value: ir.Value) -> bool:
        return _is_constant(value) and self.half(value) is None

    def _convert(self, value: ir.Value) -> ir.Value | None:
        if not _is_constant(value):
            return None
        tensor = ir.convenience.get_const_tensor(value)
        assert tensor is not None
        array = np.asarray(tensor.numpy())
        finite = np.isfinite(array)
        if (np.abs(array[finite]) > _MAX_HALF).any():
            self._large.append(value.name or "")
            return None
        self._total += array.size
        self._lost += int(np.count_nonzero((array != 0) & (np.abs(array) < _MIN_HALF)))
        return self._state.initializer(f"{value.name}_fp16", array.astype(np.float16))

    def notes(self) -> list[str]:
        found = [
            "fp16 on the CPU: ONNX Runtime computes most operators in float32 and casts before and after "
            "each, so the model gets smaller but not faster; nodes marked so run in fp32."
        ]
        if self._large:
            shown = ", ".join(self._large[:3])
            found.append(
                f"{len(self._large)} constant(s) with values beyond {_MAX_HALF:.0f} stay float32: {shown}."
            )
        if self._lost:
            found.append(
                f"{self._lost} of {self._total} weights are below {_MIN_HALF:.1e} and become 0 in float16."
            )
        return found


def _is_constant(value: ir.Value) -> bool:
    if value.is_graph_input():
        return False
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.dtype == _FLOAT


def _convert(node: ir.Node, half: bool, state: Rewriter, weights: _Weights) -> None:
    for index, value in enumerate(node.inputs):
        if value is None or (value.dtype not in (_FLOAT, _HALF) and not _is_constant(value)):
            continue
        node.replace_input_with(index, _as(value, half, node, state, weights))
    if not half:
        return
    for output in node.outputs:
        if output.dtype == _FLOAT:
            output.type = ir.TensorType(_HALF)  # values may share their type objects


def _as(value: ir.Value, half: bool, node: ir.Node, state: Rewriter, weights: _Weights) -> ir.Value:
    """``value`` in the wanted precision; constants come from their float16 copy either way."""
    stored = weights.half(value) if _pays(value) or half else None
    source = value if stored is None else stored
    wanted = _HALF if half else _FLOAT
    if source.dtype == wanted or (stored is None and _is_constant(value)):
        return source
    key = ("cast", source, wanted)
    if key not in state.cache:
        cast = state.node(
            "Cast", [source], f"{source.name}_to_{wanted.name.lower()}", attributes={"to": int(wanted)}
        )
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(wanted), value.shape
        _insert_after(source, cast, state)
        state.cache[key] = cast.outputs[0]
    made: ir.Value = state.cache[key]
    return made


def _pays(value: ir.Value) -> bool:
    """Whether storing a constant of a float32 node in float16 saves more than the Cast costs."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size > 64


def _insert_after(source: ir.Value, cast: ir.Node, state: Rewriter) -> None:
    """Right after the producer, so that every reader in every subgraph comes later."""
    producer = source.producer()
    if producer is None or producer.graph is None:
        graph = source.graph or state.model.graph
        graph.insert_before(graph[0], [cast])
        return
    producer.graph.insert_after(producer, [cast])


def _restore_outputs(state: Rewriter) -> None:
    """Cast graph outputs that became float16 back to float32, under their own names."""
    graph = state.model.graph
    for index, output in enumerate(graph.outputs):
        if output.dtype != _HALF or output.producer() is None:
            continue
        name, shape = output.name, output.shape
        output.name = state.free_name(f"{name}_fp16")
        cast = state.node("Cast", [output], f"{name}_to_float", attributes={"to": int(_FLOAT)})
        made = cast.outputs[0]
        made.type, made.shape = ir.TensorType(_FLOAT), shape
        graph.append(cast)
        graph.outputs[index] = made
        made.name = name
