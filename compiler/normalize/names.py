"""Every value and every node has a name, and no two of the whole model have the same."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


class UniqueNamesPass(ir.passes.InPlacePass):
    """Give names where there are none and change the later of two equal ones.

    Names of the main graph's inputs and outputs never change. A node without a name is called after its
    operator and its first output, so that its name does not depend on other nodes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = _name_values(model)
        return ir.passes.PassResult(model, _name_nodes(model) or modified)


def _name_values(model: ir.Model) -> bool:
    signature = [*model.graph.inputs, *model.graph.outputs]
    taken = {value.name for value in signature}
    seen = set(signature)
    modified = False
    for value in _values(model):
        if value in seen:
            continue
        seen.add(value)
        name = _free(value.name or _default_name(value), taken)
        taken.add(name)
        if name != value.name:
            value.name, modified = name, True
    return modified


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """All values that have or need a name; optional outputs that are left out have none."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from list(graph.initializers.values())
        for node in graph:
            yield from (v for v in node.outputs if v.name or v.uses() or v.is_graph_output())


def _default_name(value: ir.Value) -> str:
    node = value.producer()
    return "value" if node is None else f"{node.name or node.op_type}/output"


def _name_nodes(model: ir.Model) -> bool:
    taken: set[str] = set()
    modified = False
    for graph in model.graphs():
        for node in graph:
            name = _free(node.name or f"{node.op_type}_{_first_output(node)}", taken)
            taken.add(name)
            if name != node.name:
                node.name, modified = name, True
    return modified


def _first_output(node: ir.Node) -> str:
    return next((v.name for v in node.outputs if v.name), "")


def _free(name: str, taken: set[str | None] | set[str]) -> str:
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
