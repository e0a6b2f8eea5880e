from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.model import save
from edgeq.compiler.quantize.blocks import dequantize, quantize_blocks
from edgeq.compiler.quantize.int4_weight import quantize_int4_weight
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.targets.capabilities import Capabilities, Unpacked
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from tests.support.weight_models import CAPS, build, constants, node, op_types, random, run, sqnr, verified


def recipe(**options: object) -> Recipe:
    return Recipe.model_validate({"scheme": "int4-weight", **options})


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(("k", "n"), [(256, 64), (160, 48), (300, 33)])
def test_matmul_computes_with_exactly_the_stored_weights(
    tmp_path: Path, k: int, n: int, block: int, symmetric: bool
) -> None:
    weights = random(k, n)
    model = build([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", k])}, {"w": weights})
    quantized = quantize_int4_weight(model, CAPS, recipe(block_size=block, symmetric_weights=symmetric))
    blocks = quantize_blocks(np.ascontiguousarray(weights.T), 4, block, symmetric=symmetric)
    for m in (1, 7):
        x = random(m, k, seed=m)
        found = run(quantized.model, tmp_path, {"x": x})["y"]
        np.testing.assert_allclose(found, x @ dequantize(blocks, k).T, rtol=1e-4, atol=1e-3)
    assert op_types(tmp_path / "model.onnx") == ["MatMulNBits"]
    assert {a.dtype for a in constants(tmp_path / "model.onnx").values()} == {
        np.dtype(np.uint8),
        np.dtype(np.float32),
    }
    result = verified(quantized, tmp_path)["mm"]
    assert (result.planned, result.actual, result.missed) == ("int4", "int4", False)
    assert f"block {block}" in result.kernel
    assert quantized.params["w"].spec.block_size == block


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)])
@pytest.mark.parametrize("bias", [None, (64,), (1, 64), (3, 64)])
def test_gemm_in_all_its_forms(
    tmp_path: Path, trans_b: int, alpha: float, beta: float, bias: tuple[int, ...] | None
) -> None:
    weights = random(64, 128) if trans_b else random(128, 64)
    extra = {} if bias is None else {"b": random(*bias, seed=1)}
    gemm = node("Gemm", ["x", "w", *extra], ["y"], name="fc", alpha=alpha, beta=beta, transB=trans_b)
    model = build([gemm], {"x": ("f", [3, 128])}, {"w": weights, **extra})
    x = random(3, 128, seed=2)
    exact = run(model, tmp_path / "exact", {"x": x})["y"]
    quantized = quantize_int4_weight(model, CAPS, recipe())
    found = run(quantized.model, tmp_path / "int4", {"x": x})["y"]
    assert sqnr(exact, found) > 17
    assert verified(quantized, tmp_path / "int4")["fc"].actual == "int4"


def test_gemm_of_a_transposed_activation_stays_float_and_says_so(tmp_path: Path) -> None:
    gemm = node("Gemm", ["x", "w"], ["y"], name="fc", transA=1)
    model = build([gemm], {"x": ("f", [128, 3])}, {"w": random(128, 64)})
    plan = quantize_int4_weight(model, CAPS, recipe()).plan.nodes["fc"]
    assert (plan.precision, plan.asked) == ("fp32", True)
    assert "transA" in plan.reason


def test_accuracy_level_4_reaches_the_kernel_and_stays_close(tmp_path: Path) -> None:
    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", 256])}, {"w": random(256, 64)}
    )
    x = random(4, 256, seed=1)
    exact = run(quantize_int4_weight(model, CAPS, recipe()).model, tmp_path / "0", {"x": x})["y"]
    level4 = quantize_int4_weight(model, CAPS, recipe(accuracy_level=4))
    assert sqnr(exact, run(level4.model, tmp_path / "4", {"x": x})["y"]) > 35
    assert "int8 activations" in verified(level4, tmp_path / "4")["mm"].kernel


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32, 256])
@pytest.mark.parametrize("d", [64, 100, 256])
def test_embedding_rows_are_gathered_from_blocks(tmp_path: Path, d: int, block: int, symmetric: bool) -> None:
    table = random(50, d)
    model = build([node("Gather", ["w", "i"], ["y"], name="emb")], {"i": ("i", ["B", "T"])}, {"w": table})
    quantized = quantize_int4_weight(model, CAPS, recipe(block_size=block, symmetric_weights=symmetric))
    indices = np.array([[0, 49, -1], [3, 3, 7]])
    found = run(quantized.model, tmp_path, {"i": indices})["y"]
    result = verified(quantized, tmp_path)["emb"]
    if result.planned == "int8":  # 256 codes for rows of 64 or 100: no smaller than int8
        assert block == 256
        assert sqnr(table[indices], found) > 35
        return
    exact = dequantize(quantize_blocks(table, 4, block, symmetric=symmetric), d)[indices]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    assert result.actual == "int4"


