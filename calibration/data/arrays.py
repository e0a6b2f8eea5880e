"""``.npz``, ``.npy`` and arrays in memory: named like the model's inputs, first axis = samples."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.data.checks import Indices, conform
from edgeq.calibration.data.hashing import arrays_sha256, file_sha256
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.source import IndexedSource, integer_labels
from edgeq.calibration.preprocess import Preprocessing, apply_to_array, preprocessed_input
from edgeq.calibration.types import Array, Batch, TensorSpec
from edgeq.errors import DataError

LABEL_NAMES = ("label", "labels", "y", "target", "targets")


class ArraySource(IndexedSource):
    """Arrays by input name, and labels.

    An array whose rank is one above its input's holds one whole input per sample (for models without a
    batch axis, or with states of another first axis): then every batch is one sample, without that axis.
    """

    kind = "arrays"
    used = frozenset({"labels", "columns", "input"})

    def __init__(
        self,
        location: str,
        arrays: Mapping[str, Array],
        inputs: Sequence[TensorSpec],
        preprocessing: Preprocessing | None = None,
        options: DataOptions | None = None,
        path: Path | None = None,
    ) -> None:
        super().__init__(location, inputs, options or DataOptions())
        self.preprocessing = preprocessing
        self._path = path
        self._by_name = dict(arrays)
        self._labels = self._find_labels()
        self._arrays = {spec.name: self._find(spec) for spec in self.inputs}
        self._size = self._common_length()
        self._preprocessed = preprocessed_input(self.inputs, preprocessing, self.options.input)
        self._whole = {spec.name for spec in self.inputs if self._holds_whole_inputs(spec)}
        self._note_assumptions()
        self._try_first_sample()

    @property
    def size(self) -> int:
        return self._size

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def natural_task(self) -> str:
        return "classification" if integer_labels(self._labels) else "unknown"

    def load(self, indices: Indices) -> Batch:
        arrays = {spec.name: self._input(spec, indices) for spec in self.inputs}
        labels = None if self._labels is None else self._labels[indices]
        return Batch(arrays, labels, len(indices))

    def read(self, batch_size: int, limit: int | None) -> Iterator[Batch]:
        return super().read(1 if self._whole else batch_size, limit)

    def sha256(self) -> str:
        return arrays_sha256(self._by_name) if self._path is None else file_sha256(self._path)

    def details(self) -> dict[str, Any]:
        declared = None if self.preprocessing is None else self.preprocessing.model_dump(mode="json")
        return {"preprocessing": declared, "assumed": self.preprocessing is None}

    def _input(self, spec: TensorSpec, indices: Indices) -> Array:
        array = np.asarray(self._arrays[spec.name][indices])
        if self.preprocessing is not None and spec.name == self._preprocessed:
            array = apply_to_array(array, self.preprocessing, spec)
        if spec.name not in self._whole:
            return conform(array, spec, indices, self.notes)
        unbatched = TensorSpec(spec.name, spec.dtype, (None, *(spec.shape or ())))
        return np.asarray(conform(array, unbatched, indices, self.notes)[0])

    def _find_labels(self) -> Array | None:
        names = {spec.name for spec in self.inputs} | set(self.options.columns.values())
        if self.options.labels is not None:
            return checked_labels(self._named(self.options.labels, "labels"))
        for name in LABEL_NAMES:
            if name in self._by_name and name not in names:
                return checked_labels(self._by_name[name])
        return None

    def _find(self, spec: TensorSpec) -> Array:
        column = self.options.columns.get(spec.name, spec.name)
        if column in self._by_name:
            return self._by_name[column]
        if spec.name in self.options.columns:
            return self._named(column, f"input {spec.name!r}")
        if len(self.inputs) == 1 and "x" in self._by_name:
            return self._by_name["x"]
        raise DataError(
            f"{self.location} has no array for the model's input {spec.name!r}; "
            f"it holds: {', '.join(sorted(self._by_name)) or 'nothing'}.",
            fix="Name the array like the input"
            + (" (or x)" if len(self.inputs) == 1 else "")
            + ", or map it with the option columns.",
        )

    def _named(self, name: str, use: str) -> Array:
        if name in self._by_name:
            return self._by_name[name]
        raise DataError(
            f"{self.location} has no array {name!r} for {use}; it holds: {', '.join(sorted(self._by_name))}.",
            fix="Correct the name in the options.",
        )

    def _common_length(self) -> int:
        arrays = dict(self._arrays)
        if self._labels is not None:
            arrays["labels"] = self._labels
        scalars = [name for name, array in arrays.items() if array.ndim == 0]
        if scalars:
            raise DataError(
                f"{self.location}: the array for {scalars[0]!r} has no axis of samples.",
                fix="Stack the samples along a first axis.",
            )
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(
                f"{self.location}: arrays have different numbers of samples: {told}.",
                fix="Give every array the same first axis.",
            )
        size = next(iter(lengths.values()), 0)
        if size == 0:
            raise DataError(f"{self.location} holds no samples.", fix="Give at least one sample.")
        return size

    def _holds_whole_inputs(self, spec: TensorSpec) -> bool:
        rank = self._arrays[spec.name].ndim
        return spec.shape is not None and rank == len(spec.shape) + 1

    def _note_assumptions(self) -> None:
        if self.preprocessing is None:
            self.notes.add("No preprocessing was declared: values are used as they are stored.")
        if self._whole:
            names = ", ".join(sorted(self._whole))
            self.notes.add(f"Each sample is a whole input for {names}: samples run one by one.")

    def _try_first_sample(self) -> None:
        # Shapes and dtypes are wrong for all samples or none: say so before any work starts.
        self.load(np.zeros(1, dtype=np.int64))


def as_array(value: Any, name: str) -> Array:
    """``value`` (an array, tensor or nested list) as a numpy array.

    Raises:
        DataError: it is none, such as nested lists of different lengths.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{name!r} is no array: {error}.", fix="Give numpy arrays.") from error


