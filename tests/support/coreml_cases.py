"""ONNX's own backend node tests as Core ML cases: convert, write the package, interpret it, compare."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeq.calibration.types import Array
from edgeq.errors import EdgeqError, InternalError

Status = Literal["passed", "refused", "wrong", "error"]

# Element types that a Core ML package or its weights can have.
_PORT_TYPES = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
_QUANTIZED_TYPES = {*_PORT_TYPES, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}
_QUANTIZED_OPS = {"QuantizeLinear", "DequantizeLinear"}

# Inputs that models give as constants, and that Core ML needs so: weights, shapes, axes, bounds.
_PARAMETERS: dict[str, range | tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BatchNormalization": range(1, 5),
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "CumProd": (1,),
    "CumSum": (1,),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "GRU": (1, 2, 3, 4),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 4, 7),
    "LayerNormalization": (1, 2),
    "OneHot": (1, 2),
    "PRelu": (1,),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "RNN": (1, 2, 3, 4),
    "RMSNormalization": (1,),
    "Resize": (1, 2, 3),
    "Split": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Upsample": (1,),
}
_SHAPE_PARAMETERS: dict[str, range | tuple[int, ...]] = {
    "Expand": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    **{f"Reduce{kind}": (1,) for kind in (
        "Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One single-op test: ``model`` has its parameters as initializers, ``inputs`` are what is left."""

    name: str
    op_type: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    rtol: float
    atol: float


@dataclass(frozen=True)
class Outcome:
    """What became of a case; ``reason`` is the refusal, the difference or the exception."""

    case: Case
    status: Status
    reason: str = ""


def node_cases(ops: Iterable[str] | None = None) -> list[Case]:
    """Single-op cases over types that a package can have, of the op types ``ops`` (None: all)."""
    wanted = None if ops is None else frozenset(ops)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators of ONNX overflow on purpose
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    return [case for test in found for case in _cases(test, wanted)]


def _cases(test: Any, wanted: frozenset[str] | None) -> Iterator[Case]:
    graph = test.model.graph
    if len(graph.node) != 1 or not test.data_sets:
        return
    op_type = graph.node[0].op_type
    if (wanted is not None and op_type not in wanted) or not _expressible(graph, op_type):
        return
    arrays, expected = test.data_sets[0]
    inputs = {value.name: _array(array) for value, array in zip(graph.input, arrays, strict=True)}
    outputs = {value.name: _array(array) for value, array in zip(graph.output, expected, strict=True)}
    model = _with_parameters(test.model, op_type, inputs)
    left = {value.name: inputs[value.name] for value in model.graph.input}
    yield Case(test.name, op_type, model, left, outputs, max(test.rtol, 1e-3), max(test.atol, 1e-5))


def _array(given: Any) -> Array:
    return numpy_helper.to_array(given) if isinstance(given, TensorProto) else np.asarray(given)


def _expressible(graph: onnx.GraphProto, op_type: str) -> bool:
    allowed = _QUANTIZED_TYPES if op_type in _QUANTIZED_OPS else _PORT_TYPES
    values = [*graph.input, *graph.output]
    tensors = all(value.type.HasField("tensor_type") for value in values)
    return (
        tensors
        and graph.node[0].domain in ("", "ai.onnx")
        and {value.type.tensor_type.elem_type for value in values} <= allowed
    )


def _with_parameters(model: onnx.ModelProto, op_type: str, arrays: dict[str, Array]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = copy.graph.node[0].input
    indices = [*_PARAMETERS.get(op_type, ()), *_SHAPE_PARAMETERS.get(op_type, ())]
    if op_type in _QUANTIZED_OPS and copy.graph.input[0].type.tensor_type.elem_type not in _PORT_TYPES:
        indices.insert(0, 0)  # integers of a package are weights
    fixed = {names[index] for index in indices if index < len(names)}
    left = [value for value in copy.graph.input if value.name not in fixed]
    for value in copy.graph.input:
        if value.name in fixed:
            copy.graph.initializer.append(_tensor(arrays[value.name], value))
    del copy.graph.input[:]
    copy.graph.input.extend(left)
    return copy


def _tensor(array: Array, value: onnx.ValueInfoProto) -> TensorProto:
    dtype = value.type.tensor_type.elem_type
    if dtype in (TensorProto.INT4, TensorProto.UINT4):
        return onnx.helper.make_tensor(value.name, dtype, array.shape, array.astype(np.int8).reshape(-1))
    return numpy_helper.from_array(array, value.name)


def run_case(case: Case, *, arithmetic: Literal["float16", "float32"] = "float32", ios: int = 18) -> Outcome:
    """The way of the product: load, normalize, lower, write, read back, interpret."""
    folder = Path(tempfile.mkdtemp(prefix="edgeq-case-"))
    try:
        results = interpret(case.model, case.inputs, folder, arithmetic=arithmetic, ios=ios)
    except InternalError as error:
        return Outcome(case, "error", repr(error))
    except EdgeqError as error:
        return Outcome(case, "refused", error.what)
    except Exception as error:  # noqa: BLE001  a traceback where a refusal belongs is what this looks for
        return Outcome(case, "error", f"{type(error).__name__}: {error}"[:300])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    difference = difference_of(case, results)
    return Outcome(case, "wrong" if difference else "passed", difference)


def interpret(
    model: onnx.ModelProto,
    inputs: dict[str, Array],
    folder: Path,
    *,
    arithmetic: Literal["float16", "float32"] = "float32",
    ios: int = 18,
    dimensions: Any = None,
) -> dict[str, Array]:
    """The outputs of ``model``'s package by ONNX name, interpreted."""
    from edgeq.compiler.load import load
    from edgeq.compiler.normalize import normalize
    from edgeq.targets.coreml.frontend.lower import lower
    from edgeq.targets.coreml.interpreter.engine import Interpreter
    from edgeq.targets.coreml.interpreter.program import read_package
    from edgeq.targets.coreml.package.write import write_package
    from edgeq.targets.coreml.ports import from_package, to_package

    onnx.save(model, folder / "model.onnx")
    normalized = normalize(load(folder / "model.onnx")).model
    lowered = lower(normalized, ios=ios, dimensions=dimensions)
    write_package(lowered, folder / "model.mlpackage", ios=ios, arithmetic=arithmetic)
    interpreter = Interpreter(read_package(folder / "model.mlpackage"))
    feeds = {port.name: inputs[port.name] for port in lowered.signature.inputs}
    return from_package(lowered.signature, interpreter.run(to_package(lowered.signature, feeds)))


def difference_of(case: Case, results: dict[str, Array]) -> str:
    """Why the results are not the expected ones; empty when they are."""
    for name, wanted in case.outputs.items():
        got = results[name]
        if got.shape != wanted.shape:
            return f"{name}: shape {got.shape}, wanted {wanted.shape}"
        if got.dtype != wanted.dtype:
            return f"{name}: dtype {got.dtype}, wanted {wanted.dtype}"
        if not np.allclose(got, wanted, rtol=case.rtol, atol=case.atol, equal_nan=True):
            return f"{name}: max difference {np.abs(got.astype(float) - wanted.astype(float)).max():.3g}"
    return ""
