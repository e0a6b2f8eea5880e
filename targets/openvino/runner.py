"""Runs an IR with the OpenVINO runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.inputs import check_threads, sizes_text
from edgeq.targets.loaded import LoadedRunner
from edgeq.targets.openvino.files import MODEL
from edgeq.targets.openvino.session import compile_model, explain, properties, refuse_missing
from edgeq.targets.openvino.settings import Settings


class OpenVINORunner(LoadedRunner):
    """One compiled model."""

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
        model: Any = compile_model(folder / MODEL, config)
        # The request keeps the model.
        super().__init__(
            model.create_infer_request(),
            [_spec(port) for port in model.inputs],
            [_spec(port) for port in model.outputs],
        )

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        try:
            results = self._model.infer(dict(inputs), share_inputs=True)
        except RuntimeError as error:
            raise TargetError(
                f"OpenVINO fails on the inputs {sizes_text(inputs)}: {explain(error)}"
            ) from error
        return {spec.name: np.array(results[index]) for index, spec in enumerate(self._outputs)}


def _spec(port: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    dims = None
    if not shape.rank.is_dynamic:
        dims = tuple(size.get_length() if size.is_static else None for size in shape)
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), dims)