def checked_labels(labels: Array) -> Array:
    """Class numbers as int64 [samples], or other numeric labels as they are.

    Raises:
        DataError: a class number is negative, or the labels are no numbers.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        if labels.size and labels.min() < 0:
            at = int(np.argmax(labels < 0))
            raise DataError(
                f"Label {int(labels[at])} of sample {at} is negative.", fix="Labels count from 0."
            )
        return labels.astype(np.int64)
    if labels.dtype.kind not in "fiu":
        raise DataError(
            f"Labels of dtype {labels.dtype} cannot be used.",
            fix="Give labels as integers from 0, or floats.",
        )
    return labels


def open_arrays(
    path: Path,
    inputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    options: DataOptions,
) -> ArraySource:
    """Open ``.npz`` or ``.npy``.

    ``.npy`` and uncompressed members of ``.npz`` are memory-mapped: only the samples that are read take
    memory. Compressed members (``np.savez_compressed``) cannot be mapped and are loaded once.

    Raises:
        DataError: the file is damaged, or holds Python objects instead of arrays.
    """
    try:
        arrays = read_npz(path) if path.suffix == ".npz" else {"x": np.load(path, mmap_mode="r")}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, struct.error) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix}: {_first_line(error)}.",
            fix="Write it again with numpy.savez or numpy.save, without Python objects.",
        ) from error
    if path.suffix == ".npy" and len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(
            f"{path} holds one array, but the model has {len(inputs)} inputs.", fix=f"Use .npz with: {names}."
        )
    return ArraySource(str(path), arrays, inputs, preprocessing, options, path)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz``; uncompressed members are memory-mapped."""
    arrays: dict[str, Array] = {}
    npy: Any = np.lib.format
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                arrays[name] = _map_member(path, member)
            else:
                with archive.open(member) as file:
                    arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def _map_member(path: Path, member: zipfile.ZipInfo) -> Array:
    with path.open("rb") as file:
        # The local header repeats the name and has extra fields of its own: lengths at offset 26 and 28.
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        shape, fortran, dtype = _array_header(file)
        if dtype.hasobject:
            raise ValueError(f"array {member.filename} holds Python objects")
        if 0 in shape:
            return np.zeros(shape, dtype)
        order: Any = "F" if fortran else "C"
        return np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order)


def _array_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    npy: Any = np.lib.format
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = reader(file)
    return header
