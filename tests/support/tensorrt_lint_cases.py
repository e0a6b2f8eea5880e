# ruff: noqa: E501 - one case per line reads as the table that it is
"""One small graph for each rule of the TensorRT linter, with what the compiler does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tests.support.qdq_models import E4M3, E5M2, INT4, QDQ, UINT4, conv

# What the compiler is seen to do with the node: refuse the model, run it in INT8 or FP8 ("quantized"), read
# its stored weights inside its kernel ("fused"), unpack them before it, run it in float, or only build.
FAILS, QUANTIZED, FUSED, UNPACKED = "fails", "quantized", "fused", "unpacked"
FLOAT, BUILDS = "float", "builds"

HALF = np.float16


@dataclass(frozen=True)
class Case:
    """``rule`` None: nothing but notes may be found. ``node`` has the finding, ``judged`` is looked at."""

    name: str
    rule: str | None
    model: Callable[[], onnx.ModelProto]
    truth: str
    node: str = ""
    judged: tuple[str, ...] = ("op",)
    profile: bool = True
    sm: int = 86
    more: tuple[str, ...] = ()


def convolution(
    activations: dict[str, Any] | None = None, weights: dict[str, Any] | None = None, dtype: Any = np.float32,
    opset: int = 21,
) -> onnx.ModelProto:  # fmt: skip
    """Q/DQ → Conv ``op``; None leaves a side in float."""
    g = QDQ(dtype, opset)
    x = g.input("x", 1, 32, 16, 16)
    x = x if activations is None else g.qdq(x, "x", **activations)
    w = g.floats("w", 32, 32, 3, 3) if weights is None else g.weight("w", (32, 32, 3, 3), **weights)
    return g.model(conv(g, x, w, "op"))


def embedded() -> onnx.ModelProto:
    """Rows of a stored table, normalized, in a MatMul ``op`` of stored weights: no activation is rounded."""
    g = QDQ(HALF)
    stored: dict[str, Any] = {"block": 64, "dtype": INT4}
    table, index = g.weight("t", (128, 256), axis=1, **stored), g.input("i", 1, 16, dtype=np.int64)
    normalized = g.op(
        "LayerNormalization", [g.op("Gather", [table, index], "rows"), g.floats("n", 256)], "n_out"
    )
    return g.model(g.op("MatMul", [normalized, g.weight("w", (256, 128), axis=0, **stored)], "op"))


def product(
    activations: dict[str, Any] | None = None, weights: dict[str, Any] | None = None, dtype: Any = HALF,
    shape: tuple[int | str, ...] = (64, 256), columns: int = 128, kind: str = "MatMul", opset: int = 21,
    **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """Q/DQ → MatMul or Gemm ``op``; None leaves a side in float."""
    g = QDQ(dtype, opset)
    rows = int(shape[-1])
    x = g.input("x", *shape)
    x = x if activations is None else g.qdq(x, "x", **activations)
    size = (columns, rows) if attributes.get("transB") else (rows, columns)
    w = g.floats("w", *size) if weights is None else g.weight("w", size, **weights)
    return g.model(g.op(kind, [x, w], "op", **attributes))


def between(kind: str, *constants: Any, channels: int = 32, **attributes: Any) -> onnx.ModelProto:
    """Q/DQ → ``kind`` → Conv ``op``."""
    g = QDQ()
    x = g.qdq(g.input("x", 1, 32, 16, 16), "x")
    extra = ["" if c is None else g.constant(f"k{i}", c) for i, c in enumerate(constants)]
    y = g.op(kind, [x, *extra], "between", **attributes)
    return g.model(conv(g, y, g.weight("w", (32, channels, 3, 3)), "op"))


def runtime(matrix: bool) -> onnx.ModelProto:
    g = QDQ()
    x = g.input("x", *((64, 128) if matrix else (1, 32, 16, 16)))
    g.input("scale")
    g.constant("zero", np.int8(0))
    q = g.op("QuantizeLinear", [x, "scale", "zero"], "q")
    x = g.op("DequantizeLinear", [q, "scale", "zero"], "dq")
    if matrix:
        return g.model(g.op("MatMul", [x, g.weight("w", (128, 96), axis=1)], "op"))
    return g.model(conv(g, x, g.weight("w", (32, 32, 3, 3)), "op"))


def bias(kind: Any) -> onnx.ModelProto:
    """A Conv with an INT32 bias behind a DequantizeLinear, or one of another float type."""
    g = QDQ(HALF)
    x = g.qdq(g.input("x", 1, 32, 16, 16), "x")
    b = g.weight("b", (32,), dtype=np.int32) if kind is np.int32 else g.constant("b", np.zeros(32, kind))
    return g.model(g.op("Conv", [x, g.weight("w", (32, 32, 3, 3)), b], "op", kernel_shape=[3, 3]))


def rescaled() -> onnx.ModelProto:
    g = QDQ()
    q = g.quantize(g.input("x", 1, 32, 16, 16), "x")
    return g.model(conv(g, g.dequantize(q, "x", scale=0.04), g.weight("w", (32, 32, 3, 3)), "op"))


def without_zero_point(empty: bool) -> onnx.ModelProto:
    """A QuantizeLinear without a zero point, which ONNX means to be UINT8."""
    g = QDQ()
    g.constant("s", np.float32(0.02))
    q = g.op("QuantizeLinear", [g.input("x", 1, 32, 16, 16), "s", *([""] if empty else [])], "x_q")
    x = g.op("DequantizeLinear", [q, "s"], "x_dq")
    return g.model(conv(g, x, g.weight("w", (32, 32, 3, 3)), "op"))


def transposed_convolution() -> onnx.ModelProto:
    g = QDQ()
    x = g.qdq(g.input("x", 1, 32, 16, 16), "x")
    w = g.weight("w", (32, 32, 2, 2), axis=1)
    return g.model(g.op("ConvTranspose", [x, w], "op", strides=[2, 2], kernel_shape=[2, 2]))


def carriers() -> onnx.ModelProto:
    """Q/DQ, then for each op of :data:`CARRIERS` a branch with it and a Conv."""
    g = QDQ()
    x = g.qdq(g.input("x", 1, 32, 16, 16), "x")
    ends = []
    for name, (constants, channels, attributes) in CARRIERS.items():
        extra = [g.constant(f"{name}_k{i}", c) for i, c in enumerate(constants)]
        y = g.op(name.partition("_")[0], [x, *extra], name, **attributes)
        ends.append(conv(g, y, g.weight(f"{name}_w", (32, channels, 3, 3)), f"{name}_op"))
    return g.model(*ends)


# Op that INT8 passes through → constant inputs, channels after it, attributes.
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
CARRIERS: dict[str, tuple[tuple[Any, ...], int, dict[str, Any]]] = {
    "MaxPool": ((), 32, {"kernel_shape": [2, 2]}), "Transpose": ((), 32, {"perm": [0, 1, 3, 2]}),
    "Reshape": ((np.array([1, 32, 8, 32]),), 32, {}), "Identity": ((), 32, {}), "Abs": ((), 32, {}),
    "Slice": ((np.array([0]), np.array([8]), np.array([2])), 32, {}), "Neg": ((), 32, {}),
    "Pad": ((PADS,), 32, {}), "Pad_reflect": ((PADS,), 32, {"mode": "reflect"}), "Dropout": ((), 32, {}),
    "DepthToSpace": ((), 8, {"blocksize": 2}), "SpaceToDepth": ((), 128, {"blocksize": 2}),
    "Tile": ((np.array([1, 1, 2, 1]),), 32, {}), "Expand": ((np.array([1, 32, 16, 16]),), 32, {}),
    "Gather": ((np.arange(16, dtype=np.int64),), 32, {"axis": 2}), "GlobalMaxPool": ((), 32, {}),
}  # fmt: skip


def products(dtype: Any, int4: bool) -> onnx.ModelProto:
    """Products of one input: every layout of weights, or every size of INT4 blocks."""
    g = QDQ(dtype)
    x = g.input("x", 64, 256)
    x = x if int4 else g.qdq(x, "x")
    layouts: list[tuple[str, dict[str, Any], dict[str, int]]] = [
        ("MatMul", {"axis": 1}, {}), ("MatMul", {"axis": -1}, {}), ("MatMul", {"axis": None}, {}),
        ("Gemm", {"axis": 1}, {}), ("Gemm", {"axis": 0}, {"transB": 1}),
    ]  # fmt: skip
    if int4:
        layouts = [("MatMul", {"axis": 0, "block": block, "dtype": INT4}, {}) for block in (16, 32, 64, 128)]
        layouts.append(("Gemm", {"axis": 1, "block": 64, "dtype": INT4}, {"transB": 1}))
    for name, (kind, weights, options) in zip("abcde", layouts, strict=True):
        size = (128, 256) if options else (256, 128)
        g.op(kind, [x, g.weight(f"{name}_w", size, **weights)], name, **options)
    return g.model(*"abcde")


def concat(second_scale: float) -> onnx.ModelProto:
    g = QDQ()
    parts = [g.qdq(g.input(n, 1, 16, 16, 16), n, scale=s) for n, s in (("x", 0.02), ("y", second_scale))]
    return g.model(conv(g, g.op("Concat", parts, "cat", axis=1), g.weight("w", (32, 32, 3, 3)), "op"))


def stacked(axis: int) -> onnx.ModelProto:
    """INT4 blocks along ``axis`` of three-dimensional weights."""
    g = QDQ(HALF)
    x = g.input("x", 4, 64, 256)
    return g.model(g.op("MatMul", [x, g.weight("w", (4, 256, 128), axis=axis, block=2, dtype=INT4)], "op"))


def left(**weights: Any) -> onnx.ModelProto:
    g = QDQ(HALF)
    x = g.input("x", 256, 64)
    return g.model(g.op("MatMul", [g.weight("w", (128, 256), **weights), x], "op"))


def weight_behind_transpose(axis: int) -> onnx.ModelProto:
    g = QDQ()
    x = g.qdq(g.input("x", 64, 128), "x")
    w = g.op("Transpose", [g.weight("w", (96, 128), axis=axis)], "t", perm=[1, 0])
    return g.model(g.op("MatMul", [x, w], "op"))


def float_weights_quantized() -> onnx.ModelProto:
    """Weights as NNCF writes them: float, QuantizeLinear, DequantizeLinear."""
    g = QDQ()
    x = g.qdq(g.input("x", 1, 32, 16, 16), "x")
    w = g.qdq(g.floats("w", 32, 32, 3, 3), "w", np.full(32, 0.01, np.float32), np.zeros(32, np.int8), axis=0)
    return g.model(conv(g, x, w, "op"))


def two_activations(quantized: int = 2) -> onnx.ModelProto:
    g = QDQ()
    names = [g.input("a", 4, 64, 128), g.input("b", 4, 128, 64)]
    sides = [g.qdq(n, n) if i < quantized else n for i, n in enumerate(names)]
    return g.model(g.op("MatMul", sides, "op"))


def mixed_add() -> onnx.ModelProto:
    g = QDQ(HALF)
    x = g.input("x", 64, 128)
    q = g.quantize(x, "x", scale=np.float32(0.02))
    return g.model(g.op("Add", [g.dequantize(q, "x"), x], "op"))


def cast_after_scale() -> onnx.ModelProto:
    """A float32 scale in a float16 graph, put right by a Cast."""
    g = QDQ(HALF)
    q = g.quantize(g.input("x", 1, 32, 16, 16), "x", scale=np.float32(0.02))
    x = g.op("Cast", [g.dequantize(q, "x")], "cast", to=10)
    return g.model(conv(g, x, g.weight("w", (32, 32, 3, 3)), "op"))


def operator(kind: str, domain: str = "") -> onnx.ModelProto:
    """An operator with quantized arithmetic inside, or of ONNX Runtime alone."""
    g = QDQ()
    if kind == "DynamicQuantizeLinear":
        g.nodes.append(onnx.helper.make_node(kind, [g.input("x", 64, 128)], ["op", "s", "z"], "op"))
        return g.model("op", dtype=np.uint8)
    if kind in ("MatMulInteger", "QLinearMatMul"):
        x = g.input("x", 64, 128, dtype=np.int8)
        w = g.constant("w", np.ones((128, 96), np.int8))
        s, z = g.constant("s", np.float32(0.1)), g.constant("z", np.int8(0))
        inputs = [x, w] if kind == "MatMulInteger" else [x, s, z, w, s, z, s, z]
        return g.model(g.op(kind, inputs, "op"), dtype=np.int32 if kind == "MatMulInteger" else np.int8)
    if kind == "MatMulNBits":
        x, w = g.input("x", 64, 128), g.constant("w", np.zeros((96, 2, 32), np.uint8))
        s = g.constant("s", np.ones(96 * 2, np.float32))
        return g.model(g.op(kind, [x, w, s], "op", domain, K=128, N=96, bits=4, block_size=64))
    return g.model(
        g.op(kind, [g.input("x", 64, 128), g.input("y", 128, 64)][: 2 if "Mat" in kind else 1], "op", domain)
    )


def chain(middle: bool) -> onnx.ModelProto:
    """Conv → Conv ``op`` → Conv, the one in the middle quantized or not."""
    g = QDQ(HALF)
    x = conv(g, g.qdq(g.input("x", 1, 32, 16, 16), "x"), g.weight("w1", (32, 32, 3, 3)), "first")
    x = g.qdq(x, "m") if middle else x
    w = g.weight("w2", (32, 32, 3, 3)) if middle else g.floats("w2", 32, 32, 3, 3)
    x = g.qdq(conv(g, x, w, "op"), "n")
    return g.model(conv(g, x, g.weight("w3", (32, 32, 3, 3)), "last"))


def residual(quantized_skip: bool, quantized_branch: bool = False) -> onnx.ModelProto:
    """A residual block with the Add ``op``, then another Conv."""
    g = QDQ(HALF)
    x = g.input("x", 1, 32, 16, 16)
    q = g.qdq(x, "x")
    y = conv(g, q, g.weight("w1", (32, 32, 3, 3)), "first")
    y = g.qdq(y, "branch") if quantized_branch else y
    y = g.op("Relu", [g.op("Add", [y, q if quantized_skip else x], "op")], "relu")
    return g.model(conv(g, g.qdq(y, "r"), g.weight("w2", (32, 32, 3, 3)), "last"))


def activation(before: bool) -> onnx.ModelProto:
    """Conv ``op`` → Relu → Conv, rounded after the Relu, and before it as well."""
    g = QDQ(HALF)
    x = conv(g, g.qdq(g.input("x", 1, 32, 16, 16), "x"), g.weight("w1", (32, 32, 3, 3)), "op")
    x = g.qdq(x, "m") if before else x
    x = g.qdq(g.op("Relu", [x], "relu"), "r")
    return g.model(conv(g, x, g.weight("w2", (32, 32, 3, 3)), "last"))


def softmax() -> onnx.ModelProto:
    g = QDQ()
    return g.model(g.op("Softmax", [g.qdq(g.input("x", 64, 128), "x")], "op"))


def scalar(shape: tuple[int, ...]) -> onnx.ModelProto:
    """An Add ``op`` with a quantized constant."""
    g = QDQ()
    g.constant("c", np.full(shape, 3, np.int8))
    x = g.op("Add", [g.qdq(g.input("x", 1, 32, 16, 16), "x"), g.dequantize("c", "c", scale=0.1)], "op")
    return g.model(g.qdq(x, "y"))


def stray(kind: str) -> onnx.ModelProto:
    """Codes of weights that another op changes before they are dequantized."""
    g = QDQ()
    codes = g.constant("c", np.ones((96, 128), np.int8))
    if kind == "Gather":
        codes = g.op("Gather", [codes, g.input("i", 4, dtype=np.int64)], "op")
        return g.model(g.dequantize(codes, "c", scale=0.1), dtype=np.float32)
    g.input("x", 64, 128)
    if kind == "Cast":
        return g.model(
            g.op("MatMul", ["x", g.op("Transpose", [g.op("Cast", [codes], "op", to=1)], "t")], "mm")
        )
    codes = g.op("Transpose", [codes], "op", perm=[1, 0])
    return g.model(g.op("MatMul", [g.qdq("x", "x"), g.dequantize(codes, "c", scale=0.1)], "mm"))


def per_channel(size: int, axis: int) -> dict[str, Any]:
    return {"scale": np.full(size, 0.02, np.float32), "zero": np.zeros(size, np.int8), "axis": axis}


def e4m3() -> dict[str, Any]:
    return {"zero": np.array(0, E4M3)}


# fmt: off
def cases() -> Iterator[Case]:
    """All of them; models are made when they are asked for."""
    yield from _types()
    yield from _axes_and_placement()
    yield from _blocks()
    yield from _hardware()
    yield from _operators()
    yield from _efficiency()
    yield from _valid()


def _types() -> Iterator[Case]:
    int8: dict[str, Any] = {}
    for name, zero in (("zero-point", np.int8(3)), ("uint8-128", np.uint8(128))):
        yield Case(name, "zero-point", lambda z=zero: convolution({"zero": z}, int8), FAILS, "x_q", more=("zero-point:x_dq",))
    yield Case("weight-zero-point", "zero-point", lambda: convolution({}, {"zero": 3}), FAILS, "w_dq")
    yield Case("empty-zero-point", "zero-point-empty", lambda: without_zero_point(True), FAILS, "x_q", more=("uint8-activations:x_q",))
    yield Case("no-zero-point", "uint8-activations", lambda: without_zero_point(False), QUANTIZED, "x_q")
    yield Case("uint8-activations", "uint8-activations", lambda: convolution({"zero": np.uint8(0)}, int8), QUANTIZED, "x_q")
    yield Case("uint8-weights", "uint8-weights", lambda: convolution({}, {"dtype": np.uint8}), FAILS, "w_dq")
    for kind in (np.int16, np.uint16):
        yield Case(f"{kind.__name__}-activations", "code-type", lambda k=kind: convolution({"zero": k(0)}, int8), FAILS, "x_q")
    yield Case("e5m2", "code-type", lambda: convolution({"zero": np.array(0, E5M2)}, {"dtype": E5M2}), FAILS, "x_q", sm=89, more=("code-type:w_dq",))
    yield Case("int16-weights", "code-type", lambda: convolution({}, {"dtype": np.int16}), FAILS, "w_dq")
    yield Case("uint4-weights", "code-type", lambda: product(None, {"axis": 0, "block": 64, "dtype": UINT4}), FAILS, "w_dq")
    yield Case("int32-bias", "int32-bias", lambda: bias(np.int32), FAILS, "b_dq")
    for number in (0.0, -0.1, np.nan):
        yield Case(f"scale-{number}", "scale-value", lambda n=number: convolution({"scale": n}, int8), FAILS, "x_q")
    yield Case("weight-scale-0", "scale-value", lambda: convolution({}, {"scale": 0.0}), FAILS, "w_dq")
    yield Case("scale-inf", "scale-infinite", lambda: convolution({"scale": np.inf}, int8), QUANTIZED, "x_q")
    yield Case("int4-scale-nan", "scale-infinite", lambda: product(None, {"axis": 0, "block": 64, "dtype": INT4, "scale": np.nan}), FUSED, "w_dq")
    yield Case("scales-differ", "scales-differ", rescaled, QUANTIZED, "x_dq")
    yield Case("scale-subnormal", "scale-subnormal", lambda: convolution({"scale": HALF(3e-5)}, int8, HALF), QUANTIZED, "x_q")
    yield Case("fp32-scale-in-fp16", "float-types", lambda: convolution({"scale": np.float32(0.02)}, int8, HALF), FAILS, "op")
    yield Case("fp16-scale-in-fp32", "float-types", lambda: convolution({"scale": HALF(0.02)}, int8), FAILS, "op")
    yield Case("fp32-bias-in-fp16", "float-types", lambda: bias(np.float32), FAILS, "op")
    yield Case("fp32-scale-add", "float-types", mixed_add, FAILS, "op")
    yield Case("fp8-with-int8", "code-types-mixed", lambda: convolution(e4m3(), int8), FAILS, "op", sm=89)
    yield Case("fp8-with-int8-matmul", "code-types-mixed", lambda: product(e4m3(), {"axis": 1}), FAILS, "op", sm=89)
    yield Case("int8-with-int4-conv", "code-types-mixed", lambda: convolution({}, {"dtype": INT4}), FAILS, "op")
    yield Case("scalar-codes", "codes-scalar", lambda: scalar(()), FAILS, "c_dq")
    for kind in ("Gather", "Cast", "Transpose"):
        yield Case(f"stray-codes {kind}", "codes-stray", lambda k=kind: stray(k), FAILS, "op")
    yield Case("int4-opset-13", "opset", lambda: product(None, {"axis": 0, "block": 64, "dtype": INT4}, opset=13), FUSED, "w_dq")
    yield Case("channels-opset-11", "opset", lambda: convolution({}, {}, opset=11), QUANTIZED, "w_dq")
    yield Case("fp8-opset-13", "opset", lambda: product(e4m3(), {"axis": 1, "dtype": E4M3}, opset=13), QUANTIZED, "w_dq", sm=89, more=("opset:x_q", "opset:x_dq"))


def _axes_and_placement() -> Iterator[Case]:
    yield Case("conv-axis-1", "weight-axis", lambda: convolution({}, {"axis": 1}), FLOAT, "op")
    yield Case("matmul-axis-0", "weight-axis", lambda: product({}, {"axis": 0}), FLOAT, "op")
    yield Case("gemm-axis-0", "weight-axis", lambda: product({}, {"axis": 0}, kind="Gemm"), FLOAT, "op")
    yield Case("gemm-transB-axis-1", "weight-axis", lambda: product({}, {"axis": 1}, kind="Gemm", transB=1), FLOAT, "op")
    yield Case("transposed-axis-1", "weight-axis", lambda: weight_behind_transpose(1), FLOAT, "op")
    yield Case("fp8-axis", "weight-axis", lambda: convolution(e4m3(), {"dtype": E4M3, "axis": 1}), FLOAT, "op", sm=89)
    yield Case("conv-channel-activations", "activation-axis", lambda: convolution(per_channel(32, 1), {}), FLOAT, "op")
    yield Case("matmul-channel-activations", "activation-axis", lambda: product(per_channel(256, 1), {"axis": 1}, np.float32), FLOAT, "op")
    yield Case("row-activations-batch", "activation-axis", lambda: product(per_channel(64, 1), {"axis": 1}, np.float32, (2, 64, 256)), FLOAT, "op")
    yield Case("conv-float-weights", "one-side", lambda: convolution({}, None), FLOAT, "op")
    yield Case("conv-float-activations", "one-side", lambda: convolution(None, {}), FLOAT, "op")
    yield Case("matmul-float-weights", "one-side", lambda: product({}, None), FLOAT, "op")
    yield Case("matmul-one-activation", "one-side", lambda: two_activations(1), FLOAT, "op")
    yield Case("relu-between", "op-between", lambda: between("Relu"), FLOAT, "op")
    yield Case("clip-between", "op-between", lambda: between("Clip", np.float32(0), np.float32(6)), FLOAT, "op")
    yield Case("pool-between", "op-between", lambda: between("AveragePool", kernel_shape=[2, 2]), FLOAT, "op")
    resize: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    yield Case("resize-between", "op-between", lambda: between("Resize", None, np.array([1, 1, 2, 2], np.float32), **resize), FLOAT, "op")
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    yield Case("pad-of-ones-between", "op-between", lambda: between("Pad", pads, np.float32(1)), FLOAT, "op")
    yield Case("concat-two-scales", "op-between", lambda: concat(0.03), FLOAT, "op")
    yield Case("conv-transpose", "conv-transpose", transposed_convolution, FLOAT, "op")
    yield Case("runtime-scale", "runtime-scale", lambda: runtime(True), FLOAT, "op")
    yield Case("runtime-scale-conv", "runtime-scale-conv", lambda: runtime(False), FAILS, "op")


def _blocks() -> Iterator[Case]:
    int4 = {"dtype": INT4}
    yield Case("int4-channel", "int4-whole", lambda: product(None, {"axis": 1, **int4}), UNPACKED, "op")
    yield Case("int4-tensor", "int4-whole", lambda: product(None, {"axis": None, **int4}), UNPACKED, "op")
    yield Case("int4-one-block", "int4-whole", lambda: product(None, {"axis": 0, "block": 256, **int4}), UNPACKED, "op")
    yield Case("int4-short-block", "int4-whole", lambda: product(None, {"axis": 0, "block": 128, **int4}, shape=(64, 96)), UNPACKED, "op")
    yield Case("int4-odd", "int4-columns", lambda: product(None, {"axis": 0, "block": 64, **int4}, columns=33), UNPACKED, "op")
    yield Case("int4-conv", "int4-conv", lambda: convolution(None, int4), UNPACKED, "op")
    yield Case("int4-left", "int4-left", lambda: left(axis=1, block=64, dtype=INT4), FAILS, "op")
    yield Case("int4-tensor-int8", "int4-int8", lambda: product({}, {"axis": None, **int4}), FAILS, "op")
    yield Case("int4-blocks-int8", "block-activations", lambda: product({}, {"axis": 0, "block": 64, **int4}, shape=(2, 64, 256)), FAILS, "op")
    yield Case("int8-blocks-int8-gemm", "block-activations", lambda: product({}, {"axis": 1, "block": 64}, kind="Gemm", transB=1), FAILS, "op")
    yield Case("int4-blocks-int8-plain", "block-activations-plain", lambda: product({}, {"axis": 0, "block": 64, **int4}), BUILDS, "op")
    yield Case("int8-blocks-int8-plain", "block-activations-plain", lambda: product({}, {"axis": 0, "block": 64}), QUANTIZED, "op")
    yield Case("int8-blocks", "block-8bit", lambda: product(None, {"axis": 0, "block": 64}), UNPACKED, "op")
    yield Case("fp8-blocks", "block-8bit", lambda: product(None, {"axis": 0, "block": 64, "dtype": E4M3}), UNPACKED, "op", sm=89)
    yield Case("int4-uneven", "block-uneven", lambda: product(None, {"axis": 0, "block": 64, **int4}, shape=(64, 160)), FAILS, "w_dq")
    yield Case("int4-stretched", "block-stretched", lambda: product(None, {"axis": 0, "block": 128, **int4}, shape=(64, 192)), FUSED, "w_dq")
    yield Case("int4-stack", "block-axis", lambda: stacked(0), FAILS, "w_dq")
    yield Case("int8-conv-blocks", "block-axis", lambda: convolution({}, {"axis": 1, "block": 16}), FAILS, "w_dq")
    yield Case("int4-block-1", "block-one", lambda: product(None, {"axis": 0, "block": 1, **int4}), FAILS, "w_dq")
    yield Case("int4-block-8", "block-size", lambda: product(None, {"axis": 0, "block": 8, **int4}), FUSED, "w_dq")


def _hardware() -> Iterator[Case]:
    yield Case("sm75-conv", "sm75-conv", lambda: convolution({}, {}), FLOAT, "op", sm=75)
    yield Case("sm75-matmul", "sm75-float32", lambda: product({}, {"axis": 1}, np.float32), FAILS, "op", sm=75)
    yield Case("sm75-float-matmul", "sm75-float32", lambda: product(None, None, np.float32), FAILS, "op", sm=75)
    yield Case("sm75-int4", "sm75-int4", lambda: product(None, {"axis": 0, "block": 64, "dtype": INT4}), FAILS, "w_dq", sm=75)
    yield Case("sm86-fp8", "sm-fp8", lambda: product(e4m3(), {"axis": 1, "dtype": E4M3}), FAILS, "x_q", more=("sm-fp8:w_dq",))
    fp4 = {"axis": 0, "block": 16, "dtype": "float4_e2m1fn", "zero_point": False}
    yield Case("sm89-fp4", "sm-fp4", lambda: product(None, fp4), FAILS, "w_dq", sm=89)


def _operators() -> Iterator[Case]:
    for kind in ("DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"):
        yield Case(kind, "integer-op", lambda k=kind: operator(k), FAILS, "op")
    yield Case("MatMulNBits", "integer-op", lambda: operator("MatMulNBits", "com.microsoft"), FAILS, "op")
    for kind in ("FusedMatMul", "QuickGelu"):
        yield Case(kind, "unknown-op", lambda k=kind: operator(k, "com.microsoft"), FAILS, "op")
    yield Case("Det", "unknown-op", lambda: operator("Det"), FAILS, "op")


def _efficiency() -> Iterator[Case]:
    yield Case("float-between", "float-between", lambda: chain(False), FLOAT, "op")
    yield Case("float-skip", "float-skip", lambda: residual(False), BUILDS, "op")
    yield Case("rounded-branch", "rounded-branch", lambda: residual(True, True), BUILDS, "op")
    yield Case("rounded-activation", "rounded-activation", lambda: activation(True), QUANTIZED, "m_q")
    yield Case("no-profile", "dynamic-shape", lambda: product({}, {"axis": 1}, shape=("batch", 64, 256)), FAILS, "x_q", profile=False)
    yield Case("idle", "idle", softmax, FLOAT, "x_dq")


def _valid() -> Iterator[Case]:
    for dtype in (np.float32, HALF):
        for axis in (0, None, -4):
            yield Case(f"conv {dtype.__name__} {axis}", None, lambda d=dtype, a=axis: convolution({}, {"axis": a}, d), QUANTIZED)
        yield Case(f"products {dtype.__name__}", None, lambda d=dtype: products(d, False), QUANTIZED, judged=("a", "b", "c", "d", "e"))
        yield Case(f"int4 {dtype.__name__}", None, lambda d=dtype: products(d, True), FUSED, judged=("a", "b", "c", "d", "e"))
    for opset in (10, 13, 19):
        yield Case(f"opset {opset}", None, lambda o=opset: convolution({}, {"axis": None}, opset=o), QUANTIZED)
    yield Case("no zero points of weights", None, lambda: convolution({}, {"zero_point": False}), QUANTIZED)
    yield Case("weights quantized in the graph", None, float_weights_quantized, QUANTIZED)
    yield Case("weights behind a Transpose", None, lambda: weight_behind_transpose(0), QUANTIZED)
    yield Case("left weights", None, lambda: left(axis=0), FUSED)
    yield Case("two activations", None, two_activations, QUANTIZED)
    yield Case("row activations of one matrix", None, lambda: product(per_channel(64, 1), {"axis": 1}, np.float32, (1, 64, 256)), QUANTIZED)
    yield Case("batches", None, lambda: product({}, {"axis": 1}, shape=("batch", 64, 256)), QUANTIZED)
    yield Case("int8 weights alone", None, lambda: product(None, {"axis": 1}), FUSED)
    yield Case("int8 weights alone, one scale", None, lambda: product(None, {"axis": None}), FUSED)
    yield Case("int4 embedding", None, embedded, FUSED)
    yield Case("int4 negative scales", None, lambda: product(None, {"axis": 0, "block": 64, "dtype": INT4, "scale": -0.01}), FUSED)
    yield Case("int4 odd, one row", None, lambda: product(None, {"axis": 0, "block": 64, "dtype": INT4}, shape=(1, 256), columns=33), FUSED)
    yield Case("int8 with int4 channels", None, lambda: product({}, {"axis": 1, "dtype": INT4}, shape=(2, 64, 256)), BUILDS)
    yield Case("int8 one block", None, lambda: product({}, {"axis": 0, "block": 256}), QUANTIZED)
    for sm in (89, 120):
        yield Case(f"fp8 conv {sm}", None, lambda: convolution(e4m3(), {"dtype": E4M3}), QUANTIZED, sm=sm)
        yield Case(f"fp8 MatMul {sm}", None, lambda: product(e4m3(), {"axis": 1, "dtype": E4M3}), QUANTIZED, sm=sm)
    yield Case("sm75 MatMul", None, lambda: product({}, {"axis": 1}), QUANTIZED, sm=75)
    yield Case("Cast of a float32 scale", None, cast_after_scale, QUANTIZED)
    yield Case("one scale in a Concat", None, lambda: concat(0.02), QUANTIZED)
    yield Case("constant of one element", None, lambda: scalar((1,)), FLOAT)
    yield Case("chain", None, lambda: chain(True), QUANTIZED)
    yield Case("residual", None, lambda: residual(True), BUILDS)
    yield Case("activation", None, lambda: activation(False), QUANTIZED)
    yield Case("ops that INT8 passes through", None, carriers, QUANTIZED, judged=tuple(f"{kind}_op" for kind in CARRIERS))
