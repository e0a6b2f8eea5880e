"""Zero points that symmetric kernels have not: shifted activations, biases that take the shift back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Recipe
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.static_models import Samples, graph, normal, sqnr
from tests.support.static_models import run as run_model

SYMMETRIC = dataclasses.replace(capabilities(TensorRTOptions(precision="fp32")), scale_dtype="float32")
AFFINE = dataclasses.replace(SYMMETRIC, symmetric_activations=False)


def quantized(model: Model, data: Array, caps: Any = SYMMETRIC) -> Quantized:
    recipe = Recipe(scheme="int8-static", range_method="minmax")
    return quantize_static(model, caps, recipe, Samples(x=data), threads=1)


def zero_points(result: Quantized) -> set[int]:
    """Of everything that is rounded when the model runs."""
    graph_ = result.model.ir.graph
    values = [node.inputs[2] for node in graph_ if node.op_type == "QuantizeLinear"]
    return {int(v.const_value.numpy()) for v in values if v is not None and v.const_value is not None}


def shifted(result: Quantized) -> list[str]:
    return [node.name or "" for node in result.model.ir.graph if (node.name or "").endswith("_shifted")]


def conv_relu_conv(pads: list[int]) -> Model:
    return graph(
        [
            ("Conv", ["x", "w1", "b1"], ["c"], {"pads": [0, 0, 0, 0]}),
            ("Relu", ["c"], ["r"], {}),
            ("Conv", ["r", "w2", "b2"], ["y"], {"pads": pads}),
        ],
        {"x": ["N", 3, 8, 8]},
        ["y"],
        {
            "w1": normal(8, 3, 3, 3, seed=1),
            "b1": normal(8, seed=2),
            "w2": normal(4, 8, 3, 3, seed=3),
            "b2": normal(4, seed=4),
        },
    )


def same_numbers(model: Model, data: Array) -> tuple[Quantized, float]:
    """The symmetric result, and how near it is to that with real zero points."""
    symmetric, affine = quantized(model, data), quantized(model, data, AFFINE)
    assert zero_points(symmetric) == {0}
    got, wanted = (run_model(r.model, {"x": data}, optimize=False)[0] for r in (symmetric, affine))
    return symmetric, sqnr(wanted, got)


def test_shifted_activations_compute_what_zero_points_do() -> None:
    data = np.abs(normal(16, 3, 8, 8))
    result, nearness = same_numbers(conv_relu_conv([0, 0, 0, 0]), data)
    assert shifted(result) == ["x_shifted", "r_shifted"]
    assert nearness > 100
    assert all(p.spec.symmetric for n, p in result.params.items() if n in ("x", "r"))


def test_what_is_always_zero_stays() -> None:
    result = quantized(conv_relu_conv([0, 0, 0, 0]), np.zeros((4, 3, 8, 8), np.float32))
    assert "x_shifted" not in shifted(result)


def test_padding_within_the_model_moves_before_the_shift() -> None:
    data = np.abs(normal(16, 3, 8, 8))
    result, nearness = same_numbers(conv_relu_conv([1, 0, 2, 1]), data)
    assert shifted(result) == ["x_shifted", "r_shifted"]
    assert nearness > 100
    (pad,) = (node for node in result.model.ir.graph if node.op_type == "Pad")
    (following,) = pad.outputs[0].consumers()
    assert following.name == "r_shifted"


def squeeze_expand() -> Model:
    """Two layers read one activation: one pads, the other does not."""
    return graph(
        [
            ("Relu", ["x"], ["r"], {}),
            ("Conv", ["r", "w1", "b1"], ["c"], {}),
            ("Conv", ["r", "w2", "b2"], ["d"], {"pads": [1, 1, 1, 1]}),
            ("Concat", ["c", "d"], ["y"], {"axis": 1}),
        ],
        {"x": ["N", 4, 8, 8]},
        ["y"],
        {
            "w1": normal(6, 4, 1, 1, seed=1),
            "b1": normal(6, seed=2),
            "w2": normal(6, 4, 3, 3, seed=3),
            "b2": normal(6, seed=4),
        },
    )


def test_layers_that_pad_differently_read_roundings_of_their_own() -> None:
    result, nearness = same_numbers(squeeze_expand(), normal(16, 4, 8, 8))
    assert shifted(result) == ["r_shifted"]
    assert nearness > 100
    ops = [node.op_type for node in result.model.ir.graph]
    assert ops.count("Pad") == 1
    assert ops.count("Add") == ops.count("QuantizeLinear") == 2
    assert not any("pads" in n.attributes for n in result.model.ir.graph if n.op_type == "Conv")


@pytest.mark.parametrize(
    ("rank", "pads", "attributes"),
    [
        (1, [2, 1], {}),
        (2, [0, 1, 2, 0], {"auto_pad": "NOTSET", "strides": [2, 1], "dilations": [1, 2]}),
        (2, [1, 1, 1, 1], {"group": 4}),
        (3, [1, 0, 2, 0, 1, 1], {}),
    ],
)
def test_padding_of_every_rank_and_form(rank: int, pads: list[int], attributes: dict[str, Any]) -> None:
    channels = 4 // attributes.get("group", 1)
    model = graph(
        [("Relu", ["x"], ["r"], {}), ("Conv", ["r", "w"], ["y"], {"pads": pads, **attributes})],
        {"x": ["N", 4, *(["size"] * rank)]},
        ["y"],
        {"w": normal(4, channels, *([3] * rank), seed=1)},
    )
    result, nearness = same_numbers(model, normal(8, 4, *([8] * rank)))
    assert shifted(result) == ["r_shifted"]
    assert nearness > 100
    other = normal(2, 4, *([11] * rank), seed=5)
    assert run_model(result.model, {"x": other})[0].shape == run_model(model, {"x": other})[0].shape


def test_maxima_before_padding_are_shifted_before_they_are_taken() -> None:
    """A sum between the maxima and the rounding would keep them out of INT8."""
    model = graph(
        [
            ("Relu", ["x"], ["r"], {}),
            ("MaxPool", ["r"], ["m"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
            ("Conv", ["m", "w"], ["y"], {"pads": [1, 0, 2, 1]}),
        ],
        {"x": ["N", 4, 8, 8]},
        ["y"],
        {"w": normal(4, 4, 3, 3, seed=1)},
    )
    result, nearness = same_numbers(model, normal(8, 4, 8, 8))
    assert nearness > 100
    ops = [node.op_type for node in result.model.ir.graph]
    assert ops.index("Add") < ops.index("MaxPool") < ops.index("Pad")


def test_what_is_padded_may_be_an_output_too() -> None:
    model = graph(
        [("Relu", ["x"], ["r"], {}), ("Conv", ["r", "w"], ["y"], {"pads": [1, 1, 1, 1]})],
        {"x": ["N", 4, 8, 8]},
        ["y", "r"],
        {"w": normal(4, 4, 3, 3, seed=1)},
    )
    data = normal(8, 4, 8, 8)
    result, nearness = same_numbers(model, data)
    assert nearness > 100
    assert shifted(result) == ["r_shifted"]
    np.testing.assert_array_equal(run_model(result.model, {"x": data})[1], np.maximum(data, 0))


def test_sizes_of_what_is_padded_are_known() -> None:
    result = quantized(conv_relu_conv([1, 0, 2, 1]), np.abs(normal(16, 3, 8, 8)))
    (pad,) = (node for node in result.model.ir.graph if node.op_type == "Pad")
    for value in (pad.outputs[0], result.model.ir.graph.node("r_QuantizeLinear").outputs[0]):
        assert value.shape is not None
        assert list(value.shape)[1:] == [8, 9, 7]


def test_padding_of_the_input_moves_before_the_shift() -> None:
    model = graph(
        [("Conv", ["x", "w", "b"], ["y"], {"pads": [1, 0, 2, 1], "strides": [2, 1]})],
        {"x": ["N", 3, 8, 8]},
        ["y"],
        {"w": normal(4, 3, 3, 3), "b": normal(4)},
    )
    data = normal(16, 3, 8, 8) + np.float32(7)
    result, nearness = same_numbers(model, data)
    assert [node.op_type for node in result.model.ir.graph if node.op_type == "Pad"] == ["Pad"]
    assert nearness > 100


@pytest.mark.parametrize("bias", [True, False])
def test_products_without_a_bias_get_an_addition(bias: bool) -> None:
    nodes: list[Any] = [("MatMul", ["x", "w"], ["m"], {})]
    nodes += [("Add", ["m", "b"], ["y"], {})] if bias else [("Tanh", ["m"], ["y"], {})]
    model = graph(nodes, {"x": ["N", 5, 32]}, ["y"], {"w": normal(32, 16, scale=0.1), "b": normal(16)})
    result, nearness = same_numbers(model, np.abs(normal(64, 5, 32)))
    assert shifted(result) == ["x_shifted"]
    assert nearness > 100
    adds = sum(node.op_type == "Add" for node in result.model.ir.graph)
    assert adds == 2


def test_other_readers_get_the_shift_back() -> None:
    model = graph(
        [
            ("Conv", ["x", "w1", "b1"], ["c"], {}),
            ("Relu", ["c"], ["r"], {}),
            ("Conv", ["r", "w2", "b2"], ["d"], {}),
            ("Add", ["d", "r"], ["y"], {}),
        ],
        {"x": ["N", 8, 4, 4]},
        ["y"],
        {
            "w1": normal(8, 8, 1, 1, seed=1),
            "b1": normal(8, seed=2),
            "w2": normal(8, 8, 1, 1, seed=3),
            "b2": normal(8, seed=4),
        },
    )
    result, nearness = same_numbers(model, np.abs(normal(64, 8, 4, 4)))
    assert "r_shifted" in shifted(result)
    assert nearness > 100


def test_ops_that_move_rounded_values_keep_them_unshifted() -> None:
    model = graph(
        [
            ("Relu", ["x"], ["r"], {}),
            ("Conv", ["r", "w", "b"], ["y"], {}),
            ("MaxPool", ["r"], ["z"], {"kernel_shape": [2, 2]}),
        ],
        {"x": ["N", 8, 4, 4]},
        ["y", "z"],
        {"w": normal(8, 8, 1, 1), "b": normal(8)},
    )
    assert shifted(quantized(model, np.abs(normal(16, 8, 4, 4)))) == []


def test_padding_of_the_input_stays_where_others_read_it_too() -> None:
    model = graph(
        [
            ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}),
            ("Add", ["c", "x"], ["y"], {}),
        ],
        {"x": ["N", 4, 8, 8]},
        ["y"],
        {"w": normal(4, 4, 3, 3), "b": normal(4)},
    )
    assert shifted(quantized(model, np.abs(normal(16, 4, 8, 8)))) == []


def test_steps_are_finer_where_values_lie_on_one_side() -> None:
    data = np.abs(normal(64, 3, 8, 8))
    model = conv_relu_conv([0, 0, 0, 0])
    wanted = run_model(model, {"x": data})[0]
    with_shift = run_model(quantized(model, data).model, {"x": data}, optimize=False)[0]
    plain = dataclasses.replace(SYMMETRIC, float_bias=False)
    without = run_model(quantized(model, data, plain).model, {"x": data}, optimize=False)[0]
    assert sqnr(wanted, with_shift) > sqnr(wanted, without) + 3


def test_symmetric_data_are_left_alone() -> None:
    model = graph(
        [("Conv", ["x", "w", "b"], ["y"], {"pads": [1, 1, 1, 1]})],
        {"x": ["N", 3, 8, 8]},
        ["y"],
        {"w": normal(4, 3, 3, 3), "b": normal(4)},
    )
    result = quantized(model, normal(16, 3, 8, 8))
    assert not any(n.startswith("Zero points") for n in result.notes)


def test_the_result_is_the_same_every_time() -> None:
    data = np.abs(normal(16, 3, 8, 8))
    first, second = (quantized(conv_relu_conv([0, 0, 0, 0]), data) for _ in range(2))
    assert ir.to_proto(first.model.ir).SerializeToString() == ir.to_proto(second.model.ir).SerializeToString()
