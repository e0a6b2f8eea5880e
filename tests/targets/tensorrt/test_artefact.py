"""Artefacts of models, and on machines, that do not suit TensorRT: said in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeq
from edgeq.benchmarks.options import BenchOptions
from edgeq.errors import TargetError
from edgeq.manifest import Manifest
from edgeq.verify import verify
from tests.support.tensorrt import needs_rtx

pytestmark = needs_rtx


def product(path: Path, *outputs: str, batch: int | str = 1) -> Path:
    """``y`` = ``x`` of 8 columns times stored weights, and whatever else ``outputs`` name."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "net",
        [value("x", TensorProto.FLOAT, [batch, 8])],
        [value(name, TensorProto.FLOAT, [batch, 8]) for name in ("y", *outputs)],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def compiled(model: Path, **data: Any) -> edgeq.CompileResult:
    return edgeq.compile(
        model, target="tensorrt", scheme="fp16", target_options={"sm": "86"}, output=model.with_suffix(""),
        bench=BenchOptions(parts=("size",)), **data,
    )  # fmt: skip


def test_float16_that_no_data_was_tried_on_is_said_to_be_unchecked(tmp_path: Path, artefact: Path) -> None:
    """Numbers of more than 65504 would be infinite in the engine."""
    data = {"x": np.ones((1, 8), np.float32)}
    checked = compiled(product(tmp_path / "net.onnx"), evaluation=data).manifest
    assert checked.checks[0].name == "float16 numbers"
    unchecked = Manifest.read(artefact)
    assert [check.name for check in unchecked.checks] == ["layer table of SM 86"]
    for manifest in (checked, unchecked):
        said = any("whether float16 holds" in note for note in manifest.notes)
        assert said == (manifest is unchecked)


@pytest.mark.parametrize("batch", [1, "N"])
def test_an_input_that_is_an_output_is_refused(tmp_path: Path, batch: int | str) -> None:
    """TensorRT for RTX builds it, with the input renamed."""
    with pytest.raises(TargetError, match="input 'x' is one of its outputs") as caught:
        compiled(product(tmp_path / "through.onnx", "x", batch=batch))
    assert "Identity" in str(caught.value.fix)
    assert [path.name for path in tmp_path.iterdir()] == ["through.onnx"]


def _cut(folder: Path) -> None:
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-20])


def _remove(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _built_elsewhere(folder: Path) -> None:
    _edit(folder, backend="tensorrt", version="11.0.0.1")


def _built_before(folder: Path) -> None:
    _edit(folder, version="1.0.0")
    layers = (folder / "layers.json").read_text(encoding="utf-8")
    (folder / "layers.json").write_text(layers.replace('"Half"', '"Float"'), encoding="utf-8")


def _edit(folder: Path, **changed: str) -> None:
    path = folder / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(product(tmp_path_factory.mktemp("artefact") / "net.onnx")).folder


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "model.onnx cannot be read"),
        (_remove, "model.onnx cannot be read"),
        (_built_elsewhere, "was built by TensorRT 11.0.0.1, which is not installed here"),
        (_built_before, "of version 1.0.0; here is 1."),
    ],
)
def test_verify_says_what_does_not_fit(
    artefact: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "copy-tensorrt"
    folder.mkdir()
    for file in artefact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damage(folder)
    failed = [check for check in verify(folder).checks if not check.passed]
    assert failed[0].name == "files"
    assert any(said in check.found or said in check.wanted for check in failed[1:]), failed
