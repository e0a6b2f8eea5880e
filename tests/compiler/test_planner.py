"""What the static planner decides, and that it says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.compiler.plan import Plan
from edgeq.compiler.planner import make_plan
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import UsageError
from edgeq.targets.onnxruntime.capabilities import CAPABILITIES
from tests.support.static_models import Node, graph, normal


def plan(
    nodes: list[Node],
    inputs: dict[str, Any],
    outputs: list[str],
    weights: dict[str, Any],
    *overrides: tuple[str, str],
) -> Plan:
    recipe = Recipe(
        scheme="int8-static",
        overrides=tuple(Override(match=m, precision=p) for m, p in overrides),  # type: ignore[arg-type]
    )
    return make_plan(graph(nodes, inputs, outputs, weights), CAPABILITIES, recipe)


def residual(*overrides: tuple[str, str]) -> Plan:
    """Conv → Relu → Conv → Add (with the first Relu) → Relu → Conv."""
    return plan(
        [
            ("Conv", ["x", "w"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "w2"], ["c"], {}),
            ("Add", ["b", "c"], ["d"], {}),
            ("Relu", ["d"], ["e"], {}),
            ("Conv", ["e", "w3"], ["y"], {}),
        ],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1), "w2": normal(4, 4, 1, 1), "w3": normal(4, 4, 1, 1)},
        *overrides,
    )


def test_every_node_has_a_reason() -> None:
    found = residual()
    assert all(node.reason for node in found.nodes.values())
    assert {node.precision for node in found.nodes.values()} == {"int8"}


def test_a_relu_is_absorbed_and_its_input_has_no_range() -> None:
    found = residual()
    assert set(found.activations) == {"x", "b", "c", "e", "y"}
    assert found.stored == {"b", "c", "e", "y"}
    assert "absorbed" in found.nodes["Relu_b"].reason


def test_an_override_keeps_a_node_in_float_and_its_neighbours_adapt() -> None:
    found = residual(("Conv_c", "fp32"))
    assert found.nodes["Conv_c"].precision == "fp32"
    assert "recipe" in found.nodes["Conv_c"].reason
    assert not found.nodes["Conv_c"].asked
    assert found.nodes["Add_d"].precision == "int8"


def test_an_override_on_an_op_type() -> None:
    found = residual(("op:Add", "fp32"))
    assert found.nodes["Add_d"].precision == "fp32"
    assert found.nodes["Relu_e"].precision == "fp32"


def test_an_override_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="matches no node"):
        residual(("Conv_nowhere", "fp32"))


def test_an_override_with_a_precision_of_another_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="asks for int4"):
        residual(("Conv_c", "int4"))


def test_an_override_forces_an_island_into_int8() -> None:
    nodes: list[Node] = [("Tanh", ["x"], ["t"], {}), ("Sigmoid", ["t"], ["y"], {})]
    assert plan(nodes, {"x": ["n", 4]}, ["y"], {}).nodes["Sigmoid_y"].precision == "fp32"
    forced = plan(nodes, {"x": ["n", 4]}, ["y"], {}, ("Sigmoid_y", "int8"))
    assert forced.nodes["Sigmoid_y"].precision == "int8"


@pytest.mark.parametrize("op", ["Sigmoid", "LeakyRelu", "GlobalAveragePool", "Relu"])
def test_an_elementwise_op_between_float_ops_stays_float(op: str) -> None:
    found = plan(
        [("Tanh", ["x"], ["a"], {}), (op, ["a"], ["b"], {}), ("Tanh", ["b"], ["y"], {})],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {},
    )
    assert found.nodes[f"{op}_b"].precision == "fp32"
    assert not found.nodes[f"{op}_b"].asked
    assert not found.activations


def test_a_chain_of_joins_that_ends_in_float_stays_float() -> None:
    found = plan(
        [
            ("Conv", ["x", "w"], ["a"], {}),
            ("LeakyRelu", ["a"], ["b"], {}),
            ("Sigmoid", ["b"], ["c"], {}),
            ("Tanh", ["c"], ["y"], {}),
        ],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1)},
    )
    assert found.nodes["Conv_a"].precision == "int8"
    assert found.nodes["LeakyRelu_b"].precision == "fp32"
    assert found.nodes["Sigmoid_c"].precision == "fp32"


FLOATS: dict[str, tuple[list[Node], dict[str, Any], dict[str, Any], str]] = {
    "weights at run time": (
        [("Conv", ["x", "w"], ["y"], {})],
        {"x": ["n", 4, 6, 6], "w": [4, 4, 1, 1]},
        {},
        "its weights are computed at run time",
    ),
    "no kernel": (
        [("ConvTranspose", ["x", "w"], ["y"], {})],
        {"x": ["n", 4, 6, 6]},
        {"w": normal(4, 4, 2, 2)},
        "no INT8 kernel",
    ),
    "NaN": (
        [("Conv", ["x", "w"], ["y"], {})],
        {"x": ["n", 4, 6, 6]},
        {"w": np.full((4, 4, 1, 1), np.nan, np.float32)},
        "NaN",
    ),
    "matrix bias": (
        [("Gemm", ["x", "w", "b"], ["y"], {})],
        {"x": [5, 4]},
        {"w": normal(4, 3), "b": normal(5, 3)},
        "its bias is a matrix",
    ),
}


@pytest.mark.parametrize("case", list(FLOATS))
def test_arithmetic_left_in_float_says_why_and_was_asked_for(case: str) -> None:
    nodes, inputs, weights, reason = FLOATS[case]
    found = plan(nodes, inputs, ["y"], weights)
    (node,) = found.nodes.values()
    assert node.precision == "fp32"
    assert reason in node.reason
    assert node.asked


def test_shape_arithmetic_is_no_matter_of_precision() -> None:
    found = plan(
        [("Shape", ["x"], ["s"], {}), ("ConstantOfShape", ["s"], ["y"], {})], {"x": ["n", "m"]}, ["y"], {}
    )
    assert found.nodes["Shape_s"].precision == "other"


def test_weights_of_every_op_are_per_channel_along_their_axis() -> None:
    found = plan(
        [
            ("Conv", ["x", "cw"], ["a"], {}),
            ("Flatten", ["a"], ["f"], {}),
            ("Gemm", ["f", "gw"], ["g"], {"transB": 1}),
            ("MatMul", ["g", "mw"], ["y"], {}),
        ],
        {"x": ["n", 4, 1, 1]},
        ["y"],
        {"cw": normal(6, 4, 1, 1), "gw": normal(5, 6), "mw": normal(5, 3)},
    )
    assert {name: spec.axis for name, spec in found.weights.items()} == {"cw": 0, "gw": 0, "mw": 1}


MOVES: list[Node] = [
    ("MaxPool", ["a"], ["b"], {"kernel_shape": [1, 1]}),
    ("Transpose", ["b"], ["c"], {"perm": [0, 1, 3, 2]}),
]


def test_ops_that_move_values_share_the_range_of_their_input() -> None:
    found = plan(
        [("Conv", ["x", "w"], ["a"], {}), *MOVES, ("Conv", ["c", "w"], ["y"], {})],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1)},
    )
    assert found.shared == [("a", "b", "c")]


def concat(first: list[Node], second: list[Node]) -> Plan:
    return plan(
        [*first, *second, ("Concat", ["p", "q"], ["t"], {"axis": 1}), ("Conv", ["t", "w2"], ["y"], {})],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1), "v": normal(4, 4, 1, 1, seed=1), "w2": normal(4, 8, 1, 1)},
    )


CONV_P: list[Node] = [("Conv", ["x", "w"], ["p"], {})]
CONV_RELU_P: list[Node] = [("Conv", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["p"], {})]
CONV_Q: list[Node] = [("Conv", ["x", "v"], ["q"], {})]
CONV_RELU_Q: list[Node] = [("Conv", ["x", "v"], ["b"], {}), ("Relu", ["b"], ["q"], {})]


def test_concat_gives_its_inputs_one_range_where_that_adds_no_error() -> None:
    assert concat(CONV_P, CONV_Q).shared == [("p", "q", "t")]
    assert concat(CONV_RELU_P, CONV_RELU_Q).shared == [("p", "q", "t")]


def test_concat_rescales_where_a_shared_range_would_bring_a_relu_back() -> None:
    assert concat(CONV_RELU_P, CONV_Q).shared == []


def test_a_matmul_writes_float_for_float_consumers_and_integers_for_the_next_matmul() -> None:
    weights = {"w": normal(8, 8), "v": normal(8, 8)}
    float_between = plan(
        [("MatMul", ["x", "w"], ["a"], {}), ("Tanh", ["a"], ["b"], {}), ("MatMul", ["b", "v"], ["y"], {})],
        {"x": ["n", 3, 8]},
        ["y"],
        weights,
    )
    assert set(float_between.activations) == {"x", "b"}
    assert not float_between.stored
    direct = plan(
        [("MatMul", ["x", "w"], ["a"], {}), ("MatMul", ["a", "v"], ["y"], {})],
        {"x": ["n", 3, 8]},
        ["y"],
        weights,
    )
    assert direct.stored == {"a"}


def test_a_clip_that_does_not_start_at_zero_stays_float() -> None:
    found = plan(
        [
            ("Conv", ["x", "w"], ["a"], {}),
            ("Clip", ["a", "lo", "hi"], ["b"], {}),
            ("Conv", ["b", "w"], ["y"], {}),
        ],
        {"x": ["n", 4, 6, 6]},
        ["y"],
        {"w": normal(4, 4, 1, 1), "lo": np.float32(-1), "hi": np.float32(1)},
    )
    assert "from -1 to 1" in found.nodes["Clip_b"].reason
