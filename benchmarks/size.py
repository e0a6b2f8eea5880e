"""Size on disk of what ships."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.errors import ModelError


def measure_size(folder: Path, files: Iterable[str], baseline: Path | None) -> Measurement:
    """Bytes of ``files`` (relative to ``folder``): the native files, without manifest and report.

    ``baseline`` is the FP32 model: an ``.onnx`` file, which counts with its external data, or a folder.

    Raises:
        ModelError: a file is missing.
    """
    sizes = {name: _bytes(folder / name) for name in sorted(files)}
    reference = None if baseline is None else sum(map(_bytes, model_files(baseline)))
    info = RESOURCES["size"]
    return Measurement(
        "size", sum(sizes.values()), reference, info.unit, info.higher_is_better, detail={"files": sizes}
    )


def model_files(path: Path) -> list[Path]:
    """The files of a model: the ``.onnx`` file and its external data, or the ONNX models of a folder.

    Raises:
        ModelError: it cannot be read.
    """
    if path.is_dir():
        return sorted({file for model in sorted(path.glob("*.onnx")) for file in model_files(model)})
    return [path, *(path.parent / name for name in _external_data(path))]


def _external_data(path: Path) -> list[str]:
    """Names of the external data files, relative to the model's folder."""
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf's errors share no base class but Exception
        raise ModelError(
            f"{path} cannot be read as an ONNX model: {error}.", fix="Export it again."
        ) from error
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return sorted({str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)})


def _bytes(path: Path) -> int:
    if not path.is_file():
        raise ModelError(f"{path} is missing.", fix="Compile or export the model again.")
    return path.stat().st_size
