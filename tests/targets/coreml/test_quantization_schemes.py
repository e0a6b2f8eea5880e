"""The shared compiler's schemes for Core ML: what the plan says, what the ONNX model and the package hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.dispatch import Request, check_recipe, quantize
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.saturation import worst_pair
from edgeq.compiler.quantize.simulation import session_options
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.progress import SilentProgress
from edgeq.targets.base import Capabilities
from edgeq.targets.coreml.capabilities import CAPABILITIES
from edgeq.targets.coreml.frontend.dimensions import Dimension
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.coreml.verification.contents import Contents, package_contents
from tests.support.static_models import Node, Samples, graph, normal, precisions, run, sqnr

SMALLEST_HALF = float(np.finfo(np.float16).tiny)
AFFINE = replace(CAPABILITIES, symmetric_activations=False, unsigned_positive=False)


def residual_net() -> Model:
    """Stem, a residual block, pooling, concatenation, a classifier."""
    nodes: list[Node] = [
        ("Conv", ["x", "w0", "b0"], ["c0"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c0"], ["r0"], {}),
        ("MaxPool", ["r0"], ["p0"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["p0", "w1"], ["c1"], {"pads": [1, 1, 1, 1]}),
        ("Clip", ["c1", "low", "high"], ["r1"], {}),
        ("Conv", ["r1", "w2", "b2"], ["c2"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["c2", "p0"], ["a2"], {}),
        ("LeakyRelu", ["a2"], ["r2"], {"alpha": 0.1}),
        ("Conv", ["r2", "w3", "b3"], ["c3"], {}),
        ("GlobalAveragePool", ["c3"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("Gemm", ["f", "w5", "b5"], ["y"], {}),
    ]

    def w(*shape: int, seed: int) -> Array:
        return normal(*shape, seed=seed, scale=(2 / float(np.prod(shape[1:]))) ** 0.5)

    weights = {
        "w0": w(8, 3, 3, 3, seed=0),
        "w1": w(8, 8, 3, 3, seed=1),
        "w2": w(8, 8, 3, 3, seed=2),
        "w3": w(16, 8, 1, 1, seed=3),
        "w5": w(16, 10, seed=5),
        "low": np.float32(-0.5),
        "high": np.float32(3),
        "b0": normal(8, seed=20, scale=0.1),
        "b2": normal(8, seed=21, scale=0.1),
        "b3": normal(16, seed=22, scale=0.1),
        "b5": normal(10, seed=23),
    }
    return graph(nodes, {"x": ["n", 3, 12, 12]}, ["y"], weights)


IMAGES = Samples(x=normal(64, 3, 12, 12, seed=9))


def transformer_part() -> Model:
    """An embedding, a matrix product with a stack of weights, a Gemm with transB."""
    nodes: list[Node] = [
        ("Gather", ["table", "ids"], ["e"], {}),
        ("MatMul", ["e", "w0"], ["m"], {}),
        ("Tanh", ["m"], ["t"], {}),
        ("MatMul", ["t", "stack"], ["s"], {}),
        ("ReduceMean", ["s", "axes"], ["f"], {"keepdims": 0}),
        ("Gemm", ["f", "w1", "b1"], ["y"], {"transB": 1}),
    ]
    weights = {
        "table": normal(200, 64, seed=1),
        "w0": normal(64, 96, seed=2, scale=0.1),
        "stack": normal(2, 96, 64, seed=3, scale=0.1),
        "axes": np.array([1], np.int64),
        "w1": normal(96, 64, seed=4, scale=0.1),
        "b1": normal(96, seed=5),
    }
    return graph(nodes, {"ids": [2, 7]}, ["y"], weights, types={"ids": 7})


IDS = {"ids": np.random.default_rng(0).integers(0, 200, (2, 7))}


def compiled(
    model: Model,
    scheme: str,
    data: Samples | None = None,
    capabilities: Capabilities = CAPABILITIES,
    **recipe: Any,
) -> Quantized:
    wanted = Recipe.model_validate({"scheme": scheme, **recipe})
    return quantize(Request(model, capabilities, wanted, data, 1, SilentProgress()))


def packaged(
    model: Model,
    inputs: dict[str, Array],
    path: Path,
    *,
    ios: int = 18,
    arithmetic: Literal["float16", "float32"] = "float32",
) -> tuple[Array, Contents]:
    """The package's first output, interpreted, and what it holds."""
    dimensions = {"n": Dimension(1, 64)}
    lowered = lower(model, ios=ios, dimensions=dimensions)
    write_package(
        lowered,
        path / "m.mlpackage",
        ios=ios,
        arithmetic=arithmetic,
        options=CoreMLOptions(dimensions=dimensions),
    )
    feeds = to_package(lowered.signature, inputs)
    results = from_package(lowered.signature, Interpreter(read_package(path / "m.mlpackage")).run(feeds))
    return results["y"], package_contents(path / "m.mlpackage")


