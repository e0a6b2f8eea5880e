"""Where static INT8 is placed for TensorRT, judged by the layer tables of engines that are built here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, save
from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.static import quantize_static
from edgeq.compiler.recipe import Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.targets.base import NodeResult
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.layers.table import LayerTable
from edgeq.targets.tensorrt.options import TensorRTOptions
from edgeq.targets.tensorrt.precision import cast_rest
from tests.support.static_models import Node, Samples, graph, normal
from tests.support.tensorrt import needs_rtx, request

_RTX = capabilities(TensorRTOptions(backend="tensorrt-rtx"))
_IMAGE = (2, 16, 8, 8)
_BYTES = {"Int8": 1, "Half": 2, "Float": 4}


def _only(found: Capabilities, *without: str) -> Capabilities:
    rules = {name: rule for name, rule in found.int8_static.items() if name not in without}
    return replace(found, int8_static=MappingProxyType(rules))


def _scales_inside(found: Capabilities) -> Capabilities:
    rules = {name: replace(rule, scales_result=False) for name, rule in found.int8_static.items()}
    return replace(found, int8_static=MappingProxyType(rules))


def _w(*shape: int, seed: int = 0) -> Array:
    return normal(*shape, seed=seed, scale=float(np.sqrt(2 / prod(shape[1:]))))


def _images(nodes: list[Node], *outputs: str, **weights: Array) -> Model:
    return graph(nodes, {"x": list(_IMAGE)}, outputs or ("y",), weights)


_PADDED = {"pads": [1, 1, 1, 1]}


def _residual() -> Model:
    return _images(
        [
            ("Conv", ["x", "w0", "b"], ["a"], _PADDED),
            ("Relu", ["a"], ["r0"], {}),
            ("Conv", ["r0", "w1", "b"], ["c"], _PADDED),
            ("Relu", ["c"], ["r1"], {}),
            ("Conv", ["r1", "w2", "b"], ["d"], _PADDED),
            ("Add", ["d", "r0"], ["e"], {}),
            ("Relu", ["e"], ["r2"], {}),
            ("Conv", ["r2", "w3", "b"], ["f"], _PADDED),
            ("Relu", ["f"], ["r3"], {}),
            ("Conv", ["r3", "w4", "b"], ["g"], _PADDED),
            ("Add", ["g", "r2"], ["h"], {}),
            ("Relu", ["h"], ["r4"], {}),
            ("GlobalAveragePool", ["r4"], ["p"], {}),
            ("Flatten", ["p"], ["q"], {}),
            ("Gemm", ["q", "v", "bv"], ["y"], {}),
        ],
        **{f"w{i}": _w(16, 16, 3, 3, seed=i) for i in range(5)},
        b=normal(16),
        v=_w(16, 10),
        bv=normal(10),
    )


def _mobile() -> Model:
    """Depthwise convolution, squeeze and excitation, nearest Resize, pooling, Concat: what stands between."""
    return _images(
        [
            ("Conv", ["x", "w0"], ["a"], {**_PADDED, "group": 16}),
            ("HardSwish", ["a"], ["s"], {}),
            ("GlobalAveragePool", ["s"], ["p"], {}),
            ("Conv", ["p", "w1"], ["e"], {}),
            ("Relu", ["e"], ["e1"], {}),
            ("Conv", ["e1", "w2"], ["e2"], {}),
            ("HardSigmoid", ["e2"], ["gate"], {}),
            ("Mul", ["s", "gate"], ["m"], {}),
            ("Conv", ["m", "w3"], ["c"], {}),
            ("MaxPool", ["c"], ["d"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Conv", ["d", "w4"], ["f"], {"group": 4}),
            ("Resize", ["f", "", "twice"], ["u"], {"mode": "nearest"}),
            ("Concat", ["u", "c"], ["k"], {"axis": 1}),
            ("Conv", ["k", "w5"], ["y"], {}),
        ],
        w0=_w(16, 1, 3, 3),
        w1=_w(4, 16, 1, 1),
        w2=_w(16, 4, 1, 1),
        w3=_w(16, 16, 1, 1),
        w4=_w(16, 4, 1, 1),
        w5=_w(8, 32, 1, 1),
        twice=np.float32([1, 1, 2, 2]),
    )


def _pooled() -> Model:
    return _images(
        [
            ("Conv", ["x", "w0"], ["a"], _PADDED),
            ("Relu", ["a"], ["b"], {}),
            ("MaxPool", ["b"], ["c"], {"kernel_shape": [3, 3], "strides": [2, 2]}),
            ("Conv", ["c", "w1"], ["y"], {}),
        ],
        w0=_w(16, 16, 3, 3),
        w1=_w(16, 16, 1, 1),
    )


def _expanded() -> Model:
    """As in SqueezeNet: one of the layers behind an activation pads, the other does not."""
    return _images(
        [
            ("Conv", ["x", "w0"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "w1"], ["c"], {}),
            ("Conv", ["b", "w3"], ["d"], _PADDED),
            ("Concat", ["c", "d"], ["e"], {"axis": 1}),
            ("Relu", ["e"], ["f"], {}),
            ("Conv", ["f", "w2"], ["y"], {}),
        ],
        w0=_w(8, 16, 1, 1),
        w1=_w(16, 8, 1, 1),
        w3=_w(16, 8, 3, 3),
        w2=_w(8, 32, 1, 1),
    )


def _products() -> Model:
    """Every form of a matrix product."""
    return graph(
        [
            ("MatMul", ["x", "w"], ["a"], {}),
            ("MatMul", ["x", "stack"], ["s"], {}),
            ("Transpose", ["a"], ["t"], {"perm": [0, 2, 1]}),
            ("MatMul", ["a", "t"], ["two"], {}),
            ("Einsum", ["a", "x"], ["ein"], {"equation": "bij,bik->bjk"}),
            ("Flatten", ["x"], ["flat"], {}),
            ("Gemm", ["flat", "g", "gb"], ["gemm"], {"transB": 1}),
        ],
        {"x": [2, 16, 32]},
        ["s", "two", "ein", "gemm"],
        {"w": _w(32, 32), "stack": _w(2, 32, 16), "g": _w(24, 512), "gb": normal(24)},
    )


def _attention() -> Model:
    """Self-attention of four heads behind an embedding and a LayerNormalization with loud channels."""
    nodes: list[Node] = [
        ("Gather", ["table", "ids"], ["rows"], {}),
        ("LayerNormalization", ["rows", "gain", "offset"], ["x"], {}),
    ]
    for name in "qkv":
        nodes += [
            ("MatMul", ["x", f"w{name}"], [f"m{name}"], {}),
            ("Add", [f"m{name}", f"b{name}"], [f"a{name}"], {}),
            ("Reshape", [f"a{name}", "heads"], [f"r{name}"], {}),
            ("Transpose", [f"r{name}"], [name], {"perm": [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]}),
        ]
    nodes += [
        ("MatMul", ["q", "k"], ["scores"], {}),
        ("Mul", ["scores", "eighth"], ["scaled"], {}),
        ("Softmax", ["scaled"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "v"], ["context"], {}),
        ("Transpose", ["context"], ["back"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["back", "joined"], ["c"], {}),
        ("MatMul", ["c", "wo"], ["o"], {}),
        ("Add", ["o", "x"], ["y"], {}),
    ]
    loud = np.ones(128, np.float32)
    loud[::16] = 30
    weights = {f"w{n}": _w(128, 128, seed=ord(n)) for n in "qkvo"} | {f"b{n}": normal(128) for n in "qkv"}
    weights["wv"] = weights["wv"] * loud
    weights |= {
        "table": normal(200, 128, seed=5),
        "gain": loud,
        "offset": np.zeros(128, np.float32),
        "heads": np.int64([0, 0, 4, 32]),
        "joined": np.int64([0, 0, 128]),
        "eighth": np.float32(0.125),
    }
    return graph(nodes, {"ids": [2, 16]}, ["y"], weights, types={"ids": 7})


@dataclass(frozen=True)
class _Case:
    model: Model
    data: Mapping[str, Array]
    capabilities: Capabilities = _RTX
    precision: Any = "fp16"
    sm: int = 86


_X = {"x": normal(8, 16, 8, 8)}
_IDS = {"ids": np.random.default_rng(0).integers(0, 200, (8, 16))}
_CASES: Mapping[str, _Case] = {
    "residual": _Case(_residual(), _X),
    "residual on SM 120": _Case(_residual(), _X, sm=120),
    "residual, nothing read rounded": _Case(_residual(), _X, _only(_RTX, "Add")),
    "residual, scales in the weights": _Case(_residual(), _X, _scales_inside(_RTX)),
    "residual in bfloat16": _Case(
        _residual(), _X, capabilities(TensorRTOptions(backend="tensorrt-rtx", precision="bf16")), "bf16"
    ),
    "residual in float32": _Case(
        _residual(), _X, capabilities(TensorRTOptions(backend="tensorrt-rtx", precision="fp32")), "fp32"
    ),
    "mobile": _Case(_mobile(), _X),
    "pooled": _Case(_pooled(), _X),
    "expanded": _Case(_expanded(), _X),
    "products": _Case(_products(), {"x": normal(8, 16, 32)}),
    "attention": _Case(_attention(), _IDS),
}
_EVERYWHERE = (
    "residual",
    "residual on SM 120",
    "residual in bfloat16",
    "residual in float32",
    "mobile",
    "expanded",
)


@dataclass(frozen=True)
class _Built:
    found: Quantized
    table: LayerTable
    results: list[NodeResult]

    def precisions(self, *op_types: str) -> set[str]:
        return {result.actual for result in self.results if result.op_type in op_types}

    def moved(self) -> int:
        """Bytes that cross the borders of the kernels."""
        tensors = [t for layer in self.table.layers for t in (*layer.inputs, *layer.outputs)]
        return sum(prod(t.shape) * _BYTES.get(t.dtype, 8) for t in tensors)

    def reads(self, node: str) -> set[str]:
        """Types of what the kernel of ``node`` reads."""
        return {t.dtype for layer in self.table.layers if node in layer.nodes for t in layer.inputs}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, _Built]:
    folder = tmp_path_factory.mktemp("placement")
    found = {name: _quantized(case) for name, case in _CASES.items()}
    requests = []
    for index, (name, case) in enumerate(_CASES.items()):
        path = folder / f"{index}.onnx"
        save(_narrow(found[name], case), path)
        requests.append(request(path, case.sm))
    reports = build_many(requests)
    return {
        name: _read(found[name], case, report)
        for (name, case), report in zip(_CASES.items(), reports, strict=True)
    }


def _quantized(case: _Case) -> Quantized:
    recipe = Recipe(scheme="int8-static", range_method="minmax")
    return quantize_static(case.model, case.capabilities, recipe, Samples(**case.data), threads=1)


def _narrow(found: Quantized, case: _Case) -> Model:
    return cast_rest(found.model, found.plan, case.precision)[0]


def _read(found: Quantized, case: _Case, report: BuildReport | TargetError) -> _Built:
    assert isinstance(report, BuildReport), report
    table = parse_table(report.tables[case.sm], case.sm)
    return _Built(found, table, node_results([table], _narrow(found, case).ir, found.plan))


@needs_rtx
@pytest.mark.parametrize("case", _EVERYWHERE)
def test_every_convolution_and_product_runs_in_int8(built: Mapping[str, _Built], case: str) -> None:
    planned = [n for n in built[case].found.plan.nodes.values() if n.op_type in ("Conv", "Gemm")]
    assert {node.precision for node in planned} == {"int8"}
    assert built[case].precisions("Conv", "Gemm") == {"int8"}


@needs_rtx
def test_every_form_of_a_product_runs_in_int8(built: Mapping[str, _Built]) -> None:
    products = [r for r in built["products"].results if r.op_type in ("MatMul", "Einsum", "Gemm")]
    assert {r.name: r.actual for r in products} == {r.name: "int8" for r in products}
    assert len(products) == 5


@needs_rtx
def test_a_residual_addition_reads_its_skip_input_in_int8(built: Mapping[str, _Built]) -> None:
    """Its result is stored once, in one byte, and the branch comes as the kernel left it."""
    assert built["residual"].reads("Add_h") == {"Int8", "Half"}
    assert built["residual, nothing read rounded"].reads("Add_h") == {"Half"}
    assert built["residual"].moved() < 0.9 * built["residual, nothing read rounded"].moved()


@needs_rtx
def test_scales_behind_convolutions_spare_their_results_in_float32(built: Mapping[str, _Built]) -> None:
    assert built["residual"].moved() < 0.7 * built["residual, scales in the weights"].moved()


@needs_rtx
def test_attention_is_one_kernel_of_int8(built: Mapping[str, _Built]) -> None:
    """Although loud channels of what it writes were moved into the weights behind it."""
    found = built["attention"]
    assert found.precisions("MatMul") == {"int8"}
    fused = [layer for layer in found.table.layers if "mha" in layer.name]
    assert [[t.dtype for t in layer.inputs].count("Int8") for layer in fused] == [3]
    assert any("Smoothing" in note for note in found.found.plan.notes + list(found.found.notes))


@needs_rtx
def test_maxima_are_taken_of_int8_although_zero_points_are_shifted(built: Mapping[str, _Built]) -> None:
    assert any("shifted" in (node.name or "") for node in built["pooled"].found.model.ir.graph)
    assert built["pooled"].reads("MaxPool_c") == {"Int8"}


@needs_rtx
def test_padding_before_a_shift_is_part_of_the_kernel_that_rounds(built: Mapping[str, _Built]) -> None:
    """One kernel reads the convolution's result and writes both roundings, with the border and without."""
    found = built["expanded"]
    assert "Pad" in [node.op_type for node in found.found.model.ir.graph]
    (rounds,) = (layer for layer in found.table.layers if "Relu_b" in layer.nodes)
    assert [t.dtype for t in rounds.inputs] == ["Half"]
    assert sorted((t.dtype, t.shape[-1]) for t in rounds.outputs) == [("Int8", 8), ("Int8", 10)]
    assert found.reads("Conv_d") == found.reads("Conv_c") == {"Int8"}


