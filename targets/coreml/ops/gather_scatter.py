"""gather_scatter"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

HANDLERS: dict[str, Handler] = {}
