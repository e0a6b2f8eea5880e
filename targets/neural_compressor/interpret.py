"""Running a PyTorch program node by node, to see and change what they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node


def watch(module: GraphModule, see: Callable[[Node, Any], Any], tensors: Sequence[torch.Tensor]) -> Any:
    """The outputs of ``module`` for ``tensors``; every value goes through ``see``, whose result goes on."""
    import torch
    from torch.fx import Interpreter

    class Watching(Interpreter):  # type: ignore[misc]  # torch is not followed
        def run_node(self, n: Node) -> Any:
            return see(n, super().run_node(n))

    with torch.no_grad():
        return Watching(module).run(*tensors)
