"""Weight-only schemes, float16 and palettes for Core ML: the plan, the ONNX model, the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.targets.coreml.capabilities import CAPABILITIES
from tests.support.coreml_schemes import (
    IDS,
    IMAGES,
    assert_exact_in_half,
    compiled,
    constants,
    packaged,
    residual_net,
    scales_of,
    transformer_part,
)
from tests.support.static_models import Node, graph, normal, run, sqnr


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
