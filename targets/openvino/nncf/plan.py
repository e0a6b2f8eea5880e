"""The plan that NNCF has made, read from the QuantizeLinear and DequantizeLinear that it has placed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from edgeq.compiler.plan import NodePlan, Plan, Precision
from edgeq.compiler.plan_nodes import STANDARD_DOMAINS, computes_float, is_constant, is_float
from edgeq.compiler.planner import ARITHMETIC
from edgeq.targets.capabilities import OpRule
from edgeq.targets.openvino.capabilities import CAPABILITIES

# Wish: the precision that an override asks for, and the override.
Wishes = Mapping[str, tuple[Precision, str]]

_WEIGHTS: Mapping[ir.DataType | None, Precision] = {
    ir.DataType.INT4: "int4",
    ir.DataType.UINT4: "int4",
    ir.DataType.INT8: "int8",
    ir.DataType.UINT8: "int8",
}
# Ops whose weights the schemes of weights alone mean.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


def static_plan(original: ir.Model, quantized: ir.Model, wishes: Wishes) -> Plan:
    """Nodes of ``original`` in INT8 where they read, in ``quantized``, values that were rounded to it."""
    found = _Rounded(quantized)
    plan = Plan()
    for node in original.graph.all_nodes():
        name, wish = node.name or "", wishes.get(node.name or "")
        pinned = wish is not None and wish[0] == "fp32"
        precision, reason = _static(node, found.form(name), wish)
        asked = not pinned and (wish is not None or node.op_type in ARITHMETIC)
        plan.nodes[name] = NodePlan(
            name, node.op_type, precision, reason, asked and precision != "other", pinned
        )
    return plan


def weight_plan(original: ir.Model, quantized: ir.Model, wishes: Wishes) -> Plan:
    """The form in which ``quantized`` stores the weights of the nodes of ``original``."""
    stored = {node.name or "": _stored(node) for node in quantized.graph}
    plan = Plan()
    for node in original.graph.all_nodes():
        name, pinned = node.name or "", node.name in wishes
        precision, reason = _weights(node, stored.get(name), wishes.get(name))
        asked = not pinned and node.op_type in _WEIGHTED and _reads_constant(node)
        plan.nodes[name] = NodePlan(
            name, node.op_type, precision, reason, asked and precision != "other", pinned
        )
    return plan


def _static(node: ir.Node, form: str | None, wish: tuple[Precision, str] | None) -> tuple[Precision, str]:
    if not computes_float(node):
        return "other", "it computes no floating-point values"
    if wish is not None and wish[0] == "fp32":
        return "fp32", f"the recipe keeps it in float ({wish[1]})"
    rule = CAPABILITIES.int8_static.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
    if form is None:
        return "fp32", "NNCF leaves it in float"
    if rule is None:
        float_reason = CAPABILITIES.float_reasons.get(node.op_type, "OpenVINO computes it in float")
        return "fp32", f"NNCF rounds what it reads; {float_reason}"
    return "int8", f"{form}{f' ({rule.note})' if rule.note else ''}"


def _weights(
    node: ir.Node, stored: Precision | None, wish: tuple[Precision, str] | None
) -> tuple[Precision, str]:
    if not computes_float(node):
        return "other", "it computes no floats"
    if wish is not None:
        return "fp32", f"the override {wish[1]!r} keeps it in float"
    if stored is None:
        return "fp32", "NNCF leaves it in float"
    return stored, f"{stored} weights by NNCF"


def _stored(node: ir.Node) -> Precision | None:
    """The narrowest form of the constants that a node reads dequantized."""
    found = {_WEIGHTS.get(source.inputs[0].dtype) for source in _dequantizers(node)}  # type: ignore[union-attr]
    return next((form for form in _WEIGHTS.values() if form in found), None)


def _dequantizers(node: ir.Node) -> list[ir.Node]:
    made = [value.producer() for value in node.inputs if value is not None]
    return [
        source
        for source in made
        if source is not None and source.op_type == "DequantizeLinear" and is_constant(source.inputs[0])
    ]


def _reads_constant(node: ir.Node) -> bool:
    return any(is_constant(value) and is_float(value) for value in node.inputs)


class _Rounded:
    """Which nodes of a quantized graph read INT8, or disappear into a rounding."""

    def __init__(self, model: ir.Model) -> None:
        self._rules: Mapping[str, OpRule] = CAPABILITIES.int8_static
        self._values: set[ir.Value] = set()
        self._forms: dict[str, str] = {}
        for node in model.graph:
            self._visit(node)
        for node in reversed(list(model.graph)):
            self._absorb(node)

    def form(self, name: str) -> str | None:
        """What the node reads or is part of, in words; None when it is in float."""
        return self._forms.get(name)

    def _visit(self, node: ir.Node) -> None:
        if node.op_type == "DequantizeLinear":
            self._values.update(node.outputs)
            return
        read = [value for value in self._floats(node) if value is not None]
        if not read or not all(value in self._values for value in read):
            return
        self._forms[node.name or ""] = CAPABILITIES.int8_form
        rule = self._rules.get(node.op_type)
        if (rule is not None and rule.role == "move") or node.op_type == "Concat":
            self._values.update(node.outputs)

    def _floats(self, node: ir.Node) -> Collection[ir.Value | None]:
        """Inputs that decide: all floats of joins, data and weights of products; no bias, no bounds."""
        rule = self._rules.get(node.op_type)
        if node.op_type in ARITHMETIC:
            return [value for value in node.inputs[:2] if is_float(value)]
        if rule is not None and rule.role in ("move", "absorb"):
            return node.inputs[:1]
        return [value for value in node.inputs if is_float(value)]

    def _absorb(self, node: ir.Node) -> None:
        """An activation function, or the addition of a bias, between INT8 arithmetic and a rounding."""
        rule = self._rules.get(node.op_type)
        if rule is None or rule.role != "absorb" or node.name in self._forms:
            return
        readers = [reader for output in node.outputs for reader in output.consumers()]
        if readers and all(reader.op_type == "QuantizeLinear" for reader in readers):
            self._forms[node.name or ""] = "rounded to INT8 as soon as it is computed"
