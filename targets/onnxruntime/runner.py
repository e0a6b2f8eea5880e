"""Runs an ONNX model with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import DataError, TargetError, UsageError
from edgeq.targets.onnxruntime.session import explain, open_session, session_options

_DTYPES: dict[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class OnnxRuntimeRunner:
    """One session: arrays in, arrays out. Use :meth:`close` (or ``with``) to free its memory."""

    def __init__(self, path: Path, *, threads: int | None = None, in_float: bool = False) -> None:
        """Load the model at ``path`` with ``threads`` intra-op threads (None: every usable CPU).

        ``in_float``: compute a QDQ model with float arithmetic between its roundings, as another target's
        reference.

        Raises:
            UsageError: ``threads`` is not positive.
            TargetError: ONNX Runtime cannot load the model, or it has inputs that are no tensors.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads cannot run anything.", fix="Give 1 or more threads.")
        self._session: Any = open_session(path, session_options(threads, in_float=in_float))
        self._inputs = [_spec(argument) for argument in self._session.get_inputs()]
        self._outputs = [_spec(argument) for argument in self._session.get_outputs()]

    @property
    def inputs(self) -> list[TensorSpec]:
        return list(self._inputs)

    @property
    def outputs(self) -> list[TensorSpec]:
        return list(self._outputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: an input is missing, unknown, or has the wrong dtype or shape.
            TargetError: the session is closed, or ONNX Runtime fails.
        """
        if self._session is None:
            raise TargetError("The runner is closed.", fix="Open a new one.")
        check_inputs(self._inputs, inputs)
        try:
            results = self._session.run(None, dict(inputs))
        except Exception as error:  # see open_session
            raise _run_error(error, inputs) from error
        return {spec.name: result for spec, result in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_inputs(specs: list[TensorSpec], inputs: Arrays) -> None:
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


def _run_error(error: Exception, inputs: Arrays) -> TargetError:
    shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
    return TargetError(f"ONNX Runtime fails on the inputs {shapes}: {explain(error)}")


def _spec(argument: Any) -> TensorSpec:
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise TargetError(
            f"{argument.name!r} is {argument.type}, and only tensors can be measured.",
            fix="Export the model with tensor inputs and outputs.",
        )
    return TensorSpec(argument.name, np.dtype(dtype), tuple(argument.shape))


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in spec.shape or ()) + "]"


def _list(specs: list[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}{_shape(spec)}" for spec in specs) or "no inputs"