def constants(model: Model, op_type: str, port: int) -> list[Array]:
    """The constant at input ``port`` of every node of a type."""
    values = [node.inputs[port] for node in model.ir.graph if node.op_type == op_type]
    return [v.const_value.numpy() for v in values if v is not None and v.const_value is not None]


def scales_of(model: Model) -> Array:
    found = constants(model, "QuantizeLinear", 1) + constants(model, "DequantizeLinear", 1)
    return np.concatenate([scale.reshape(-1) for scale in found])


def assert_exact_in_half(scales: Array) -> None:
    assert (scales >= SMALLEST_HALF).all()
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)


# --- int8-static ------------------------------------------------------------------------------------------


def test_static_plan_follows_the_patterns_of_apples_quantizer() -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    planned = {node.split("_")[0]: [] for node in result.plan.nodes}
    for name, precision in precisions(result).items():
        planned[name.split("_")[0]].append(precision)
    assert planned["Conv"] == ["int8"] * 4
    assert planned["Relu"] == planned["Clip"] == planned["LeakyRelu"] == ["int8"]
    assert planned["Add"] == planned["MaxPool"] == planned["Gemm"] == ["int8"]
    assert planned["Flatten"] == ["fp32"]


def test_static_model_is_signed_symmetric_with_float_biases_and_half_scales() -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    assert_exact_in_half(scales_of(result.model))
    zeros = constants(result.model, "QuantizeLinear", 2) + constants(result.model, "DequantizeLinear", 2)
    assert not any(zero.any() for zero in zeros)
    dtypes = {name: spec.dtype for name, spec in result.plan.activations.items()}
    assert dtypes["r0"] == dtypes["p0"] == "uint8", "never negative"
    assert dtypes["x"] == dtypes["c2"] == dtypes["r1"] == "int8"
    assert {spec.dtype for spec in result.plan.weights.values()} == {"int8"}
    biases = constants(result.model, "Conv", 2) + constants(result.model, "Gemm", 2)
    assert len(biases) == 5
    assert {bias.dtype for bias in biases} == {np.dtype(np.float32)}


def test_activation_functions_stand_between_the_layer_and_the_rounding() -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    for op_type in ("Relu", "Clip", "LeakyRelu"):
        node = next(n for n in result.model.ir.graph if n.op_type == op_type)
        source = node.inputs[0]
        assert source is not None
        producer = source.producer()
        assert producer is not None
        assert producer.op_type in ("Conv", "Add")
        assert {user.op_type for user in node.outputs[0].consumers()} == {"QuantizeLinear"}


@pytest.mark.parametrize("ios", [17, 18])
@pytest.mark.parametrize("capabilities", [CAPABILITIES, AFFINE], ids=["symmetric", "affine"])
def test_float32_package_computes_what_onnxruntime_computes(
    tmp_path: Path, capabilities: Capabilities, ios: int
) -> None:
    result = compiled(residual_net(), "int8-static", IMAGES, capabilities)
    inputs = {"x": IMAGES.arrays["x"][:8]}
    wanted = run(result.model, inputs, optimize=False)[0]
    got, contents = packaged(result.model, inputs, tmp_path, ios=ios)
    # one rounding may fall the other way where sums differ in the last bit
    assert sqnr(wanted, got) > 60
    roundings = Counter(node.op_type for node in result.model.ir.graph)
    assert contents.weights["int8"].tensors == 5
    assert contents.operations["linear"] == 1
    assert sum(contents.roundings["quantize"].values()) == roundings["QuantizeLinear"]
    float_result = run(residual_net(), inputs)[0]
    assert sqnr(float_result, got) > 25


