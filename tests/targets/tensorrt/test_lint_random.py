"""Random graphs: valid ones get no findings and run in INT8; broken ones never break the linter."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.compiler.load.onnx_file import read_onnx
from edgeq.errors import ModelError
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.lint.run import lint
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.qdq_models import QDQ, conv
from tests.support.tensorrt import needs_rtx, request
from tests.support.tensorrt_lint_cases import cases

SEEDS = range(8)
CHANNELS = 16


def convolution(g: QDQ, x: str, tag: str, rng: random.Random) -> str:
    """A Conv of one of several kinds; ``x`` is dequantized."""
    group = rng.choice([1, 1, 4, CHANNELS])
    w = g.weight(f"{tag}_w", (CHANNELS, CHANNELS // group, 3, 3), axis=rng.choice([0, -4, None]))
    inputs = [x, w, *([g.floats(f"{tag}_b", CHANNELS)] if rng.random() < 0.5 else [])]
    return g.op("Conv", inputs, f"{tag}_conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=group)


def activated(g: QDQ, x: str, tag: str, rng: random.Random) -> str:
    """Conv, activation, rounding."""
    y = convolution(g, x, tag, rng)
    y = g.op(rng.choice(["Relu", "Sigmoid", "LeakyRelu", "HardSwish"]), [y], f"{tag}_act")
    return g.qdq(y, f"{tag}_y")


def residual(g: QDQ, x: str, tag: str, rng: random.Random) -> str:
    y = g.op("Add", [convolution(g, x, tag, rng), x], f"{tag}_add")
    return g.qdq(g.op("Relu", [y], f"{tag}_relu"), f"{tag}_y")


def moved(g: QDQ, x: str, tag: str, rng: random.Random) -> str:
    """Ops that only move values, without rounding again."""
    y = g.op("Transpose", [x], f"{tag}_t", perm=[0, 1, 3, 2])
    return g.op("MaxPool", [y], f"{tag}_p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def resized(g: QDQ, x: str, tag: str, rng: random.Random) -> str:
    """Resize there and back by pooling, rounded after each."""
    scales = g.constant(f"{tag}_scales", np.array([1, 1, 2, 2], np.float32))
    y = g.op(
        "Resize", [x, "", scales], f"{tag}_r", mode="nearest", coordinate_transformation_mode="asymmetric"
    )
    y = g.op("AveragePool", [g.qdq(y, f"{tag}_m")], f"{tag}_a", kernel_shape=[2, 2], strides=[2, 2])
    return g.qdq(y, f"{tag}_y")


def joined(g: QDQ, x: str, tag: str, rng: random.Random) -> str:
    """A Concat of tensors with different scales, rounded, and halved again by a Conv."""
    other = g.qdq(g.op("Relu", [convolution(g, x, tag, rng)], f"{tag}_act"), f"{tag}_o", scale=0.05)
    y = g.qdq(g.op("Concat", [x, other], f"{tag}_cat", axis=1), f"{tag}_c", scale=0.05)
    w = g.weight(f"{tag}_w2", (CHANNELS, 2 * CHANNELS, 1, 1))
    return g.qdq(g.op("Conv", [y, w], f"{tag}_conv2", kernel_shape=[1, 1]), f"{tag}_y")


PARTS: tuple[Callable[[QDQ, str, str, random.Random], str], ...] = (
    activated, activated, residual, moved, resized, joined,
)  # fmt: skip


def valid(seed: int) -> onnx.ModelProto:
    """A network of a few random parts with a Gemm at its end."""
    rng = random.Random(seed)
    g = QDQ(rng.choice([np.float32, np.float16]), rng.choice([17, 19, 21]) if seed % 2 else 21)
    x = g.qdq(g.input("x", 1, CHANNELS, 8, 8), "x")
    for index in range(4):
        x = rng.choice(PARTS)(g, x, f"p{index}", rng)
    x = conv(g, x, g.weight("last_w", (CHANNELS, CHANNELS, 3, 3)), "last_conv")
    x = g.op("Flatten", [g.op("GlobalAveragePool", [x], "pool")], "flat")
    return g.model(g.op("Gemm", [g.qdq(x, "f"), g.weight("h", (10, CHANNELS))], "head", transB=1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("valid")
    paths = [folder / f"{seed}.onnx" for seed in SEEDS]
    for seed, path in zip(SEEDS, paths, strict=True):
        onnx.save(valid(seed), path)
    return paths


def test_valid_graphs_get_nothing_but_notes(models: list[Path]) -> None:
    for path in models:
        found = lint(read_onnx(path), TensorRTOptions(), (86, 89, 120))
        assert [f for f in found if f.outcome != "note"] == []


@needs_rtx
def test_valid_graphs_run_in_int8(models: list[Path]) -> None:
    for path, result in zip(models, build_many([request(path) for path in models]), strict=True):
        assert isinstance(result, BuildReport), result
        layers = parse_table(result.tables[86], 86).layers
        products = [layer for layer in layers if layer.kind in ("correlation", "gemm")]
        wanted = {n.name for n in onnx.load(path).graph.node if n.op_type in ("Conv", "Gemm")}
        assert {name for layer in products for name in layer.nodes} >= wanted
        # A residual Add may be in the same kernel: then a second input is float.
        assert {layer.inputs[0].dtype for layer in products} == {"Int8"}
        assert {layer.constants[0].dtype for layer in products} == {"Int8"}


def broken(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """The model with a few things removed or exchanged."""
    graph = model.graph
    for _ in range(rng.randint(1, 3)):
        node = rng.choice(graph.node)
        match rng.randint(0, 6):
            case 0 if node.input:
                node.input.pop()
            case 1 if node.input:
                node.input[rng.randrange(len(node.input))] = ""
            case 2 if node.attribute:
                node.attribute.pop()
            case 3:
                node.op_type = rng.choice(
                    ["Conv", "MatMul", "DequantizeLinear", "Pad", "Concat", "Transpose", "Cast"]
                )
            case 4 if graph.initializer:
                tensor = rng.choice(graph.initializer)
                tensor.name += "_gone"
            case 5 if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(graph.node).output[0]
            case 6:
                for attribute in node.attribute:
                    attribute.i = rng.choice([-9, 7, 3])
            case _:
                del node.output[1:]
    return model


@pytest.mark.parametrize("seed", range(5))
def test_broken_graphs_never_break_the_linter(seed: int, tmp_path: Path) -> None:
    rng, path = random.Random(seed), tmp_path / "model.onnx"
    every = list(cases())
    refused = 0
    for _ in range(60):
        onnx.save(broken(rng.choice(every).model(), rng), path)
        try:
            lint(read_onnx(path), TensorRTOptions(), (75, 86))
        except ModelError:
            refused += 1
    assert refused < 60
