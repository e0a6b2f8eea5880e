"""Ops in float that read a tensor in the INT8 form that another op needs of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Override, Recipe
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.static_models import Node, Samples, graph, normal

_CAPABILITIES = capabilities(TensorRTOptions(backend="tensorrt-rtx"))
_W = {f"w{i}": normal(8, 8, 1, 1, seed=i) for i in range(6)}


def _graph(nodes: list[Node], *outputs: str, **more: Any) -> Model:
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    weights = {name: w for name, w in {**_W, **more}.items() if name in used}
    return graph(nodes, {"x": ["n", 8, 8, 8]}, outputs or ("y",), weights)


def _recipe(**overrides: str) -> Recipe:
    made = tuple(Override(match=m, precision=p) for m, p in overrides.items())  # type: ignore[arg-type]
    return Recipe(scheme="int8-static", range_method="minmax", overrides=made)


def _plan(model: Model, **overrides: str) -> Plan:
    return make_plan(model, _CAPABILITIES, _recipe(**overrides))


def _quantize(model: Model) -> Quantized:
    return quantize_static(model, _CAPABILITIES, _recipe(), Samples(x=normal(8, 8, 8, 8)), threads=1)


def _reads_rounded(found: Quantized, name: str) -> list[bool]:
    """For each input of the node, whether a DequantizeLinear makes it (a shift may stand between)."""
    (node,) = [node for node in found.model.ir.graph if node.name == name]
    producers = [None if value is None else value.producer() for value in node.inputs]
    return [_makes(p) == "DequantizeLinear" for p in producers]


def _makes(producer: ir.Node | None) -> str:
    if producer is None:
        return ""
    source = producer.inputs[0]
    shifts = producer.op_type == "Add" and source is not None and (producer.name or "").endswith("_unshifted")
    return _makes(source.producer()) if shifts and source is not None else producer.op_type


def _residual() -> Model:
    return _graph(
        [
            ("Conv", ["x", "w0"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "w1"], ["c"], {}),
            ("Relu", ["c"], ["d"], {}),
            ("Conv", ["d", "w2"], ["e"], {}),
            ("Add", ["e", "b"], ["f"], {}),
            ("Relu", ["f"], ["g"], {}),
            ("Conv", ["g", "w3"], ["y"], {}),
        ]
    )


def test_an_addition_reads_the_skip_input_in_int8_and_the_branch_in_float() -> None:
    found = _plan(_residual())
    assert found.reads == {"Add_f": (1,)}
    assert set(found.activations) == {"x", "b", "d", "g"}
    assert found.nodes["Add_f"].precision == "fp32"
    assert "reads INT8" in found.nodes["Add_f"].reason
    assert _reads_rounded(_quantize(_residual()), "Add_f") == [False, True]


def test_an_override_keeps_what_the_addition_reads_in_float() -> None:
    assert _plan(_residual(), Add_f="fp32").reads == {}


def test_branches_that_nothing_else_needs_in_int8_stay_float() -> None:
    """A block with a convolution in both branches: rounding one of them saves no byte and costs accuracy."""
    found = _plan(
        _graph(
            [
                ("Conv", ["x", "w0"], ["a"], {}),
                ("Conv", ["x", "w1"], ["b"], {}),
                ("Add", ["a", "b"], ["c"], {}),
                ("Relu", ["c"], ["d"], {}),
                ("Conv", ["d", "w2"], ["y"], {}),
            ]
        )
    )
    assert found.reads == {}
    assert set(found.activations) == {"x", "d"}


def test_what_a_kernel_has_just_computed_is_not_read_rounded() -> None:
    """The addition joins the kernel of the convolution, whose result another convolution needs in INT8."""
    found = _plan(
        _graph(
            [
                ("Conv", ["x", "w0"], ["a"], {}),
                ("Conv", ["a", "w1"], ["b"], {}),
                ("Relu", ["x"], ["r"], {}),
                ("Add", ["a", "r"], ["c"], {}),
                ("Add", ["b", "c"], ["y"], {}),
            ]
        )
    )
    assert "a" in found.activations
    assert found.reads == {}


def test_nothing_is_rounded_between_a_layer_and_its_activation() -> None:
    for op in ("Relu", "Clip", "HardSwish", "Sigmoid", "LeakyRelu", "Gelu", "Tanh"):
        nodes: list[Node] = [
            ("Conv", ["x", "w0"], ["a"], {}),
            (op, ["a"], ["b"], {}),
            ("Conv", ["b", "w1"], ["y"], {}),
        ]
        assert set(_plan(_graph(nodes)).activations) == {"x", "b"}


def test_silu_is_rounded_behind_its_product() -> None:
    found = _plan(
        _graph(
            [
                ("Conv", ["x", "w0"], ["a"], {}),
                ("Sigmoid", ["a"], ["s"], {}),
                ("Mul", ["a", "s"], ["b"], {}),
                ("Conv", ["b", "w1"], ["y"], {}),
            ]
        )
    )
    assert set(found.activations) == {"x", "b"}
    assert found.reads == {}


def test_a_moved_tensor_keeps_the_range_of_its_source() -> None:
    """The source is stored in INT8 for a layer, so its maxima are exact in the same steps."""
    model = _graph(
        [
            ("Conv", ["x", "w0"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "w1"], ["y"], {}),
            ("MaxPool", ["b"], ["p"], {"kernel_shape": [2, 2]}),
            ("Transpose", ["p"], ["t"], {"perm": [0, 1, 3, 2]}),
            ("Conv", ["t", "w2"], ["z"], {}),
        ],
        "y",
        "z",
    )
    found = _quantize(model)
    assert found.plan.shared == [("b", "t")]
    assert found.plan.reads == {"MaxPool_p": (0,)}
    np.testing.assert_array_equal(found.params["b"].scale, found.params["t"].scale)


def test_parts_of_a_float_tensor_have_ranges_of_their_own() -> None:
    found = _plan(
        _graph(
            [
                ("Relu", ["x"], ["a"], {}),
                ("Slice", ["a", "zero", "four", "axis"], ["s"], {}),
                ("Slice", ["a", "four", "eight", "axis"], ["t"], {}),
                ("Conv", ["s", "v0"], ["y"], {}),
                ("Conv", ["t", "v1"], ["z"], {}),
            ],
            "y",
            "z",
            zero=np.int64([0]),
            four=np.int64([4]),
            eight=np.int64([8]),
            axis=np.int64([1]),
            v0=normal(8, 4, 1, 1),
            v1=normal(8, 4, 1, 1),
        )
    )
    assert found.shared == []
    assert found.reads == {}
