"""Runs an ONNX model with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.inputs import check_threads, sizes_text
from edgeq.targets.loaded import LoadedRunner
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


class OnnxRuntimeRunner(LoadedRunner):
    """One session of ONNX Runtime."""

    def __init__(self, path: Path, *, threads: int | None = None, in_float: bool = False) -> None:
        """Load the model at ``path`` with ``threads`` intra-op threads (None: every usable CPU).

        ``in_float``: compute a QDQ model with float arithmetic between its roundings, as another target's
        reference.

        Raises:
            UsageError: ``threads`` is not positive.
            TargetError: ONNX Runtime cannot load the model, or it has inputs that are no tensors.
        """
        check_threads(threads)
        session: Any = open_session(path, session_options(threads, in_float=in_float))
        super().__init__(
            session,
            [_spec(argument) for argument in session.get_inputs()],
            [_spec(argument) for argument in session.get_outputs()],
        )

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        try:
            results = self._model.run(None, dict(inputs))
        except Exception as error:  # see open_session
            raise TargetError(
                f"ONNX Runtime fails on the inputs {sizes_text(inputs)}: {explain(error)}"
            ) from error
        return {spec.name: result for spec, result in zip(self._outputs, results, strict=True)}


def _spec(argument: Any) -> TensorSpec:
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise TargetError(
            f"{argument.name!r} is {argument.type}, and only tensors can be measured.",
            fix="Export the model with tensor inputs and outputs.",
        )
    return TensorSpec(argument.name, np.dtype(dtype), tuple(argument.shape))
