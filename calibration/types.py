"""The data types that pass between data sources, the collecting run, the planner and the harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model input or output.

    A dimension is an int when it is fixed, a str when it is symbolic, None when nothing is known about it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None

    @property
    def fixed_batch(self) -> int | None:
        """The first dimension when it is a fixed number, else None."""
        if not self.shape or not isinstance(self.shape[0], int):
            return None
        return self.shape[0]


@dataclass(frozen=True)
class Batch:
    """Some samples: arrays named like the model's inputs, first axis = samples, and their labels.

    ``labels`` is int64 [samples] for classification, else whatever the metric understands, else None.
    ``size`` is the number of samples.
    """

    inputs: dict[str, Array]
    labels: Array | None
    size: int


class DataSource(Protocol):
    """Calibration or evaluation data. It can be read any number of times, always in the same order."""

    @property
    def size(self) -> int | None:
        """The number of samples, None when only reading them can tell."""
        ...

    @property
    def has_labels(self) -> bool: ...

    @property
    def task(self) -> str:
        """``classification``, ``language-model`` or ``unknown``: what metrics make sense."""
        ...

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of at most ``batch_size`` samples, ``limit`` samples in all.

        Raises:
            DataError: a sample cannot be read, has the wrong shape or dtype, or holds NaN or Inf.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What the manifest stores: kind, path, sha256 of the content, sample count, preprocessing."""
        ...
