"""TSV, CSV and JSONL files of text: rows of one text or a pair, and a label."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeq.calibration.data.labels import LABEL_COLUMNS
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.tokens import Texts
from edgeq.errors import DataError

SUFFIXES = frozenset({".tsv", ".csv", ".jsonl"})

# Usual column names of data sets: a single text, or a pair.
SINGLE_TEXT = ("text", "sentence", "content", "review", "utterance")
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "context"),
    ("query", "passage"),
    ("text1", "text2"),
)
_KNOWN = {*SINGLE_TEXT, *LABEL_COLUMNS, *(name for pair in PAIRS for name in pair), "id", "idx", "index"}

Row = dict[str, str]


class TextTable:
    """A file of text rows. It is read from the beginning each time; no row is kept.

    Columns have the names of the header line, or of the JSON objects. Without a header they are called
    ``0``, ``1`` …; then the last column is the label if it holds an integer in every row.
    """

    def __init__(self, path: Path, options: DataOptions) -> None:
        self.path = path
        self._header = self._find_header(options)
        first = next(self._rows(), None)
        if first is None:
            raise DataError(f"{path} holds no rows.", fix="Give at least one row of text.")
        columns = list(first[1])
        self.label = self._find_label(columns, options)
        self.text = text_columns([c for c in columns if c != self.label], options, str(path))

    def texts(self) -> Iterator[Texts]:
        """The text, or the pair of texts, of every row."""
        for line, row in self._rows():
            yield tuple(self._cell(row, name, line) for name in self.text)

    def labels(self) -> list[str] | None:
        """The labels as written, None without a label column."""
        if self.label is None:
            return None
        return [self._cell(row, self.label, line) for line, row in self._rows()]

    def count(self) -> int:
        """The number of rows."""
        return sum(1 for _ in self._rows())

    def _cell(self, row: Row, name: str, line: int) -> str:
        if name in row:
            return row[name]
        raise DataError(f"{self.path}, line {line}: column {name!r} is missing.", fix="Complete the row.")

    def _find_header(self, options: DataOptions) -> list[str] | None:
        if self.path.suffix == ".jsonl":
            if options.header is not None:
                raise DataError(f"{self.path} is JSONL, which has no header.", fix="Leave header out.")
            return None
        _, first = next(self._cells(), (0, []))
        names = [cell.strip() for cell in first]
        asked = {*options.text, *([options.labels] if options.labels else [])}
        looks_like = any(name.lower() in _KNOWN or name in asked for name in names)
        return names if (options.header is None and looks_like) or options.header else None

    def _find_label(self, columns: list[str], options: DataOptions) -> str | None:
        if options.labels is not None:
            if options.labels in columns:
                return options.labels
            raise DataError(
                f"{self.path} has no label column {options.labels!r}; its columns are: {', '.join(columns)}.",
                fix="Correct the option labels.",
            )
        for name in columns:
            if name.lower() in LABEL_COLUMNS and name not in options.text:
                return name
        if self.path.suffix == ".jsonl" or self._header is not None or len(columns) < 2:
            return None
        last = columns[-1]
        whole = all(_is_integer(row.get(last, "")) for _, row in self._rows())
        return last if whole and last not in options.text else None

    def _rows(self) -> Iterator[tuple[int, Row]]:
        if self.path.suffix == ".jsonl":
            yield from self._json_rows()
            return
        for at, (line, cells) in enumerate(self._cells()):
            if self._header is None:
                yield line, {str(i): cell for i, cell in enumerate(cells)}
            elif at > 0:
                yield line, dict(zip(self._header, cells, strict=False))

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file) if self.path.suffix == ".csv" else _tab_separated(file)
                yield from ((reader.line_num, cells) for cells in reader if cells)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path} cannot be read: {error}.", fix="Write it as UTF-8 text.") from error

    def _json_rows(self) -> Iterator[tuple[int, Row]]:
        try:
            with self.path.open(encoding="utf-8-sig") as file:
                for line, text in enumerate(file, 1):
                    if text.strip():
                        yield line, self._json_row(json.loads(text), line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.path}, line {line}: no JSON: {error}.", fix="Write one object per line."
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path} cannot be read: {error}.", fix="Write it as UTF-8 text.") from error

    def _json_row(self, value: Any, line: int) -> Row:
        if not isinstance(value, dict):
            raise DataError(f"{self.path}, line {line}: no JSON object.", fix="Write one object per line.")
        return {name: str(cell) for name, cell in value.items() if isinstance(cell, (str, int, float))}


def text_columns(columns: Sequence[str], options: DataOptions, where: str) -> tuple[str, ...]:
    """The column of the text, or the two of a pair.

    Raises:
        DataError: the declared ones are missing, or none can be told.
    """
    told = ", ".join(columns) or "none"
    for name in options.text:
        if name not in columns:
            raise DataError(
                f"{where} has no text column {name!r}; its columns are: {told}.",
                fix="Correct the option text.",
            )
    if options.text:
        return options.text
    for pair in PAIRS:
        if set(pair) <= set(columns):
            return pair
    for name in SINGLE_TEXT:
        if name in columns:
            return (name,)
    if len(columns) == 1 or columns[:2] == ["0", "1"]:
        return tuple(columns[:2])
    raise DataError(
        f"{where}: cannot tell which column is the text; its columns are: {told}.",
        fix="Name it with the option text.",
    )


def _tab_separated(file: Any) -> Any:
    # Quotes are plain characters in TSV, as in all text benchmarks that use it.
    return csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()
