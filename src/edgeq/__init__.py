"""edgeq: one model, every edge target, inside your budgets, with the proof."""

from __future__ import annotations

__version__ = "0.1.0"