@needs_rtx
def test_an_embedding_is_stored_in_int8(built: Mapping[str, _Built]) -> None:
    (table,) = [r for r in built["attention"].results if r.op_type == "Gather"]
    assert (table.planned, table.actual) == ("int8", "int8-weight")


def test_schemes_that_tensorrt_has_not_are_refused_with_what_to_take() -> None:
    with pytest.raises(TargetError, match="no operators of dynamic INT8") as caught:
        check_recipe(Recipe(scheme="int8-dynamic"), _RTX)
    assert "int8-static" in (caught.value.fix or "")
    with pytest.raises(UsageError, match="saturation_safe"):
        check_recipe(Recipe(scheme="int8-static", saturation_safe=False), _RTX)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32")]
)
def test_scales_have_the_type_of_the_rest(precision: Any, dtype: str) -> None:
    assert capabilities(TensorRTOptions(precision=precision)).scale_dtype == dtype


def test_classic_tensorrt_and_a_rest_in_float32_get_scales_in_the_weights() -> None:
    for options in (TensorRTOptions(backend="tensorrt"), TensorRTOptions(precision="fp32")):
        assert not any(rule.scales_result for rule in capabilities(options).int8_static.values())


def test_every_float_op_has_a_reason() -> None:
    plan = _quantized(_CASES["mobile"]).plan
    assert all(n.reason and "static INT8 leaves" not in n.reason for n in plan.nodes.values())
