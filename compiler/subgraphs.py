"""The graphs inside of a node: branches of If, bodies of Loop and Scan."""

from __future__ import annotations

import onnx_ir as ir


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """All of them, in the order of the attributes."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def has_subgraphs(node: ir.Node) -> bool:
    """Whether the node is control flow."""
    return bool(subgraphs(node))
