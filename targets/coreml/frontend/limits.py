"""What every tensor of a Core ML program must be, whichever op makes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.targets.coreml.frontend.node import OnnxNode

MAX_RANK = 5


def check_limits(node: OnnxNode, result: Any) -> None:
    """Refuse a MIL variable whose rank is too high, or that has no elements."""
    if result is None or isinstance(result, np.ndarray):
        return
    if result.rank > MAX_RANK:
        node.refuse(f"its result has rank {result.rank} and Core ML tensors have at most {MAX_RANK}")
    if any(isinstance(size, (int, np.integer)) and size == 0 for size in result.shape):
        node.refuse("its result is empty, and Core ML has no empty tensors")
