"""Calibration data as NNCF reads it: single inferences, read again whenever it asks."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.calibration.network import filled_up
from edgeq.calibration.types import Array, DataSource
from edgeq.compiler.model import Model
from edgeq.errors import DataError


class Singles:
    """One sample at a time (NNCF's statistics are per inference); of fixed batches as many as they take."""

    def __init__(self, model: Model, source: DataSource, limit: int) -> None:
        """``limit``: samples at most.

        Raises:
            DataError: there are none.
        """
        self._source = source
        self._fixed = model.inputs[0].fixed_batch if model.inputs else None
        self._limit = limit
        self._count = self._counted()
        if not self._count:
            raise DataError("The calibration data has no samples.", fix="Give at least one sample.")

    def _counted(self) -> int:
        if self._source.size is not None:
            return min(self._source.size, self._limit)
        return sum(1 for _ in self._source.batches(1, self._limit))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for batch in self._source.batches(1, self._limit):
            yield (filled_up(batch, self._fixed) if self._fixed else batch).inputs
