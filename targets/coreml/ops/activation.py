"""Activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def relu(node: OnnxNode) -> Var:
    """Relu: max(x, 0)."""
    node.require_float(0)
    return builder().relu(x=node.input(0))


HANDLERS: dict[str, Handler] = {"Relu": relu}
