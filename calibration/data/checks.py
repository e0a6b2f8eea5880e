"""Every array that leaves a data source passes here: shape, dtype, NaN and Inf against the model's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.preprocess import shape_text
from edgeq.calibration.types import Array, TensorSpec
from edgeq.errors import DataError

Indices = npt.NDArray[np.int64]


class Notes:
    """Sentences about what a source decided or converted, each once, in the order they came up."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}

    def add(self, note: str) -> None:
        self._notes.setdefault(note)

    def list(self) -> list[str]:
        return list(self._notes)


def conform(array: Array, spec: TensorSpec, indices: Indices, notes: Notes) -> Array:
    """``array`` [samples, ...] as the input ``spec`` wants it.

    ``indices`` are the samples' places in the data, for messages.

    Allowed conversions, all noted: between float widths, integers to float, and integers to another integer
    type that holds the values.

    Raises:
        DataError: shape or dtype do not fit, or a value is NaN or Inf (also after conversion).
    """
    check_shape(array.shape, spec)
    array = _converted(array, spec, indices, notes)
    check_finite(array, spec, indices)
    return np.asarray(array, order="C")


def check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Refuse sample shapes that contradict the model's fixed dimensions; the first axis is samples.

    Raises:
        DataError: with both shapes.
    """
    if spec.shape is None:
        return
    wanted = spec.shape[1:]
    given = shape[1:]
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(w, int) or w == g for w, g in zip(wanted, given, strict=True)
    )
    if not fits:
        raise DataError(
            f"Data for input {spec.name!r} has shape {shape_text(shape)}, "
            f"but the model wants {shape_text(spec.shape)}.",
            fix=_shape_fix(given, wanted),
        )


def _shape_fix(given: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> str:
    if len(given) == len(wanted) == 3 and sorted(map(str, given)) == sorted(map(str, wanted)):
        return "The axes are in another order: declare preprocessing with layout and array_layout."
    if len(given) == len(wanted) - 1:
        return "The first axis must be the samples."
    return "Give data in the model's shape, or declare preprocessing that makes it fit."


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is a floating point type, those of ml_dtypes (bfloat16, float8) included."""
    return dtype.kind == "f" or "float" in dtype.name


def _converted(array: Array, spec: TensorSpec, indices: Indices, notes: Notes) -> Array:
    have, want = array.dtype, spec.dtype
    if have == want or (have.kind in "OUS" and want.kind in "OUS"):
        return array
    if is_float(want) and (is_float(have) or have.kind in "iu"):
        # Before the cast: a finite float64 may become Inf, and the message must name the right cause.
        check_finite(array, spec, indices)
        notes.add(f"Data for input {spec.name!r} is {have} and was converted to {want}.")
        with np.errstate(over="ignore"):
            return array.astype(want)
    if have.kind in "iu" and want.kind in "iu":
        return _narrowed(array, spec, indices, notes)
    reason = "rounding it would change the data" if is_float(have) else "there is no safe conversion"
    raise DataError(
        f"Data for input {spec.name!r} is {have}, but the model wants {want}; {reason}.",
        fix=f"Store the array as {want}.",
    )


def _narrowed(array: Array, spec: TensorSpec, indices: Indices, notes: Notes) -> Array:
    limits = np.iinfo(spec.dtype)
    outside = (array < limits.min) | (array > limits.max)
    if outside.any():
        raise DataError(
            f"Data for input {spec.name!r} holds {int(array[outside].flat[0])} in sample "
            f"{int(indices[_first_sample(outside)])}, outside the range of the model's {spec.dtype}.",
            fix="Correct the data.",
        )
    notes.add(f"Data for input {spec.name!r} is {array.dtype} and was converted to {spec.dtype}.")
    return array.astype(spec.dtype)


def check_finite(array: Array, spec: TensorSpec, indices: Indices) -> None:
    """Refuse NaN and Inf.

    Raises:
        DataError: with the index of the first such sample.
    """
    if not is_float(array.dtype) or array.size == 0:
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    where = _first_sample(~finite)
    row = array[where].astype(np.float64)
    what = "NaN" if np.isnan(row).any() else "Inf"
    raise DataError(
        f"Data for input {spec.name!r} holds {what} in sample {int(indices[where])}.",
        fix="Remove or correct that sample.",
    )


def _first_sample(mask: Array) -> int:
    return int(np.argmax(mask.reshape(len(mask), -1).any(axis=1)))
