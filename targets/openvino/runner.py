"""Runs an IR with the OpenVINO runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.inputs import check_inputs, check_threads, closed_runner, sizes_text
from edgeq.targets.openvino.files import MODEL
from edgeq.targets.openvino.session import compile_model, explain, properties, refuse_missing
from edgeq.targets.openvino.settings import Settings


class OpenVINORunner:
    """One compiled model: arrays in, arrays out. Use :meth:`close` (or ``with``) to free its memory."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Compile the IR in ``folder`` with ``threads`` (None: every usable CPU).

        Raises:
            UsageError: ``threads`` is not positive.
            ModelError: the artefact is damaged.
            TargetError: OpenVINO cannot compile the model.
        """
        check_threads(threads)
        settings = Settings.read(folder)
        refuse_missing(settings.options.precision)
        config = properties(settings.options, threads)
        self._model: Any = compile_model(folder / MODEL, config)
        self._request: Any = self._model.create_infer_request()
        self._inputs = [_spec(port) for port in self._model.inputs]
        self._outputs = [_spec(port) for port in self._model.outputs]

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
            TargetError: the runner is closed, or OpenVINO fails.
        """
        if self._request is None:
            raise closed_runner()
        check_inputs(self._inputs, inputs)
        try:
            results = self._request.infer(dict(inputs), share_inputs=True)
        except RuntimeError as error:
            raise TargetError(
                f"OpenVINO fails on the inputs {sizes_text(inputs)}: {explain(error)}"
            ) from error
        return {spec.name: np.array(results[index]) for index, spec in enumerate(self._outputs)}

    def close(self) -> None:
        self._request = self._model = None

    def __enter__(self) -> OpenVINORunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spec(port: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    dims = None
    if not shape.rank.is_dynamic:
        dims = tuple(size.get_length() if size.is_static else None for size in shape)
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), dims)
