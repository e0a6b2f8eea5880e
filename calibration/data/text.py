"""Labelled or unlabelled texts from TSV, CSV and JSONL, tokenized when their batch is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeq.calibration.data.checks import Indices
from edgeq.calibration.data.hashing import file_sha256, files_sha256
from edgeq.calibration.data.labels import number_labels
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.source import RowSource, integer_labels
from edgeq.calibration.data.tables import TextTable
from edgeq.calibration.data.text_inputs import fill_inputs, fixed_tokens, pad
from edgeq.calibration.data.tokens import TOKENIZER_FILES, Texts, Tokenizer, load_tokenizer
from edgeq.calibration.types import Array, Batch, TensorSpec


class TextEncoder:
    """Texts → the model's inputs: tokenizes, cuts and pads as the options and the model say."""

    def __init__(self, inputs: Sequence[TensorSpec], options: DataOptions, data: str) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(options.tokenizer, data)
        self._inputs = inputs
        self._options = options
        fixed = fixed_tokens(inputs, options)
        self.max_length = fixed or options.max_length or self.tokenizer.max_length
        always = fixed is not None or options.padding == "max_length"
        self._padded_to = self.max_length if always else None

    def batch(self, rows: list[Texts], labels: Array | None, indices: Indices, notes: Any) -> Batch:
        """The batch of these texts."""
        tokens = self.tokenizer.encode(rows, self.max_length)
        padded = pad(tokens, self.tokenizer.pad_id, self._padded_to)
        inputs = fill_inputs(padded, self._inputs, self._options, indices, notes)
        return Batch(inputs, labels, len(rows))

    def details(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "tokenizer": str(self.tokenizer.path),
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer.path),
            "max_length": self.max_length,
            "padding": "batch" if self._padded_to is None else "max_length",
        }


class TextSource(RowSource):
    """A TSV, CSV or JSONL file of texts."""

    kind = "text"
    used = frozenset({"labels", "classes", "columns", "text", "header", "max_length", "padding"})

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], options: DataOptions) -> None:
        super().__init__(str(path), inputs, options)
        self._encoder = TextEncoder(inputs, options, str(path))
        self._path = path
        self._table = TextTable(path, options)
        written = self._table.labels()
        self._labels, self._classes = None, None
        if written is not None:
            self._labels, self._classes = number_labels(written, options.classes, str(path))
        self._size = self._table.count() if written is None else len(written)

    @property
    def size(self) -> int:
        return self._size

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def natural_task(self) -> str:
        return "classification" if integer_labels(self._labels) else "unknown"

    def rows(self) -> Iterator[Texts]:
        return self._table.texts()

    def assemble(self, rows: list[Any], indices: Indices) -> Batch:
        labels = None if self._labels is None else self._labels[indices]
        return self._encoder.batch(rows, labels, indices, self.notes)

    def sha256(self) -> str:
        return file_sha256(self._path)

    def details(self) -> dict[str, Any]:
        columns = {"text": list(self._table.text), "label": self._table.label}
        return {"columns": columns, "classes": self._classes, **self._encoder.details()}


def tokenizer_sha256(path: Path) -> str:
    """Hash of a tokenizer file, or of the files in a folder that transformers reads one from."""
    if path.is_file():
        return file_sha256(path)
    return files_sha256(path, [path / name for name in TOKENIZER_FILES if (path / name).is_file()])
