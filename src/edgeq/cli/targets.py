"""``edgeq targets``: what can be compiled for, and what makes it ready."""

from __future__ import annotations

from typing import Any

from edgeq.cli.terminal import DebugFlag, JsonFlag, session
from edgeq.errors import EdgeqError


def targets(json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """List the targets: ready, or the one command that makes them ready."""
    with session(json=json, debug=debug) as terminal:
        from rich.table import Table
        from rich.text import Text

        from edgeq.targets.registry import FAMILIES, target_names

        rows = [_describe(name) for name in target_names()]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("target", "state", "detail", "schemes"):
            table.add_column(title)
        for row in rows:
            state = Text("ready", style="green") if row["ready"] else Text("not ready", style="yellow")
            detail = row["detail"] if row["ready"] else f"{row['detail']}\n{row['fix'] or ''}".rstrip()
            table.add_row(row["name"], state, detail, " ".join(row["schemes"]))
        families = [f"{name} is {', '.join(members)}" for name, members in FAMILIES.items()]
        terminal.show(table, Text("; ".join(families), style="dim"))
        terminal.emit({"targets": rows, "families": {name: list(of) for name, of in FAMILIES.items()}})


def _describe(name: str) -> dict[str, Any]:
    from edgeq.targets.registry import get_target

    try:
        target = get_target(name)
        availability = target.availability()
        schemes = list(target.capabilities().schemes) if availability.ready else []
    except EdgeqError as error:
        return {"name": name, "ready": False, "detail": error.what, "fix": error.fix, "schemes": []}
    return {
        "name": name,
        "title": target.title,
        "ready": availability.ready,
        "detail": availability.detail,
        "fix": availability.fix,
        "schemes": schemes,
    }
