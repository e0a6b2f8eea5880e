"""Names of a PyTorch program's nodes as users write them: the paths of the modules they come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeq.targets.neural_compressor.program import WRAPPED

if TYPE_CHECKING:
    from torch.fx import Graph, Node

# What torch.export writes before the path of a module, by the way it traced.
_PREFIX = re.compile(rf"^(L\['self'\]\.?)?({WRAPPED}\.?)?")
# Ops of a graph in eval mode that compute nothing.
_NOTHING = frozenset(
    {"dropout", "alias", "detach", "detach_", "lift_fresh_copy", "_assert_tensor_metadata", "sym_size"}
)


@dataclass(frozen=True)
class Named:
    """A node that computes: ``name`` is unique, ``op_type`` is PyTorch's name of the op (``conv2d``)."""

    node: Node
    name: str
    op_type: str


def name_nodes(graph: Graph) -> list[Named]:
    """The nodes of ``graph`` that compute something, in its order.

    The only one of a module is called by its path (``layer1.0.conv1``). The others add the op and count:
    ``layer1.0/add``, ``attention/matmul``, ``attention/matmul_1``; those of no module are the op alone.
    """
    found = [(node, _path(node), op_type(node)) for node in _computing(graph)]
    alone = Counter(path for _, path, _ in found)
    used: Counter[str] = Counter()
    named = []
    for node, path, kind in found:
        name = path if path and alone[path] == 1 else "/".join(part for part in (path, kind) if part)
        count = used[name]
        used[name] += 1
        named.append(Named(node, f"{name}_{count}" if count else name, kind))
    return named


def nodes_left(nodes: Sequence[Named], graph: Graph) -> list[Named]:
    """Those of ``nodes`` that a copy or a rewritten form of their graph still has."""
    left = {node.name: node for node in graph.nodes}
    return [replace(named, node=left[named.node.name]) for named in nodes if named.node.name in left]


def op_type(node: Node) -> str:
    """``conv2d`` of ``aten.conv2d.default``; empty where ``node`` calls no operator of PyTorch."""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name).split("::")[-1]


def _computing(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        kind = op_type(node)
        if kind and kind not in _NOTHING and _is_tensor(node.meta.get("val")):
            yield node


def _is_tensor(value: Any) -> bool:
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return hasattr(first, "dtype")


def _path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return _PREFIX.sub("", path)
