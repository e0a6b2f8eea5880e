"""What an artefact must compute: its ONNX model in ONNX Runtime, every op as written, on a few samples."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model, Source, save
from edgeq.errors import DataError, ModelError, TargetError
from edgeq.targets.onnxruntime.session import explain, open_session, session_options

# Names in an artefact's folder: the ONNX model that its numbers are those of, and inputs to compare both on.
REFERENCE = "reference.onnx"
SAMPLES = "samples.npz"


class Reference:
    """A session without graph optimizations: no integer kernels that saturate, no fusions that reorder."""

    def __init__(self, model: Path | bytes, threads: int | None = None) -> None:
        import onnxruntime as ort

        options = session_options(threads)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = open_session(model, options, name="the reference model")

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """All outputs by name; raises TargetError."""
        try:
            results = self._session.run(None, dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            raise TargetError(f"ONNX Runtime fails on the reference model: {explain(error)}") from error
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, results, strict=True))


def save_evidence(model: Model, samples: Sequence[Arrays], folder: Path) -> tuple[str, ...]:
    """Write the reference model and the samples into ``folder``; returns the names of the files."""
    files = [path.name for path in save(model, folder / REFERENCE)]
    return (*files, save_samples(samples, folder))


def save_samples(samples: Sequence[Arrays], folder: Path, file: str = SAMPLES) -> str:
    """Write arrays by name, of each sample, into ``folder``; returns the name of the file."""
    arrays = {f"{index}/{name}": array for index, s in enumerate(samples) for name, array in s.items()}
    # np.savez would stamp the time into the archive
    _write_npz(folder / file, arrays)
    return file


def _write_npz(path: Path, arrays: dict[str, Array]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def load_samples(folder: Path, file: str = SAMPLES) -> list[dict[str, Array]]:
    """What :func:`save_samples` wrote.

    Raises:
        ModelError: they are missing or damaged.
    """
    path = folder / file
    try:
        # numpy leaves a file that it opened itself open when it is damaged
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found: dict[int, dict[str, Array]] = {}
        for key, array in arrays.items():
            index, _, name = key.partition("/")
            found.setdefault(int(index), {})[name] = array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error
    # a model without inputs has a single result
    return [found[index] for index in sorted(found)] or [{}]


def load_reference(folder: Path) -> Model:
    """The reference model of the artefact in ``folder``.

    Raises:
        ModelError: it is missing or damaged.
    """
    return read_model(folder / REFERENCE)


def read_model(path: Path) -> Model:
    """The ONNX model of an artefact at ``path``; raises ModelError when it is missing or damaged."""
    try:
        return Model(ir.load(path), Source("onnx", str(path), ""))
    except Exception as error:  # protobuf's and onnx_ir's own exceptions
        raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error


def with_outputs(model: Model, names: Collection[str]) -> Model:
    """A copy of ``model`` whose outputs are the intermediate values ``names``."""
    copy = model.clone()
    graph = copy.ir.graph
    by_name = {output.name: output for node in graph for output in node.outputs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(f"The reference model has no value {missing[0]!r}.")
    graph.outputs.clear()
    graph.outputs.extend(by_name[name] for name in names)
    return copy
