"""The value that the whole way works on: an ONNX model in memory plus where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from edgeq.calibration.types import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Source:
    """Where a model came from.

    ``location`` is what the user gave (a path, ``module:factory``), ``sha256`` identifies its content,
    ``details`` hold what loading found (opset, exporter, task), for the manifest.
    """

    kind: Literal["onnx", "torch", "hf"]
    location: str
    sha256: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """An ``onnx_ir.Model`` plus its source.

    The ``ir`` object is mutable: a step that changes it works on :meth:`clone` unless it made it itself.
    ``program`` is the PyTorch program that it was exported from, for targets that compile that instead: its
    inputs, flattened by its ``call_spec.in_spec``, and its outputs are in the order of the graph's.
    """

    ir: ir.Model
    source: Source
    program: ExportedProgram | None = field(default=None, repr=False, compare=False)

    @property
    def is_checkpoint(self) -> bool:
        """Whether the weights lie in a folder of files and the graph has no nodes."""
        return self.source.details.get("form") == "checkpoint"

    @property
    def inputs(self) -> list[TensorSpec]:
        """The graph inputs that are no initializers."""
        initializers = self.ir.graph.initializers
        return [_spec(v) for v in self.ir.graph.inputs if v.name not in initializers]

    @property
    def outputs(self) -> list[TensorSpec]:
        """The graph outputs."""
        return [_spec(v) for v in self.ir.graph.outputs]

    def clone(self) -> Model:
        """A copy whose graph can be changed; weights are shared, not copied."""
        return replace(self, ir=self.ir.clone())

    def without_metadata(self) -> Model:
        """A copy without exporters' stack traces and paths: an artefact's bytes must not tell of them."""
        clean = self.clone()
        ClearMetadataAndDocStringPass()(clean.ir)
        return clean


def _spec(value: ir.Value) -> TensorSpec:
    dtype = np.dtype(np.float32) if value.dtype is None else np.dtype(value.dtype.numpy())
    shape = None
    if value.shape is not None:
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    return TensorSpec(value.name or "", dtype, shape)


# A model whose initializers are larger than this is written with external data: protobuf ends at 2 GiB.
EXTERNAL_DATA_THRESHOLD = 1_500_000_000


def save(model: Model, path: Path) -> list[Path]:
    """Write ``model`` to ``path``; large weights go to ``<name>.data`` beside it.

    Returns the files written. Bytes depend on the model alone: the same model gives the same files.
    """
    total = sum(
        t.const_value.nbytes for t in model.ir.graph.initializers.values() if t.const_value is not None
    )
    if total < EXTERNAL_DATA_THRESHOLD:
        ir.save(model.ir, path)
        return [path]
    data = path.name + ".data"
    ir.save(model.ir, path, external_data=data)
    return [path, path.with_name(data)]
