"""coremltools' own loader reads the packages back: every op has parameters and types that MIL takes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import onnx
import pytest
from coremltools.converters.mil.frontend.milproto import load as milproto

from edgeq.compiler.load import load
from edgeq.compiler.normalize import normalize
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.package.folder import read_spec, weights_folder
from edgeq.targets.coreml.package.write import write_package
from tests.support.coreml_artefacts import PACKAGE, compile_net, conv_net, text_net
from tests.support.coreml_cases import node_cases

SCHEMES = ["fp32", "fp16", "int8-static", "int8-weight", "int4-weight", "palettize-4", "palettize-6"]
OPS = [
    "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "CumSum",
    "DepthToSpace", "DequantizeLinear", "Elu", "Expand", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "GridSample", "GRU", "HardSigmoid", "InstanceNormalization", "LayerNormalization", "LSTM",
    "MatMul", "MaxPool", "Mod", "OneHot", "Pad", "Pow", "PRelu", "QuantizeLinear", "Range", "ReduceL2",
    "ReduceMax", "Resize", "RNN", "ScatterElements", "ScatterND", "Slice", "Softmax",
    "Split", "TopK", "Transpose", "Trilu", "Where",
]  # fmt: skip
PER_OP = 2


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The loader warns about what it rounds while it infers values."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)


def read_back(package: Path) -> None:
    """Every operation infers the type that the package declares for it; shapes where both know them."""
    spec = read_spec(package)
    with quiet():
        program = milproto.load(spec, spec.specificationVersion, str(weights_folder(package)))
        ct.models.MLModel(str(package), skip_model_load=True)
    function = spec.mlProgram.functions["main"]
    declared = {
        output.name: output.type.tensorType
        for operation in function.block_specializations[function.opset].operations
        for output in operation.outputs
    }
    found = [output for op in program.functions["main"].operations for output in op.outputs]
    compared = [_compare(output, declared[output.name]) for output in found if output.name in declared]
    assert any(compared)
    outputs = [output.name for output in program.functions["main"].outputs]
    assert set(outputs) == {port.name for port in spec.description.output}


def _compare(found: Any, declared: Any) -> bool:
    shape = [d.constant.size if d.HasField("constant") else None for d in declared.dimensions]
    sizes = [size if isinstance(size, int) else None for size in found.shape]
    assert len(sizes) == len(shape), f"{found.name}: {sizes}, declared {shape}"
    known = [(a, b) for a, b in zip(sizes, shape, strict=True) if a is not None and b is not None]
    assert all(a == b for a, b in known), f"{found.name}: {sizes}, declared {shape}"
    return True


@pytest.mark.parametrize("scheme", SCHEMES)
def test_artefacts_of_a_convolutional_net(scheme: str, tmp_path: Path) -> None:
    folder = compile_net(conv_net(tmp_path / "net.onnx"), scheme, tmp_path / "out")
    read_back(folder / PACKAGE)


@pytest.mark.parametrize("scheme", ["fp16", "int8-weight", "int4-weight", "palettize-4"])
def test_artefacts_of_a_text_net_of_any_length(scheme: str, tmp_path: Path) -> None:
    sizes = {"dimension.N": "1", "dimension.T": "1..16"}
    folder = compile_net(text_net(tmp_path / "net.onnx"), scheme, tmp_path / "out", target_options=sizes)
    read_back(folder / PACKAGE)


@pytest.mark.parametrize("op_type", OPS)
def test_node_cases(op_type: str, tmp_path: Path) -> None:
    read = 0
    for case in node_cases([op_type]):
        onnx.save(case.model, tmp_path / "model.onnx")
        try:
            lowered = lower(normalize(load(tmp_path / "model.onnx")).model, ios=18)
        except RefusedNodeError:
            continue
        write_package(lowered, tmp_path / "m.mlpackage", ios=18, arithmetic="float16")
        read_back(tmp_path / "m.mlpackage")
        read += 1
        if read == PER_OP:
            break
    assert read
