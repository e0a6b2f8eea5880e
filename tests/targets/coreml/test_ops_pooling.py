"""Pooling as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, Source
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, lower_ops, model_of, refusal, run_ops

X = ["x"]
AVERAGES = [{}, {"count_include_pad": 1}]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pools(norms: Sequence[int] = (1, 2, 3), **attributes: Any) -> list[Op]:
    """The three kinds of pooling with the same windows."""
    averages = [Op("AveragePool", X, {**attributes, **count}) for count in AVERAGES]
    lps = [Op("LpPool", X, {**attributes, "p": p}) for p in norms]
    return [Op("MaxPool", X, attributes), *averages, *lps]


def mil_ops(op: Op, x: Array) -> list[str]:
    program = lower_ops(model_of([op], {"x": x}, {}), [x]).program
    return [o.op_type for o in program["main"].operations if o.op_type not in ("const", "identity")]


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
def test_every_window_over_one_axis(tmp_path: Path, dilation: int, ceil: int) -> None:
    """All sizes, strides and pads up to 3 of a signal of length 7."""
    ops = [
        op
        for kernel, stride, before, after in product((2, 3), (1, 2, 3), (0, 1, 2), (0, 1, 2))
        if before < kernel and after < kernel
        for op in pools(
            (2,),
            kernel_shape=[kernel],
            strides=[stride],
            pads=[before, after],
            dilations=[dilation],
            ceil_mode=ceil,
        )
    ]
    assert len(ops) == 156
    run_ops(ops, {"x": normal(1, 2, 7)}, tmp_path).check(atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 7, 6), (1, 2, 5, 6, 7)])
@pytest.mark.parametrize("ios", [15, 18])
def test_windows_over_all_axes(tmp_path: Path, shape: tuple[int, ...], ios: int) -> None:
    spatial = len(shape) - 2
    kernel, strides = [3, 2, 3][:spatial], [2, 1, 3][:spatial]
    pads = [1, 0, 2][:spatial] + [0, 1, 1][:spatial]
    ops = [
        *pools(kernel_shape=kernel),
        *pools(kernel_shape=kernel, strides=strides, pads=pads),
        *pools(kernel_shape=kernel, strides=strides, pads=pads, dilations=[1, 2, 1][:spatial]),
        *pools(kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=1),
        *pools(kernel_shape=kernel, strides=[1] * spatial, auto_pad="SAME_UPPER"),
        *pools(kernel_shape=kernel, strides=[2] * spatial, auto_pad="SAME_LOWER"),
        *pools(kernel_shape=kernel, strides=[2] * spatial, auto_pad="VALID"),
        Op("MaxPool", X, {"kernel_shape": kernel, "storage_order": 1}),
        Op("GlobalAveragePool", X),
        Op("GlobalMaxPool", X),
    ]
    run_ops(ops, {"x": normal(*shape)}, tmp_path, ios=ios).check(atol=1e-5)


def test_global_norms(tmp_path: Path) -> None:
    x, orders = normal(2, 3, 4, 5), (1, 2, 3)
    ops = [Op("GlobalLpPool", X, {"p": p}) for p in orders]
    wanted = [(np.abs(x) ** p).sum((2, 3), keepdims=True) ** np.float32(1 / p) for p in orders]
    run_ops(ops, {"x": x}, tmp_path, wanted=wanted).check()


def test_padding_never_wins_a_maximum(tmp_path: Path) -> None:
    x = -1 - np.abs(normal(1, 2, 5, 5))
    ops = [
        Op("MaxPool", X, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "dilations": [d, d]}) for d in (1, 2)
    ]
    run_ops(ops, {"x": x}, tmp_path).check()


@pytest.mark.parametrize("size", [6, 7, 9])
def test_pooling_of_dynamic_sizes(tmp_path: Path, size: int) -> None:
    window = {"kernel_shape": [3, 3], "strides": [2, 2]}
    ops = [
        Op("MaxPool", X, {**window, "pads": [1, 1, 1, 1]}),
        Op("MaxPool", X, {**window, "ceil_mode": 1}),
        Op("MaxPool", X, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        Op("AveragePool", X, {**window, "pads": [1, 1, 0, 0], "ceil_mode": 1}),
        Op("AveragePool", X, {**window, "pads": [1, 1, 0, 1], "count_include_pad": 1}),
        Op("AveragePool", X, {"kernel_shape": [2, 2], "dilations": [2, 1]}),
        Op("GlobalAveragePool", X),
        Op("GlobalMaxPool", X),
    ]
    sizes = {"n": Dimension(1, 4), "h": Dimension(4, 16), "w": Dimension(4, 16)}
    x = {"x": normal(2, 3, size, size + 1)}
    run_ops(ops, x, tmp_path, axes={"x": ["n", 3, "h", "w"]}, dimensions=sizes).check(atol=1e-5)


def test_float16_packages_keep_the_range(tmp_path: Path) -> None:
    """Sums of 81 elements and squares would leave float16."""
    x = normal(1, 2, 9, 9) * 900
    ops = [
        Op("AveragePool", X, {"kernel_shape": [9, 9]}),
        Op("AveragePool", X, {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [1, 1, 1, 1]}),
        Op("MaxPool", X, {"kernel_shape": [3, 3]}),
        Op("GlobalAveragePool", X),
    ]
    run_ops(ops, {"x": x}, tmp_path, arithmetic="float16").check(rtol=4e-3, atol=1.0)


def test_pools_are_mils_own() -> None:
    x = normal(1, 2, 8, 8)
    plain = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    assert mil_ops(Op("MaxPool", X, plain), x) == ["max_pool"]
    assert mil_ops(Op("AveragePool", X, plain), x) == ["avg_pool"]
    assert mil_ops(Op("AveragePool", X, {**plain, "count_include_pad": 1}), x) == ["pad", "avg_pool"]
    assert mil_ops(Op("LpPool", X, {"kernel_shape": [2, 2]}), x) == ["l2_pool"]
    assert mil_ops(Op("GlobalLpPool", X), x) == ["reduce_l2_norm"]
    assert mil_ops(Op("AveragePool", X, {"kernel_shape": [2, 2], "dilations": [2, 2]}), x) == ["conv"]


REFUSED = [
    ("MaxPool", (1, 1, 9), {"auto_pad": "SAME_UPPER", "dilations": [2]}, "SAME_UPPER with dilations"),
    ("AveragePool", (1, 1, 8), {"auto_pad": "SAME_LOWER", "strides": [4]}, "it would crop"),
    (
        "AveragePool",
        (1, 1, 5),
        {"auto_pad": "VALID", "ceil_mode": 1, "strides": [2]},
        "VALID with ceil_mode=1",
    ),
    ("MaxPool", (1, 1, 6), {"pads": [2, 0]}, "not smaller than its kernel"),
    ("MaxPool", (1, 1, 1), {"dilations": [2], "pads": [1, 1]}, "in the padding only"),
    ("LpPool", (1, 1, 6), {"p": 0}, "p=0"),
]


@pytest.mark.parametrize(("op_type", "shape", "attributes", "reason"), REFUSED)
def test_refusals(op_type: str, shape: tuple[int, ...], attributes: dict[str, Any], reason: str) -> None:
    attributes = {"kernel_shape": [2], **attributes}
    assert reason in refusal(Op(op_type, X, attributes), {"x": normal(*shape)})


def test_bytes_are_refused() -> None:
    ops = [Op("QuantizeLinear", ["x", "s", "z"]), Op("MaxPool", ["y0"], {"kernel_shape": [2, 2]})]
    constants = {"s": np.float32(1), "z": np.int8(0)}
    model = model_of(ops, {"x": normal(1, 1, 4, 4)}, {name: np.asarray(v) for name, v in constants.items()})
    with pytest.raises(RefusedNodeError, match="its input 0 is int8"):
        lower_ops(model, [np.zeros(1, np.int8)] * 2)


def test_indices_are_refused_only_when_somebody_reads_them() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])
    outputs = {
        "y": helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        "i": helper.make_tensor_value_info("i", TensorProto.INT64, None),
    }
    for read in (["y"], ["y", "i"]):
        node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])
        graph = helper.make_graph([node], "g", [x], [outputs[name] for name in read])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        model = Model(ir.from_proto(proto), Source("onnx", "test", "0" * 64))
        if read == ["y"]:
            assert lower(model, ios=18).program is not None
            continue
        with pytest.raises(RefusedNodeError, match="its output Indices is used"):
            lower(model, ios=18)
