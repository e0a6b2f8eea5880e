"""Measured tables of a page of the documentation, replaced between two comments that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def put(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between ``<!-- table NAME -->`` and ``<!-- end NAME -->``."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- table {name} -->\n", f"<!-- end {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page} has no place for the table {name}.")
    page.write_text(before + begin + "\n" + "\n".join(lines) + "\n\n" + closed + after, encoding="utf-8")
