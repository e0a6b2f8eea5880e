from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeq.compiler.model import Model
from edgeq.compiler.quantize.fp16 import quantize_fp16
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import UsageError
from tests.support.weight_models import CAPS, build, constants, node, random, run, sqnr, verified

RECIPE = Recipe(scheme="fp16")


def precisions(quantized: Quantized) -> dict[str, str]:
    return {name: plan.precision for name, plan in quantized.plan.nodes.items()}


def small_net(scale: float = 1.0) -> Model:
    nodes = [
        node("Conv", ["x", "k"], ["c"], name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Flatten", ["r"], ["f"], name="flatten"),
        node("Gemm", ["f", "w", "b"], ["g"], name="fc"),
        node("Softmax", ["g"], ["y"], name="softmax"),
    ]
    weights = {"k": random(16, 3, 3, 3), "w": random(16 * 36, 40, scale=0.01), "b": random(40) * scale}
    return build(nodes, {"x": ("f", ["N", 3, 8, 8])}, {k: v.astype(np.float32) for k, v in weights.items()})


def test_weights_are_halved_and_inputs_and_outputs_stay_float32(tmp_path: Path) -> None:
    model = small_net()
    x = random(2, 3, 8, 8, seed=1)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    quantized = quantize_fp16(model, CAPS, RECIPE)
    found = run(quantized.model, tmp_path / "fp16", {"x": x})["y"]
    assert found.dtype == np.float32
    assert sqnr(exact, found) > 50
    assert precisions(quantized) == {
        "conv": "fp16",
        "relu": "fp16",
        "flatten": "fp16",
        "fc": "fp16",
        "softmax": "fp32",
    }
    sizes = [(tmp_path / d / "model.onnx").stat().st_size for d in ("exact", "fp16")]
    assert sizes[1] < 0.53 * sizes[0]
    assert {a.dtype for a in constants(tmp_path / "fp16/model.onnx").values()} == {np.dtype(np.float16)}


def test_the_report_says_that_the_cpu_computes_in_float32(tmp_path: Path) -> None:
    quantized = quantize_fp16(small_net(), CAPS, RECIPE)
    run(quantized.model, tmp_path, {"x": random(1, 3, 8, 8)})
    result = verified(quantized, tmp_path)["fc"]
    if result.actual == "fp32":  # an Arm CPU may have the kernel
        assert "no fp16 kernel" in result.reason
    assert any("smaller but not faster" in note for note in quantized.plan.notes)


def test_constants_beyond_the_range_keep_their_node_in_float32(tmp_path: Path) -> None:
    model = small_net(scale=1e6)
    quantized = quantize_fp16(model, CAPS, RECIPE)
    plan = quantized.plan.nodes["fc"]
    assert (plan.precision, plan.reason) == ("fp32", "its constant 'b' has values beyond 65504")
    assert any("stay float32: b." in note for note in quantized.plan.notes)
    x = random(1, 3, 8, 8)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    np.testing.assert_allclose(run(quantized.model, tmp_path / "fp16", {"x": x})["y"], exact, atol=1e-3)
    stored = constants(tmp_path / "fp16/model.onnx")
    assert stored["b"].dtype == np.float32
    assert stored["w_fp16"].dtype == np.float16, "weights of float32 nodes are stored in float16 as well"


def test_weights_that_vanish_are_counted() -> None:
    weights = random(64, 64)
    weights[0, :5] = 1e-9
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("f", ["M", 64])}, {"w": weights})
    notes = quantize_fp16(model, CAPS, RECIPE).plan.notes
    assert "5 of 4096 weights are below 3.0e-08 and become 0 in float16." in notes


