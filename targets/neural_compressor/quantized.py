"""What the schemes return: a program of roundings around float ops, and its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.compiler.plan import Plan
from edgeq.targets.neural_compressor.names import Named

if TYPE_CHECKING:
    from torch.fx import GraphModule


@dataclass(frozen=True)
class QuantizedProgram:
    """``module``: roundings around float ops, which PyTorch's compiler turns into INT8 kernels.

    ``names``: name of a node in its graph → of the planned node.
    """

    module: GraphModule
    plan: Plan
    names: Mapping[str, str]

    @classmethod
    def of(cls, module: GraphModule, plan: Plan, nodes: Sequence[Named]) -> QuantizedProgram:
        """``nodes`` are those of the plan; each is in the graph still, or nothing computes it any more."""
        return cls(module, plan, {named.node.name: named.name for named in nodes})