def test_float16_package_is_close_and_has_no_subnormal_scale(tmp_path: Path) -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    inputs = {"x": IMAGES.arrays["x"][:8]}
    got, contents = packaged(result.model, inputs, tmp_path, arithmetic="float16")
    assert sqnr(run(result.model, inputs, optimize=False)[0], got) > 30
    assert contents.small_scales == ()
    assert contents.weights["int8"].tensors == 5


def test_weights_keep_their_full_range() -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    name = next(name for name in result.model.ir.graph.initializers if name.startswith("w2_quantized"))
    value = result.model.ir.graph.initializers[name].const_value
    assert value is not None
    codes = value.numpy().astype(np.int16)
    assert worst_pair(codes.transpose(0, 2, 3, 1).reshape(8, -1)) > 128, "limited for kernels that saturate"


def test_bias_correction_moves_float_biases_towards_the_float_model() -> None:
    inputs = {"x": IMAGES.arrays["x"]}
    wanted = run(residual_net(), inputs)[0]

    def shift(corrected: bool) -> float:
        result = compiled(residual_net(), "int8-static", IMAGES, bias_correction=corrected)
        got = run(result.model, inputs, optimize=False)[0]
        return float(np.abs((got - wanted).mean(axis=0)).mean())

    assert shift(True) < 0.5 * shift(False)


def test_tiny_weights_and_activations_get_the_smallest_normal_scale() -> None:
    nodes: list[Node] = [("Conv", ["x", "w", "b"], ["y"], {})]
    weights = {"w": normal(4, 2, 3, 3, scale=1e-4), "b": np.zeros(4, np.float32)}
    model = graph(nodes, {"x": [1, 2, 8, 8]}, ["y"], weights)
    result = compiled(model, "int8-static", Samples(x=normal(8, 2, 8, 8, scale=1e-4)))
    assert scales_of(result.model).min() == np.float32(SMALLEST_HALF)
    assert_exact_in_half(scales_of(result.model))


def test_embedding_tables_are_dequantized_where_they_are_stored(tmp_path: Path) -> None:
    data = Samples(ids=np.random.default_rng(1).integers(0, 200, (8, 7)))
    model = transformer_part()
    result = compiled(model, "int8-static", data)
    gather = next(node for node in result.model.ir.graph if node.op_type == "Gather")
    table = gather.inputs[0]
    assert table is not None
    producer = table.producer()
    assert producer is not None
    assert producer.op_type == "DequantizeLinear"
    got, contents = packaged(result.model, IDS, tmp_path)
    np.testing.assert_allclose(got, run(result.model, IDS, optimize=False)[0], atol=1e-4)
    assert contents.weights["int8"].tensors == 4


# --- weights only -----------------------------------------------------------------------------------------


def test_int8_weights_are_dequantized_by_one_node_each(tmp_path: Path) -> None:
    result = compiled(transformer_part(), "int8-weight")
    ops = Counter(node.op_type for node in result.model.ir.graph)
    assert ops["DequantizeLinear"] == 4
    assert not {"Cast", "Mul"} & set(ops)
    assert_exact_in_half(scales_of(result.model))
    got, contents = packaged(result.model, IDS, tmp_path)
    np.testing.assert_allclose(got, run(result.model, IDS, optimize=False)[0], atol=1e-5)
    assert sqnr(run(transformer_part(), IDS)[0], got) > 35
    assert contents.weights["int8"].tensors == 4
    assert contents.weights["float32"].bytes < 1000  # biases


def test_int8_convolutions_need_ios16_only(tmp_path: Path) -> None:
    result = compiled(residual_net(), "int8-weight")
    inputs = {"x": IMAGES.arrays["x"][:2]}
    got, contents = packaged(result.model, inputs, tmp_path, ios=16)
    np.testing.assert_allclose(got, run(result.model, inputs, optimize=False)[0], atol=1e-4)
    assert contents.operations["constexpr_affine_dequantize"] == 5


