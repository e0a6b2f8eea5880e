"""How one run of the command talks: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.errors import EdgeqError
from edgeq.progress import Advance, Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress as Bars

INTERRUPTED = 130
# As a program that SIGPIPE ends.
BROKEN_PIPE = 128 + 13
# A pipe or a CI log has no width of its own: nothing is wrapped there, so that lines can be searched.
PLAIN_WIDTH = 4096
# Without a terminal, a task that took longer than this also says when it is done.
SLOW_TASK_SECONDS = 5.0

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and only that.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")]


@dataclass
class Terminal:
    """The two output streams of a run and what was already said on them."""

    json: bool = False
    quiet: bool = False
    debug: bool = False
    said: set[str] = field(default_factory=set)
    _consoles: dict[bool, Console] = field(default_factory=dict)

    @property
    def out(self) -> Console:
        """Results: stdout."""
        return self._console(stderr=False)

    @property
    def err(self) -> Console:
        """Progress, notes and errors: stderr."""
        return self._console(stderr=True)

    def _console(self, *, stderr: bool) -> Console:
        if stderr not in self._consoles:
            self._consoles[stderr] = _make_console(stderr)
        return self._consoles[stderr]

    def show(self, *renderables: RenderableType) -> None:
        """Print a result for people; nothing with ``--json``."""
        if self.json:
            return
        for renderable in renderables:
            self.out.print(renderable)

    def emit(self, document: Any) -> None:
        """Print the JSON document of the result; nothing without ``--json``."""
        if self.json:
            typer.echo(json.dumps(document, indent=2, sort_keys=True, allow_nan=False))

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Where long work reports: bars on a terminal, lines elsewhere, nothing with ``--quiet``."""
        if self.quiet:
            yield QuietProgress()
        elif not self.err.is_terminal:
            yield LineProgress(self)
        else:
            with _bars(self.err) as bars:
                yield BarProgress(self, bars)


def _make_console(stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH

    class Pipe(Console):
        def on_broken_pipe(self) -> None:
            # rich leaves with 1 here, which is the code of a missed budget.
            with suppress(SystemExit):
                super().on_broken_pipe()
            raise SystemExit(BROKEN_PIPE)

    return Pipe(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def _bars(console: Console) -> Bars:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    return Bars(*columns, console=console, transient=True)


def _countable(total: int | None) -> bool:
    """Whether the steps mean something to people; larger numbers are bytes."""
    return total is not None and total < 100_000


def _count(done: int, total: int | None) -> str:
    if total is None:
        return ""
    return f"{done}/{total}" if _countable(total) else f"{done / max(total, 1):.0%}"


class QuietProgress:
    """Reports nothing."""

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda _steps: None

    def note(self, message: str) -> None:
        return None


@dataclass
class LineProgress:
    """One line when a task starts, one more when it took long: for logs."""

    terminal: Terminal

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        self._line(description if not _countable(total) else f"{description} ({total})")
        begin = time.monotonic()
        yield lambda _steps: None
        seconds = time.monotonic() - begin
        if seconds >= SLOW_TASK_SECONDS:
            self._line(f"{description}: done in {seconds:.1f} s")

    def note(self, message: str) -> None:
        self.terminal.said.add(message)
        self._line(f"note: {message}")

    def _line(self, text: str) -> None:
        # Not through rich: a log line is never wrapped, whatever its length.
        typer.echo(text, err=True)


@dataclass
class BarProgress:
    """One bar for each running task, gone when it is done."""

    terminal: Terminal
    bars: Bars

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        bar = self.bars.add_task(description, total=total, count="")
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            self.bars.update(bar, completed=done, count=_count(done, total))

        try:
            yield advance
        finally:
            self.bars.remove_task(bar)

    def note(self, message: str) -> None:
        from rich.text import Text

        self.terminal.said.add(message)
        self.bars.console.print(Text.assemble(("note: ", "yellow"), message))


@contextmanager
def session(*, json: bool = False, quiet: bool = False, debug: bool = False) -> Iterator[Terminal]:
    """The frame around a command: every way it can fail becomes a message and an exit code."""
    terminal = Terminal(json=json, quiet=quiet, debug=debug)
    try:
        yield terminal
    except EdgeqError as error:
        _report(terminal, error, error.what, error.fix)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted: unfinished work was discarded.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except typer.Exit:
        raise
    except BrokenPipeError:
        # The reader of our output left (`edgeq inspect … | head`): not an error of ours to explain.
        raise typer.Exit(BROKEN_PIPE) from None
    except Exception as error:  # noqa: BLE001 (the last line of defence: never a bare traceback)
        _report_unexpected(terminal, error)
        raise typer.Exit(5) from None


def _report(terminal: Terminal, error: EdgeqError, what: str, fix: str | None) -> None:
    """Two short lines: what is wrong, what to do."""
    if terminal.debug:
        traceback.print_exception(error)
    _error_lines(terminal, what, fix)
    terminal.emit(error_document(error))


def _report_unexpected(terminal: Terminal, error: Exception) -> None:
    from edgeq.errors import InternalError

    if terminal.debug:
        traceback.print_exception(error)
    message = " ".join(str(error).split()) or "no message"
    what = f"Unexpected {type(error).__name__}: {message[:300]}"
    fix = None if terminal.debug else "This is a defect of edgeq: repeat with --debug for the traceback."
    _report(Terminal(json=terminal.json), InternalError(what, fix=fix), what, fix)


def _error_lines(terminal: Terminal, what: str, fix: str | None) -> None:
    from rich.text import Text

    terminal.err.print(Text.assemble(("error: ", "bold red"), what), soft_wrap=True)
    if fix is not None:
        terminal.err.print(Text.assemble(("fix:   ", "bold"), fix), soft_wrap=True)


def error_document(error: EdgeqError) -> dict[str, Any]:
    """An error as JSON."""
    return {
        "error": {
            "type": type(error).__name__,
            "what": error.what,
            "fix": error.fix,
            "exit_code": error.exit_code,
        }
    }
