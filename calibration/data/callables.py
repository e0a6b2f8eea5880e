"""Python code that yields data: ``module:callable``, a callable, or an iterable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.data.arrays import LABEL_NAMES, as_array, checked_labels
from edgeq.calibration.data.checks import conform
from edgeq.calibration.data.hashing import file_sha256
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.source import Source, integer_labels
from edgeq.calibration.preprocess import Preprocessing, apply_to_array, preprocessed_input
from edgeq.calibration.types import Array, Batch, TensorSpec
from edgeq.errors import DataError

Make = Callable[[], Iterable[Any]]


class CallableSource(Source):
    """What a callable (called anew, without arguments, for every reading) or an iterable yields.

    Each item is a dict of arrays by input name whose first axis is samples (any number of them), and an
    optional key ``label``, ``labels`` or ``y``. The first item is read when the source is opened. Items must
    come in the same order every time; a limit keeps the first samples.

    Where the model's inputs have no common first axis (a state ``[2, N, 128]`` beside audio ``[N, 512]``, a
    scalar), an item is everything of one inference, and counts as one sample.
    """

    kind = "callable"
    used = frozenset({"labels", "columns", "input"})

    def __init__(
        self,
        location: str,
        make: Make,
        inputs: Sequence[TensorSpec],
        preprocessing: Preprocessing | None,
        options: DataOptions,
        length: int | None = None,
    ) -> None:
        super().__init__(location, inputs, options)
        self._make = make
        self._preprocessing = preprocessing
        self._preprocessed = preprocessed_input(inputs, preprocessing, options.input)
        self._whole = has_no_common_axis(inputs)
        self._size = length
        first = next(self._items(), None)
        if first is None:
            raise DataError(f"{location} yields nothing.", fix="Yield at least one dict of arrays.")
        self._has_labels = self._labels(first) is not None
        self._integers = integer_labels(self._batch(first, 0).labels)

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def has_labels(self) -> bool:
        return self._has_labels

    @property
    def natural_task(self) -> str:
        return "classification" if self._integers else "unknown"

    def read(self, batch_size: int, limit: int | None) -> Iterator[Batch]:
        """Items are cut to ``batch_size``; small items are not joined."""
        done = 0
        for item in self._items():
            batch = self._batch(item, done)
            if self._whole and (limit is None or done < limit):
                done += 1
                yield batch
                continue
            for start in range(0, batch.size, batch_size):
                left = batch.size if limit is None else limit - done
                if left <= 0:
                    return
                part = _cut(batch, start, min(start + batch_size, batch.size, start + left))
                done += part.size
                yield part

    def sha256(self) -> None:
        return None

    def details(self) -> dict[str, Any]:
        declared = None if self._preprocessing is None else self._preprocessing.model_dump(mode="json")
        return {
            "select": "first",
            "preprocessing": declared,
            "assumed": self._preprocessing is None,
            "code_sha256": _code_sha256(self._make),
        }

    def _items(self) -> Iterator[Mapping[str, Any]]:
        try:
            for at, item in enumerate(self._make()):
                if not isinstance(item, Mapping):
                    raise DataError(
                        f"{self.location} yields {type(item).__name__} as item {at}, not a dict of arrays.",
                        fix="Yield dicts: input name → array whose first axis is samples.",
                    )
                yield item
        except DataError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise DataError(
                f"{self.location} failed: {type(error).__name__}: {error}.", fix="Correct the callable."
            ) from error

    def _labels(self, item: Mapping[str, Any]) -> Array | None:
        names = {spec.name for spec in self.inputs}
        keys = (self.options.labels,) if self.options.labels is not None else LABEL_NAMES
        for key in keys:
            if key in item and key not in names:
                return checked_labels(np.atleast_1d(as_array(item[key], key)))
        return None

    def _batch(self, item: Mapping[str, Any], done: int) -> Batch:
        arrays = {spec.name: self._array(item, spec) for spec in self.inputs}
        labels = self._labels(item)
        if (labels is not None) != self._has_labels:
            raise DataError(
                f"{self.location} yields labels only for some items; sample {done} differs from the first.",
                fix="Yield a label with every item, or with none.",
            )
        size = self._common_length(arrays, labels, done)
        for spec in self.inputs:
            rows = arrays[spec.name].shape[:1] if self._whole else (size,)
            indices = np.full(rows, done) if self._whole else np.arange(done, done + size)
            arrays[spec.name] = self._conformed(arrays[spec.name], spec, indices)
        return Batch(arrays, labels, size)

    def _array(self, item: Mapping[str, Any], spec: TensorSpec) -> Array:
        name = self.options.columns.get(spec.name, spec.name)
        if name not in item and len(self.inputs) == 1 and spec.name not in self.options.columns:
            name = "x"
        if name in item:
            return as_array(item[name], name)
        raise DataError(
            f"{self.location} yields no array for the model's input {spec.name!r}; "
            f"it yields: {', '.join(sorted(map(str, item))) or 'nothing'}.",
            fix="Name the key like the input, or map it with the option columns.",
        )

    def _common_length(self, arrays: dict[str, Array], labels: Array | None, done: int) -> int:
        counted = {} if self._whole else dict(arrays)
        if labels is not None:
            counted["labels"] = labels
        if not counted:
            return 1
        lengths = {name: len(array) if array.ndim else 0 for name, array in counted.items()}
        if len(set(lengths.values())) == 1 and min(lengths.values()) > 0:
            return next(iter(lengths.values()))
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(
            f"{self.location}: the item at sample {done} holds different or no numbers of samples: {told}.",
            fix="The first axis of every array is samples; yield x[None] for a single sample.",
        )

    def _conformed(self, array: Array, spec: TensorSpec, indices: Any) -> Array:
        if self._preprocessing is not None and spec.name == self._preprocessed:
            array = apply_to_array(array, self._preprocessing, spec)
        return conform(array, spec, indices, self.notes)


def has_no_common_axis(inputs: Sequence[TensorSpec]) -> bool:
    """Whether the inputs' first dimensions are declared so that they cannot all be the samples."""
    declared = [spec.shape[0] if spec.shape else None for spec in inputs if spec.shape is not None]
    known = {dim for dim in declared if dim is not None}
    scalar = any(spec.shape == () for spec in inputs)
    return scalar or sum(isinstance(dim, int) for dim in known) > 1 or _fixed_beside_symbol(known)