@pytest.mark.parametrize("symmetric", [True, False])
def test_int4_weights_have_positive_scales_that_half_holds(tmp_path: Path, symmetric: bool) -> None:
    result = compiled(transformer_part(), "int4-weight", symmetric_weights=symmetric)
    scales = constants(result.model, "MatMulNBits", 2) + constants(result.model, "GatherBlockQuantized", 2)
    assert len(scales) == 3
    for scale in scales:
        assert_exact_in_half(scale)
    got, contents = packaged(result.model, IDS, tmp_path)
    np.testing.assert_allclose(got, run(result.model, IDS, optimize=False)[0], atol=1e-5)
    assert contents.weights["int4" if symmetric else "uint4"].tensors == 3
    assert contents.weights["int8"].tensors == 1  # the stack of matrices


def test_int4_scheme_says_why_convolutions_keep_8_bits() -> None:
    result = compiled(residual_net(), "int4-weight")
    conv = next(node for node in result.plan.nodes.values() if node.op_type == "Conv")
    assert (conv.precision, conv.reason) == (
        "int8",
        "int8 weights: 4 bits without calibration cost convolutions too much accuracy",
    )


# --- what the package step does ---------------------------------------------------------------------------


def test_fp16_leaves_the_model_in_float32_and_plans_the_nodes() -> None:
    overrides = (Override(match="op:Gemm", precision="fp32"),)
    model = residual_net()
    result = compiled(model, "fp16", overrides=overrides)
    planned = {node.op_type: node.precision for node in result.plan.nodes.values()}
    assert planned["Gemm"] == "fp32"
    assert planned["Conv"] == planned["Add"] == "fp16"
    inputs = {"x": IMAGES.arrays["x"][:2]}
    np.testing.assert_array_equal(run(result.model, inputs)[0], run(model, inputs)[0])


def test_palettes_are_planned_by_the_names_of_the_weights() -> None:
    overrides = (Override(match="op:Gemm", precision="fp32"), Override(match="op:Gather", precision="pal6"))
    result = compiled(transformer_part(), "palettize-4", overrides=overrides)
    dtypes = {name: spec.dtype for name, spec in result.plan.weights.items()}
    assert dtypes == {"table": "pal6", "w0": "pal4", "stack": "pal4"}
    assert set(dtypes) <= set(result.model.ir.graph.initializers)
    planned = {node.op_type: node for node in result.plan.nodes.values()}
    assert (planned["Gather"].precision, planned["MatMul"].precision) == ("pal6", "pal4")
    assert planned["Gemm"].precision == "fp32"
    np.testing.assert_array_equal(run(result.model, IDS)[0], run(transformer_part(), IDS)[0])


def test_small_weights_get_no_palette() -> None:
    result = compiled(residual_net(), "palettize-6")
    assert result.plan.weights == {}
    assert {node.precision for node in result.plan.nodes.values()} <= {"fp32", "other"}
    assert all("fewer than 2048" in n.reason for n in result.plan.nodes.values() if n.op_type == "Conv")


def test_a_weight_of_two_nodes_has_one_palette() -> None:
    nodes: list[Node] = [("MatMul", ["x", "w"], ["a"], {}), ("MatMul", ["a", "w"], ["y"], {})]
    model = graph(nodes, {"x": [2, 64]}, ["y"], {"w": normal(64, 64)})
    overrides = (Override(match="*_y", precision="pal6"),)
    result = compiled(model, "palettize-4", overrides=overrides)
    assert {spec.dtype for spec in result.plan.weights.values()} == {"pal4"}
    assert {node.precision for node in result.plan.nodes.values()} == {"pal4"}


# --- what is refused --------------------------------------------------------------------------------------


