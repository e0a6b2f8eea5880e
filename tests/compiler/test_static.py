"""The whole static quantizer on small networks: accuracy, edge cases, errors, determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.compiler.model import Model
from edgeq.errors import DataError
from tests.support.static_models import (
    Node,
    Samples,
    graph,
    normal,
    optimized_ops,
    precisions,
    quantize,
    run,
    sqnr,
)


def residual_net(seed: int = 0) -> Model:
    """A small ResNet: stem, two residual blocks, one with a stride, pooling and a classifier."""

    def w(*shape: int, n: int) -> np.ndarray:
        fan = float(np.prod(shape[1:]))
        return normal(*shape, seed=seed + n, scale=(2 / fan) ** 0.5)

    nodes: list[Node] = [
        ("Conv", ["x", "w0", "b0"], ["c0"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c0"], ["r0"], {}),
        ("Conv", ["r0", "w1", "b1"], ["c1"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c1"], ["r1"], {}),
        ("Conv", ["r1", "w2", "b2"], ["c2"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["c2", "r0"], ["a2"], {}),
        ("Relu", ["a2"], ["r2"], {}),
        ("Conv", ["r2", "w3", "b3"], ["c3"], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Relu", ["c3"], ["r3"], {}),
        ("Conv", ["r2", "w4"], ["s3"], {"strides": [2, 2]}),
        ("Add", ["r3", "s3"], ["a3"], {}),
        ("Relu", ["a3"], ["r4"], {}),
        ("GlobalAveragePool", ["r4"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("Gemm", ["f", "w5", "b5"], ["y"], {}),
    ]
    weights = {
        "w0": w(8, 3, 3, 3, n=0),
        "w1": w(8, 8, 3, 3, n=1),
        "w2": w(8, 8, 3, 3, n=2),
        "w3": w(16, 8, 3, 3, n=3),
        "w4": w(16, 8, 1, 1, n=4),
        "w5": w(16, 10, n=5),
        **{f"b{i}": normal(c, seed=20 + i, scale=0.1) for i, c in enumerate((8, 8, 8, 16))},
        "b5": normal(10, seed=30),
    }
    return graph(nodes, {"x": ["n", 3, 12, 12]}, ["y"], weights)


def test_a_residual_network_runs_in_integers_from_end_to_end() -> None:
    model, x = residual_net(), normal(64, 3, 12, 12, seed=9)
    result = quantize(model, Samples(x=x))
    ops = optimized_ops(result.model)
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (5, 2, 1)
    assert ops["QuantizeLinear"] == 1
    assert not ops.keys() & {"Conv", "Add", "Relu", "Gemm", "DequantizeLinear"}
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 28


def transformer_block() -> Model:
    """Self-attention with two heads, LayerNormalization, a Gelu feed-forward part."""
    width, heads = 16, 2
    nodes: list[Node] = []
    weights: dict[str, Any] = {"perm": np.array([0, 0, heads, width // heads], np.int64)}
    for name in "qkv":
        nodes += [
            ("MatMul", ["x", f"w{name}"], [f"m{name}"], {}),
            ("Add", [f"m{name}", f"b{name}"], [f"a{name}"], {}),
            ("Reshape", [f"a{name}", "perm"], [f"r{name}"], {}),
            ("Transpose", [f"r{name}"], [name], {"perm": [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]}),
        ]
        weights |= {f"w{name}": normal(width, width, seed=ord(name), scale=0.25), f"b{name}": normal(width)}
    nodes += [
        ("MatMul", ["q", "k"], ["scores"], {}),
        ("Div", ["scores", "root"], ["scaled"], {}),
        ("Softmax", ["scaled"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "v"], ["heads"], {}),
        ("Transpose", ["heads"], ["back"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["back", "flat"], ["joined"], {}),
        ("MatMul", ["joined", "wo"], ["mo"], {}),
        ("Add", ["mo", "bo"], ["ao"], {}),
        ("Add", ["ao", "x"], ["skip"], {}),
        ("LayerNormalization", ["skip", "g", "h"], ["n1"], {}),
        ("MatMul", ["n1", "w1"], ["f1"], {}),
        ("Add", ["f1", "b1"], ["f2"], {}),
        ("Gelu", ["f2"], ["f3"], {}),
        ("MatMul", ["f3", "w2"], ["f4"], {}),
        ("Add", ["f4", "b2"], ["f5"], {}),
        ("Add", ["f5", "n1"], ["f6"], {}),
        ("LayerNormalization", ["f6", "g", "h"], ["y"], {}),
    ]
    weights |= {
        "root": np.float32(8**0.5),
        "flat": np.array([0, 0, width], np.int64),
        "wo": normal(width, width, seed=5, scale=0.25),
        "bo": normal(width, seed=6),
        "g": 1 + normal(width, seed=7, scale=0.1),
        "h": normal(width, seed=8, scale=0.1),
        "w1": normal(width, 64, seed=9, scale=0.25),
        "b1": normal(64, seed=10),
        "w2": normal(64, width, seed=11, scale=0.12),
        "b2": normal(width, seed=12),
    }
    return graph(nodes, {"x": ["n", 7, width]}, ["y"], weights)


def test_a_transformer_block_keeps_its_fused_float_kernels() -> None:
    model, x = transformer_block(), normal(32, 7, 16, seed=3)
    result = quantize(model, Samples(x=x))
    ops = optimized_ops(result.model)
    assert ops["MatMulIntegerToFloat"] + ops["QLinearMatMul"] == 6
    assert ops["MatMul"] + ops["FusedMatMul"] == 2, "attention stays in float"
    assert ops["SkipLayerNormalization"] == 2
    assert ops["BiasGelu"] + ops["Gelu"] == 1
    assert ops["Softmax"] == 1
    assert not {op for op in ops if op.startswith("QLinear")} - {"QLinearMatMul"}
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 30


def conv(weights: np.ndarray, bias: np.ndarray | None = None) -> Model:
    names = ["x", "w"] if bias is None else ["x", "w", "b"]
    constants = {"w": weights} if bias is None else {"w": weights, "b": bias}
    return graph([("Conv", names, ["y"], {})], {"x": ["n", *weights.shape[1:2], 6, 6]}, ["y"], constants)


def check(model: Model, x: np.ndarray, bound: float) -> None:
    result = quantize(model, Samples(x=x))
    for params in result.params.values():
        assert np.isfinite(params.scale).all()
        assert (params.scale > 0).all()
    assert optimized_ops(result.model)["QLinearConv"] == 1
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > bound


@pytest.mark.parametrize("dead", [0.0, 1e-38, 1e-42, 1e-20])
def test_dead_channels_do_not_disturb_the_others(dead: float) -> None:
    weights = normal(8, 4, 3, 3)
    weights[[1, 5]] = np.float32(dead)
    check(conv(weights, normal(8, seed=2)), normal(16, 4, 6, 6), 33)


def test_a_layer_of_zeros() -> None:
    check(conv(np.zeros((4, 4, 1, 1), np.float32), normal(4)), normal(16, 4, 6, 6), 28)


def test_a_bias_that_dwarfs_the_products_still_fits_int32() -> None:
    check(conv(normal(4, 4, 1, 1, scale=1e-7), normal(4, scale=100)), normal(16, 4, 6, 6), 33)


def test_a_constant_input() -> None:
    x = np.full((16, 4, 6, 6), 0.7, np.float32)
    check(conv(normal(4, 4, 1, 1)), x, 33)


def test_an_input_of_zeros() -> None:
    model = conv(normal(4, 4, 1, 1), normal(4))
    check(model, np.zeros((16, 4, 6, 6), np.float32), 33)


def test_channels_of_very_different_range_keep_their_precision() -> None:
    weights = normal(8, 4, 3, 3) * np.geomspace(1e-4, 10, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    model, x = conv(weights), normal(16, 4, 6, 6)
    params = quantize(model, Samples(x=x)).params["w"]
    assert params.scale.shape == (8,)
    assert params.scale[-1] / params.scale[0] > 1e4


def test_nan_in_the_data_is_refused() -> None:
    x = normal(8, 4, 6, 6)
    x[3, 1, 2, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        quantize(conv(normal(4, 4, 1, 1)), Samples(x=x))


def test_an_overflow_inside_the_model_is_refused_with_the_tensor() -> None:
    model = graph(
        [("Exp", ["x"], ["e"], {}), ("Conv", ["e", "w"], ["y"], {})],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1)},
    )
    with pytest.raises(DataError, match="'e' has infinite values"):
        quantize(model, Samples(x=normal(8, 4, 6, 6, scale=100)))


def test_a_model_without_anything_to_quantize_passes_through() -> None:
    model = graph([("Tanh", ["x"], ["y"], {})], {"x": ["n", 4]}, ["y"], {})
    result = quantize(model, Samples(x=normal(8, 4)))
    assert precisions(result) == {"Tanh_y": "fp32"}
    assert optimized_ops(result.model) == {"Tanh": 1}


def test_inputs_and_outputs_keep_their_names_and_the_source_is_untouched() -> None:
    model = residual_net()
    before = ir.to_proto(model.ir).SerializeToString(deterministic=True)
    result = quantize(model, Samples(x=normal(32, 3, 12, 12)))
    assert [v.name for v in result.model.ir.graph.inputs] == ["x"]
    assert [v.name for v in result.model.ir.graph.outputs] == ["y"]
    assert ir.to_proto(model.ir).SerializeToString(deterministic=True) == before


def test_an_output_that_other_nodes_read_too_keeps_its_name() -> None:
    model = graph(
        [("Conv", ["x", "w"], ["y"], {}), ("Conv", ["y", "v"], ["z"], {})],
        {"x": ["n", 4, 6, 6]},
        ["y", "z"],
        {"w": normal(4, 4, 1, 1), "v": normal(4, 4, 1, 1)},
    )
    x = normal(16, 4, 6, 6)
    result = quantize(model, Samples(x=x))
    for wanted, got in zip(run(model, {"x": x}), run(result.model, {"x": x}), strict=True):
        assert sqnr(wanted, got) > 30


def test_the_same_input_gives_the_same_bytes() -> None:
    x = normal(48, 3, 12, 12)
    made = [
        ir.to_proto(quantize(residual_net(), Samples(x=x)).model.ir).SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse", "auto"])
def test_every_range_method_works_on_a_whole_network(method: str) -> None:
    model, x = residual_net(), normal(64, 3, 12, 12, seed=9)
    result = quantize(model, Samples(x=x), range_method=method)
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 24


def test_auto_says_which_method_it_took() -> None:
    result = quantize(residual_net(), Samples(x=normal(32, 3, 12, 12)))
    assert any("Range method" in note for note in result.notes)


def test_weights_shared_by_two_layers_get_scales_and_biases_of_their_own() -> None:
    model = graph(
        [
            ("Conv", ["x", "w", "b"], ["t"], {}),
            ("Relu", ["t"], ["u"], {}),
            ("Conv", ["u", "w", "b"], ["y"], {}),
        ],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1), "b": normal(4)},
    )
    x = normal(16, 4, 6, 6)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model)["QLinearConv"] == 2
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 30


def test_bias_correction_takes_the_mean_error_back() -> None:
    """Weights whose rounding errors all have one sign shift every output; correction must see it."""
    weights = np.full((8, 16, 1, 1), 0.3437, np.float32)
    weights[:, ::4] = 1.0
    weights[:, 1::4] = -0.3437
    model = conv(weights, normal(8))
    x = (np.abs(normal(64, 16, 6, 6)) + 1).astype(np.float32)
    wanted = run(model, {"x": x})[0]
    shift = {}
    for corrected in (False, True):
        result = quantize(model, Samples(x=x), bias_correction=corrected)
        shift[corrected] = np.abs((run(result.model, {"x": x})[0] - wanted).mean(axis=(0, 2, 3))).max()
    assert shift[True] < 0.2 * shift[False]


def test_a_model_with_a_fixed_batch_takes_a_number_of_samples_that_it_does_not_divide() -> None:
    model = graph(
        [("Conv", ["x", "w"], ["t"], {}), ("Relu", ["t"], ["u"], {}), ("Conv", ["u", "v"], ["y"], {})],
        {"x": [4, 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1), "v": normal(4, 4, 1, 1, seed=1)},
    )
    x = normal(10, 4, 6, 6)
    result = quantize(model, Samples(x=x))
    assert sqnr(run(model, {"x": x[:4]})[0], run(result.model, {"x": x[:4]})[0]) > 30


def test_layers_inside_and_around_control_flow() -> None:
    """An If between two convolutions whose branches read tensors from outside."""
    import onnx
    from onnx import helper

    from edgeq.compiler.model import Source
    from edgeq.compiler.normalize import normalize

    def branch(op: str, name: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["t"], [name])], name, [], [output])

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"], name="first"),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node(
            "If", ["c"], ["u"], then_branch=branch("Tanh", "a"), else_branch=branch("Neg", "b"), name="if"
        ),
        helper.make_node("Conv", ["u", "v"], ["y"], name="second"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(normal(4, 4, 1, 1), "w"),
            onnx.numpy_helper.from_array(normal(4, 4, 1, 1, seed=1), "v"),
            onnx.numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = normalize(Model(ir.from_proto(proto), Source("onnx", "test", "0" * 64))).model
    x = normal(16, 4, 6, 6)
    result = quantize(model, Samples(x=x))
    assert optimized_ops(result.model)["QLinearConv"] == 2
    assert sqnr(run(model, {"x": x})[0], run(result.model, {"x": x})[0]) > 25


def test_bias_correction_with_inputs_that_are_no_images() -> None:
    """Two inputs that are no images, a float branch and a constant branch between the layers."""
    model = graph(
        [
            ("Gemm", ["a", "w"], ["t"], {}),
            ("Tanh", ["t"], ["u"], {}),
            ("Mul", ["u", "b"], ["v"], {}),
            ("Gemm", ["v", "w2"], ["y"], {}),
        ],
        {"a": ["n", 8], "b": ["n", 8]},
        ["y"],
        {"w": normal(8, 8), "w2": normal(8, 4)},
    )
    a, b = normal(64, 8), normal(64, 8, seed=1)
    result = quantize(model, Samples(a=a, b=b))
    assert optimized_ops(result.model)["QGemm"] == 2
    assert sqnr(run(model, {"a": a, "b": b})[0], run(result.model, {"a": a, "b": b})[0]) > 30
