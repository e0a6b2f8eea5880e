"""The calibration sketch: the distribution of a tensor's values in constant memory.

The top 16 bits of a float32 (sign, exponent, 7 mantissa bits) name its bucket. The 65,536 counters are a
log-spaced histogram of all values ever seen: quantiles are exact to under 1 %, sketches add up, and the order
in which values come does not matter. The exact minimum and maximum are kept beside it.
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgeq.calibration.histogram import Histogram, histogram_of
from edgeq.calibration.kernels import BUCKETS, LANES, Kernel, Lanes, Values, numpy_kernel
from edgeq.errors import DataError

Counts = npt.NDArray[np.int64]

_MAGIC: Final = b"EQSK"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sHffQQI")  # magic, version, min, max, NaN, Inf, number of filled buckets
_MOST_PENDING: Final = 2**32 - 1
_POSITIVE: Final = slice(0x7F80, 0x8000)  # Exponent 255: infinities and NaN.
_NEGATIVE: Final = slice(0xFF80, 0x10000)


class Sketch:
    """Counts, exact extremes and NaN/Inf tallies of all values given to :meth:`update`.

    ``count``, ``zeros``, ``min``, ``max`` and all quantiles are about the finite values; NaN and infinite
    values are only counted, in ``nan`` and ``inf``. Values of other dtypes are converted to float32 (a
    float64 beyond float32's range counts as infinite). Subnormals below 1e-40 count as zero in the histogram.
    """

    __slots__ = ("_histogram", "_lanes", "_pending", "_settled", "inf", "max", "min", "nan")

    def __init__(self) -> None:
        self._lanes = _lazy_zeros()
        self._pending = 0  # values in _lanes: they are moved to _settled before a 32-bit counter can overflow
        self._settled: Counts | None = None
        self._histogram: Histogram | None = None
        self.min = np.inf
        self.max = -np.inf
        self.nan = 0
        self.inf = 0

    @property
    def counts(self) -> Counts:
        """The 65,536 counters, indexed by the top 16 bits of a float32 (int64 [65536], a copy)."""
        recent: Counts = self._lanes.sum(axis=0, dtype=np.int64)
        return recent if self._settled is None else recent + self._settled

    @property
    def count(self) -> int:
        """The number of finite values seen."""
        return int(self.counts.sum())

    @property
    def zeros(self) -> int:
        """The number of zeros seen (of either sign, and subnormals below 1e-40)."""
        counts = self.counts
        return int(counts[0] + counts[0x8000])

    @property
    def non_finite(self) -> int:
        """The number of NaN and infinite values seen."""
        return self.nan + self.inf

    def update(self, array: npt.NDArray[Any], *, kernel: Kernel = numpy_kernel) -> None:
        """Add all values of ``array``: any real dtype, any shape and memory layout, also empty."""
        values = _flat_float32(array)
        if values.size == 0:
            return
        self._make_room(values.size)
        low, high = kernel(values, self._lanes)
        if not (math.isfinite(low) and math.isfinite(high)):
            values = self._set_non_finite_aside(values)
            if values.size == 0:
                return
            low, high = float(values.min()), float(values.max())
        self._extend(low, high)

    def merge(self, other: Sketch) -> Sketch:
        """A new sketch of everything that both have seen."""
        merged = Sketch()
        for part in (self, other):
            merged._settle(part.counts)
            merged._extend(part.min, part.max)
            merged.nan += part.nan
            merged.inf += part.inf
        return merged

    def histogram(self) -> Histogram:
        """The filled buckets in the order of their values, clipped to the exact extremes.

        Raises:
            DataError: no finite value was seen.
        """
        if self._histogram is None:
            self._histogram = histogram_of(self.counts, self.min, self.max)
        return self._histogram

    def quantile(self, q: float) -> float:
        """The ``q``-quantile (0 to 1) of the finite values, as ``np.quantile`` defines it, to under 1 %.

        Raises:
            DataError: no finite value was seen.
        """
        return self.histogram().quantile(q)

    def to_bytes(self) -> bytes:
        """A compact, versioned form; the same sketch gives the same bytes."""
        counts = self.counts
        filled = np.flatnonzero(counts)
        header = _HEADER.pack(_MAGIC, _VERSION, self.min, self.max, self.nan, self.inf, filled.size)
        return header + filled.astype("<u2").tobytes() + counts[filled].astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """The sketch that :meth:`to_bytes` wrote.

        Raises:
            DataError: ``data`` is no sketch, is damaged, or is of a newer version.
        """
        filled, counts, header = _parse(data)
        sketch = cls()
        settled = np.zeros(BUCKETS, np.int64)
        settled[filled] = counts
        sketch._settle(settled)
        sketch.min, sketch.max, sketch.nan, sketch.inf = header
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return (
            f"Sketch(count={self.count}, min={self.min:.6g}, max={self.max:.6g}, "
            f"non_finite={self.non_finite})"
        )

    def _extend(self, low: float, high: float) -> None:
        self.min = min(self.min, low) + 0.0  # + 0.0 turns -0.0 into 0.0
        self.max = max(self.max, high) + 0.0

    def _make_room(self, values: int) -> None:
        self._histogram = None
        if self._pending + values > _MOST_PENDING:
            self._settle(self._lanes.sum(axis=0, dtype=np.int64))
            self._lanes[:] = 0
            self._pending = 0
        self._pending += values

    def _settle(self, counts: Counts) -> None:
        self._settled = counts if self._settled is None else self._settled + counts

    def _set_non_finite_aside(self, values: Values) -> Values:
        """Move NaN and infinities from the buckets to the tallies; returns the finite values."""
        self._lanes[:, _POSITIVE] = 0
        self._lanes[:, _NEGATIVE] = 0
        self.nan += int(np.isnan(values).sum())
        self.inf += int(np.isinf(values).sum())
        finite: Values = values[np.isfinite(values)]
        return finite


def merge_all(sketches: Sequence[Sketch]) -> Sketch:
    """One sketch of everything that the ``sketches`` have seen; of a single one, that very sketch."""
    return functools.reduce(Sketch.merge, sketches) if sketches else Sketch()


def _lazy_zeros() -> Lanes:
    """Zeroed counters of which only the pages that are written take memory (a tensor fills few buckets)."""
    memory = mmap.mmap(-1, LANES * BUCKETS * 4)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint32).reshape(LANES, BUCKETS)


def _flat_float32(array: npt.NDArray[Any]) -> Values:
    if array.dtype.kind == "c":
        raise DataError(
            f"Complex values ({array.dtype}) cannot be calibrated.", fix="Calibrate a real tensor instead."
        )
    with np.errstate(over="ignore"):  # A float64 beyond float32 becomes infinite and is counted so.
        flat: Values = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
    return flat


def _parse(
    data: bytes,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint64], tuple[float, float, int, int]]:
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise DataError("This is no calibration sketch.", fix="Collect the statistics again.")
    _, version, low, high, nan, inf, filled = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise DataError(f"Unknown calibration sketch version {version}.", fix="Use the edgeq that wrote it.")
    if len(data) != _HEADER.size + 10 * filled:
        raise DataError("The calibration sketch is truncated.", fix="Collect the statistics again.")
    keys = np.frombuffer(data, "<u2", filled, _HEADER.size)
    return keys, np.frombuffer(data, "<u8", filled, _HEADER.size + 2 * filled), (low, high, nan, inf)
