from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.quantize.dynamic import quantize_dynamic
from edgeq.compiler.quantize.saturation import worst_pair
from edgeq.compiler.recipe import Recipe
from tests.support.weight_models import CAPS, build, constants, node, op_types, random, run, sqnr, verified

RECIPE = Recipe(scheme="int8-dynamic")
FULL_RANGE = Recipe(scheme="int8-dynamic", saturation_safe=False)


def exact_product(x: Array, codes: Array, scales: Array) -> npt.NDArray[np.float64]:
    """DynamicQuantizeLinear and MatMulInteger of the ONNX specification, without any saturation."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    u8 = np.clip(np.rint(x / scale) + zero, 0, 255)
    return ((u8 - zero) @ codes.astype(np.float64)) * scale * scales


@pytest.mark.parametrize("m", [1, 2, 5, 64])
@pytest.mark.parametrize("k", [256, 255])
def test_products_are_exact_even_where_kernels_without_vnni_saturate(tmp_path: Path, k: int, m: int) -> None:
    """Constant weights and full activations are the worst case: every pair adds up."""
    weights = np.abs(random(k, 128)) + 1
    model = build([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", k])}, {"w": weights})
    quantized = quantize_dynamic(model, CAPS, RECIPE)
    x = np.abs(random(m, k, seed=1)) + 2
    found = run(quantized.model, tmp_path, {"x": x})["y"]
    stored = constants(tmp_path / "model.onnx")
    codes = next(a for a in stored.values() if a.dtype == np.int8)
    scales = next(a for a in stored.values() if a.shape == (128,))
    assert worst_pair(codes.T.astype(np.int16)) <= 128
    np.testing.assert_allclose(found, exact_product(x, codes, scales), rtol=2e-5)
    result = verified(quantized, tmp_path)["mm"]
    assert (result.actual, result.kernel) == ("int8", "DynamicQuantizeMatMul")


def test_full_range_weights_are_the_users_choice(tmp_path: Path) -> None:
    weights = np.abs(random(256, 128)) + 1
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("f", ["M", 256])}, {"w": weights})
    run(quantize_dynamic(model, CAPS, FULL_RANGE).model, tmp_path, {"x": random(1, 256)})
    codes = next(a for a in constants(tmp_path / "model.onnx").values() if a.dtype == np.int8)
    assert worst_pair(codes.T.astype(np.int16)) > 128


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("bias", [None, (128,), (3, 128)])
def test_gemm_in_all_its_forms(
    tmp_path: Path, trans_b: int, alpha: float, beta: float, bias: tuple[int, ...] | None
) -> None:
    weights = random(128, 256) if trans_b else random(256, 128)
    extra = {} if bias is None else {"b": random(*bias, seed=1)}
    gemm = node("Gemm", ["x", "w", *extra], ["y"], name="fc", alpha=alpha, beta=beta, transB=trans_b)
    model = build([gemm], {"x": ("f", [3, 256])}, {"w": weights, **extra})
    x = random(3, 256, seed=2)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    quantized = quantize_dynamic(model, CAPS, RECIPE)
    assert sqnr(exact, run(quantized.model, tmp_path / "int8", {"x": x})["y"]) > 30
    assert verified(quantized, tmp_path / "int8")["fc"].actual == "int8"


def test_layers_that_read_the_same_activation_quantize_it_once(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", w], [w + "y"], name=w) for w in "qkv"]
    nodes.append(node("Sum", ["qy", "ky", "vy"], ["y"], name="sum"))
    model = build(nodes, {"x": ("f", ["M", 128])}, {w: random(128, 128, seed=ord(w)) for w in "qkv"})
    quantized = quantize_dynamic(model, CAPS, RECIPE)
    x = random(4, 128, seed=1)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    assert sqnr(exact, run(quantized.model, tmp_path / "int8", {"x": x})["y"]) > 30
    assert op_types(tmp_path / "int8/model.onnx").count("DynamicQuantizeLinear") == 1
    results = verified(quantized, tmp_path / "int8")
    assert {results[w].kernel for w in "qkv"} == {"MatMulIntegerToFloat"}


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("states", [True, False])
def test_lstm_runs_in_int8(tmp_path: Path, direction: str, states: bool) -> None:
    directions, hidden, inputs = (2 if direction == "bidirectional" else 1), 48, 40
    weights = {
        "W": random(directions, 4 * hidden, inputs, scale=0.1),
        "R": random(directions, 4 * hidden, hidden, seed=1, scale=0.1),
        "B": random(directions, 8 * hidden, seed=2, scale=0.1),
        "h0": random(directions, 3, hidden, seed=3),
        "c0": random(directions, 3, hidden, seed=4),
    }
    given = ["x", "W", "R", "B", "", "h0", "c0"] if states else ["x", "W", "R"]
    lstm = node("LSTM", given, ["y", "yh"], name="rnn", hidden_size=hidden, direction=direction)
    used = {name: array for name, array in weights.items() if name in given}
    model = build([lstm], {"x": ("f", ["T", 3, inputs])}, used, outputs=("y", "yh"))
    x = random(7, 3, inputs, seed=5)
    exact = run(model, tmp_path / "exact", {"x": x})
    quantized = quantize_dynamic(model, CAPS, RECIPE)
    found = run(quantized.model, tmp_path / "int8", {"x": x})
    assert min(sqnr(exact[name], found[name]) for name in ("y", "yh")) > 30
    assert verified(quantized, tmp_path / "int8")["rnn"].kernel == "DynamicQuantizeLSTM"
    stored = constants(tmp_path / "int8/model.onnx")
    assert sum(a.dtype == np.int8 and a.ndim == 3 for a in stored.values()) == 2


def test_what_has_no_int8_kernel_that_pays_gets_int8_weights_and_a_reason(tmp_path: Path) -> None:
    hidden = 16
    nodes = [
        node("Conv", ["x", "k"], ["c"], name="conv", kernel_shape=[3], pads=[1, 1]),
        node("Transpose", ["c"], ["t"], name="t", perm=[2, 0, 1]),
        node("GRU", ["t", "W", "R"], ["g"], name="gru", hidden_size=hidden),
        node("MatMul", ["g", "w"], ["y"], name="small"),
    ]
    weights = {
        "k": random(32, 16, 3, scale=0.1),
        "W": random(1, 3 * hidden, 32, scale=0.1),
        "R": random(1, 3 * hidden, hidden, scale=0.1),
        "w": random(hidden, 40),
    }
    model = build(nodes, {"x": ("f", [2, 16, 20])}, weights)
    quantized = quantize_dynamic(model, CAPS, RECIPE)
    x = random(2, 16, 20, seed=1)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    assert sqnr(exact, run(quantized.model, tmp_path / "int8", {"x": x})["y"]) > 30
    results = verified(quantized, tmp_path / "int8")
    for name in ("conv", "gru", "small"):
        assert (results[name].planned, results[name].actual) == ("int8", "int8-weight")
        assert "int8 weights with float arithmetic" in results[name].reason
    assert results["t"].planned == "fp32"


def test_attention_scores_stay_float(tmp_path: Path) -> None:
    model = build(
        [node("MatMul", ["a", "b"], ["y"], name="scores")],
        {"a": ("f", [2, 8, 16]), "b": ("f", [2, 16, 8])},
        {},
    )
    plan = quantize_dynamic(model, CAPS, RECIPE).plan.nodes["scores"]
    assert (plan.precision, plan.asked) == ("fp32", False)
    assert plan.reason.startswith("both operands are activations")


def test_tied_embeddings_share_their_codes(tmp_path: Path) -> None:
    table = random(300, 64)
    nodes = [
        node("Gather", ["w", "i"], ["h"], name="emb"),
        node("Transpose", ["w"], ["wt"], name="t", perm=[1, 0]),
        node("MatMul", ["h", "wt"], ["y"], name="head"),
    ]
    model = build(nodes, {"i": ("i", ["B"])}, {"w": table})
    quantized = quantize_dynamic(model, CAPS, RECIPE)
    found = run(quantized.model, tmp_path, {"i": np.arange(9)})["y"]
    assert sqnr(table[:9] @ table.T, found) > 30
    stored = [a for a in constants(tmp_path / "model.onnx").values() if a.dtype == np.int8]
    assert [a.shape for a in stored] == [(300, 64)]


def test_weights_that_callers_may_replace_are_left_alone() -> None:
    import onnx_ir as ir

    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", 128])}, {"w": random(128, 128)}
    )
    graph: ir.Graph = model.ir.graph
    graph.inputs.append(graph.initializers["w"])
    plan = quantize_dynamic(model, CAPS, RECIPE).plan.nodes["mm"]
    assert (plan.precision, plan.asked) == ("fp32", True)
    assert "callers may replace them" in plan.reason
