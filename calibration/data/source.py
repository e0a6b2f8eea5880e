"""What all data sources share: which samples a limit keeps, batching, and the description."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np

from edgeq.calibration.data.checks import Indices, Notes
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.types import Array, Batch, TensorSpec
from edgeq.errors import UsageError

T = TypeVar("T")


class Source(ABC):
    """Base of the data sources, itself an ``edgeq.calibration.types.DataSource``.

    ``batches`` may yield fewer samples than asked, at least in the last batch: callers of models with a
    fixed batch pad it and cut the outputs.
    """

    kind: str
    # Fields of the options that this kind of source reads, beside those that all read.
    used: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, location: str, inputs: Sequence[TensorSpec], options: DataOptions) -> None:
        self.location = location
        self.inputs = tuple(inputs)
        self.options = options
        self.notes = Notes()
        self._refuse_unused()

    @property
    @abstractmethod
    def size(self) -> int | None:
        """The number of samples, None when only reading them can tell."""

    @property
    @abstractmethod
    def has_labels(self) -> bool:
        """Whether batches carry labels."""

    @property
    def task(self) -> str:
        """``classification``, ``language-model`` or ``unknown``."""
        return self.options.task or self.natural_task

    @property
    def natural_task(self) -> str:
        """The task that the data itself suggests."""
        return "classification" if self.has_labels else "unknown"

    def _refuse_unused(self) -> None:
        for name, field in DataOptions.model_fields.items():
            # A tokenizer may come along with the model, whatever the data is.
            if name in self.used or name in ("task", "select", "tokenizer"):
                continue
            if getattr(self.options, name) != field.get_default(call_default_factory=True):
                raise UsageError(
                    f"The option {name} has no effect on data of kind {self.kind} ({self.location}).",
                    fix="Leave it out.",
                )

    @abstractmethod
    def read(self, batch_size: int, limit: int | None) -> Iterator[Batch]:
        """Yield batches; arguments are checked already."""

    @abstractmethod
    def sha256(self) -> str | None:
        """Hash of the content, None when it has none (a callable)."""

    def details(self) -> dict[str, Any]:
        """What else the manifest stores of this kind of source."""
        return {}

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of at most ``batch_size`` samples, ``limit`` samples in all.

        Raises:
            DataError: a sample cannot be read, has the wrong shape or dtype, or holds NaN or Inf.
            UsageError: ``batch_size`` or ``limit`` is below 1.
        """
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(
                f"Batch size {batch_size} and limit {limit} must be 1 or more.", fix="Correct them."
            )
        return self.read(batch_size, limit)

    def describe(self) -> dict[str, Any]:
        """Kind, location, sha256, samples, labels, task, decisions: JSON values only."""
        return {
            "kind": self.kind,
            "location": self.location,
            "sha256": self._sha256,
            "samples": self.size,
            "labels": self.has_labels,
            "task": self.task,
            "select": self.options.select,
            **self.details(),
            "notes": self.notes.list(),
        }

    @cached_property
    def _sha256(self) -> str | None:
        return self.sha256()


class IndexedSource(Source):
    """A source whose samples can be read in any order."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of samples."""

    @abstractmethod
    def load(self, indices: Indices) -> Batch:
        """The samples of these indices, in this order."""

    def read(self, batch_size: int, limit: int | None) -> Iterator[Batch]:
        chosen = choose(self.size, limit, self.options.select)
        for start in range(0, len(chosen), batch_size):
            yield self.load(chosen[start : start + batch_size])


class RowSource(Source):
    """A source that is read from its beginning, row by row, and whose length is known."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of samples."""

    @abstractmethod
    def rows(self) -> Iterator[Any]:
        """All rows from the beginning."""

    @abstractmethod
    def assemble(self, rows: list[Any], indices: Indices) -> Batch:
        """A batch of these rows; ``indices`` are their places in the data."""

    def read(self, batch_size: int, limit: int | None) -> Iterator[Batch]:
        chosen = choose(self.size, limit, self.options.select)
        picked = pick(self.rows(), chosen)
        for start in range(0, len(chosen), batch_size):
            indices = chosen[start : start + batch_size]
            yield self.assemble(list(islice(picked, len(indices))), indices)


def choose(size: int, limit: int | None, select: str) -> Indices:
    """Indices of the samples that a limit keeps, in increasing order."""
    if limit is None or limit >= size:
        return np.arange(size, dtype=np.int64)
    if select == "first":
        return np.arange(limit, dtype=np.int64)
    return np.arange(limit, dtype=np.int64) * size // limit


def pick(rows: Iterator[T], indices: Indices) -> Iterator[T]:
    """The rows at the increasing ``indices``."""
    at = 0
    for wanted in indices.tolist():
        yield from islice(rows, wanted - at, wanted - at + 1)
        at = wanted + 1


def integer_labels(labels: Array | None) -> bool:
    """Whether labels are one class number per sample."""
    return labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
