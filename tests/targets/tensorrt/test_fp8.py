"""The scheme fp8-static: numbers of E4M3, where they stand, and that TensorRT computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.model import Model, save
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.quantize.fp8_static import LARGEST, quantize_float8, quantize_fp8_static
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import DataError, TargetError, UsageError
from edgeq.recipes import make_recipe
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.options import HighPrecision, TensorRTOptions
from edgeq.targets.tensorrt.precision import cast_rest
from edgeq.targets.tensorrt.target import TensorRTTarget
from tests.support.static_models import Samples
from tests.support.tensorrt import needs_rtx, request
from tests.support.weight_models import CAPS, build, node, random, sqnr

RECIPE = Recipe(scheme="fp8-static")
SMS = (89, 120)
RESTS: tuple[HighPrecision, ...] = ("fp16", "fp32")


def image_net() -> tuple[Model, Samples]:
    """A convolution, a depthwise one, a residual, a linear layer."""
    nodes = [
        node("Conv", ["x", "k", "kb"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Conv", ["r", "d", "db"], ["dw"], name="depthwise", pads=[1, 1, 1, 1], group=32),
        node("Add", ["r", "dw"], ["a"], name="skip"),
        node("Flatten", ["a"], ["f"], name="flatten"),
        node("Gemm", ["f", "w", "b"], ["y"], name="fc"),
    ]
    weights = {
        "k": random(32, 8, 3, 3),
        "kb": random(32),
        "d": random(32, 1, 3, 3),
        "db": random(32),
        "w": random(2048, 16, scale=0.05),
        "b": random(16),
    }
    data = Samples(x=random(16, 8, 8, 8, seed=4))
    return build(nodes, {"x": ("f", [1, 8, 8, 8])}, weights), data


def attention() -> tuple[Model, Samples]:
    """An embedding, products with constants, and products of two activations."""
    nodes = [
        node("Gather", ["table", "x"], ["e"], name="embedding"),
        node("MatMul", ["e", "wq"], ["q"], name="query"),
        node("MatMul", ["e", "wk"], ["k"], name="key"),
        node("Transpose", ["k"], ["kt"], name="turned", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["s"], name="scores"),
        node("Softmax", ["s"], ["p"], name="softmax"),
        node("MatMul", ["p", "e"], ["y"], name="context"),
    ]
    weights = {
        "table": random(512, 64),
        "wq": random(64, 64, scale=0.1, seed=1),
        "wk": random(64, 64, scale=0.1, seed=2),
    }
    data = Samples(x=np.random.default_rng(0).integers(0, 512, (16, 32)))
    return build(nodes, {"x": ("i", [1, 32])}, weights), data


MODELS = {"image_net": image_net, "attention": attention}


def quantized(name: str, precision: HighPrecision = "fp16", **recipe: object) -> Quantized:
    model, data = MODELS[name]()
    chosen = RECIPE.model_copy(update=recipe)
    return quantize_fp8_static(model, capabilities(TensorRTOptions(precision=precision)), chosen, data)


def test_numbers_are_rounded_to_three_bits_of_mantissa() -> None:
    values = np.array([448, 100, 1, 0.3, -17.5, 2.0**-9, 0], np.float32)
    made = quantize_float8(values)
    assert made.params.scale == 1
    np.testing.assert_array_equal(
        made.codes.astype(np.float32), np.array([448, 96, 1, 0.3125, -18, 2.0**-9, 0], np.float32)
    )


def test_a_tensor_of_zeros_has_a_scale() -> None:
    made = quantize_float8(np.zeros((2, 2), np.float32))
    assert float(made.params.scale) == 1
    assert not made.codes.astype(np.float32).any()


def test_the_largest_magnitude_is_mapped_to_448() -> None:
    made = quantized("image_net", "fp32")
    data = MODELS["image_net"]()[1].arrays["x"]
    assert float(made.params["x"].scale) == pytest.approx(float(np.abs(data).max()) / LARGEST, rel=1e-6)
    assert {p.scale.shape for p in made.params.values()} == {()}
    assert {p.spec.dtype for p in made.params.values()} == {"float8e4m3fn"}


def test_the_plan_says_fp8_with_reasons_in_its_words() -> None:
    plan = quantized("image_net").plan
    found = {name: n.precision for name, n in plan.nodes.items()}
    assert {name for name, precision in found.items() if precision == "fp8"} == {"conv", "depthwise", "fc"}
    assert "FP8 convolution" in plan.nodes["conv"].reason
    assert not any("INT8" in n.reason for n in plan.nodes.values())
    assert {spec.dtype for spec in plan.activations.values()} == {"float8e4m3fn"}


def test_tables_stay_int8() -> None:
    made = quantized("attention")
    assert made.plan.nodes["embedding"].precision == "int8"
    assert made.params["table"].spec.dtype == "int8"
    assert made.plan.nodes["scores"].precision == made.plan.nodes["context"].precision == "fp8"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", RESTS)
def test_the_model_runs_and_is_close(tmp_path: Path, name: str, precision: HighPrecision) -> None:
    model, data = MODELS[name]()
    made = quantized(name, precision)
    cast, _ = cast_rest(made.model, made.plan, precision)
    outputs = []
    for label, one in (("float", model), ("fp8", cast)):
        save(one, tmp_path / f"{label}.onnx")
        with OnnxRuntimeRunner(tmp_path / f"{label}.onnx", threads=1, in_float=True) as runner:
            outputs.append(runner.run({"x": data.arrays["x"][:1]})["y"])
    assert sqnr(*outputs) > 16, "rounding both factors to 3 bits leaves 28 dB of each layer"


def test_a_product_has_exactly_the_rounded_factors(tmp_path: Path) -> None:
    x, w = random(8, 64, seed=1), random(64, 32, seed=2)
    model = build([node("MatMul", ["x", "w"], ["y"], name="product")], {"x": ("f", [1, 64])}, {"w": w})
    caps = capabilities(TensorRTOptions(precision="fp32"))
    made = quantize_fp8_static(model, caps, RECIPE, Samples(x=x))
    save(made.model, tmp_path / "model.onnx")
    with OnnxRuntimeRunner(tmp_path / "model.onnx", threads=1, in_float=True) as runner:
        found = runner.run({"x": x[:1]})["y"]
    codes = quantize_float8(x).codes[:1].astype(np.float32)
    exact = (codes * made.params["x"].scale) @ quantize_float8(w).dequantized()
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_overrides_choose_between_fp8_and_float32() -> None:
    overrides = (Override(match="fc", precision="fp32"), Override(match="conv", precision="fp8"))
    plan = quantized("image_net", overrides=overrides).plan
    assert (plan.nodes["fc"].precision, plan.nodes["fc"].pinned) == ("fp32", True)
    assert plan.nodes["conv"].precision == "fp8"
    with pytest.raises(UsageError, match="asks for int8, which the scheme fp8-static has not") as caught:
        quantized("image_net", overrides=(Override(match="conv", precision="int8"),))
    assert caught.value.fix == "It has: fp32, fp8."


def test_data_that_does_not_fit_is_refused() -> None:
    model, _ = image_net()
    with pytest.raises(DataError):
        quantize_fp8_static(model, capabilities(TensorRTOptions()), RECIPE, Samples(z=random(4, 8, 8, 8)))


@pytest.mark.parametrize("field", ["range_method", "bias_correction", "smoothing"])
def test_options_of_int8_are_refused(field: str) -> None:
    value = {"range_method": "mse"}.get(field, False)
    with pytest.raises(UsageError, match=f"{field} has no effect with scheme 'fp8-static'"):
        make_recipe("fp8-static", {field: value}, where="test")


def test_other_targets_refuse_it() -> None:
    with pytest.raises(TargetError, match="has no scheme 'fp8-static'"):
        check_recipe(RECIPE, CAPS)


@pytest.mark.parametrize(("sm", "fix"), [("86", "--sm 89"), ("75,86,89,120", "--sm 89,120")])
def test_older_gpus_are_refused(sm: str, fix: str) -> None:
    with pytest.raises(TargetError, match=r"needs compute capability 8\.9 or newer for FP8") as caught:
        TensorRTTarget().options({"sm": sm, "backend": "tensorrt-rtx"}, RECIPE)
    assert fix in (caught.value.fix or "")
    assert TensorRTTarget().options({"sm": "89,120", "backend": "tensorrt-rtx"}, RECIPE).sm == (89, 120)


def test_int4_needs_ampere() -> None:
    with pytest.raises(TargetError, match=r"needs compute capability 8\.0 or newer for INT4"):
        TensorRTTarget().options({"sm": "75", "backend": "tensorrt-rtx"}, Recipe(scheme="int4-weight"))


Built = tuple[BuildReport | TargetError, Model, Plan]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int], Built]:
    folder = tmp_path_factory.mktemp("fp8")
    keys, requests, models = [], [], []
    for name in MODELS:
        for precision in RESTS:
            made = quantized(name, precision)
            cast, _ = cast_rest(made.model, made.plan, precision)
            save(cast, folder / f"{name}_{precision}.onnx")
            for sm in SMS:
                keys.append((name, precision, sm))
                requests.append(request(folder / f"{name}_{precision}.onnx", sm))
                models.append((cast, made.plan))
    reports = build_many(requests)
    return {key: (report, *model) for key, report, model in zip(keys, reports, models, strict=True)}


@needs_rtx
@pytest.mark.parametrize("sm", SMS)
@pytest.mark.parametrize("precision", RESTS)
@pytest.mark.parametrize("name", MODELS)
def test_tensorrt_computes_in_fp8(
    built: dict[tuple[str, str, int], Built], name: str, precision: str, sm: int
) -> None:
    report, model, plan = built[name, precision, sm]
    assert isinstance(report, BuildReport), report
    tables = [parse_table(text, number) for number, text in report.tables.items()]
    results = node_results(tables, model.ir, plan)
    planned = {r.name: r.actual for r in results if r.planned == "fp8"}
    assert planned == dict.fromkeys(planned, "fp8")
    assert len(planned) == {"image_net": 3, "attention": 4}[name]
