"""Scales per channel behind the layers: the same function, one scale per kernel, nothing overflows."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Recipe
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.static_models import Samples, graph, normal, run

_ON = capabilities(TensorRTOptions(backend="tensorrt-rtx"))
_ROWS = normal(16, 8, seed=1)


def _without(found: Capabilities) -> Capabilities:
    rules = {name: replace(rule, scales_result=False) for name, rule in found.int8_static.items()}
    return replace(found, int8_static=MappingProxyType(rules))


def _quantize(model: Model, found: Capabilities = _ON, **inputs: Array) -> Quantized:
    recipe = Recipe(scheme="int8-static", range_method="minmax")
    return quantize_static(model, found, recipe, Samples(**inputs), threads=1)


def _uneven(*shape: int, axis: int) -> Array:
    """Weights whose channels differ by three orders of magnitude."""
    size = [1] * len(shape)
    size[axis] = shape[axis]
    return normal(*shape, seed=3) * np.logspace(-3, 0, shape[axis], dtype=np.float32).reshape(size)


def _conv(**attributes: Any) -> Model:
    weights = {"w": _uneven(6, 8, 3, 3, axis=0), "b": normal(6, seed=4)}
    return graph([("Conv", ["x", "w", "b"], ["y"], attributes)], {"x": ["n", 8, 5, 5]}, ["y"], weights)


def _product(op_type: str, weights: Array, *bias: str, **attributes: Any) -> Model:
    inputs = ["x", "w", *bias]
    constants = {"w": weights, **{name: normal(6, seed=4) for name in bias}}
    return graph([(op_type, inputs, ["y"], attributes)], {"x": ["n", 8]}, ["y"], constants)


_CASES = {
    "convolution": (_conv(), normal(16, 8, 5, 5)),
    "convolution of one dimension": (
        graph(
            [("Conv", ["x", "w"], ["y"], {})],
            {"x": ["n", 8, 9]},
            ["y"],
            {"w": _uneven(6, 8, 3, axis=0)},
        ),
        normal(16, 8, 9),
    ),
    "Gemm": (_product("Gemm", _uneven(8, 6, axis=1), "b"), _ROWS),
    "Gemm of transposed weights": (_product("Gemm", _uneven(6, 8, axis=0), "b", transB=1), _ROWS),
    "MatMul": (_product("MatMul", _uneven(8, 6, axis=1)), _ROWS),
}


def _weight_scales(found: Quantized) -> list[Array]:
    """Scales of all constants that are dequantized."""
    scales = []
    for node in found.model.ir.graph:
        source = node.inputs[0]
        if node.op_type == "DequantizeLinear" and source is not None and source.const_value is not None:
            scale = node.inputs[1]
            assert scale is not None and scale.const_value is not None  # noqa: PT018
            scales.append(scale.const_value.numpy())
    return scales


@pytest.mark.parametrize("case", list(_CASES))
def test_the_function_stays_and_the_kernel_has_one_scale(case: str) -> None:
    model, x = _CASES[case]
    behind, inside = _quantize(model, x=x), _quantize(model, _without(_ON), x=x)
    assert [scale.ndim for scale in _weight_scales(inside)] == [1]
    assert [scale.ndim for scale in _weight_scales(behind)] == [0]
    expected = run(inside.model, {"x": x}, optimize=False)[0]
    got = run(behind.model, {"x": x}, optimize=False)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))
    assert [value.name for value in behind.model.ir.graph.outputs] == ["y"]


def test_the_scale_of_the_kernel_is_a_power_of_two_and_the_factors_are_exact_in_float16() -> None:
    found = _quantize(_CASES["MatMul"][0], x=_ROWS)
    (one,) = _weight_scales(found)
    assert np.log2(one) == np.round(np.log2(one))
    factors = found.model.ir.graph.initializers["MatMul_y_scale"].const_value
    assert factors is not None
    np.testing.assert_array_equal(factors.numpy().astype(np.float16).astype(np.float32), factors.numpy())


def test_products_of_one_tensor_have_one_scale() -> None:
    """Queries, keys and values stay one product for the compiler."""
    model = graph(
        [("MatMul", ["x", "w"], ["a"], {}), ("MatMul", ["x", "v"], ["b"], {})],
        {"x": ["n", 8]},
        ["a", "b"],
        {"w": normal(8, 6, seed=1), "v": normal(8, 4, seed=2, scale=20)},
    )
    first, second = _weight_scales(_quantize(model, x=_ROWS))
    assert first == second


def test_no_sum_of_integers_overflows_float16_behind_the_kernel() -> None:
    """127 · 2048 steps of 1 are 260,000 where the scales stand in the weights; 65,504 is the largest half."""
    depth = 2048
    rows = np.full((4, depth), 40, np.float32)
    weights = np.full((depth, 2), 0.01, np.float32)
    weights[:, 1] = np.where(np.arange(depth) == 0, 30, 0)
    model = graph([("MatMul", ["x", "w"], ["y"], {})], {"x": ["n", depth]}, ["y"], {"w": weights})
    found = _quantize(model, x=rows)
    assert [scale.ndim for scale in _weight_scales(found)] == [0]
    (product,) = [node for node in found.model.ir.graph if node.op_type == "MatMul"]
    found.model.ir.graph.outputs.append(product.outputs[0])
    y, raw = run(found.model, {"x": rows}, optimize=False)
    assert np.abs(raw).max() <= 65504
    np.testing.assert_allclose(y[0], [0.01 * 40 * depth, 30 * 40], rtol=0.02)


def test_a_bias_that_is_computed_at_run_time_stays_where_it_is() -> None:
    model = graph(
        [("Conv", ["x", "w", "c"], ["y"], {})],
        {"x": ["n", 8, 5, 5], "c": [6]},
        ["y"],
        {"w": _uneven(6, 8, 1, 1, axis=0)},
    )
    recipe = Recipe(scheme="int8-static", range_method="minmax", bias_correction=False)
    plan_only = _ComputedBias(x=normal(6, 8, 5, 5), c=normal(6))
    found = quantize_static(model, _ON, recipe, plan_only, threads=1)
    assert [node.op_type for node in found.model.ir.graph if node.op_type in ("Mul", "Add")] == []
    assert [scale.ndim for scale in _weight_scales(found)] == [1]


class _ComputedBias(Samples):
    """The bias has no batch axis."""

    def batches(self, batch_size: int, limit: int | None = None) -> Any:
        yield from super().batches(self.size, limit)


def test_names_of_nodes_and_values_stay_unique() -> None:
    found = _quantize(_conv(), x=normal(16, 8, 5, 5))
    nodes = [node.name for node in found.model.ir.graph]
    values = [value.name for node in found.model.ir.graph for value in node.outputs]
    assert len(set(nodes)) == len(nodes)
    assert len(set(values)) == len(values)
    assert ir.to_proto(found.model.ir).graph.output[0].name == "y"


def test_a_bias_that_float16_would_round_too_much_is_two_summands() -> None:
    """Inputs around 100 are shifted before rounding: the bias takes back 100 times the sum of the weights."""
    weights = {"w": np.abs(normal(6, 8, 3, 3, seed=3)), "b": normal(6, seed=4)}
    model = graph([("Conv", ["x", "w", "b"], ["y"], {})], {"x": ["n", 8, 5, 5]}, ["y"], weights)
    x = np.abs(normal(64, 8, 5, 5, scale=100))
    found = _quantize(model, x=x)
    summands = [n for n in found.model.ir.graph if n.op_type == "Add" and n.name.startswith("Conv_y_Bias")]
    assert len(summands) == 2
    constants = [node.inputs[1].const_value.numpy() for node in summands]
    assert all((c == c.astype(np.float16).astype(np.float32)).all() for c in constants[:1])
    assert np.abs(constants[0]).min() > 2048 * np.abs(constants[1]).max() / 2
    whole = _quantize(model, _without(_ON), x=x)
    expected = run(whole.model, {"x": x}, optimize=False)[0]
    got = run(found.model, {"x": x}, optimize=False)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))


def test_a_small_bias_is_one_summand() -> None:
    found = _quantize(_product("Gemm", normal(8, 6, seed=1), "b"), x=_ROWS)
    assert sum(node.op_type == "Add" for node in found.model.ir.graph) == 1