def test_embedding_rows_of_odd_length_get_int8(tmp_path: Path) -> None:
    table = random(50, 33)
    model = build([node("Gather", ["w", "i"], ["y"], name="emb")], {"i": ("i", ["B"])}, {"w": table})
    quantized = quantize_int4_weight(model, CAPS, recipe())
    assert quantized.plan.nodes["emb"].precision == "int8"
    assert "even length, these have 33" in quantized.plan.nodes["emb"].reason
    found = run(quantized.model, tmp_path, {"i": np.arange(50)})["y"]
    assert sqnr(table, found) > 40


@pytest.mark.parametrize("copied", [True, False], ids=["folded copy", "Transpose"])
def test_tied_embeddings_are_stored_once(tmp_path: Path, copied: bool) -> None:
    table = random(96, 64)
    nodes = [node("Gather", ["w", "i"], ["h"], name="emb")]
    if not copied:
        nodes.append(node("Transpose", ["w"], ["wt"], name="t", perm=[1, 0]))
    nodes.append(node("MatMul", ["h", "wt"], ["y"], name="head"))
    weights = {"w": table, "wt": np.ascontiguousarray(table.T)} if copied else {"w": table}
    quantized = quantize_int4_weight(build(nodes, {"i": ("i", ["B"])}, weights), CAPS, recipe())
    exact = dequantize(quantize_blocks(table, 4, 32, symmetric=True), 64)
    found = run(quantized.model, tmp_path, {"i": np.arange(5)})["y"]
    np.testing.assert_allclose(found, exact[:5] @ exact.T, rtol=1e-4, atol=1e-3)
    stored = [a for a in constants(tmp_path / "model.onnx").values() if a.dtype == np.uint8]
    assert [a.size for a in stored] == [96 * 32]
    results = verified(quantized, tmp_path)
    assert (results["emb"].actual, results["head"].actual) == ("int4", "int4")


def test_a_weight_of_two_products_is_stored_once(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="one"),
        node("MatMul", ["h", "w"], ["y"], name="two"),
    ]
    quantized = quantize_int4_weight(
        build(nodes, {"x": ("f", ["M", 128])}, {"w": random(128, 128)}), CAPS, recipe()
    )
    run(quantized.model, tmp_path, {"x": random(2, 128)})
    assert sum(a.dtype == np.uint8 for a in constants(tmp_path / "model.onnx").values()) == 1


def test_convolutions_get_int8_and_small_products_stay_float(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "k"], ["c"], name="conv"),
        node("Flatten", ["c"], ["f"], name="flat"),
        node("MatMul", ["f", "w"], ["y"], name="small"),
    ]
    model = build(nodes, {"x": ("f", [1, 3, 3, 3])}, {"k": random(16, 3, 3, 3), "w": random(16, 2)})
    quantized = quantize_int4_weight(model, CAPS, recipe())
    precisions = {name: plan.precision for name, plan in quantized.plan.nodes.items()}
    assert precisions == {"conv": "int8", "flat": "fp32", "small": "fp32"}
    assert "would not make the file smaller" in quantized.plan.nodes["small"].reason
    run(quantized.model, tmp_path, {"x": random(1, 3, 3, 3)})
    assert verified(quantized, tmp_path)["conv"].actual == "int8-weight"


def test_blocks_much_longer_than_k_give_way_to_int8() -> None:
    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", 40])}, {"w": random(40, 200)}
    )
    plan = quantize_int4_weight(model, CAPS, recipe(block_size=256)).plan.nodes["mm"]
    assert plan.precision == "int8"
    assert plan.reason.startswith("int4 in blocks of 256 would be no smaller than int8 for 40 inputs")


def test_the_file_shrinks_to_the_bits_that_were_asked_for(tmp_path: Path) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("f", ["M", 512])}, {"w": random(512, 512)})
    quantized = quantize_int4_weight(model, CAPS, recipe(block_size=32))
    run(quantized.model, tmp_path, {"x": random(1, 512)})
    size = (tmp_path / "model.onnx").stat().st_size
    assert size == pytest.approx(512 * 512 * (0.5 + 4 / 32), rel=0.01)


def test_the_same_model_gives_the_same_bytes_and_the_original_is_untouched(tmp_path: Path) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("f", ["M", 64])}, {"w": random(64, 64)})
    for name in ("a", "b"):
        run(quantize_int4_weight(model, CAPS, recipe()).model, tmp_path / name, {"x": random(1, 64)})
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()
    assert [n.op_type for n in model.ir.graph] == ["MatMul"]
    assert list(model.ir.graph.initializers) == ["w"]


def test_a_block_size_without_kernel_is_refused() -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("f", ["M", 64])}, {"w": random(64, 64)})
    limited = Capabilities("tiny", ("int4-weight",), block_sizes=(32,))
    with pytest.raises(TargetError) as caught:
        quantize_int4_weight(model, limited, recipe(block_size=64))
    assert str(caught.value) == (
        "Target 'tiny' has no INT4 kernel for blocks of 64 weights. Its block sizes are: 32."
    )


