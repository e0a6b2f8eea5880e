"""The real ``edgeq`` command in a process of its own, and a tiny model with data for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SAMPLES, CLASSES = 48, 5


@dataclass(frozen=True)
class Workspace:
    """A folder with ``model.onnx``, ``data.npz`` (inputs and labels) and ``calib.npz`` (inputs only)."""

    folder: Path

    def edgeq(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command here; nothing of the tester's own CI environment reaches it."""
        return subprocess.run(
            command(*arguments),
            cwd=self.folder,
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def write(self, name: str, text: str) -> Path:
        """Write a text file here."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def leftovers(self) -> list[str]:
        """Hidden files and folders below here: what an interrupted run would leave."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob(".*"))


def hear_interrupts() -> None:
    """For a child before it starts: a suite run in the background hands down that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments: str) -> list[str]:
    """The command line of ``edgeq`` with this interpreter."""
    return [sys.executable, "-m", "edgeq", *arguments]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a run: not on a terminal, not in somebody's CI."""
    foreign = ("GITHUB_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return {**kept, "PYTHONWARNINGS": "default", **(extra or {})}


def make_workspace(folder: Path) -> Workspace:
    """Write the tiny model and its data into ``folder``."""
    rng = np.random.default_rng(0)
    onnx.save(tiny_model(rng), folder / "model.onnx")
    x = rng.normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    label = session.run(None, {"x": x})[0].argmax(1).astype(np.int64)
    np.savez(folder / "data.npz", x=x, label=label)
    np.savez(folder / "calib.npz", x=x[:16])
    return Workspace(folder)


def tiny_model(rng: np.random.Generator) -> onnx.ModelProto:
    """Conv, BatchNorm, residual Add, pooling and Gemm: [batch, 3, 8, 8] to [batch, 5]."""

    def weight(name: str, *shape: int, offset: float = 0.0) -> onnx.TensorProto:
        scale = 0.0 if offset else (2.0 / np.prod(shape[1:] or shape)) ** 0.5
        values = offset + (scale or 0.1) * rng.normal(size=shape)
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "wf", "bf"], ["y"], "head", transB=1),
    ]
    initializers = [
        weight("w1", 32, 3, 3, 3), weight("w2", 32, 32, 3, 3), weight("b2", 32),
        weight("g", 32, offset=1.0), weight("b", 32), weight("m", 32), weight("v", 32, offset=1.0),
        weight("wf", CLASSES, 32), weight("bf", CLASSES),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
