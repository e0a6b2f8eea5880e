"""Many single ops in one ONNX model: its Core ML package, interpreted, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, Source
from edgeq.targets.coreml.frontend.lower import Lowered, lower
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension

Axes = Mapping[str, Sequence[int | str]]


@dataclass(frozen=True)
class Op:
    """One node: its type (``com.microsoft.X`` for that domain), the names of its inputs, its attributes."""

    op_type: str
    inputs: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        attributes = ", ".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.op_type}({', '.join(self.inputs)}){f'[{attributes}]' if attributes else ''}"


@dataclass(frozen=True)
class Run:
    """What ONNX Runtime and the package give for each op, in the order of the ops."""

    ops: Sequence[Op]
    wanted: list[Array]
    got: list[Array]

    def check(self, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
        """Shape, dtype and numbers of every op, all differences in one message."""
        found = [
            f"{op}: {why}"
            for op, w, g in zip(self.ops, self.wanted, self.got, strict=True)
            if (why := _difference(w, g, rtol, atol))
        ]
        assert not found, "\n".join(found)


def _difference(wanted: Array, got: Array, rtol: float, atol: float) -> str:
    if (wanted.shape, wanted.dtype) != (got.shape, got.dtype):
        return f"{got.dtype}{got.shape} instead of {wanted.dtype}{wanted.shape}"
    if wanted.dtype.kind != "f":
        return "" if np.array_equal(wanted, got) else f"{got} instead of {wanted}"
    close = np.isclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True)
    return "" if close.all() else f"{got[~close][:8]} instead of {wanted[~close][:8]}"


def model_of(
    ops: Sequence[Op], inputs: Mapping[str, Array], constants: Mapping[str, Array], axes: Axes | None = None
) -> onnx.ModelProto:
    """Opset 24; every op's output ``y0``, ``y1`` … is an output of the graph, without a type yet."""
    dynamic = axes or {}
    nodes = []
    for index, op in enumerate(ops):
        domain, _, op_type = op.op_type.rpartition(".")
        node = helper.make_node(op_type, list(op.inputs), [f"y{index}"], domain=domain, name=f"n{index}")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in op.attributes.items())
        nodes.append(node)
    graph = helper.make_graph(
        nodes,
        "ops",
        [_info(name, array, dynamic.get(name, array.shape)) for name, array in inputs.items()],
        [onnx.ValueInfoProto(name=f"y{index}") for index in range(len(ops))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _info(name: str, array: Array, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def by_onnxruntime(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs, without graph optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, {name: np.asarray(x) for name, x in inputs.items()})]


def lower_ops(
    model: onnx.ModelProto,
    results: Sequence[Array],
    *,
    ios: int = 18,
    dimensions: Mapping[str, Dimension] | None = None,
) -> Lowered:
    """Lower the model as it is, not normalized; ``results`` give the dtypes of its outputs."""
    del model.graph.output[:]
    model.graph.output.extend(_info(f"y{i}", y, None) for i, y in enumerate(results))
    return lower(
        Model(ir.from_proto(model), Source("onnx", "test", "0" * 64)), ios=ios, dimensions=dimensions
    )


def run_ops(
    ops: Sequence[Op],
    inputs: Mapping[str, Array],
    folder: Path,
    *,
    constants: Mapping[str, Array] | None = None,
    axes: Axes | None = None,
    dimensions: Mapping[str, Dimension] | None = None,
    arithmetic: Literal["float16", "float32"] = "float32",
    ios: int = 18,
    wanted: list[Array] | None = None,
) -> Run:
    """Run all ops both ways. ``axes`` names dynamic dimensions of inputs, ``dimensions`` says their sizes.

    ``wanted`` replaces ONNX Runtime where it has no kernel.
    """
    model = model_of(ops, inputs, constants or {}, axes)
    wanted = by_onnxruntime(model, inputs) if wanted is None else wanted
    lowered = lower_ops(model, wanted, ios=ios, dimensions=dimensions)
    _check_declared(lowered, wanted)
    path = folder / "ops.mlpackage"
    options = CoreMLOptions(dimensions=dict(dimensions or {}))
    folder.mkdir(exist_ok=True)
    write_package(lowered, path, ios=ios, arithmetic=arithmetic, options=options)
    feeds = to_package(lowered.signature, dict(inputs))
    results = from_package(lowered.signature, Interpreter(read_package(path)).run(feeds))
    return Run(ops, wanted, [results[f"y{index}"] for index in range(len(ops))])


def _check_declared(lowered: Lowered, wanted: Sequence[Array]) -> None:
    """The shapes that MIL infers are those of the results: numpy would broadcast where Core ML does not."""
    for declared, result in zip(lowered.program["main"].outputs, wanted, strict=True):
        shape = [size if isinstance(size, int) else None for size in declared.shape]
        assert len(shape) == max(result.ndim, 1), f"{declared.name}: {shape} instead of {result.shape}"
        for size, actual in zip(shape, result.shape or (1,), strict=True):
            assert size in (None, actual), f"{declared.name}: {shape} instead of {result.shape}"


def refusal(op: Op, inputs: Mapping[str, Array], constants: Mapping[str, Array] | None = None) -> str:
    """The reason why the op is refused; its types must be valid ONNX."""
    model = model_of([op], inputs, constants or {})
    typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    dtype = helper.tensor_dtype_to_np_dtype(typed.graph.output[0].type.tensor_type.elem_type)
    with pytest.raises(RefusedNodeError) as refused:
        lower_ops(model, [np.zeros(1, dtype)])
    return refused.value.reason
