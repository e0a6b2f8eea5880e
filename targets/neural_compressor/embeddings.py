"""Embedding tables in INT8, one scale per row: the rows that are looked up become floats, the table never.

PyTorch's compiler has no INT8 table: it would store what is a third of many language models in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeq.compiler.plan import Plan, QuantSpec
from edgeq.compiler.quantize.static_weights import quantize_weight
from edgeq.targets.neural_compressor.constants import constant, insert_constant, is_constant
from edgeq.targets.neural_compressor.names import op_type

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

# Smaller tables are not worth the further ops.
_SMALLEST = 1 << 14
# Ops that leave all values as they are.
_MOVES = frozenset({"view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "contiguous", "to"})
_REASON = "its table is stored in INT8, the rows it reads are widened"


def store_tables(module: GraphModule, plan: Plan, names: Mapping[str, str]) -> None:
    """Store the tables of embeddings in ``module`` in INT8 and say so in the plan.

    ``names``: name of a node → of the planned node. Nodes that the recipe keeps in float stay.
    """
    found = [node for node in module.graph.nodes if _is_lookup(node)]
    for index, node in enumerate(found):
        planned = plan.nodes.get(names.get(node.name, ""))
        if planned is None or planned.pinned:
            continue
        table = np.asarray(constant(module, node.args[0]).numpy())
        if table.dtype != np.float32 or table.size < _SMALLEST or not np.isfinite(table).all():
            continue
        _store(module, node, table, index)
        planned.precision, planned.reason = "int8", _REASON
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    _drop_unread(module)
    module.recompile()


def indexed_rows(program: ExportedProgram, inputs: Sequence[str]) -> dict[str, int]:
    """Input → rows of the smallest table that it indexes, of those that a table reads as they are.

    ``inputs``: names of the program's inputs, in its order.
    """
    names = dict(zip(program.graph_signature.user_inputs, inputs, strict=True))
    found: dict[str, int] = {}
    for node in program.graph.nodes:
        if op_type(node) != "embedding":
            continue
        name = names.get(_unmoved(node.args[1]).name)
        if name is not None:
            rows = int(node.args[0].meta["val"].shape[0])
            found[name] = min(rows, found.get(name, rows))
    return found


def _unmoved(node: Node) -> Node:
    """What ``node`` has the values of, in another shape or integer type."""
    while op_type(node) in _MOVES:
        node = node.all_input_nodes[0]
    return node


def _is_lookup(node: Node) -> bool:
    return op_type(node) == "embedding" and is_constant(node.args[0])


def _store(module: GraphModule, node: Node, table: np.ndarray, index: int) -> None:
    import torch

    spec = QuantSpec("int8", symmetric=True, axis=0)
    floor = np.asarray(np.finfo(np.float32).tiny, np.float32)
    stored = quantize_weight(table, spec, (0, 1), table.shape[1], floor=floor, pairs=False)
    codes = torch.from_numpy(stored.codes.astype(np.int8))
    scales = torch.from_numpy(stored.params.scale.reshape(-1, 1))
    read_codes = insert_constant(module, f"_edgeq_table_{index}", codes, node)
    read_scales = insert_constant(module, f"_edgeq_table_scales_{index}", scales, node)
    aten, graph = torch.ops.aten, module.graph
    with graph.inserting_before(node):
        ids = node.args[1]
        rows = graph.call_function(aten.embedding.default, (read_codes, ids))
        factors = graph.call_function(aten.embedding.default, (read_scales, ids))
        floats = graph.call_function(aten.to.dtype, (rows, torch.float32))
    # The product takes the place of the node, so that it keeps its name and where it came from.
    node.target, node.args, node.kwargs = aten.mul.Tensor, (floats, factors), {}


def _drop_unread(module: GraphModule) -> None:
    """Remove parameters and buffers that no node reads any more: they would be stored."""
    import torch

    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*module.named_parameters(), *module.named_buffers()]:
        if name not in read:
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            # Bodies of control flow have graphs of their own, which read what is theirs.
            if owner is module or not isinstance(owner, torch.fx.GraphModule):
                delattr(owner, leaf)
