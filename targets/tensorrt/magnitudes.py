"""Tensors that float16 cannot hold, found by running the float32 model on real inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model, save
from edgeq.compiler.quantize.narrowing import FLOAT
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner

# A few samples do not show the largest value: float16 must hold twice what they show. Below zero there are
# attention masks, which are as large by intention.
_HIGHEST, _LOWEST = 65504.0 / 2, -65504.0


def too_large(model: Model, samples: Sequence[Arrays]) -> set[str]:
    """Names of the float32 tensors of the main graph that leave the range of float16 on ``samples``.

    ONNX Runtime's CPU kernels compute float16 graphs in float32, so a run of the float16 model would show
    nothing.

    Raises:
        TargetError: ONNX Runtime cannot run the model.
    """
    if not samples:
        return set()
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "observed.onnx"
        names = _observed(model, path)
        found: set[str] = set()
        with OnnxRuntimeRunner(path, threads=1, in_float=True) as runner:
            for sample in samples:
                found |= _beyond(runner.run(sample), names)
    return found


def _observed(model: Model, path: Path) -> set[str]:
    """Write ``model`` with every float32 tensor of its main graph as an output."""
    observed = model.clone()
    graph = observed.ir.graph
    values = [v for node in graph for v in node.outputs if v.dtype == FLOAT and v.name]
    known = set(graph.outputs)
    graph.outputs.extend(v for v in values if v not in known)
    save(observed, path)
    return {v.name or "" for v in values}


def _beyond(outputs: Mapping[str, Array], names: set[str]) -> set[str]:
    return {name for name in names if _leaves(np.asarray(outputs[name]))}


def _leaves(numbers: Array) -> bool:
    finite = numbers[np.isfinite(numbers)]
    return bool(finite.size and (finite.max() > _HIGHEST or finite.min() < _LOWEST))


def around(graph: ir.Graph, tensors: set[str]) -> dict[ir.Node, str]:
    """The nodes that make or read one of ``tensors``, with the reason to keep them in float32."""
    found: dict[ir.Node, str] = {}
    for node in graph:
        for value in (*node.outputs, *node.inputs):
            if value is not None and value.name in tensors:
                found[node] = f"{value.name!r} leaves the range of float16 on the samples"
    return found