def test_weights_that_are_not_finite_stay_float_and_count_as_missed() -> None:
    weights = random(64, 64)
    weights[3, 4] = np.nan
    model = build([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", ["M", 64])}, {"w": weights})
    plan = quantize_int4_weight(model, CAPS, recipe()).plan.nodes["mm"]
    assert (plan.precision, plan.asked, plan.reason) == ("fp32", True, "its weights contain NaN or Inf")


def test_overrides_choose_per_node_and_the_last_one_wins() -> None:
    nodes = [
        node("MatMul", ["x", "a"], ["h1"], name="block.0/q"),
        node("MatMul", ["h1", "b"], ["h2"], name="block.0/k"),
        node("MatMul", ["h2", "c"], ["y"], name="head"),
    ]
    weights = {"a": random(64, 64), "b": random(64, 64, seed=1), "c": random(64, 64, seed=2)}
    model = build(nodes, {"x": ("f", ["M", 64])}, weights)
    overrides = (
        Override(match="op:MatMul", precision="fp32"),
        Override(match="block.*", precision="int8"),
        Override(match="*/k", precision="int4"),
    )
    plan = quantize_int4_weight(model, CAPS, recipe(overrides=overrides)).plan
    assert {n: p.precision for n, p in plan.nodes.items()} == {
        "block.0/q": "int8",
        "block.0/k": "int4",
        "head": "fp32",
    }
    assert plan.nodes["head"].reason == "the override 'op:MatMul' keeps it in float"


@pytest.mark.parametrize(
    ("match", "message"),
    [
        (
            "op:Matmul",
            "The override 'op:Matmul' matches no node of the model. Use a glob on node names or op:Type; "
            "the model has, for example: op:MatMul.",
        ),
        (
            "heads",
            "The override 'heads' matches no node of the model. Use a glob on node names or op:Type; "
            "the model has, for example: head.",
        ),
    ],
)
def test_an_override_that_matches_nothing_is_an_error(match: str, message: str) -> None:
    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="head")], {"x": ("f", ["M", 64])}, {"w": random(64, 64)}
    )
    with pytest.raises(UsageError) as caught:
        quantize_int4_weight(model, CAPS, recipe(overrides=(Override(match=match, precision="fp32"),)))
    assert str(caught.value) == message


def test_an_override_with_a_precision_of_another_scheme_is_an_error() -> None:
    model = build(
        [node("MatMul", ["x", "w"], ["y"], name="head")], {"x": ("f", ["M", 64])}, {"w": random(64, 64)}
    )
    with pytest.raises(UsageError, match="asks for fp16, which the scheme int4-weight has not"):
        quantize_int4_weight(model, CAPS, recipe(overrides=(Override(match="head", precision="fp16"),)))


BLOCKED = replace(
    CAPS, block_form="dequantize", block_sizes=(16, 32, 64), weight_form="dequantize", negative_scales=False
)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("op_type", "trans_b"), [("MatMul", 0), ("Gemm", 0), ("Gemm", 1)])
@pytest.mark.parametrize(("k", "n"), [(128, 48), (32, 48), (128, 33)])
def test_blocks_as_dequantize_linear_compute_with_the_stored_weights(
    tmp_path: Path, k: int, n: int, op_type: str, trans_b: int, symmetric: bool
) -> None:
    weights = random(n, k) if trans_b else random(k, n)
    attributes = {"transB": 1} if trans_b else {}
    made = node(op_type, ["x", "w"], ["y"], name="mm", **attributes)
    model = build([made], {"x": ("f", [3, k])}, {"w": weights})
    wanted = recipe(block_size=32, symmetric_weights=symmetric)
    quantized = quantize_int4_weight(model, BLOCKED, wanted)
    rows = np.ascontiguousarray(weights if trans_b else weights.T)
    blocks = quantize_blocks(rows, 4, 32, symmetric=symmetric, negative_scales=False)
    x = random(3, k, seed=1)
    save(quantized.model, tmp_path / "model.onnx")
    with OnnxRuntimeRunner(tmp_path / "model.onnx", in_float=True) as runner:
        found = runner.run({"x": x})["y"]
    np.testing.assert_allclose(found, x @ dequantize(blocks, k).T, rtol=1e-4, atol=1e-3)
    assert quantized.plan.nodes["mm"].precision == "int4"
    assert quantized.plan.nodes["mm"].reason.startswith("symmetric" if symmetric else "asymmetric")


@pytest.mark.parametrize(("quirk", "k", "n"), [("single-block", 32, 48), ("odd-outputs", 128, 33)])
def test_products_that_a_target_would_unpack_have_int8_weights(quirk: Unpacked, k: int, n: int) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ("f", [3, k])}, {"w": random(k, n)})
    capabilities = replace(BLOCKED, unpacks=frozenset({quirk}))
    found = quantize_int4_weight(model, capabilities, recipe(block_size=32)).plan.nodes["mm"]
    assert (found.precision, "unpack" in found.reason) == ("int8", True)
