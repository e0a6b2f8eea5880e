"""What a runner is given, compared with what its model declares; and what its errors say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import DataError, TargetError, UsageError


def check_inputs(specs: Sequence[TensorSpec], inputs: Arrays) -> None:
    """Compare ``inputs`` with what the model declares.

    Raises:
        DataError: an input is missing, unknown, or has the wrong dtype or shape.
    """
    wanted = {spec.name for spec in specs}
    missing = [spec.name for spec in specs if spec.name not in inputs]
    if missing:
        raise DataError(f"The input {missing[0]!r} is missing.", fix=f"The model wants: {_list(specs)}.")
    unknown = [name for name in inputs if name not in wanted]
    if unknown:
        raise DataError(f"The model has no input {unknown[0]!r}.", fix=f"The model wants: {_list(specs)}.")
    for spec in specs:
        _check_array(spec, inputs[spec.name])


def _check_array(spec: TensorSpec, array: Array) -> None:
    if array.dtype != spec.dtype and spec.dtype != np.dtype(object):
        raise DataError(
            f"The input {spec.name!r} is {array.dtype}, the model wants {spec.dtype}.",
            fix="Convert the array.",
        )
    if spec.shape is None:
        return
    fits = array.ndim == len(spec.shape) and all(
        not isinstance(want, int) or want == got for want, got in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"The input {spec.name!r} has the shape {list(array.shape)}, the model wants {_shape(spec)}.",
            fix="Reshape the data.",
        )


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in spec.shape or ()) + "]"


def _list(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}{_shape(spec)}" for spec in specs) or "no inputs"


def sizes_text(inputs: Arrays) -> str:
    """``image[1, 3, 224, 224], mask[1, 64]``: what a runtime has failed on."""
    return ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())


def closed_runner() -> TargetError:
    """What a runner raises that is run after it was closed."""
    return TargetError("The runner is closed.", fix="Open a new one.")


def nothing_started() -> TargetError:
    """What a runner raises that is to go on with a text and has none."""
    return TargetError("No text was started, so there is nothing to go on with.", fix="Call start first.")


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that cannot run anything; None leaves it to the runtime.

    Raises:
        UsageError: it is not positive.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot run anything.", fix="Give 1 or more threads.")
