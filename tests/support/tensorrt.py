"""Engines for tests. No test process imports a compiler: it has one logger per process, and it can crash."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgeq.targets.tensorrt.backend.request import BuildRequest, InputShapes
from edgeq.targets.tensorrt.gpu.device import present

# Of a workspace's model, through the real command.
COMPILE = ("compile", "model.onnx", "--target", "tensorrt")

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX (the extra 'tensorrt-rtx') is not installed"
)


without_gpu = pytest.mark.skipif(present(), reason="what edgeq says where no GPU runs an engine")


def request(model: Path, *sm: int, engine: Path | None = None, **more: Any) -> BuildRequest:
    """A request to TensorRT for RTX, for the layer tables alone unless ``engine`` says where to write."""
    return BuildRequest(backend="tensorrt-rtx", model=model, engine=engine, sm=sm or (86,), **more)


def stored(model: onnx.ModelProto, path: Path) -> Path:
    """``path`` after ``model`` was written there."""
    onnx.save(model, path)
    return path


def sizes(least: tuple[int, ...], usual: tuple[int, ...], most: tuple[int, ...]) -> InputShapes:
    """Shapes of one input of a profile."""
    return InputShapes(min=least, opt=usual, max=most)
