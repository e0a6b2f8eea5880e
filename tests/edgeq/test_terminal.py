"""The frame around a command: messages, exit codes, what is said where."""

from __future__ import annotations

import json

import pytest
import typer

from edgeq.cli.terminal import session
from edgeq.errors import BudgetMissedError, DataError, EdgeqError, InternalError, TargetError, UsageError


@pytest.mark.parametrize(
    ("error", "code"),
    [(BudgetMissedError, 1), (UsageError, 2), (DataError, 3), (TargetError, 4), (InternalError, 5)],
)
def test_an_error_is_two_lines_and_its_exit_code(
    error: type[EdgeqError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, session():
        raise error("The thing [red] is wrong.", fix="Do the other thing.")
    assert left.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.err == "error: The thing [red] is wrong.\nfix:   Do the other thing.\n"
    assert captured.out == ""


def test_an_unexpected_error_is_one_sentence_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left, session():
        raise ZeroDivisionError("division\nby zero")
    assert left.value.exit_code == 5
    assert capsys.readouterr().err == (
        "error: Unexpected ZeroDivisionError: division by zero\n"
        "fix:   This is a defect of edgeq: repeat with --debug for the traceback.\n"
    )


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), session(debug=True):
        raise ZeroDivisionError("division by zero")
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left, session():
        raise KeyboardInterrupt
    assert left.value.exit_code == 130
    assert capsys.readouterr().err == "Interrupted: unfinished work was discarded.\n"


def test_json_mode_keeps_stdout_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    with session(json=True) as terminal:
        terminal.show("a table")
        with terminal.progress() as progress, progress.task("Working", 3) as advance:
            advance(3)
            progress.note("a decision [1, 2]")
        terminal.emit({"b": 1, "a": [None, 2.5]})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [None, 2.5], "b": 1}
    assert captured.err == "Working (3)\nnote: a decision [1, 2]\n"


def test_notes_are_remembered_so_that_they_are_not_said_twice() -> None:
    with session() as terminal:
        with terminal.progress() as progress:
            progress.note("once")
        assert terminal.said == {"once"}
