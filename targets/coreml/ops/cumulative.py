"""CumSum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.data_movement import normalized_axis
from edgeq.targets.coreml.ops.elementwise import NUMBERS
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def cum_sum(node: OnnxNode) -> Var:
    """CumSum: MIL ``cumsum``."""
    node.require_dtype(NUMBERS, 0)
    rank = node.rank(0)
    if rank == 0:
        node.refuse("its input is a scalar")
    axis = normalized_axis(node, int(node.known(1, "axis").ravel()[0]), rank)
    exclusive, reverse = bool(node.attribute("exclusive", 0)), bool(node.attribute("reverse", 0))
    return builder().cumsum(x=node.input(0), axis=axis, exclusive=exclusive, reverse=reverse)


HANDLERS: dict[str, Handler] = {"CumSum": cum_sum}
