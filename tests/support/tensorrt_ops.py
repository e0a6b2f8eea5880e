"""Graphs of single ops for TensorRT, quantized as a scheme would; the op's node has the name of the case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto

from tests.support.tensorrt_models import GraphBuilder, Rest, Scheme

Case = Callable[[GraphBuilder, str], str]


def _conv(
    spatial: int, outputs: int = 32, *, inputs: int = 16, group: int = 1, op_type: str = "Conv"
) -> Case:
    def build(b: GraphBuilder, name: str) -> str:
        x = b.quantized(b.input(f"{name}_x", [1, inputs, *[16] * spatial]))
        kernel = [3] * spatial
        transposed = op_type == "ConvTranspose"
        shape = (inputs, outputs // group, *kernel) if transposed else (outputs, inputs // group, *kernel)
        weights = b.weights(f"{name}_w", shape, int(transposed), along=int(not transposed))
        bias = b.constant(f"{name}_b", b.numbers([outputs]))
        return b.op(op_type, [x, weights, bias], name, group=group, pads=[1] * (2 * spatial))

    return build


def _gemm(*, transposed: bool) -> Case:
    def build(b: GraphBuilder, name: str) -> str:
        x = b.quantized(b.input(f"{name}_x", [8, 256]))
        shape, columns = ((128, 256), 0) if transposed else ((256, 128), 1)
        weights = b.weights(f"{name}_w", shape, columns, along=1 - columns)
        bias = b.constant(f"{name}_b", b.numbers([128]))
        return b.op("Gemm", [x, weights, bias], name, transB=int(transposed))

    return build


def _matmul(*shape: int, stack: int | None = None) -> Case:
    def build(b: GraphBuilder, name: str) -> str:
        x = b.quantized(b.input(f"{name}_x", shape))
        if stack is None:
            return b.op("MatMul", [x, b.weights(f"{name}_w", (256, 128), 1, along=0)], name)
        return b.op("MatMul", [x, b.weights(f"{name}_w", (stack, 256, 128), None, along=1)], name)

    return build


def _two_activations(b: GraphBuilder, name: str) -> str:
    x, y = b.input(f"{name}_x", [1, 12, 64, 32]), b.input(f"{name}_y", [1, 12, 32, 64])
    return b.op("MatMul", [b.quantized(x), b.quantized(y)], name)


def attention(rounded: Iterable[str], *, masked: bool = False) -> Case:
    """Attention of 12 heads; ``rounded``: which of q, k, v, p (probabilities) and o are quantized."""
    wanted = frozenset(rounded)

    def build(b: GraphBuilder, name: str) -> str:
        def maybe(value: str, key: str, scale: float = 0.02) -> str:
            return b.quantized(value, scale) if key in wanted else value

        q = maybe(b.input(f"{name}_q", [1, 12, 64, 32]), "q")
        k = maybe(b.input(f"{name}_k", [1, 12, 32, 64]), "k")
        v = maybe(b.input(f"{name}_v", [1, 12, 64, 32]), "v")
        scores = b.op("MatMul", [q, k], f"{name}_scores")
        scaled = b.op("Mul", [scores, b.constant(f"{name}_c", 0.17)], f"{name}_scaled")
        if masked:
            scaled = b.op("Add", [scaled, b.input(f"{name}_mask", [1, 1, 1, 64])], f"{name}_masked")
        p = maybe(b.op("Softmax", [scaled], f"{name}_p", axis=-1), "p", 1 / 127)
        return maybe(b.op("MatMul", [p, v], name), "o")

    return build


def conv(b: GraphBuilder, name: str, x: str, channels: int = 16) -> str:
    """A 3 x 3 convolution of 16 channels without a bias."""
    return b.op("Conv", [x, b.weights(f"{name}_w", (channels, 16, 3, 3), 0)], name, pads=[1] * 4)


def between(make: Callable[[GraphBuilder, str, str], str]) -> Case:
    """Convolution, Relu, the op that ``make`` adds, convolution."""

    def build(b: GraphBuilder, name: str) -> str:
        first = conv(b, f"{name}_first", b.quantized(b.input(f"{name}_x", [1, 16, 16, 16])))
        middle = make(b, name, b.quantized(b.op("Relu", [first], f"{name}_relu")))
        return conv(b, f"{name}_last", b.quantized(middle))

    return build


def _add(b: GraphBuilder, name: str, x: str) -> str:
    summed = b.op("Add", [conv(b, f"{name}_branch", x), x], name)
    return b.op("Relu", [summed], f"{name}_after")


def _pool(op_type: str) -> Callable[[GraphBuilder, str, str], str]:
    def make(b: GraphBuilder, name: str, x: str) -> str:
        return b.op(op_type, [x], name, kernel_shape=[2, 2], strides=[2, 2])

    return make


def _concat(b: GraphBuilder, name: str, x: str) -> str:
    branch = b.quantized(b.op("Relu", [conv(b, f"{name}_branch", x, 8)], f"{name}_branch_relu"))
    joined = b.op("Concat", [x, branch], name, axis=1)
    ends = [b.constant(f"{name}_{key}", np.array([at])) for key, at in (("from", 4), ("to", 20), ("axis", 1))]
    return b.op("Slice", [joined, *ends], f"{name}_slice")


def _resize(b: GraphBuilder, name: str, x: str) -> str:
    scales = b.constant(f"{name}_scales", np.array([1, 1, 2, 2]), TensorProto.FLOAT)
    return b.op("Resize", [x, "", scales], name, mode="nearest")


def _lstm(b: GraphBuilder, name: str) -> str:
    x = b.quantized(b.input(f"{name}_x", [6, 1, 32]))
    weights = [b.weights(f"{name}_{key}", (1, 4 * 32, 32), None) for key in ("w", "r")]
    return b.op("LSTM", [x, *weights], name, hidden_size=32)


CASES: Mapping[str, Case] = {
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "conv3d": _conv(3),
    "depthwise": _conv(2, inputs=32, group=32),
    "grouped": _conv(2, inputs=32, group=2),
    "conv_transpose": _conv(2, op_type="ConvTranspose"),
    "gemm": _gemm(transposed=False),
    "gemm_transposed": _gemm(transposed=True),
    "matmul2d": _matmul(16, 256),
    "matmul3d": _matmul(2, 16, 256),
    "matmul_row": _matmul(1, 1, 256),
    "matmul_stack": _matmul(4, 16, 256, stack=4),
    "matmul_activations": _two_activations,
    "attention": attention("qkvpo"),
    "add": between(_add),
    "max_pool": between(_pool("MaxPool")),
    "average_pool": between(_pool("AveragePool")),
    "concat": between(_concat),
    "resize": between(_resize),
    "lstm": _lstm,
}


def model(names: Iterable[str], scheme: Scheme, rest: Rest) -> onnx.ModelProto:
    """Cases side by side in one graph, which share nothing."""
    b = GraphBuilder(scheme, rest)
    for name in names:
        b.output(CASES[name](b, name))
    return b.model()
