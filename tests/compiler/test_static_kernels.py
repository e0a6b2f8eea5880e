"""The grid: every op with an INT8 kernel, in the forms that occur, runs in that kernel and stays accurate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.compiler.recipe import Override
from tests.support.static_models import (
    Node,
    Samples,
    graph,
    normal,
    optimized_ops,
    quantize,
    run,
    sqnr,
)

I64 = np.int64


CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "2d": ((8, 12, 12), (16, 8, 3, 3), {}),
    "1x1": ((8, 12, 12), (16, 8, 1, 1), {}),
    "pads": ((8, 12, 12), (16, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    "uneven_pads": ((8, 12, 12), (16, 8, 3, 3), {"pads": [0, 1, 2, 1]}),
    "same_upper": ((8, 11, 11), (16, 8, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same_lower": ((8, 11, 11), (16, 8, 4, 4), {"auto_pad": "SAME_LOWER"}),
    "strides": ((8, 12, 12), (16, 8, 3, 3), {"strides": [2, 2]}),
    "dilations": ((8, 12, 12), (16, 8, 3, 3), {"dilations": [2, 2]}),
    "groups": ((8, 12, 12), (16, 4, 3, 3), {"group": 2}),
    "depthwise": ((8, 12, 12), (8, 1, 3, 3), {"group": 8}),
    "depthwise_twice": ((8, 12, 12), (16, 1, 3, 3), {"group": 8}),
    "odd_channels": ((3, 12, 12), (5, 3, 3, 3), {}),
    "1d": ((8, 30), (16, 8, 3), {}),
    "3d": ((4, 7, 7, 7), (8, 4, 3, 3, 3), {}),
}


@pytest.mark.parametrize("activation", ["", "Relu", "Clip"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("form", list(CONVS))
def test_conv_runs_in_the_integer_kernel_with_its_activation_absorbed(
    form: str, bias: bool, activation: str
) -> None:
    shape, kernel, attrs = CONVS[form]
    weights: dict[str, Any] = {"w": normal(*kernel, seed=1, scale=0.2)}
    inputs = ["x", "w"]
    if bias:
        weights["b"] = normal(kernel[0], seed=2)
        inputs.append("b")
    nodes: list[Node] = [("Conv", inputs, ["t" if activation else "y"], attrs)]
    if activation:
        extra = ["lo", "hi"] if activation == "Clip" else []
        weights |= {"lo": np.float32(0), "hi": np.float32(1.5)} if extra else {}
        nodes.append((activation, ["t", *extra], ["y"], {}))
    model = graph(nodes, {"x": ["n", *shape]}, ["y"], weights)
    x = normal(16, *shape, seed=3)
    result = quantize(model, Samples(x=x))
    ops = optimized_ops(result.model)
    assert ops["QLinearConv"] == 1
    assert not ops.keys() & {"Conv", "FusedConv", "Relu", "Clip"}
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 33


def test_conv_per_tensor_when_the_rule_says_so() -> None:
    from dataclasses import replace

    from edgeq.compiler.quantize.static import quantize_static
    from edgeq.compiler.recipe import Recipe
    from edgeq.targets.onnxruntime.capabilities import CAPABILITIES

    rules = dict(CAPABILITIES.int8_static)
    rules["Conv"] = replace(rules["Conv"], weights={1: None})
    model = graph(
        [("Conv", ["x", "w", "b"], ["y"], {})],
        {"x": ["n", 8, 9, 9]},
        ["y"],
        {"w": normal(8, 8, 3, 3), "b": normal(8)},
    )
    x = normal(16, 8, 9, 9)
    result = quantize_static(
        model, replace(CAPABILITIES, int8_static=rules), Recipe(scheme="int8-static"), Samples(x=x)
    )
    assert result.params["w"].scale.shape == ()
    assert optimized_ops(result.model)["QLinearConv"] == 1
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 33


@pytest.mark.parametrize("group", [1, 2, 4])
def test_conv_transpose_scales_run_along_its_output_channels(group: int) -> None:
    from dataclasses import replace

    from edgeq.compiler.quantize.static import quantize_static
    from edgeq.compiler.recipe import Recipe
    from edgeq.targets.capabilities import OpRule
    from edgeq.targets.onnxruntime.capabilities import CAPABILITIES

    rules = dict(CAPABILITIES.int8_static)
    rules["ConvTranspose"] = OpRule(activations=(0,), weights={1: 1}, bias=2)
    weights = normal(8, 6, 3, 3) * np.geomspace(0.01, 1, 6, dtype=np.float32).reshape(1, 6, 1, 1)
    model = graph(
        [("ConvTranspose", ["x", "w"], ["y"], {"group": group})], {"x": ["n", 8, 6, 6]}, ["y"], {"w": weights}
    )
    x = normal(16, 8, 6, 6)
    capabilities = replace(CAPABILITIES, int8_static=rules)
    result = quantize_static(model, capabilities, Recipe(scheme="int8-static"), Samples(x=x))
    assert result.params["w"].scale.shape == (6,)
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 31


GEMMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((32,), (32, 10), {}),
    "transposed": ((32,), (10, 32), {"transB": 1}),
    "factors": ((32,), (32, 10), {"alpha": 0.5, "beta": 2.0}),
    "odd": ((31,), (31, 9), {}),
}


@pytest.mark.parametrize("bias", ["vector", "row", "number", "none"])
@pytest.mark.parametrize("form", list(GEMMS))
def test_gemm_writes_float_for_the_caller(form: str, bias: str) -> None:
    shape, kernel, attrs = GEMMS[form]
    channels = kernel[0] if attrs.get("transB") else kernel[1]
    biases = {"vector": normal(channels), "row": normal(1, channels), "number": normal(1)}
    weights: dict[str, Any] = {"w": normal(*kernel, scale=0.2)}
    inputs = ["x", "w"]
    if bias != "none":
        weights["b"] = biases[bias]
        inputs.append("b")
    model = graph([("Gemm", inputs, ["y"], attrs)], {"x": ["n", *shape]}, ["y"], weights)
    x = normal(64, *shape)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model) == {"QuantizeLinear": 1, "QGemm": 1}
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 35


def test_gemm_with_a_transposed_input() -> None:
    model = graph(
        [("Gemm", ["x", "w", "b"], ["y"], {"transA": 1})],
        {"x": [32, 24]},
        ["y"],
        {"w": normal(32, 8), "b": normal(8)},
    )
    x = normal(32, 24)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model)["QGemm"] == 1
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 33


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_matmul_with_constant_weights_writes_float(rank: int) -> None:
    shape = [6] * (rank - 2) + [24]
    model = graph([("MatMul", ["x", "w"], ["y"], {})], {"x": ["n", *shape]}, ["y"], {"w": normal(24, 8)})
    x = normal(16, *shape)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model) == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 1}
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 35


def test_matmul_with_a_stack_of_weights() -> None:
    weights = normal(3, 24, 8) * np.geomspace(0.1, 1, 8, dtype=np.float32)
    model = graph([("MatMul", ["x", "w"], ["y"], {})], {"x": [3, 5, 24]}, ["y"], {"w": weights})
    x = normal(3, 5, 24)
    result = quantize(model, Samples(x=x))
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 31


def test_matmul_with_the_constant_on_the_left() -> None:
    model = graph([("MatMul", ["w", "x"], ["y"], {})], {"x": [24, 16]}, ["y"], {"w": normal(8, 24)})
    x = normal(24, 16)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model)["MatMulIntegerToFloat"] == 1
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 33


def test_matmul_of_two_activations_is_int8_when_asked_for() -> None:
    model = graph([("MatMul", ["a", "b"], ["y"], {})], {"a": ["n", 5, 24], "b": ["n", 24, 7]}, ["y"], {})
    a, b = normal(16, 5, 24), normal(16, 24, 7, seed=1)
    left = quantize(model, Samples(a=a, b=b))
    (node,) = left.plan.nodes.values()
    assert (node.precision, node.asked) == ("fp32", False)
    assert "both operands are activations" in node.reason
    asked = Override(match="op:MatMul", precision="int8")
    result = quantize(model, Samples(a=a, b=b), overrides=(asked,))
    assert optimized_ops(result.model)["MatMulIntegerToFloat"] == 1
    assert sqnr(run(model, {"a": a, "b": b})[0], run(result.model, {"a": a, "b": b})[0]) > 35


BETWEEN: dict[str, tuple[list[Node], dict[str, Any], str]] = {
    "max_pool": ([("MaxPool", ["t"], ["u"], {"kernel_shape": [2, 2]})], {}, "MaxPool"),
    "average_pool": (
        [("AveragePool", ["t"], ["u"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})],
        {},
        "QLinearAveragePool",
    ),
    "global_average_pool": ([("GlobalAveragePool", ["t"], ["u"], {})], {}, "QLinearGlobalAveragePool"),
    "leaky_relu": ([("LeakyRelu", ["t"], ["u"], {"alpha": 0.2})], {}, "QLinearLeakyRelu"),
    "sigmoid": ([("Sigmoid", ["t"], ["u"], {})], {}, "QLinearSigmoid"),
    "silu": (
        [("Sigmoid", ["t"], ["s"], {}), ("Mul", ["t", "s"], ["u"], {})],
        {},
        "QLinearMul",
    ),
    "add_constant": ([("Add", ["t", "c"], ["u"], {})], {"c": normal(4, 4)}, "QLinearAdd"),
    "mul_constant": ([("Mul", ["t", "c"], ["u"], {})], {"c": normal(4, 4)}, "QLinearMul"),
    "add_itself": ([("Sigmoid", ["t"], ["s"], {}), ("Add", ["t", "s"], ["u"], {})], {}, "QLinearAdd"),
    "concat": ([("Concat", ["t", "x"], ["u"], {"axis": 1})], {}, "QLinearConcat"),
    "resize": (
        [("Resize", ["t", "", "s"], ["u"], {"mode": "nearest"})],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        "Resize",
    ),
    "slice": (
        [("Slice", ["t", "a", "b", "c"], ["u"], {})],
        {"a": np.array([1], I64), "b": np.array([6], I64), "c": np.array([1], I64)},
        "Slice",
    ),
    "split": (
        [
            ("Split", ["t"], ["s1", "s2"], {"num_outputs": 2, "axis": 1}),
            ("Add", ["s1", "s2"], ["u"], {}),
        ],
        {},
        "Split",
    ),
    "where": ([("Where", ["mask", "t", "x"], ["u"], {})], {"mask": np.arange(8) % 2 == 0}, "QLinearWhere"),
    "tile": ([("Tile", ["t", "reps"], ["u"], {})], {"reps": np.array([1, 1, 2, 1], I64)}, "Tile"),
    "reshape": (
        [
            ("Reshape", ["t", "s1"], ["r"], {}),
            ("Transpose", ["r"], ["q"], {"perm": [0, 2, 1]}),
            ("Reshape", ["q", "s2"], ["u"], {}),
        ],
        {"s1": np.array([0, 8, -1], I64), "s2": np.array([0, 8, 8, 8], I64)},
        "Reshape",
    ),
    "depth_to_space": ([("DepthToSpace", ["t"], ["u"], {"blocksize": 2})], {}, "DepthToSpace"),
}


@pytest.mark.parametrize("form", list(BETWEEN))
def test_ops_between_convolutions_stay_integers(form: str) -> None:
    nodes, weights, kernel = BETWEEN[form]
    weights = dict(weights)
    if "c" in weights and weights["c"].dtype == np.float32:
        weights["c"] = normal(8, 8, 8)  # one per value: not to be folded into the convolution
    channels = {"concat": 16, "slice": 8, "depth_to_space": 2, "split": 4}.get(form, 8)
    if form == "slice":
        weights |= {"ax": np.array([2], I64)}
        nodes = [("Slice", ["t", "a", "b", "ax"], ["u"], {})]
    model = graph(
        [("Conv", ["x", "w"], ["t"], {}), *nodes, ("Conv", ["u", "w2"], ["y"], {})],
        {"x": ["n", 8, 8, 8]},
        ["y"],
        {"w": normal(8, 8, 1, 1, scale=0.3), "w2": normal(4, channels, 1, 1), **weights},
    )
    x = normal(16, 8, 8, 8)
    result = quantize(model, Samples(x=x))
    ops = optimized_ops(result.model)
    assert ops[kernel] + ops[f"Nhwc{kernel}"] >= 1
    assert ops["DequantizeLinear"] == 1
    assert ops["QuantizeLinear"] == 1
    # A global average is small against the values that it averages, and so against their rounding.
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > (18 if "global" in form else 27)


@pytest.mark.parametrize("op", ["Tanh", "HardSwish", "Elu", "Softplus", "Softmax"])
def test_ops_without_a_kernel_stay_float_between_integer_convolutions(op: str) -> None:
    model = graph(
        [("Conv", ["x", "w"], ["t"], {}), (op, ["t"], ["u"], {}), ("Conv", ["u", "w2"], ["y"], {})],
        {"x": ["n", 8, 8, 8]},
        ["y"],
        {"w": normal(8, 8, 1, 1, scale=0.3), "w2": normal(4, 8, 1, 1)},
    )
    x = normal(16, 8, 8, 8)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model)["QLinearConv"] == 2
    assert next(n for n in result.plan.nodes.values() if n.op_type == op).precision == "fp32"
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 27


def test_embedding_is_stored_in_int8_and_widened_after_the_lookup() -> None:
    from onnx import TensorProto

    model = graph(
        [("Gather", ["table", "ids"], ["e"], {}), ("MatMul", ["e", "w"], ["y"], {})],
        {"ids": ["n", 6]},
        ["y"],
        {"table": normal(500, 16), "w": normal(16, 8)},
        types={"ids": TensorProto.INT64},
    )
    ids = np.random.default_rng(0).integers(0, 500, (32, 6))
    result = quantize(model, Samples(ids=ids))
    sizes = {n: v.const_value.nbytes for n, v in result.model.ir.graph.initializers.items() if v.const_value}
    assert max(sizes.values()) == 500 * 16
    assert sqnr(run(model, {"ids": ids})[0], run(result.model, {"ids": ids})[0]) > 33
