"""What ONNX Runtime's quantizer writes: findings beside what the compiler does."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgeq.compiler.load.onnx_file import read_onnx
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport, InputShapes
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.lint.run import lint
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.cli import make_workspace
from tests.support.foreign_models import quantize_foreign
from tests.support.tensorrt import needs_rtx, request

# Form → rules whose findings are more than notes.
FOUND = {
    "default": {"zero-point", "int32-bias"},
    "operators": {"zero-point", "integer-op"},
    "asymmetric": {"zero-point", "int32-bias"},
    "integer-bias": {"int32-bias"},
    "symmetric": set(),
    "int16": {"code-type", "int32-bias"},
    "dynamic": {"integer-op"},
}
PROFILE = InputShapes(min=(1, 3, 8, 8), opt=(1, 3, 8, 8), max=(4, 3, 8, 8))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return quantize_foreign(make_workspace(tmp_path_factory.mktemp("foreign")).folder / "model.onnx")


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name: str, foreign: dict[str, Path]) -> None:
    found = lint(read_onnx(foreign[name]), TensorRTOptions(), (86, 120))
    assert {finding.rule for finding in found if finding.outcome not in ("note", "slow")} == FOUND[name]
    assert {finding.node for finding in found} <= {node.name for node in onnx.load(foreign[name]).graph.node}


@needs_rtx
def test_what_the_compiler_does(foreign: dict[str, Path]) -> None:
    """Everything with a finding is refused; the symmetric model runs in INT8 from end to end."""
    built = build_many([request(path, profiles=({"x": PROFILE},)) for path in foreign.values()])
    for name, result in zip(foreign, built, strict=True):
        if FOUND[name]:
            assert isinstance(result, TargetError), name
            continue
        assert isinstance(result, BuildReport), result
        layers = parse_table(result.tables[86], 86).layers
        products = [layer for layer in layers if layer.kind in ("correlation", "gemm")]
        assert {name for layer in products for name in layer.nodes} >= {"conv1", "conv2", "head"}
        assert {layer.inputs[0].dtype for layer in products} == {"Int8"}
