"""Which of the possible INT8 nodes pay: an elementwise op alone between float neighbours only costs.

Every node that could run in INT8 starts as INT8; those that do not pay are taken out until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgeq.compiler.plan_nodes import activation_ports, is_constant, is_lookup
from edgeq.errors import InternalError
from edgeq.targets.capabilities import OpRule


@dataclass
class Islands:
    """The nodes that run in INT8. ``dropped`` says why a possible one does not."""

    rules: Mapping[str, OpRule]
    int8: dict[ir.Node, None]
    forced: frozenset[ir.Node] = frozenset()
    dropped: dict[ir.Node, str] = field(default_factory=dict)

    def rule(self, node: ir.Node) -> OpRule:
        return self.rules[node.op_type]

    def is_int8(self, node: ir.Node | None) -> bool:
        return node is not None and node in self.int8

    def writes_int8(self, node: ir.Node | None) -> bool:
        """Whether the node's outputs exist as integers only."""
        if node is None or node not in self.int8 or is_lookup(node):
            return False
        rule = self.rule(node)
        if rule.role == "absorb":
            return self.absorbed(node) and self.writes_int8(_source(node).producer())
        if not rule.float_output:
            return True
        return all(self.only_wanted_int8(output) for output in node.outputs)

    def absorbed(self, node: ir.Node) -> bool:
        """Whether the node disappears into the rounding of its producer's result."""
        if node not in self.int8 or self.rule(node).role != "absorb":
            return False
        producer = _source(node).producer()
        if producer is None or not self.is_int8(producer) or is_lookup(producer):
            return False
        return _used_once(_source(node))

    def must_be_int8(self, value: ir.Value) -> bool:
        """Whether ``value`` comes out of a kernel that can write integers only."""
        node = value.producer()
        while node is not None and node in self.int8 and self.rule(node).role in ("move", "absorb"):
            node = _source(node).producer() if not is_lookup(node) else None
        if node is None or not self.writes_int8(node):
            return False
        rule = self.rule(node)
        return rule.joined or not rule.float_output

    def wants_int8(self, value: ir.Value) -> bool:
        """Whether any consumer computes with the integers of ``value``."""
        return any(
            self._takes_int8(node, index) and self._passes_on(node, any) for node, index in value.uses()
        )

    def only_wanted_int8(self, value: ir.Value) -> bool:
        """Whether every consumer computes with the integers of ``value``."""
        uses = list(value.uses())
        if not uses or value.is_graph_output():
            return False
        return all(self._takes_int8(*use) and self._passes_on(use[0], all) for use in uses)

    def _takes_int8(self, node: ir.Node, index: int) -> bool:
        if node not in self.int8 or is_lookup(node):
            return False
        return index in activation_ports(node, self.rule(node))

    def _passes_on(self, node: ir.Node, quantifier: Callable[[Iterable[bool]], bool]) -> bool:
        """A node that only moves or clips values wants integers as far as its own consumers do."""
        if self.rule(node).role not in ("move", "absorb"):
            return True
        if quantifier is any:
            return any(self.wants_int8(output) for output in node.outputs)
        return all(self.only_wanted_int8(output) for output in node.outputs)


def settle(islands: Islands) -> Islands:
    """Take out the nodes that do not pay, until every one left does; returns the same object."""
    while True:
        out = {n: r for n in islands.int8 if n not in islands.forced and (r := _why_alone(islands, n))}
        if not out:
            return islands
        islands.dropped.update(out)
        islands.int8 = {node: None for node in islands.int8 if node not in out}


def _why_alone(islands: Islands, node: ir.Node) -> str | None:
    rule = islands.rule(node)
    if rule.role == "compute" or is_lookup(node):
        return None
    inputs = [node.inputs[i] for i in activation_ports(node, rule)]
    varying = [value for value in inputs if value is not None and not is_constant(value)]
    wanted = any(islands.wants_int8(output) for output in node.outputs)
    if rule.role == "absorb":
        return _why_not_absorbed(islands, node)
    if rule.role == "move":
        only = all(islands.only_wanted_int8(output) for output in node.outputs)
        written = any(islands.writes_int8(value.producer()) for value in varying)
        return None if written or only else "it stands between float nodes"
    if not any(islands.must_be_int8(value) for value in varying):
        return "its inputs come in float, so INT8 here would only add conversions"
    return None if wanted else "its consumers compute in float, so its result keeps float precision"


def _why_not_absorbed(islands: Islands, node: ir.Node) -> str | None:
    source = _source(node)
    producer = source.producer()
    if not islands.is_int8(producer):
        return "its input is computed in float"
    if not _used_once(source):
        return "other nodes read its input too, so it cannot be folded into the rounding"
    if not islands.writes_int8(producer):
        return "its input comes in float from the INT8 kernel, which keeps full precision"
    return None


def _used_once(value: ir.Value) -> bool:
    return len(list(value.uses())) == 1 and not value.is_graph_output()


def _source(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise InternalError(f"{node.op_type} {node.name!r} has no input.")
    return value
