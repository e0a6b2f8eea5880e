from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.compiler.quantize.int8_weight import quantize_int8_weight
from edgeq.compiler.recipe import Recipe
from tests.support.weight_models import CAPS, build, constants, node, random, run, sqnr, verified

RECIPE = Recipe(scheme="int8-weight")

# name → (node, input, its shape, constants)
OPS: dict[str, tuple[Any, list[int], dict[str, Any]]] = {
    "Conv": (
        node("Conv", ["x", "w", "b"], ["y"], name="op", pads=[1, 1, 1, 1]),
        [1, 8, 9, 9],
        {"w": random(16, 8, 3, 3), "b": random(16)},
    ),
    "depthwise Conv": (
        node("Conv", ["x", "w"], ["y"], name="op", group=32),
        [1, 32, 9, 9],
        {"w": random(32, 1, 3, 3)},
    ),
    "ConvTranspose": (
        node("ConvTranspose", ["x", "w"], ["y"], name="op"),
        [1, 8, 5, 5],
        {"w": random(8, 16, 3, 3)},
    ),
    "MatMul": (node("MatMul", ["x", "w"], ["y"], name="op"), [3, 64], {"w": random(64, 32)}),
    "weights on the left": (node("MatMul", ["w", "x"], ["y"], name="op"), [32, 4], {"w": random(64, 32)}),
    "batched weights": (node("MatMul", ["x", "w"], ["y"], name="op"), [4, 3, 32], {"w": random(4, 32, 24)}),
    "Gemm": (
        node("Gemm", ["x", "w", "b"], ["y"], name="op", transB=1),
        [3, 64],
        {"w": random(32, 64), "b": random(32)},
    ),
    "LSTM": (
        node("LSTM", ["x", "w", "r"], ["y"], name="op", hidden_size=16),
        [5, 2, 24],
        {"w": random(1, 64, 24, scale=0.2), "r": random(1, 64, 16, scale=0.2)},
    ),
    "GRU": (
        node("GRU", ["x", "w", "r"], ["y"], name="op", hidden_size=16),
        [5, 2, 24],
        {"w": random(1, 48, 24, scale=0.2), "r": random(1, 48, 16, scale=0.2)},
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_every_op_reads_int8_weights_at_float_speed(tmp_path: Path, name: str) -> None:
    op, shape, weights = OPS[name]
    model = build([op], {"x": ("f", shape)}, weights)
    x = random(*shape, seed=1)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    quantized = quantize_int8_weight(model, CAPS, RECIPE)
    assert sqnr(exact, run(quantized.model, tmp_path / "int8", {"x": x})["y"]) > 35
    stored = constants(tmp_path / "int8/model.onnx")
    assert not {"w", "r"} & set(stored), "the float weights are still in the file"
    assert any(a.dtype == np.int8 for a in stored.values())
    result = verified(quantized, tmp_path / "int8")["op"]
    assert (result.planned, result.actual, result.missed) == ("int8", "int8-weight", False)
    assert result.kernel.endswith("fp32 arithmetic")


def test_the_file_is_a_quarter_and_the_weights_are_what_params_say(tmp_path: Path) -> None:
    weights = random(256, 512)
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("f", ["M", 256])}, {"w": weights})
    quantized = quantize_int8_weight(model, CAPS, RECIPE)
    found = run(quantized.model, tmp_path, {"x": np.eye(256, dtype=np.float32)})["y"]
    assert (tmp_path / "model.onnx").stat().st_size == pytest.approx(256 * 512 + 4 * 512, rel=0.01)
    params = quantized.params["w"]
    assert params.spec.dtype == "int8"
    codes = found / params.scale
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    assert np.abs(codes).max() <= 127.001


def test_accuracy_level_4_computes_in_int8_blocks(tmp_path: Path) -> None:
    weights = random(256, 64)
    model = build([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", 256])}, {"w": weights})
    quantized = quantize_int8_weight(model, CAPS, Recipe(scheme="int8-weight", accuracy_level=4))
    x = random(4, 256, seed=1)
    assert sqnr(x @ weights, run(quantized.model, tmp_path, {"x": x})["y"]) > 35
    result = verified(quantized, tmp_path)["mm"]
    assert (result.actual, result.kernel) == ("int8", "MatMulNBits (8 bits, block 32, int8 activations)")


def test_embeddings_stay_int8_in_memory(tmp_path: Path) -> None:
    table = random(100, 32)
    model = build([node("Gather", ["w", "i"], ["y"], name="emb")], {"i": ("i", ["B", "T"])}, {"w": table})
    quantized = quantize_int8_weight(model, CAPS, RECIPE)
    indices = np.array([[0, 99], [-1, 5]])
    assert sqnr(table[indices], run(quantized.model, tmp_path, {"i": indices})["y"]) > 40
    assert verified(quantized, tmp_path)["emb"].actual == "int8"


def test_a_convolution_that_is_fused_with_its_activation_is_not_missed(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), node("Relu", ["c"], ["y"], name="relu")]
    model = build(nodes, {"x": ("f", [1, 16, 8, 8])}, {"w": random(16, 16, 3, 3)})
    quantized = quantize_int8_weight(model, CAPS, RECIPE)
    run(quantized.model, tmp_path, {"x": random(1, 16, 8, 8)})
    result = verified(quantized, tmp_path)["conv"]
    assert (result.actual, result.missed) == ("int8-weight", False)
    assert result.reason.endswith("fused with Relu 'relu'")


def test_dead_channels_and_huge_ranges(tmp_path: Path) -> None:
    weights = random(16, 8, 3, 3)
    weights[0] = 0
    weights[1] *= 1e6
    weights[2] *= 1e-9
    weights[3] = 1e-42
    model = build([node("Conv", ["x", "w"], ["y"])], {"x": ("f", [1, 8, 5, 5])}, {"w": weights})
    x = random(1, 8, 5, 5, seed=1)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    found = run(quantize_int8_weight(model, CAPS, RECIPE).model, tmp_path / "int8", {"x": x})["y"]
    for channel in (1, 2, 5):
        assert sqnr(exact[:, channel], found[:, channel]) > 35
    np.testing.assert_allclose(found[:, [0, 3]], 0, atol=1e-30)


def test_weights_inside_branches_are_found(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    def branch(name: str, op: str) -> Any:
        product = node("MatMul", ["x", "w"], [f"{name}_h"], name=f"{name}_mm")
        last = node(op, [f"{name}_h"], [f"{name}_y"], name=f"{name}_last")
        result = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph([product, last], name, [], [result])

    choose = node(
        "If", ["c"], ["y"], name="if", then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")
    )
    model = build([choose], {"x": ("f", [2, 64]), "c": ("b", [])}, {"w": random(64, 32)})
    quantized = quantize_int8_weight(model, CAPS, RECIPE)
    x = random(2, 64, seed=1)
    for condition in (True, False):
        feeds = {"x": x, "c": np.array(condition)}
        exact = run(model, tmp_path / "exact", feeds)["y"]
        assert sqnr(exact, run(quantized.model, tmp_path / "int8", feeds)["y"]) > 35
    results = verified(quantized, tmp_path / "int8")
    assert {results["a_mm"].planned, results["b_mm"].planned} == {"int8"}
    assert {results["a_mm"].actual, results["b_mm"].actual} == {"int8-weight"}
