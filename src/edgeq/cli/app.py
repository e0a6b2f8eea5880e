"""The ``edgeq`` command: what it is called, its commands, and the frame around each run."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from edgeq import __version__
from edgeq.cli.bench import bench
from edgeq.cli.check import check
from edgeq.cli.compare import compare
from edgeq.cli.compile import compile_command
from edgeq.cli.init import init
from edgeq.cli.inspect import inspect
from edgeq.cli.lint import lint
from edgeq.cli.targets import targets
from edgeq.cli.verify import verify

app = typer.Typer(
    name="edgeq",
    help="One model, every edge target, inside your budgets, with the proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all good, 1 a budget missed, 2 usage or configuration, 3 bad model or data, "
    "4 the target cannot do it, 5 a defect of edgeq, 130 interrupted.",
)
app.command("compile")(compile_command)
app.command("compare")(compare)
app.command("bench")(bench)
app.command("check")(check)
app.command("verify")(verify)
app.command("lint")(lint)
app.command("targets")(targets)
app.command("inspect")(inspect)
app.command("init")(init)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"edgeq {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    # As an exception, so that the temporary folder of an unfinished artefact is removed on the way out.
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Entry point of the ``edgeq`` command; leaves with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    app(prog_name="edgeq")
