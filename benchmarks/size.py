"""Size on disk of what ships."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource
from edgeq.benchmarks.subject import Subject
from edgeq.errors import ModelError


def measure_size(subject: Subject, baseline: Subject | None) -> Measurement:
    """Bytes of the files that ship: native files, without manifest and report.

    Raises:
        ModelError: a file is missing.
    """
    sizes = file_sizes(subject)
    reference = None if baseline is None else sum(file_sizes(baseline).values())
    return resource("size", sum(sizes.values()), reference, detail={"files": sizes})


def file_sizes(subject: Subject) -> dict[str, int]:
    """Bytes of every file that ships, by name.

    Raises:
        ModelError: one is missing.
    """
    path = subject.path
    if path.suffix != ".onnx" or path.is_dir():
        return {name: _bytes(path / name) for name in sorted(subject.files)}
    files = [path, *(path.parent / name for name in _external_data(path))]
    return {file.name: _bytes(file) for file in files}


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