def _fixed_beside_symbol(dims: set[int | str]) -> bool:
    """A fixed state beside a free batch; a fixed 1 may be the batch of both."""
    fixed = {dim for dim in dims if isinstance(dim, int)}
    return bool(dims - fixed) and bool(fixed - {1})


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    inputs = {name: array[start:stop] for name, array in batch.inputs.items()}
    return Batch(inputs, None if batch.labels is None else batch.labels[start:stop], stop - start)


def from_name(
    spec: str, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, options: DataOptions
) -> CallableSource:
    """The data that ``module:callable`` yields.

    Raises:
        DataError: it cannot be imported, is no callable, or yields what the model cannot use.
    """
    module, _, name = spec.partition(":")
    try:
        made = getattr(import_module(module), name)
    except Exception as error:  # importing runs the user's code
        raise DataError(
            f"{spec} cannot be imported: {error}.",
            fix="Give a path that exists, or module:callable of something that Python can import from here.",
        ) from error
    return from_object(made, inputs, preprocessing, options, spec)


def from_object(
    data: Any,
    inputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    options: DataOptions,
    location: str | None = None,
) -> CallableSource:
    """The data of a callable or a re-readable iterable.

    Raises:
        DataError: it is neither, or an iterator, which can be read only once.
    """
    where = location or f"{type(data).__name__} object"
    if isinstance(data, Iterator):
        raise DataError(
            f"{where} is an iterator, which can be read only once.",
            fix="Give the function that makes it, or a list.",
        )
    if callable(data):
        return CallableSource(where, data, inputs, preprocessing, options)
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        length = _items_of(data) if has_no_common_axis(inputs) else _length(data)
        return CallableSource(where, lambda: data, inputs, preprocessing, options, length)
    raise DataError(
        f"{where} is no data: neither a callable nor an iterable of dicts of arrays.",
        fix="Give a callable that yields dicts of arrays.",
    )


def _length(data: object) -> int | None:
    """The samples of a list of dicts; counting them in anything lazier would read it."""
    if not isinstance(data, (list, tuple)):
        return None
    counts = [_item_length(item) for item in data]
    return None if None in counts else sum(count for count in counts if count is not None)


def _items_of(data: object) -> int | None:
    return len(data) if isinstance(data, (list, tuple)) else None


def _item_length(item: Any) -> int | None:
    if not isinstance(item, Mapping) or not item:
        return None
    first = next(iter(item.values()))
    shape = getattr(first, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    return len(first) if isinstance(first, (list, tuple)) else None


def _code_sha256(make: Make) -> str | None:
    """Hash of the file that defines the callable: its content has no hash of its own."""
    try:
        file = inspect.getsourcefile(make)
    except TypeError:
        return None
    path = None if file is None else Path(file)
    return file_sha256(path) if path is not None and path.is_file() else None
