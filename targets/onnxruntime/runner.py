"""Runs an ONNX model with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.inputs import check_inputs, check_threads, closed_runner, sizes_text
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
        check_threads(threads)
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
            raise closed_runner()
        check_inputs(self._inputs, inputs)
        try:
            results = self._session.run(None, dict(inputs))
        except Exception as error:  # see open_session
            raise TargetError(
                f"ONNX Runtime fails on the inputs {sizes_text(inputs)}: {explain(error)}"
            ) from error
        return {spec.name: result for spec, result in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spec(argument: Any) -> TensorSpec:
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise TargetError(
            f"{argument.name!r} is {argument.type}, and only tensors can be measured.",
            fix="Export the model with tensor inputs and outputs.",
        )
    return TensorSpec(argument.name, np.dtype(dtype), tuple(argument.shape))
