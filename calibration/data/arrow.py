"""Parquet files and folders, and folders of ``datasets.save_to_disk``: columns of images, arrays or text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.data.checks import Indices, conform
from edgeq.calibration.data.decode import ImageDecoder
from edgeq.calibration.data.hashing import files_sha256
from edgeq.calibration.data.labels import LABEL_COLUMNS, number_labels
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.source import RowSource, integer_labels
from edgeq.calibration.data.tables import text_columns
from edgeq.calibration.data.text import TextEncoder
from edgeq.calibration.data.text_inputs import is_text_model
from edgeq.calibration.preprocess import (
    Preprocessing,
    apply_to_array,
    assumed_preprocessing,
    preprocessed_input,
)
from edgeq.calibration.types import Array, Batch, TensorSpec
from edgeq.errors import DataError, MissingExtraError

# Rows that are decompressed at a time.
ROWS = 64


class ArrowTable:
    """Arrow data in files, read in small batches of rows: memory does not grow with the number of rows."""

    def __init__(self, root: Path, files: list[Path], reader: str) -> None:
        require_pyarrow()
        self.root = root
        self.files = files
        self._reader = reader
        self.schema: Any = self._open(files[0])[0]
        self.count = sum(self._count(file) for file in files)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches with these columns."""
        for file in self.files:
            yield from self._file_batches(file, list(columns))

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        return [value for batch in self.batches([name]) for value in batch.column(0).to_pylist()]

    def _open(self, file: Path) -> tuple[Any, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self._reader == "parquet":
                parquet = pq.ParquetFile(file)
                return parquet.schema_arrow, parquet
            stream = pa.ipc.open_stream(pa.memory_map(str(file)))
            return stream.schema, stream
        except (pa.ArrowException, OSError) as error:
            first = (str(error).splitlines() or [""])[0].rstrip(".")
            raise DataError(
                f"{file} cannot be read as {self._reader}: {first}.", fix="Write it again."
            ) from error

    def _count(self, file: Path) -> int:
        _, opened = self._open(file)
        if self._reader == "parquet":
            return int(opened.metadata.num_rows)
        return sum(len(batch) for batch in opened)

    def _file_batches(self, file: Path, columns: list[str]) -> Iterator[Any]:
        schema, opened = self._open(file)
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise DataError(f"{file} has no column {missing[0]!r}.", fix="Give files of one schema.")
        if self._reader == "parquet":
            yield from (batch.select(columns) for batch in opened.iter_batches(ROWS, columns=columns))
            return
        yield from (batch.select(columns) for batch in opened)


class ArrowSource(RowSource):
    """Rows of Arrow data as samples.

    A column named like an input (or mapped by the option ``columns``) fills it: lists and numbers as arrays,
    binary or ``{bytes, path}`` as images. A model with one input also takes the only image column. A model
    with ``input_ids`` and no such column takes text columns, tokenized.
    """

    used = frozenset({"labels", "classes", "columns", "input", "text", "max_length", "padding", "split"})

    def __init__(
        self,
        table: ArrowTable,
        kind: str,
        inputs: Sequence[TensorSpec],
        preprocessing: Preprocessing | None,
        options: DataOptions,
    ) -> None:
        self.kind = kind
        super().__init__(str(table.root), inputs, options)
        if kind == "parquet" and options.split is not None:
            raise DataError(f"{self.location} has no splits.", fix="Give the split's own files.")
        self._table = table
        if table.count == 0:
            raise DataError(f"{self.location} holds no rows.", fix="Give at least one row.")
        self._label, self._labels, self._classes = self._read_labels()
        self._encoder: TextEncoder | None = None
        self._columns: dict[str, str] = {}
        self._text: tuple[str, ...] = ()
        self.preprocessing, self.assumed = preprocessing, preprocessing is None
        self._decoders: dict[str, ImageDecoder] = {}
        if self._is_text():
            self._prepare_text()
        else:
            self._prepare_columns()

    @property
    def size(self) -> int:
        return self._table.count

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def natural_task(self) -> str:
        return "classification" if integer_labels(self._labels) else "unknown"

    def rows(self) -> Iterator[Any]:
        for batch in self._table.batches(self._text or sorted(set(self._columns.values()))):
            yield from (batch.slice(i, 1) for i in range(len(batch)))

    def assemble(self, rows: list[Any], indices: Indices) -> Batch:
        import pyarrow as pa

        labels = None if self._labels is None else self._labels[indices]
        table = pa.Table.from_batches(rows)
        if self._encoder is not None:
            texts = list(zip(*(self._texts(table, name, indices) for name in self._text), strict=True))
            return self._encoder.batch(texts, labels, indices, self.notes)
        inputs = {spec.name: self._input(table, spec, indices) for spec in self.inputs}
        return Batch(inputs, labels, len(indices))

    def sha256(self) -> str:
        return files_sha256(self._table.root, self._table.files)

    def details(self) -> dict[str, Any]:
        told: dict[str, Any] = {"columns": self._columns, "label": self._label, "classes": self._classes}
        if self._encoder is not None:
            return told | {"columns": {"text": list(self._text)}} | self._encoder.details()
        declared = None if self.preprocessing is None else self.preprocessing.model_dump(mode="json")
        return told | {"preprocessing": declared, "assumed": self.assumed}

    def _read_labels(self) -> tuple[str | None, Array | None, list[str] | None]:
        name = self._label_column()
        if name is None:
            return None, None, None
        values = self._table.column(name)
        if None in values:
            raise DataError(f"{self.location}: row {values.index(None)} has no label.", fix="Complete it.")
        labels, classes = number_labels([str(v) for v in values], self.options.classes, self.location)
        return name, labels, classes

    def _label_column(self) -> str | None:
        names = self._table.schema.names
        asked = self.options.labels
        if asked is not None and asked not in names:
            raise DataError(
                f"{self.location} has no label column {asked!r}; its columns are: {', '.join(names)}.",
                fix="Correct the option labels.",
            )
        taken = {spec.name for spec in self.inputs}
        return asked or next((name for name in LABEL_COLUMNS if name in names and name not in taken), None)

    def _is_text(self) -> bool:
        present = any(self._column_named_for(spec) is not None for spec in self.inputs)
        return bool(self.options.text) or (is_text_model(self.inputs, self.options) and not present)

    def _prepare_text(self) -> None:
        if self.preprocessing is not None:
            raise DataError(f"{self.location} is text, which takes no preprocessing.", fix="Leave it out.")
        self._encoder = TextEncoder(self.inputs, self.options, self.location)
        strings = [name for name in self._strings() if name != self._label]
        self._text = text_columns(strings, self.options, self.location)

    def _strings(self) -> list[str]:
        import pyarrow as pa

        schema = self._table.schema
        return [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]

    def _column_named_for(self, spec: TensorSpec) -> str | None:
        name = self.options.columns.get(spec.name, spec.name)
        return name if name in self._table.schema.names else None

    def _prepare_columns(self) -> None:
        for spec in self.inputs:
            self._columns[spec.name] = self._column_of(spec)
        images = [s for s in self.inputs if _is_image(self._table.schema.field(self._columns[s.name]).type)]
        for spec in images:
            if self.preprocessing is None:
                assumed, note = assumed_preprocessing(spec)
                self.notes.add(note)
                self.preprocessing = assumed
            self._decoders[spec.name] = ImageDecoder(spec, self.preprocessing)
        self._preprocessed = None
        if not images:
            self._preprocessed = preprocessed_input(self.inputs, self.preprocessing, self.options.input)

    def _column_of(self, spec: TensorSpec) -> str:
        named = self._column_named_for(spec)
        schema = self._table.schema
        images = [field.name for field in schema if _is_image(field.type)]
        if named is None and len(self.inputs) == 1 and spec.name not in self.options.columns:
            named = images[0] if len(images) == 1 else ("x" if "x" in schema.names else None)
        if named is None:
            raise DataError(
                f"{self.location} has no column for the model's input {spec.name!r}; "
                f"its columns are: {', '.join(schema.names)}.",
                fix="Name the column like the input, or map it with the option columns.",
            )
        return named

    def _texts(self, table: Any, name: str, indices: Indices) -> list[str]:
        values: list[str | None] = table.column(name).to_pylist()
        for index, value in zip(indices.tolist(), values, strict=True):
            if value is None:
                raise DataError(f"{self.location}: row {index} has no {name!r}.", fix="Complete it.")
        return [value for value in values if value is not None]

    def _input(self, table: Any, spec: TensorSpec, indices: Indices) -> Array:
        column = table.column(self._columns[spec.name])
        if spec.name in self._decoders:
            array = self._images(column, self._decoders[spec.name], indices)
        else:
            array = self._array(column, indices)
            if self.preprocessing is not None and spec.name == self._preprocessed:
                array = apply_to_array(array, self.preprocessing, spec)
        return conform(array, spec, indices, self.notes)

    def _images(self, column: Any, decoder: ImageDecoder, indices: Indices) -> Array:
        samples = []
        for index, value in zip(indices.tolist(), column.to_pylist(), strict=True):
            where = f"{self.location}, row {index}"
            samples.append(decoder.decode(self._encoded(value, where), where))
        if len({sample.shape for sample in samples}) > 1:
            raise DataError(
                f"{self.location}: images of one batch have different sizes.",
                fix="Declare resize and crop in the preprocessing.",
            )
        return np.concatenate(samples)

    def _encoded(self, value: Any, where: str) -> bytes | Path:
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(content, bytes):
            return content
        path = value.get("path") if isinstance(value, dict) else None
        if path and (self._table.root / path).is_file():
            return self._table.root / str(path)
        raise DataError(f"{where} holds no image.", fix="Store the images' bytes in the column.")

    def _array(self, column: Any, indices: Indices) -> Array:
        try:
            return to_array(column)
        except ValueError as error:
            raise DataError(
                f"{self.location}, rows {indices[0]} to {indices[-1]}: {error}.",
                fix="Give every row the same shape, without empty values.",
            ) from error


def _is_image(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return "bytes" in {field.name for field in kind}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def to_array(column: Any) -> Array:
    """A column of numbers, or of (nested) lists of one shape, as an array [rows, ...].

    Raises:
        ValueError: lists of different lengths, empty values, or neither numbers nor lists.
    """
    import pyarrow as pa

    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = [len(flat)]
    while not _is_leaf(flat):
        if isinstance(flat, pa.ExtensionArray):
            flat = flat.storage
            continue
        if flat.null_count:
            raise ValueError("a value is empty")
        lengths = np.unique(flat.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) != 1:
            raise ValueError(f"lists have different lengths ({lengths[0]} to {lengths[-1]})")
        shape.append(int(lengths[0]))
        flat = flat.flatten()
    if flat.null_count:
        raise ValueError("a value is empty")
    values = flat.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"values of type {flat.type} are no numbers")
    return np.asarray(values.reshape(shape))


def _is_leaf(array: Any) -> bool:
    import pyarrow as pa

    kind = array.type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return not isinstance(array, pa.ExtensionArray) and not any(is_list(kind) for is_list in lists)


def require_pyarrow() -> None:
    """Raise MissingExtraError unless pyarrow can be imported."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Reading Parquet and datasets folders", "parquet") from error


def open_parquet(
    path: Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, options: DataOptions
) -> ArrowSource:
    """A Parquet file, or the Parquet files of a folder and its sub-folders in sorted order."""
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    root = path.parent if path.is_file() else path
    return ArrowSource(ArrowTable(root, files, "parquet"), "parquet", inputs, preprocessing, options)


def open_datasets(
    path: Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, options: DataOptions
) -> ArrowSource:
    """A folder of ``datasets.Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``.

    Its Arrow files are memory-mapped; the ``datasets`` package itself is not needed.

    Raises:
        DataError: the folder is damaged, or a dictionary's split is not named by the option ``split``.
    """
    folder = _split_folder(path, options)
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no datasets folder: {error}.", fix="Save it again.") from error
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} was saved with an index.", fix="Save it again after flatten_indices().")
    if not files:
        raise DataError(f"{folder} holds no rows.", fix="Give at least one row.")
    return ArrowSource(ArrowTable(folder, files, "arrow"), "datasets", inputs, preprocessing, options)


def is_datasets_folder(path: Path) -> bool:
    """Whether ``datasets`` saved this folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _split_folder(path: Path, options: DataOptions) -> Path:
    if not (path / "dataset_dict.json").is_file():
        return path
    splits = sorted(p.parent.name for p in path.glob("*/state.json"))
    if options.split in splits:
        return path / options.split
    told = "was not named" if options.split is None else f"{options.split!r} is not there"
    raise DataError(
        f"{path} holds several splits and the option split {told}.", fix=f"Splits: {', '.join(splits)}."
    )
