"""What the target refuses, before anything is compiled, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgeq
from edgeq.errors import ConfigError, DataError, EdgeqError, TargetError, UsageError
from edgeq.targets.neural_compressor import package
from tests.support.cli import make_workspace
from tests.support.neural_compressor import Layers, layers_inputs, seeded


def _compile(folder: Path, model: Any = None, **changed: Any) -> None:
    asked: dict[str, Any] = {
        "target": "neural-compressor",
        "scheme": "int8-static",
        "calibration": layers_inputs(),
        "example_inputs": None if model is not None else (torch.zeros(2, 24),),
        "output": folder / "net",
        "bench": None,
    }
    edgeq.compile(model if model is not None else seeded(Layers), **(asked | changed))


def test_onnx_models_are_refused_with_the_target_that_takes_them(tmp_path: Path) -> None:
    model = make_workspace(tmp_path).folder / "model.onnx"
    with pytest.raises(TargetError) as caught:
        _compile(tmp_path, model, calibration=tmp_path / "calib.npz")
    assert caught.value.what == (
        f"Target 'neural-compressor' takes PyTorch models, and {model} is an ONNX model."
    )
    assert caught.value.fix == (
        "Give a torch module (module:factory), a .pt2 or a Hugging Face folder; or --target openvino."
    )


def test_a_missing_compiler_is_found_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(TargetError) as caught:
        _compile(tmp_path, tmp_path / "missing.onnx")
    assert str(caught.value) == (
        "Target 'neural-compressor' compiles models with a C++ compiler, and g++ is not installed. "
        "Install one (apt-get install g++), or name another one (CXX=clang++)."
    )


def test_a_named_compiler_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TargetError, match=r"and no-such-compiler is not installed\."):
        _compile(tmp_path)


def test_a_compiler_that_compiles_nothing_is_found_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(TargetError, match=r"and false cannot compile\."):
        _compile(tmp_path, tmp_path / "missing.onnx")


def test_a_full_temporary_folder_is_told_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "_CODE_SPACE", 1 << 60)
    with pytest.raises(TargetError, match=r"^Compiling needs \d+ MB in .+, and \d+ MB are free\."):
        _compile(tmp_path, scheme="fp32", calibration=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "kind", "told"),
    [
        ({"calibration": None}, DataError, "calibration data"),
        ({"calibration": {"y": np.zeros((4, 24), np.float32)}}, DataError, "'x'"),
        ({"calibration": {"x": np.zeros((4, 23), np.float32)}}, DataError, "23"),
        ({"calibration": {"x": np.full((4, 24), np.nan, np.float32)}}, DataError, "NaN"),
        ({"scheme": "fp16", "calibration": None}, UsageError, "fp16"),
        ({"scheme": "int8-weight", "calibration": None}, UsageError, "int8-weight"),
        ({"target_options": {"mode": "latency"}}, ConfigError, "mode"),
        ({"target_options": {"method": "gptq"}}, ConfigError, "int8-static"),
    ],
    ids=[
        "no data",
        "other name",
        "other shape",
        "NaN",
        "fp16",
        "int8-weight",
        "unknown option",
        "unused option",
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], kind: type[EdgeqError], told: str, tmp_path: Path
) -> None:
    with pytest.raises(EdgeqError) as caught:
        _compile(tmp_path, **changed)
    assert isinstance(caught.value, (kind, TargetError))
    assert told in str(caught.value)
    assert caught.value.fix
    assert not (tmp_path / "net-neural-compressor").exists()
