"""int4-weight and int8-weight: what is stored how, what is computed, and that kernels read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.quantize.int4_weight import quantize_int4_weight
from edgeq.compiler.quantize.int8_weight import quantize_int8_weight
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.recipes import check_read
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.options import HighPrecision, TensorRTOptions
from edgeq.targets.tensorrt.precision import cast_rest
from tests.support.tensorrt import needs_rtx, request
from tests.support.weight_models import CAPS, build, node, random, sqnr

VOCABULARY, WIDTH = 512, 256
QUANTIZERS = {"int4-weight": quantize_int4_weight, "int8-weight": quantize_int8_weight}


def language_model() -> Model:
    """A tied embedding, products in both layouts, one whose inputs no block divides."""
    nodes = [
        node("Gather", ["table", "x"], ["e"], name="embedding"),
        node("MatMul", ["e", "up"], ["u"], name="up"),
        node("Relu", ["u"], ["r"], name="relu"),
        node("Reshape", ["r", "rows"], ["flat"], name="flat"),
        node("Gemm", ["flat", "down", "bias"], ["d"], name="down", transB=1),
        node("MatMul", ["d", "odd"], ["o"], name="odd"),
        node("MatMul", ["o", "back"], ["b"], name="back"),
        node("Transpose", ["table"], ["tableT"], name="turned", perm=[1, 0]),
        node("MatMul", ["b", "tableT"], ["y"], name="head"),
    ]
    weights: dict[str, Array] = {
        "table": random(VOCABULARY, WIDTH, seed=1),
        "up": random(WIDTH, 384, scale=0.1, seed=2),
        "rows": np.array([-1, 384]),
        "down": random(WIDTH, 384, scale=0.1, seed=3),
        "bias": random(WIDTH, seed=4),
        "odd": random(WIDTH, 200, scale=0.1, seed=5),
        "back": random(200, WIDTH, scale=0.1, seed=6),
    }
    return build(nodes, {"x": ("i", [1, 16])}, weights)


def image_net() -> Model:
    nodes = [
        node("Conv", ["x", "k"], ["c"], name="conv"),
        node("ConvTranspose", ["c", "t"], ["ct"], name="transposed"),
        node("GlobalAveragePool", ["ct"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("MatMul", ["f", "w"], ["y"], name="fc"),
    ]
    weights = {"k": random(64, 16, 3, 3), "t": random(64, 128, 3, 3), "w": random(128, 64)}
    return build(nodes, {"x": ("f", [1, 16, 8, 8])}, weights)


def quantized(model: Model, scheme: str, *, precision: HighPrecision = "fp16", **recipe: Any) -> Quantized:
    options = TensorRTOptions(precision=precision)
    chosen = Recipe(scheme=scheme, **recipe)  # type: ignore[arg-type]
    return QUANTIZERS[scheme](model, capabilities(options), chosen)


def run(model: Model, folder: Path, feeds: dict[str, Array]) -> Array:
    folder.mkdir()
    save(model, folder / "model.onnx")
    with OnnxRuntimeRunner(folder / "model.onnx", threads=1, in_float=True) as runner:
        return runner.run(feeds)["y"]


def precisions(made: Quantized) -> dict[str, str]:
    return {name: n.precision for name, n in made.plan.nodes.items() if n.asked}


def initializers(model: Model) -> dict[str, tuple[int, ...]]:
    values = model.ir.graph.initializers.values()
    return {f"{v.name}:{v.dtype.name}": tuple(v.shape) for v in values if v.dtype and v.shape}  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [None, 64])
def test_blocks_that_are_not_whole_give_way_to_int8(block: int | None) -> None:
    made = quantized(language_model(), "int4-weight", block_size=block)
    assert precisions(made) == {
        "embedding": "int4", "up": "int4", "down": "int4", "odd": "int4", "back": "int8", "head": "int4",
    }  # fmt: skip
    size = block or 128
    assert made.plan.nodes["back"].reason == f"blocks of {size} do not divide its 200 inputs: int8 weights"
    assert made.plan.notes == [
        "1 of 5 matrix products have int8 weights instead of int4, first 'back': "
        f"blocks of {size} do not divide its 200 inputs: int8 weights."
    ]
    assert made.plan.nodes["up"].reason == f"symmetric int4 weights in blocks of {size}, float activations"
    assert made.params["up"].scale.shape == (WIDTH // size, 384)
    assert made.params["down"].scale.shape == (WIDTH, 384 // size)


def test_tied_weights_are_stored_once() -> None:
    made = quantized(language_model(), "int4-weight")
    tables = [name for name, shape in initializers(made.model).items() if shape == (VOCABULARY, WIDTH)]
    assert tables == ["table_int4:INT4"]
    nodes = [n for n in made.model.ir.graph if n.op_type == "DequantizeLinear"]
    assert len(nodes) == 5, "one for each stored weight"
    assert sum(n.op_type == "Transpose" for n in made.model.ir.graph) == 1


@pytest.mark.parametrize(("scheme", "least"), [("int8-weight", 30), ("int4-weight", 11)])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_numbers_are_close(tmp_path: Path, scheme: str, least: float, precision: HighPrecision) -> None:
    model, feeds = language_model(), {"x": np.arange(16)[None] * 31}
    made = quantized(model, scheme, precision=precision)
    cast, notes = cast_rest(made.model, made.plan, precision)
    assert notes == ()
    exact = run(model, tmp_path / "float", feeds)
    assert sqnr(exact, run(cast, tmp_path / "quantized", feeds)) > least


def test_a_product_has_exactly_the_stored_weights(tmp_path: Path) -> None:
    w = random(256, 32, seed=2)
    model = build([node("MatMul", ["x", "w"], ["y"], name="product")], {"x": ("f", [4, 256])}, {"w": w})
    made = quantized(model, "int4-weight", precision="fp32", block_size=64)
    tensor = made.model.ir.graph.initializers["w_int4"].const_value
    assert tensor is not None
    codes = tensor.numpy().astype(np.float32)
    assert codes.min() >= -8
    assert codes.max() <= 7
    x = random(4, 256)
    exact = x @ (codes * np.repeat(made.params["w"].scale, 64, axis=0))
    np.testing.assert_allclose(run(made.model, tmp_path / "m", {"x": x}), exact, rtol=1e-4, atol=1e-4)
    assert (made.params["w"].scale > 0).all(), "TensorRT refuses scales that are not"


def test_convolutions_stay_float_and_say_why() -> None:
    for scheme in QUANTIZERS:
        plan = quantized(image_net(), scheme).plan
        assert {n: plan.nodes[n].precision for n in ("conv", "transposed")} == {
            "conv": "fp32",
            "transposed": "fp32",
        }
        assert "no kernel reads INT8 weights" in plan.nodes["conv"].reason


def test_the_block_size_is_the_targets_own_unless_given() -> None:
    caps = capabilities(TensorRTOptions())
    assert caps.blocks_of(Recipe(scheme="int4-weight")) == 128
    assert CAPS.blocks_of(Recipe(scheme="int4-weight")) == 32
    assert caps.blocks_of(Recipe(scheme="int4-weight", block_size=64)) == 64


def test_a_block_without_kernel_is_refused() -> None:
    with pytest.raises(TargetError, match="no INT4 kernel for blocks of 256") as caught:
        quantized(language_model(), "int4-weight", block_size=256)
    assert caught.value.fix == "Its block sizes are: 16, 32, 64, 128."


@pytest.mark.parametrize("option", [{"symmetric_weights": False}, {"accuracy_level": 4}])
def test_options_that_would_do_nothing_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has no effect on target 'tensorrt'"):
        check_recipe(Recipe(scheme="int4-weight", **option), capabilities(TensorRTOptions()))


@pytest.mark.parametrize("block_size", [32, 64])
def test_a_block_size_that_would_do_nothing_is_refused(block_size: int) -> None:
    with pytest.raises(UsageError, match="block_size has no effect"):
        check_read(Recipe.model_validate({"scheme": "int8-static", "block_size": block_size}))


Built = tuple[BuildReport | TargetError, Model, Plan]
# Scheme, block, precision of the rest, SM.
Case = tuple[str, int | None, HighPrecision, int]
_INT4: tuple[tuple[int, HighPrecision], ...] = ((128, "fp16"), (64, "fp16"), (128, "bf16"), (128, "fp32"))
_INT8: tuple[tuple[HighPrecision, int], ...] = (("fp16", 75), ("fp16", 86), ("fp16", 120), ("bf16", 86))
CASES: list[Case] = [("int4-weight", block, rest, sm) for block, rest in _INT4 for sm in (86, 89, 120)]
CASES += [("int8-weight", None, rest, sm) for rest, sm in _INT8]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Built]:
    folder = tmp_path_factory.mktemp("weights")
    requests, models = [], []
    for scheme, block, precision, sm in CASES:
        made = quantized(language_model(), scheme, precision=precision, block_size=block)
        cast, _ = cast_rest(made.model, made.plan, precision)
        path = folder / f"{scheme}_{block}_{precision}.onnx"
        save(cast, path)
        engine = folder / f"{sm}_{path.stem}.engine"
        requests.append(request(path, sm, engine=engine))
        models.append((cast, made.plan))
    return {
        key: (report, *model) for key, report, model in zip(CASES, build_many(requests), models, strict=True)
    }


@needs_rtx
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_read_the_integers(built: dict[Case, Built], case: Case) -> None:
    report, model, plan = built[case]
    assert isinstance(report, BuildReport), report
    tables = [parse_table(text, number) for number, text in report.tables.items()]
    actual = {r.name: r.actual for r in node_results(tables, model.ir, plan) if r.asked}
    expected = {"int4": "int4", "int8": "int8-weight"}
    assert actual == {name: expected[n.precision] for name, n in plan.nodes.items() if n.asked}


@needs_rtx
def test_products_that_int4_kernels_do_not_take_have_int8_weights(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "a"], ["h"], name="even"),
        node("MatMul", ["h", "b"], ["one"], name="one-block"),
        node("MatMul", ["x", "c"], ["odd"], name="odd"),
    ]
    weights = {"a": random(256, 128, seed=1), "b": random(128, 64, seed=2), "c": random(256, 213, seed=3)}
    made = quantized(build(nodes, {"x": ("f", [1, 16, 256])}, weights, ["one", "odd"]), "int4-weight")
    assert precisions(made) == {"even": "int4", "one-block": "int8", "odd": "int8"}
    cast, _ = cast_rest(made.model, made.plan, "fp16")
    save(cast, tmp_path / "model.onnx")
    (report,) = build_many([request(tmp_path / "model.onnx", 86)])
    assert isinstance(report, BuildReport), report
    found = node_results([parse_table(report.tables[86], 86)], cast.ir, made.plan)
    assert {r.name: r.actual for r in found if r.asked} == {
        "even": "int4", "one-block": "int8-weight", "odd": "int8-weight",
    }  # fmt: skip


def attention(rows: int, width: int, heads: int) -> Model:
    """Attention with a residual sum behind it, then two products of which one reads the other moved."""
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    nodes = []
    for part, perm in turns.items():
        nodes += [
            node("MatMul", ["x", f"w_{part}"], [part], name=part),
            node("Reshape", [part, "by_head"], [f"{part}_heads"], name=f"{part}_heads"),
            node("Transpose", [f"{part}_heads"], [f"{part}_turned"], name=f"{part}_turned", perm=perm),
        ]
    nodes += [
        node("MatMul", ["q_turned", "k_turned"], ["scores"], name="scores"),
        node("Softmax", ["scores"], ["shares"], name="shares", axis=-1),
        node("MatMul", ["shares", "v_turned"], ["mixed"], name="mixed"),
        node("Transpose", ["mixed"], ["mixed_turned"], name="mixed_turned", perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed_turned", "by_row"], ["flat"], name="flat"),
        node("MatMul", ["flat", "w_out"], ["out"], name="out"),
        node("Add", ["x", "out"], ["sum"], name="sum"),
        node("MatMul", ["sum", "w_up"], ["up"], name="up"),
        node("Reshape", ["up", "by_row"], ["again"], name="again"),
        node("MatMul", ["again", "w_down"], ["y"], name="down"),
    ]
    parts = (*turns, "out", "up", "down")
    weights: dict[str, Array] = {
        f"w_{part}": random(width, width, scale=0.1, seed=seed) for seed, part in enumerate(parts)
    }
    weights["by_head"] = np.array([1, rows, heads, width // heads])
    weights["by_row"] = np.array([1, rows, width])
    return build(nodes, {"x": ("f", [1, rows, width])}, weights)


@needs_rtx
def test_products_behind_attention_unpack_their_own_weights(tmp_path: Path) -> None:
    made = quantized(attention(256, 256, 4), "int4-weight")
    kept_apart = [n.name for n in made.model.ir.graph if n.op_type == "Mul"]
    assert kept_apart == ["out_apart"]
    cast, _ = cast_rest(made.model, made.plan, "fp16")
    save(cast, tmp_path / "apart.onnx")
    product = cast.ir.graph.node("out")
    product.replace_input_with(0, cast.ir.graph.node("out_apart").inputs[0])
    save(cast, tmp_path / "together.onnx")
    actual = []
    for report in build_many([request(tmp_path / f"{name}.onnx", 86) for name in ("apart", "together")]):
        assert isinstance(report, BuildReport), report
        found = node_results([parse_table(report.tables[86], 86)], cast.ir, made.plan)
        actual.append({r.name: r.actual for r in found if r.planned == "int4"})
    assert set(actual[0].values()) == {"int4"}
    assert (actual[1]["out"], actual[1]["down"]) == ("fp16", "int4"), "what the Mul is for"


@needs_rtx
def test_engines_hold_tied_tables_once_and_as_integers(built: dict[Case, Built]) -> None:
    sizes = {case: built[case][0].engine_bytes for case in CASES}  # type: ignore[union-attr]
    numbers = VOCABULARY * WIDTH + 2 * WIDTH * 384 + 2 * WIDTH * 200
    int4, int8 = sizes["int4-weight", 128, "fp16", 86], sizes["int8-weight", None, "fp16", 86]
    assert int8 - int4 == pytest.approx((numbers - WIDTH * 200) / 2, rel=0.1), "half a byte of each, but one"
