"""Keep other people's libraries quiet: they print progress, warn and log about their own internals."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

# What torch appends to its messages for people who debug torch.
_ADVICE = re.compile(
    r"For more information, run with TORCH_LOGS=\S+|If you're using (mark_dynamic|Dim\.\w+).*"
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow output, warnings, and log records up to WARNING while someone else's exporter runs.

    What matters of an export is its exception and its result; both come through.
    """
    before = logging.root.manager.disable
    sink = io.StringIO()
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def reason(error: BaseException) -> str:
    """What an exporter's exception says, as one line: its innermost cause, shortened, without its type."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    said = _ADVICE.sub("", str(error))
    lines = [line.strip(" -") for line in said.splitlines() if line.strip(" -")] or [type(error).__name__]
    text = " ".join(lines[:2])
    return (text[:297] + "…" if len(text) > 298 else text).rstrip(".")