def test_infinite_masks_survive(tmp_path: Path) -> None:
    mask = np.where(np.tri(8, dtype=bool), 0, -np.inf).astype(np.float32)
    nodes = [node("Add", ["x", "m"], ["a"], name="add"), node("Softmax", ["a"], ["y"], name="softmax")]
    model = build(nodes, {"x": ("f", [8, 8])}, {"m": mask})
    x = random(8, 8)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    found = run(quantize_fp16(model, CAPS, RECIPE).model, tmp_path / "fp16", {"x": x})["y"]
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_a_transpose_before_a_product_loads(tmp_path: Path) -> None:
    """ONNX Runtime 1.31 crashes (not: fails) on this in float16."""
    nodes = [
        node("Relu", ["x"], ["r"], name="relu"),
        node("Transpose", ["r"], ["t"], name="transpose", perm=[1, 0, 2]),
        node("MatMul", ["t", "w"], ["y"], name="mm"),
    ]
    model = build(nodes, {"x": ("f", [4, 3, 16])}, {"w": random(16, 16)})
    quantized = quantize_fp16(model, CAPS, RECIPE)
    x = random(4, 3, 16)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    assert sqnr(exact, run(quantized.model, tmp_path / "fp16", {"x": x})["y"]) > 50
    assert "crashes" in quantized.plan.nodes["transpose"].reason


def test_outputs_that_are_read_inside_the_graph_as_well(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="mm"),
        node("Relu", ["h"], ["r"], name="relu"),
        node("ReduceSum", ["h"], ["s"], name="sum"),
        node("Add", ["r", "s"], ["y"], name="add"),
    ]
    model = build(nodes, {"x": ("f", [2, 64])}, {"w": random(64, 64)}, outputs=("h", "y"))
    x = random(2, 64)
    exact = run(model, tmp_path / "exact", {"x": x})
    found = run(quantize_fp16(model, CAPS, RECIPE).model, tmp_path / "fp16", {"x": x})
    assert list(found) == ["h", "y"]
    assert min(sqnr(exact[name], found[name]) for name in exact) > 50


def test_branches_keep_float32_and_read_captured_values(tmp_path: Path) -> None:
    def branch(name: str, op: str) -> Any:
        result = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        nodes = [
            node("MatMul", ["h", "v"], [f"{name}_h"], name=f"{name}_mm"),
            node(op, [f"{name}_h"], [f"{name}_y"], name=f"{name}_last"),
        ]
        return helper.make_graph(nodes, name, [], [result])

    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="mm"),
        node("If", ["c"], ["z"], name="if", then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")),
        node("Tanh", ["z"], ["y"], name="tanh"),
    ]
    weights = {"w": random(32, 32), "v": random(32, 32, scale=0.1)}
    model = build(nodes, {"x": ("f", [2, 32]), "c": ("b", [])}, weights)
    quantized = quantize_fp16(model, CAPS, RECIPE)
    assert precisions(quantized)["a_mm"] == "fp32"
    for condition in (True, False):
        feeds = {"x": random(2, 32), "c": np.array(condition)}
        exact = run(model, tmp_path / "exact", feeds)["y"]
        assert sqnr(exact, run(quantized.model, tmp_path / "fp16", feeds)["y"]) > 45
    assert constants(tmp_path / "fp16/model.onnx")["v_fp16"].dtype == np.float16


def test_integers_are_left_alone(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["w", "i"], ["e"], name="emb"),
        node("Shape", ["i"], ["s"], name="shape"),
        node("Cast", ["s"], ["sf"], name="cast", to=TensorProto.FLOAT),
        node("ReduceMax", ["sf"], ["m"], name="max", keepdims=0),
        node("Mul", ["e", "m"], ["y"], name="mul"),
    ]
    model = build(nodes, {"i": ("i", ["B"])}, {"w": random(20, 64)})
    quantized = quantize_fp16(model, CAPS, RECIPE)
    assert precisions(quantized)["shape"] == "other"
    assert precisions(quantized)["cast"] == "fp32"
    indices = np.arange(6)
    exact = run(model, tmp_path / "exact", {"i": indices})["y"]
    assert sqnr(exact, run(quantized.model, tmp_path / "fp16", {"i": indices})["y"]) > 50


def test_overrides() -> None:
    keep = Recipe(scheme="fp16", overrides=(Override(match="fc", precision="fp32"),))
    assert precisions(quantize_fp16(small_net(), CAPS, keep))["fc"] == "fp32"
    force = Recipe(scheme="fp16", overrides=(Override(match="op:Softmax", precision="fp16"),))
    assert precisions(quantize_fp16(small_net(), CAPS, force))["softmax"] == "fp16"
    wrong = Recipe(scheme="fp16", overrides=(Override(match="fc", precision="int4"),))
    with pytest.raises(UsageError, match="asks for int4, which the scheme fp16 has not"):
        quantize_fp16(small_net(), CAPS, wrong)
