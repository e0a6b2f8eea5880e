"""Write docs/cli.md from the commands themselves: ``make docs``. A test fails when it is out of date."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from edgeq.cli.app import app

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# Command line

<!-- Written by `make docs`; edit the commands in src/edgeq/cli instead. -->

Results go to stdout, progress, notes and errors to stderr; with `--json`, stdout holds JSON and nothing else.
Progress is a bar on a terminal and plain lines elsewhere. `NO_COLOR` switches colours off.

| exit code | meaning |
|---|---|
| 0 | all good |
| 1 | a budget was missed |
| 2 | wrong usage: an unknown option, scheme, target or budget, or an output that exists |
| 3 | the model or the data cannot be used |
| 4 | the target cannot do it, or an extra is not installed |
| 5 | a defect of edgeq |
| 130 | interrupted by Ctrl-C; nothing half-written is left |
"""


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *(_command(name, command) for name, command in group.commands.items())])


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["edgeq", name, *(_argument(p) for p in arguments), "[OPTIONS]"])
    return "\n".join(
        [
            f"## `edgeq {name}`",
            "",
            command.help.strip(),
            "",
            "```",
            usage,
            "```",
            "",
            *_table(arguments, options),
        ]
    )


def _table(arguments: list[Any], options: list[Any]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for parameter in arguments:
        yield f"| `{parameter.metavar}` | {_help(parameter)} |"
    for parameter in options:
        yield f"| {_spelling(parameter)} | {_help(parameter)} |"
    yield ""


def _argument(parameter: Any) -> str:
    return str(parameter.metavar if parameter.required else f"[{parameter.metavar}]")


def _spelling(parameter: Any) -> str:
    names = ", ".join(f"`{option}`" for option in sorted(parameter.opts, key=len, reverse=True))
    return names if parameter.is_flag else f"{names} `{parameter.metavar}`"


def _help(parameter: Any) -> str:
    """The help text, with whether it is required or its default, in a cell of a Markdown table."""
    text = re.sub(r"\s+", " ", parameter.help or "").replace("|", "\\|").replace("<", "&lt;")
    if parameter.required:
        return f"{text} *Required.*"
    default = parameter.default
    if default is None or default is False or callable(default):
        return text
    return f"{text} Default: `{default}`."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE}\n")
