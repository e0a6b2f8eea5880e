"""Every node gets a name that is unique in the whole model: plans and reports are keyed by it."""

from __future__ import annotations

import onnx_ir as ir


def name_nodes(model: ir.Model) -> None:
    """Name unnamed nodes after their op type and rename duplicates, subgraphs included, in place.

    A node that already has a name of its own keeps it, so reports speak the words of the user's model.
    """
    nodes = list(model.graph.all_nodes())
    taken = {node.name for node in nodes if node.name}
    seen: set[str] = set()
    for node in nodes:
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        node.name = _free_name(node.name or node.op_type, taken)
        taken.add(node.name)
        seen.add(node.name)


def _free_name(base: str, taken: set[str]) -> str:
    number = 0
    while f"{base}_{number}" in taken:
        number += 1
    return f"{base}_{number}"
