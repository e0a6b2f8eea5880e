"""Scheme int8-static for Core ML: what the plan says, what the ONNX model and the package hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgeq.compiler.quantize.saturation import worst_pair
from edgeq.compiler.quantize.simulation import session_options
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.coreml.capabilities import CAPABILITIES, SYMMETRIC
from tests.support.coreml_schemes import (
    IDS,
    IMAGES,
    SMALLEST_HALF,
    assert_exact_in_half,
    compiled,
    constants,
    packaged,
    residual_net,
    scales_of,
    transformer_part,
)
from tests.support.static_models import Node, Samples, graph, normal, precisions, run, sqnr


def test_static_plan_follows_the_patterns_of_apples_quantizer() -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    planned = {node.split("_")[0]: [] for node in result.plan.nodes}
    for name, precision in precisions(result).items():
        planned[name.split("_")[0]].append(precision)
    assert planned["Conv"] == ["int8"] * 4
    assert planned["Relu"] == planned["Clip"] == planned["LeakyRelu"] == ["int8"]
    assert planned["Add"] == planned["MaxPool"] == planned["Gemm"] == ["int8"]
    assert planned["Flatten"] == ["fp32"]


def test_static_model_is_signed_with_float_biases_and_half_scales() -> None:
    result = compiled(residual_net(), "int8-static", IMAGES)
    assert_exact_in_half(scales_of(result.model))
    assert {spec.dtype for spec in result.plan.activations.values()} == {"int8"}
    assert result.params["r0"].zero_point == result.params["p0"].zero_point == -128, "never negative"
    zeros = [result.params[name].zero_point for name in result.plan.weights]
    assert not any(zero.any() for zero in zeros)
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
@pytest.mark.parametrize("capabilities", [CAPABILITIES, SYMMETRIC], ids=["affine", "symmetric"])
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
