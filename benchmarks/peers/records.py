"""Rows of a benchmark in a JSON Lines file, so that a run goes on where another one stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Records:
    """Rows by key. Rows of ``path`` are not measured again; without ``path`` every row is.

    A row that has an ``error`` is not kept, so that the next run tries again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        kept = path.read_text().splitlines() if path is not None and path.exists() else []
        self._rows: dict[str, Row] = {row["key"]: row for row in map(json.loads, kept)}

    def row(self, key: str, measure: Callable[[], Row]) -> Row:
        """The row of ``key``, measured if it is not there yet."""
        if key in self._rows:
            return self._rows[key]
        row = {"key": key, **measure()}
        self._rows[key] = row
        if self._path is not None and "error" not in row:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return row
