"""Embedding tables that are also the weights of an output layer (tied embeddings)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.compiler.quantize.weights import Weight, find_weight


@dataclass(frozen=True)
class Ties:
    """``tables``: roots of tied tables. ``copies``: root of a transposed copy → the table it is equal to.

    Exporters that fold constants store a tied output layer twice, as [V, D] and as [D, V].
    """

    tables: frozenset[ir.Value]
    copies: dict[ir.Value, Weight]

    def resolve(self, weight: Weight) -> Weight:
        """``weight``, read from the table if it is a transposed copy of one."""
        table = self.copies.get(weight.root)
        if table is None or weight.perm is not None:
            return weight
        return Weight(table.root, table.tensor, (1, 0))


def find_ties(model: ir.Model) -> Ties:
    """Compare every [D, V] weight of a product with every gathered [V, D] table of that size."""
    nodes = list(model.graph.all_nodes())
    tables = _tables(nodes)
    tied: set[ir.Value] = set()
    copies: dict[ir.Value, Weight] = {}
    for node in nodes:
        weight = find_weight(node.inputs[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weight is None:
            continue
        if weight.root in tables:
            tied.add(weight.root)
            continue
        table = _equal_table(weight, tables)
        if table is not None:
            tied.add(table.root)
            copies[weight.root] = table
    return Ties(frozenset(tied), copies)


def _tables(nodes: list[ir.Node]) -> dict[ir.Value, Weight]:
    found: dict[ir.Value, Weight] = {}
    for node in nodes:
        weight = find_weight(node.inputs[0]) if node.op_type == "Gather" else None
        if weight is not None and len(weight.shape) == 2 and weight.perm is None:
            found[weight.root] = weight
    return found


def _equal_table(weight: Weight, tables: dict[ir.Value, Weight]) -> Weight | None:
    if weight.perm is not None or len(weight.shape) != 2:
        return None
    for table in tables.values():
        if table.shape == weight.shape[::-1] and np.array_equal(table.array(), weight.array().T):
            return table
    return None
