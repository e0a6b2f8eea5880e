"""How far two outputs are apart, and whether float rounding explains it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.calibration.types import Array

# Relative to the largest value of an output. Merging a BatchNormalization or fusing an operator reorders
# float32 sums: an error of some units of 2^-24 ≈ 6e-8 per layer, which grows with depth; trained networks of
# 100 layers stayed below 1e-5. 1e-4 is above that and far below any wrong attribute or weight.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6
# A larger difference is still rounding when changing the inputs by 1e-6 of themselves does a tenth as much.
NOISE_FACTOR = 10.0
_HALF_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference, the same relative to the largest value, and what cannot be measured.

    ``mismatches`` counts elements that differ and have no distance (integers, booleans, strings);
    ``structure`` names a difference of shape, dtype or NaN pattern.
    """

    absolute: float
    relative: float
    mismatches: int = 0
    structure: str | None = None
    tolerance: float = RELATIVE_TOLERANCE

    @property
    def is_rounding(self) -> bool:
        small = self.absolute <= ABSOLUTE_TOLERANCE or self.relative <= self.tolerance
        return small and not self.mismatches and self.structure is None

    def explained_by(self, noise: Difference) -> bool:
        """Whether noise of this size makes the difference plausible."""
        if self.structure is not None:
            return noise.structure is not None
        if self.mismatches:
            return noise.mismatches > 0
        return self.absolute <= NOISE_FACTOR * noise.absolute

    def describe(self) -> str:
        """One phrase for an error message."""
        if self.structure is not None:
            return self.structure
        if self.mismatches:
            return f"{self.mismatches} elements differ"
        return f"largest difference {self.absolute:.3g}, {self.relative:.2%} of its largest value"


def difference(wanted: object, got: object) -> Difference:
    """Compare two outputs; sequences of tensors are compared one by one."""
    if isinstance(wanted, list) and isinstance(got, list):
        return _of_sequences(wanted, got)
    a, b = np.asarray(wanted), np.asarray(got)
    if a.shape != b.shape or a.dtype != b.dtype:
        return _structural(f"{a.dtype}{list(a.shape)} became {b.dtype}{list(b.shape)}")
    if a.dtype.kind != "f" and a.dtype.name != "bfloat16":
        return Difference(0.0, 0.0, mismatches=int(np.count_nonzero(a != b)))
    return _of_floats(a, b)


def _of_sequences(wanted: list[object], got: list[object]) -> Difference:
    if len(wanted) != len(got):
        return _structural(f"{len(wanted)} elements became {len(got)}")
    parts = [difference(a, b) for a, b in zip(wanted, got, strict=True)]
    return max(parts, key=lambda d: (not d.is_rounding, d.relative), default=Difference(0.0, 0.0))


def _structural(what: str) -> Difference:
    return Difference(float("inf"), float("inf"), structure=what)


def _of_floats(a: Array, b: Array) -> Difference:
    x, y = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isnan(x), np.isnan(y)):
        return _structural("it is NaN at other places")
    unequal = ~(np.isnan(x) | (x == y))
    if (
        not np.array_equal(np.isinf(x[unequal]), np.zeros(int(unequal.sum()), bool))
        or np.isinf(y[unequal]).any()
    ):
        return _structural("it is infinite at other places")
    absolute = float(np.abs(x[unequal] - y[unequal]).max(initial=0.0))
    scale = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
    relative = absolute / scale if scale else (0.0 if absolute == 0 else float("inf"))
    tolerance = RELATIVE_TOLERANCE if a.dtype.itemsize >= 4 else _HALF_TOLERANCE
    return Difference(absolute, relative, tolerance=tolerance)
