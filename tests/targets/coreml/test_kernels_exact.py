"""Sums in ONNX Runtime's order: the same bits, which is what lets quantized networks be compared exactly."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from edgeq.targets.coreml.interpreter.kernels.product import piece
from tests.support.coreml_kernels import mil, normal

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the order was measured on x86-64"
)


def onnx_result(op: str, inputs: list[np.ndarray], **attributes: Any) -> np.ndarray:
    """ONNX Runtime on one thread without optimizations; all but the first input are constants."""
    names = [f"i{index}" for index in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("i0", TensorProto.FLOAT, inputs[0].shape)],
        [ValueInfoProto(name="y")],
        [numpy_helper.from_array(a, n) for a, n in zip(inputs[1:], names[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    # constant weights would be packed, which quantized networks' weights are not: they are computed
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"i0": inputs[0]})[0]


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "size"),
    [
        (3, 16, 3, 33),
        (16, 16, 3, 32),
        (32, 30, 3, 16),
        (64, 64, 3, 8),
        (64, 8, 3, 4),
        (16, 64, 1, 28),
        (256, 63, 1, 14),
        (512, 10, 1, 13),
        (129, 5, 1, 5),
        (20, 7, 5, 11),
    ],
)
def test_convolutions_have_the_same_bits(channels: int, filters: int, kernel: int, size: int) -> None:
    x, weight = normal(2, channels, size, size), normal(filters, channels, kernel, kernel, seed=1)
    bias = normal(filters, seed=2)
    pad = kernel // 2
    found = mil("conv", x=x, weight=weight, bias=bias, pad_type="custom", pad=[pad] * 4)
    np.testing.assert_array_equal(found, onnx_result("Conv", [x, weight, bias], pads=[pad] * 4))


def test_strided_and_grouped_convolutions_have_the_same_bits() -> None:
    x, weight, bias = normal(3, 24, 17, 15), normal(36, 12, 3, 3, seed=1), normal(36, seed=2)
    shared = {"x": x, "weight": weight, "bias": bias, "pad_type": "custom", "pad": [1, 0, 1, 1]}
    found = mil("conv", **shared, strides=[2, 1], dilations=[1, 2], groups=2)
    attributes = {"pads": [1, 1, 0, 1], "strides": [2, 1], "dilations": [1, 2], "group": 2}
    np.testing.assert_array_equal(found, onnx_result("Conv", [x, weight, bias], **attributes))


@pytest.mark.parametrize(
    "kernel", [(1, 2), (1, 3), (2, 2), (1, 5), (2, 3), (1, 7), (3, 3), (3, 5), (5, 5), (7, 7)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions_have_the_same_bits(kernel: tuple[int, int], stride: int) -> None:
    x, weight, bias = normal(2, 6, 20, 17), normal(6, 1, *kernel, seed=1), normal(6, seed=2)
    found = mil("conv", x=x, weight=weight, bias=bias, strides=[stride, stride], groups=6)
    wanted = onnx_result("Conv", [x, weight, bias], strides=[stride, stride], group=6)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(2, 100, 40), (9, 384, 64), (33, 384, 1536), (64, 1000, 20)]
)
def test_matrix_products_have_the_same_bits(rows: int, inner: int, columns: int) -> None:
    x, y = normal(rows, inner), normal(inner, columns, seed=1)
    wanted = onnx_result("MatMul", [x, y])
    np.testing.assert_array_equal(mil("matmul", x=x, y=y), wanted)
    np.testing.assert_array_equal(mil("matmul", x=x, y=y.T, transpose_y=True), wanted)
    np.testing.assert_array_equal(mil("linear", x=x, weight=np.ascontiguousarray(y.T)), wanted)


def test_stacks_of_matrix_products_have_the_same_bits() -> None:
    x, y = normal(2, 3, 17, 64), normal(2, 3, 64, 17, seed=1)
    np.testing.assert_array_equal(mil("matmul", x=x, y=y), onnx_result("MatMul", [x, y]))
    shared = normal(1, 64, 17, seed=2)
    np.testing.assert_array_equal(mil("matmul", x=x, y=shared), onnx_result("MatMul", [x, shared]))


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "counted"), [(2, 2, 0, 0), (3, 2, 1, 0), (3, 1, 1, 1), (7, 1, 0, 0)]
)
def test_average_pools_have_the_same_bits(kernel: int, stride: int, pad: int, counted: int) -> None:
    x = normal(2, 5, 24, 23)
    found = mil(
        "avg_pool",
        x=x,
        kernel_sizes=[kernel] * 2,
        strides=[stride] * 2,
        pad_type="custom",
        pad=[pad] * 4,
        exclude_padding_from_average=not counted,
    )
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    wanted = onnx_result("AveragePool", [x], count_include_pad=counted, **attributes)
    np.testing.assert_array_equal(found, wanted)


def test_an_empty_sum_is_zero() -> None:
    found = mil("matmul", x=normal(3, 0), y=normal(0, 8))
    np.testing.assert_array_equal(found, np.zeros((3, 8), np.float32))


@pytest.mark.parametrize(
    ("columns", "inner", "depth"),
    [(196, 512, 128), (64, 576, 256), (64, 32, 128), (16, 64, 1024), (1, 5000, 1024)],
)
def test_pieces_grow_where_there_are_few_columns(columns: int, inner: int, depth: int) -> None:
    assert piece(columns, inner) == depth
