"""Constants of a PyTorch program: the tensors of its module that nodes read by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node


def is_constant(argument: Any) -> bool:
    """Whether an argument of a node is a constant."""
    return getattr(argument, "op", "") == "get_attr"


def constant(module: GraphModule, node: Node) -> torch.Tensor:
    """The tensor that the constant ``node`` reads."""
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    tensor: torch.Tensor = found.detach()
    return tensor


def insert_constant(
    module: GraphModule, name: str, tensor: torch.Tensor, before: Node, meta: Mapping[str, Any] | None = None
) -> Node:
    """A node in front of ``before`` that reads ``tensor``, which ``module`` keeps as ``name``.

    ``meta``: that of the constant that it stands for.
    """
    module.register_buffer(name, tensor)
    with module.graph.inserting_before(before):
        made: Node = module.graph.get_attr(name)
    made.meta.update(meta or {"val": tensor})
    return made
