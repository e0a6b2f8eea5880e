"""What does not fit the model or the machine is refused before data is read."""

from __future__ import annotations

import pytest

from tests.support.cli import Workspace

COMPILE = ("compile", "model.onnx", "--scheme", "int8-static", "--calibration", "calib.npz")


@pytest.mark.parametrize("target", ["coreml", "openvino", "tensorrt"])
def test_an_unknown_dimension(work: Workspace, target: str) -> None:
    run = work.edgeq(*COMPILE, "--target", target, "--dimension", "nonsense=1", "--output", "out")
    assert run.returncode == 2
    assert "The model has no dynamic dimension 'nonsense'" in run.stderr
    assert "Calibrating" not in run.stdout + run.stderr


def test_a_backend_that_is_not_installed(work: Workspace) -> None:
    run = work.edgeq(*COMPILE, "--target", "tensorrt", "-O", "backend=tensorrt", "--output", "out")
    assert run.returncode == 4
    assert "The backend 'tensorrt' is not installed" in run.stderr
    assert "Calibrating" not in run.stdout + run.stderr