def test_dynamic_int8_is_refused_with_its_alternatives() -> None:
    with pytest.raises(TargetError, match="constant scales only") as refused:
        check_recipe(Recipe(scheme="int8-dynamic"), CAPABILITIES)
    assert "int8-weight" in str(refused.value.fix)
    assert "int8-static" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"scheme": "int8-static", "saturation_safe": False}, "does not saturate"),
        ({"scheme": "int4-weight", "accuracy_level": 4}, "float activations"),
        ({"scheme": "int8-weight", "accuracy_level": 4}, "float activations"),
    ],
)
def test_options_that_would_do_nothing_are_refused(recipe: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_recipe(Recipe.model_validate(recipe), CAPABILITIES)


def test_palettes_are_no_scheme_of_other_targets() -> None:
    from edgeq.targets.onnxruntime.capabilities import CAPABILITIES as ONNXRUNTIME

    with pytest.raises(TargetError, match="no scheme 'palettize-4'"):
        check_recipe(Recipe(scheme="palettize-4"), ONNXRUNTIME)


LAYERS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "transposed": ((4, 6, 3, 3), {"strides": [2, 2]}),
    "transposed in groups": ((4, 3, 3, 3), {"group": 2}),
    "depthwise": ((4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "in groups": ((6, 2, 3, 3), {"group": 2}),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_convolutions_of_all_kinds_have_a_scale_per_channel(tmp_path: Path, kind: str) -> None:
    shape, attributes = LAYERS[kind]
    op_type = "ConvTranspose" if "transposed" in kind else "Conv"
    channels = shape[1] * attributes.get("group", 1) if op_type == "ConvTranspose" else shape[0]
    weights = {"w": normal(*shape, scale=0.3), "b": normal(channels, seed=1)}
    model = graph([(op_type, ["x", "w", "b"], ["y"], attributes)], {"x": ["n", 4, 8, 8]}, ["y"], weights)
    data = Samples(x=normal(16, 4, 8, 8, seed=2))
    result = compiled(model, "int8-static", data)
    assert [node.precision for node in result.plan.nodes.values()] == ["int8"]
    (spec,) = result.plan.weights.values()
    assert spec.axis == (1 if op_type == "ConvTranspose" else 0)
    inputs = {"x": data.arrays["x"][:4]}
    got, contents = packaged(result.model, inputs, tmp_path, ios=17)
    np.testing.assert_allclose(got, run(result.model, inputs, optimize=False)[0], atol=1e-4)
    assert sqnr(run(model, inputs)[0], got) > 30
    assert contents.weights["int8"].tensors == 1


@pytest.mark.parametrize(("scheme", "ios", "kind"), [
    ("int8-weight", 17, "int8"), ("int8-weight", 18, "int8"), ("int4-weight", 18, "int4"),
])  # fmt: skip
def test_a_table_that_is_also_the_output_layer_is_stored_once(
    tmp_path: Path, scheme: str, ios: int, kind: str
) -> None:
    nodes: list[Node] = [
        ("Gather", ["table", "ids"], ["e"], {}),
        ("Tanh", ["e"], ["t"], {}),
        ("Transpose", ["table"], ["turned"], {"perm": [1, 0]}),
        ("MatMul", ["t", "turned"], ["y"], {}),
    ]
    model = graph(nodes, {"ids": [2, 7]}, ["y"], {"table": normal(200, 64, seed=1)}, types={"ids": 7})
    result = compiled(model, scheme)
    got, contents = packaged(result.model, IDS, tmp_path, ios=ios)
    np.testing.assert_allclose(got, run(result.model, IDS, optimize=False)[0], atol=1e-4)
    assert contents.weights[kind].tensors == 1
    assert "transpose" not in contents.operations


def test_a_bias_that_is_no_vector_is_added_after_the_layer(tmp_path: Path) -> None:
    nodes: list[Node] = [("Gemm", ["x", "w", "c"], ["y"], {"beta": 0.5})]
    model = graph(nodes, {"x": ["n", 64]}, ["y"], {"w": normal(64, 32), "c": normal(4, 32, seed=1)})
    result = compiled(model, "int4-weight")
    inputs = {"x": normal(4, 64, seed=2)}
    got, contents = packaged(result.model, inputs, tmp_path)
    np.testing.assert_allclose(got, run(result.model, inputs, optimize=False)[0], atol=1e-4)
    assert contents.weights["int4"].tensors == 1


@pytest.mark.parametrize("in_float", [True, False])
def test_simulation_keeps_float_arithmetic_between_the_roundings(tmp_path: Path, in_float: bool) -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    options = session_options(1, in_float=in_float)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    proto = ir.to_proto(result.model.ir).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    ops = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert bool({"QLinearConv", "QLinearAdd", "QGemm"} & ops) is not in_float
    if in_float:
        inputs = {"x": IMAGES.arrays["x"]}
        assert sqnr(run(result.model, inputs, optimize=False)[0], session.run(None, inputs)[0]) > 45
