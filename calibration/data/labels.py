"""Labels from files and names: ``labels.csv``, class folders, label columns."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.errors import DataError

Labels = npt.NDArray[np.int64]
FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name")
LABEL_COLUMNS = ("label", "labels", "class", "target", "category")


def number_labels(
    labels: Sequence[str], classes: Sequence[str] | None, where: str
) -> tuple[Array, list[str] | None]:
    """Class numbers of labels as written, and the class names if they were names.

    Without ``classes``: integers are the class numbers; other numbers are targets of a regression (float64);
    else the distinct names are numbered from 0 in sorted order.

    Raises:
        DataError: a label is negative, or not in ``classes``.
    """
    if classes is not None:
        return _by_name(labels, list(classes), where), list(classes)
    if all(_is_integer(label) for label in labels):
        numbers = np.array([int(label) for label in labels], dtype=np.int64)
        if numbers.size and numbers.min() < 0:
            at = int(np.argmin(numbers))
            raise DataError(f"{where}: label {numbers[at]} is negative.", fix="Labels count from 0.")
        return numbers, None
    if all(_is_number(label) for label in labels):
        return np.array([float(label) for label in labels]), None
    names = sorted(set(labels))
    return _by_name(labels, names, where), names


def _by_name(labels: Sequence[str], names: list[str], where: str) -> Labels:
    numbers = {name: number for number, name in enumerate(names)}
    for label in labels:
        if label not in numbers:
            raise DataError(
                f"{where}: label {label!r} is none of the {len(names)} declared classes.",
                fix="Correct the label, or add it to the option classes.",
            )
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_label_file(path: Path) -> dict[str, str]:
    """File name → label as written, from a CSV (``.tsv``: tab) of file and label; a header is optional.

    With a header the columns are found by name, else they are the first two.

    Raises:
        DataError: the file cannot be read, has a row without label, or lists a file twice.
    """
    rows = list(_rows(path))
    file_at, label_at, header = _columns(rows[0][1]) if rows else (0, 1, False)
    labels: dict[str, str] = {}
    for line, row in rows[header:]:
        if len(row) <= max(file_at, label_at) or not row[label_at].strip():
            raise DataError(f"{path}, line {line}: no label.", fix="Write rows as file,label.")
        name = row[file_at].strip()
        if name in labels:
            raise DataError(f"{path}, line {line}: {name} is listed twice.", fix="List every file once.")
        labels[name] = row[label_at].strip()
    return labels


def _rows(path: Path) -> Iterable[tuple[int, list[str]]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            return [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a label file: {error}.", fix="Write file,label."
        ) from error


def _columns(first: list[str]) -> tuple[int, int, bool]:
    names = [cell.strip().lower() for cell in first]
    files = [i for i, name in enumerate(names) if name in FILE_COLUMNS]
    labels = [i for i, name in enumerate(names) if name in LABEL_COLUMNS]
    if files and labels:
        return files[0], labels[0], True
    return 0, 1, False
