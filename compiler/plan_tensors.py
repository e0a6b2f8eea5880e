"""Which tensors the INT8 nodes need quantized, how, and which of them must have one range."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.compiler.plan import Plan, QuantSpec
from edgeq.compiler.plan_islands import Islands
from edgeq.compiler.plan_nodes import (
    STANDARD_DOMAINS,
    activation_ports,
    clip_bounds,
    computes_float,
    input_at,
    is_constant,
    is_lookup,
    weight_ports,
)
from edgeq.errors import InternalError
from edgeq.targets.capabilities import Capabilities


def name_of(value: ir.Value) -> str:
    """The value's name; normalized models name all of them."""
    if not value.name:
        raise InternalError("A tensor of the normalized model has no name.")
    return value.name


def plan_tensors(graph: ir.Graph, plan: Plan, islands: Islands, capabilities: Capabilities) -> None:
    """Fill everything of ``plan`` that is about tensors, from the settled INT8 nodes."""
    spec = QuantSpec(capabilities.activation_dtype, capabilities.symmetric_activations)
    for node in islands.int8:
        _plan_weights(plan, islands, node, spec, capabilities)
        if is_lookup(node):
            continue
        for value in _quantized_inputs(islands, node):
            plan.activations[name_of(value)] = spec
        if islands.writes_int8(node):
            _plan_outputs(plan, islands, node, spec)
    readers = [node for node in graph if _may_read(plan, islands, node)]
    for node in readers:
        _plan_reads(plan, islands, node)
    plan.shared = _shared(plan, islands, readers)


def _plan_weights(
    plan: Plan, islands: Islands, node: ir.Node, spec: QuantSpec, capabilities: Capabilities
) -> None:
    rule = islands.rule(node)
    for index, axis in weight_ports(node, rule).items():
        plan.weights[_input_name(node, index)] = QuantSpec("int8", True, axis)
    has_bias = rule.bias is not None and input_at(node, rule.bias) is not None
    if has_bias and rule.bias is not None and not capabilities.float_bias:
        plan.weights[_input_name(node, rule.bias)] = QuantSpec("int32", True, 0)
    for index in activation_ports(node, rule):
        if is_constant(node.inputs[index]):
            plan.weights[_input_name(node, index)] = spec


def _input_name(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    if value is None:
        raise InternalError(f"{node.op_type} {node.name!r} lacks input {index}.")
    return name_of(value)


def _quantized_inputs(islands: Islands, node: ir.Node) -> list[ir.Value]:
    if islands.absorbed(node):
        return []
    values = [node.inputs[i] for i in activation_ports(node, islands.rule(node))]
    return [v for v in values if v is not None and not is_constant(v)]


def _plan_outputs(plan: Plan, islands: Islands, node: ir.Node, spec: QuantSpec) -> None:
    for value in node.outputs:
        if any(islands.absorbed(consumer) for consumer in value.consumers()):
            continue
        if value.name:
            plan.activations[value.name] = spec
            plan.stored.add(value.name)


def _may_read(plan: Plan, islands: Islands, node: ir.Node) -> bool:
    rule = islands.rules.get(node.op_type)
    if rule is None or rule.role != "read" or node.domain not in STANDARD_DOMAINS:
        return False
    return not plan.nodes[node.name or ""].pinned and computes_float(node)


def _plan_reads(plan: Plan, islands: Islands, node: ir.Node) -> None:
    """Let ``node`` read what is quantized anyway, unless one kernel makes the value and computes ``node``."""
    ports = []
    for index in activation_ports(node, islands.rule(node)):
        value = node.inputs[index]
        if value is not None and value.name in plan.activations and not _is_result(islands, value):
            ports.append(index)
    if ports:
        plan.reads[node.name or ""] = tuple(ports)
        plan.nodes[node.name or ""].reason += "; reads INT8 where its input is stored so"


def _is_result(islands: Islands, value: ir.Value) -> bool:
    """Whether an INT8 layer has just computed ``value``: its kernel has more precise numbers at hand."""
    node = value.producer()
    return node is not None and islands.is_int8(node) and islands.rule(node).role == "compute"


def _share_reads(groups: Groups, plan: Plan, islands: Islands, readers: list[ir.Node]) -> None:
    """What is only moved from a quantized tensor keeps its range, so that it is not rounded twice."""
    carried = set(plan.activations)
    for node in readers:
        source = _input_name(node, 0)
        if not islands.rule(node).same_range or source not in carried:
            continue
        for output in node.outputs:
            groups.join(source, name_of(output))
            carried.add(name_of(output))


def _shared(plan: Plan, islands: Islands, readers: list[ir.Node]) -> list[tuple[str, ...]]:
    groups = Groups()
    _share_reads(groups, plan, islands, readers)
    for node in islands.int8:
        if is_lookup(node) or islands.absorbed(node):
            continue
        rule = islands.rule(node)
        if rule.same_range:
            source = _input_name(node, activation_ports(node, rule)[0])
            for output in node.outputs:
                groups.join(source, name_of(output))
        elif rule.variadic:
            _share_concat(groups, islands, node)
    named = [tuple(sorted(n for n in group if n in plan.activations)) for group in groups.all()]
    return sorted(group for group in named if len(group) > 1)


def _share_concat(groups: Groups, islands: Islands, node: ir.Node) -> None:
    """Give inputs that only the Concat reads the range of its output, where that adds no error.

    A range of its own would be rounded a second time to the output's range. But a range whose zero point
    absorbs a Relu must keep it, so only inputs that are all constrained alike are joined.
    """
    output = node.outputs[0]
    single = [v for v in node.inputs if v is not None and _read_only_by(node, v) and not is_constant(v)]
    kinds = {constraint(islands, v) for v in node.inputs if v is not None and not is_constant(v)}
    if len(kinds) != 1 or "fixed" in next(iter(kinds)):
        return
    for value in single:
        if islands.writes_int8(value.producer()):
            groups.join(name_of(value), name_of(output))


def _read_only_by(node: ir.Node, value: ir.Value) -> bool:
    return not value.is_graph_output() and all(user is node for user in value.consumers())


def constraint(islands: Islands, value: ir.Value) -> tuple[object, ...]:
    """What the kernel that makes ``value`` demands of its range."""
    node = value.producer()
    while node is not None and islands.is_int8(node) and islands.rule(node).role == "move":
        source = node.inputs[0]
        node = None if source is None else source.producer()
    if node is None or not islands.is_int8(node):
        return ("free",)
    if islands.absorbed(node):
        return ("absorbed", clip_bounds(node) if node.op_type == "Clip" else None)
    if islands.rule(node).fixed_output is not None:
        return ("fixed", islands.rule(node).fixed_output)
    return ("free",)


class Groups:
    """Union-find over tensor names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        """The name that stands for the group of ``name``."""
        path = []
        while (parent := self._parent.setdefault(name, name)) != name:
            path.append(name)
            name = parent
        for step in path:
            self._parent[step] = name
        return name

    def join(self, first: str, second: str) -> None:
        """Merge the groups of both names."""
        self._parent[self.root(first)] = self.root(second)

    def all(self) -> list[list[str]]:
        """All groups, members in the order they were first seen."""
        found: dict[str, list[str]] = {}
        for name in list(self._parent):
            found.setdefault(self.root(name), []).append(name)
        return list(found.values())
