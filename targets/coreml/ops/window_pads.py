"""Padding of convolutions and pools: from ONNX's attributes to MIL's arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def halves(total: int, *, upper: bool) -> tuple[int, int]:
    """Split a padding; the odd element goes to the end for SAME_UPPER, to the beginning otherwise."""
    small = total // 2
    return (small, total - small) if upper else (total - small, small)


def pad_arguments(pads: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """``pad_type`` and ``pad`` for (before, after) of each spatial dimension."""
    flat = [amount for pair in pads for amount in pair]
    return {"pad_type": "custom", "pad": flat} if any(flat) else {"pad_type": "valid"}
