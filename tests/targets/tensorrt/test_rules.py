"""The compiler's rules of explicit quantization, each shown by an engine that is built (or refused) here.

One case per statement; ``_Case.rule`` is the statement. The rules of TensorRT for RTX 1.7.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgeq.errors import TargetError
from edgeq.targets.base import NodeResult
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from tests.support.tensorrt import needs_rtx, request
from tests.support.tensorrt_models import GraphBuilder, Rest, Scheme, planned
from tests.support.tensorrt_ops import attention

pytestmark = needs_rtx

_I8, _U8, _I4, _U4 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4
_I16, _U16 = TensorProto.INT16, TensorProto.UINT16
_E5M2 = TensorProto.FLOAT8E5M2


@dataclass(frozen=True)
class _Case:
    """``build`` adds a node ``main`` to a graph; ``wanted``: its precision, or words of the refusal."""

    rule: str
    build: Callable[[GraphBuilder], str]
    wanted: str
    sm: int = 86
    scheme: Scheme = "int8"
    rest: Rest = "fp32"
    opset: int = 21
    warns: str = ""
    reason: str = ""

    def model(self) -> onnx.ModelProto:
        b = GraphBuilder(self.scheme, self.rest, opset=self.opset)
        b.output(self.build(b))
        return b.model()

    def __str__(self) -> str:
        return f"{self.rule} [SM{self.sm} {self.rest} opset {self.opset}]".replace("/", "|")


def _x(b: GraphBuilder, *shape: int) -> str:
    return b.input("x", shape or (1, 16, 16, 16))


def _conv(b: GraphBuilder, x: str, weights: str, *more: str, **attributes: Any) -> str:
    return b.op("Conv", [x, weights, *more], "main", pads=[1, 1, 1, 1], **attributes)


def _plain(b: GraphBuilder) -> str:
    return _conv(b, b.pair(_x(b)), b.weights("w", (32, 16, 3, 3), 0))


def _per_tensor(b: GraphBuilder) -> str:
    return _conv(b, b.pair(_x(b)), b.weights("w", (32, 16, 3, 3), None))


def _activation(**pair: Any) -> Callable[[GraphBuilder], str]:
    """A convolution whose activation is rounded in an unusual way."""

    def build(b: GraphBuilder) -> str:
        return _conv(b, b.pair(_x(b), **pair), b.weights("w", (32, 16, 3, 3), 0))

    return build


def _weight(codes: int, largest: int = 7, axis: int | None = 0, **more: Any) -> Callable[[GraphBuilder], str]:
    """A convolution with weights of another type."""

    def build(b: GraphBuilder) -> str:
        x = b.pair(_x(b), codes=_I8)
        return _conv(b, x, b.dequantized("w", (32, 16, 3, 3), codes, largest, axis, **more))

    return build


def _integer_bias(b: GraphBuilder) -> str:
    x, w = b.pair(_x(b)), b.weights("w", (32, 16, 3, 3), 0)
    return _conv(b, x, w, b.dequantized("bias", (32,), TensorProto.INT32, 100, 0))


def _weight_scale(scale: float) -> Callable[[GraphBuilder], str]:
    def build(b: GraphBuilder) -> str:
        codes = b.constant("w_codes", np.ones((32, 16, 3, 3)), _I8)
        scales = b.constant("w_scale", np.full(32, scale))
        w = b.op("DequantizeLinear", [codes, scales], "w_DQ", axis=0)
        return _conv(b, b.pair(_x(b)), w)

    return build


def _grouped(group: int, *weights: int) -> Callable[[GraphBuilder], str]:
    def build(b: GraphBuilder) -> str:
        return _conv(b, b.pair(_x(b, 1, 32, 16, 16)), b.weights("w", weights, 0), group=group)

    return build


def _spatial(rank: int) -> Callable[[GraphBuilder], str]:
    def build(b: GraphBuilder) -> str:
        x = b.pair(_x(b, 1, 16, *[16] * rank))
        return b.op("Conv", [x, b.weights("w", (32, 16, *[3] * rank), 0)], "main", pads=[1] * (2 * rank))

    return build


def _product(
    op_type: str, shape: tuple[int, ...], axis: int | None, **attributes: Any
) -> Callable[[GraphBuilder], str]:
    """A matrix product with constant weights of ``shape``, scales along ``axis``."""

    def build(b: GraphBuilder) -> str:
        x = b.quantized(_x(b, 8, 256))
        return b.op(op_type, [x, b.weights("w", shape, axis)], "main", **attributes)

    return build


def _blocked(
    op_type: str, shape: tuple[int, ...], along: int, block: int, *, codes: int = _I4, depth: int = 256,
    largest: int = 7, zero: int | None = None, rounded: bool = False, **attributes: Any,
) -> Callable[[GraphBuilder], str]:  # fmt: skip
    """A matrix product with weights in blocks."""

    def build(b: GraphBuilder) -> str:
        x = _x(b, 8, depth)
        x = b.pair(x, codes=_I8) if rounded else x
        w = b.dequantized("w", shape, codes, largest, along, block, zero=zero)
        return b.op(op_type, [x, w], "main", **attributes)

    return build


def _weights_only(op_type: str, shape: tuple[int, ...], axis: int | None) -> Callable[[GraphBuilder], str]:
    def build(b: GraphBuilder) -> str:
        x = _x(b, 8, 256) if len(shape) == 2 else _x(b)
        return b.op(op_type, [x, b.weights("w", shape, axis)], "main")

    return build


def _one_side(side: str) -> Callable[[GraphBuilder], str]:
    def build(b: GraphBuilder) -> str:
        x = _x(b)
        if side == "activations":
            return _conv(b, b.pair(x), b.constant("w", b.numbers((32, 16, 3, 3))))
        return _conv(b, x, b.weights("w", (32, 16, 3, 3), 0))

    return build


def _run_time_scale(b: GraphBuilder) -> str:
    scale = b.input("scale", [])
    zero = b.constant("zero", np.array(0), _I8)
    q = b.op("QuantizeLinear", [_x(b), scale, zero], "x_Q")
    x = b.op("DequantizeLinear", [q, scale, zero], "x_DQ")
    return _conv(b, x, b.weights("w", (32, 16, 3, 3), 0))


def _run_time_product(b: GraphBuilder) -> str:
    scale, zero = b.input("scale", []), b.constant("zero", np.array(0), _I8)
    q = b.op("QuantizeLinear", [_x(b, 8, 256), scale, zero], "x_Q")
    x = b.op("DequantizeLinear", [q, scale, zero], "x_DQ")
    return b.op("MatMul", [x, b.weights("w", (256, 128), 1)], "main")


def _transposed(b: GraphBuilder) -> str:
    x = b.quantized(_x(b))
    return b.op("ConvTranspose", [x, b.weights("w", (16, 32, 3, 3), 1)], "main")


def _between(
    op_type: str, inputs: Sequence[tuple[str, Any]] = (), **attributes: Any
) -> Callable[[GraphBuilder], str]:
    """An op between the DequantizeLinear and the convolution."""

    def build(b: GraphBuilder) -> str:
        first = _conv_named(b, "first", b.pair(_x(b)))
        x = b.pair(b.op("Relu", [first], "relu"))
        more = [b.constant(name, value, TensorProto.FLOAT) if name else "" for name, value in inputs]
        moved = b.op(op_type, [x, *more], "moved", **attributes)
        return _conv(b, moved, b.weights("w", (32, 16, 3, 3), 0))

    return build


def _conv_named(b: GraphBuilder, name: str, x: str) -> str:
    return b.op("Conv", [x, b.weights(f"{name}_w", (16, 16, 3, 3), 0)], name, pads=[1, 1, 1, 1])


def _transpose_before(b: GraphBuilder) -> str:
    moved = b.op("Transpose", [b.pair(_x(b, 256, 8))], "moved", perm=[1, 0])
    return b.op("MatMul", [moved, b.weights("w", (256, 128), 1)], "main")


def _wide_scale(b: GraphBuilder) -> str:
    scale, zero = b.constant("scale", np.array(0.02), TensorProto.FLOAT), b.constant("zero", np.array(0), _I8)
    q = b.op("QuantizeLinear", [_x(b), scale, zero], "x_Q")
    return _conv(b, b.op("DequantizeLinear", [q, scale, zero], "x_DQ"), b.weights("w", (32, 16, 3, 3), 0))


def _two_activations(b: GraphBuilder) -> str:
    x, y = b.quantized(_x(b, 8, 256)), b.quantized(b.input("y", [256, 128]))
    return b.op("MatMul", [x, y], "main")


def _float_gemm(b: GraphBuilder) -> str:
    return b.op("MatMul", [_x(b, 8, 256), b.constant("w", b.numbers((256, 128)))], "main")


def _nvfp4(b: GraphBuilder) -> str:
    """Blocks of 16 with FP8 scales, themselves scaled: activations are rounded by TensorRT's own op."""

    def twice(name: str, codes: str, scales: str) -> str:
        outer = b.constant(f"{name}_outer", np.array(0.01))
        inner = b.op("DequantizeLinear", [scales, outer], f"{name}_scales")
        return b.op("DequantizeLinear", [codes, inner], f"{name}_DQ", axis=-1, block_size=16)

    scale = b.constant("x_scale", np.array(0.01))
    dynamic = helper.make_node(
        "TRT_FP4DynamicQuantize", [_x(b, 16, 256), scale], ["x_codes", "x_blocks"], name="x_Q", domain="trt",
        axis=-1, block_size=16, scale_type=TensorProto.FLOAT8E4M3FN,
    )  # fmt: skip
    b.nodes.append(dynamic)
    codes = b.constant("w_codes", np.ones((128, 256)), TensorProto.FLOAT4E2M1)
    blocks = b.constant("w_blocks", np.ones((128, 16)), TensorProto.FLOAT8E4M3FN)
    weights = b.op("Transpose", [twice("w", codes, blocks)], "w_T", perm=[1, 0])
    return b.op("MatMul", [twice("x", "x_codes", "x_blocks"), weights], "main")


def _dynamic(b: GraphBuilder) -> str:
    outputs = ["codes", "scale", "zero"]
    b.nodes.append(helper.make_node("DynamicQuantizeLinear", [_x(b, 8, 256)], outputs, name="dynamic"))
    x = b.op("DequantizeLinear", outputs, "x_DQ")
    return b.op("MatMul", [x, b.constant("w", b.numbers((256, 128)))], "main")


def _integer_op(op_type: str) -> Callable[[GraphBuilder], str]:
    def build(b: GraphBuilder) -> str:
        shape, weights = ((8, 256), (256, 128)) if "MatMul" in op_type else ((1, 16, 8, 8), (32, 16, 3, 3))
        codes = b.op("QuantizeLinear", [_x(b, *shape), *_parameters(b, "x")], "x_Q")
        w = b.constant("w", np.ones(weights), _I8)
        if op_type.endswith("Integer"):
            return b.op("Cast", [b.op(op_type, [codes, w], "main")], "cast", to=TensorProto.FLOAT)
        inputs = [codes, *_parameters(b, "a"), w, *_parameters(b, "w"), *_parameters(b, "y")]
        return b.op("DequantizeLinear", [b.op(op_type, inputs, "main"), *_parameters(b, "z")], "y_DQ")

    return build


def _parameters(b: GraphBuilder, name: str) -> list[str]:
    return [b.constant(f"{name}_scale", np.array(0.02)), b.constant(f"{name}_zero", np.array(0), _I8)]


def _matmul_nbits(b: GraphBuilder) -> str:
    weights, scales = b.constant("w", np.ones((128, 8, 16)), _U8), b.constant("s", np.ones(128 * 8))
    inputs, domain = [_x(b, 8, 256), weights, scales], "com.microsoft"
    b.nodes.append(
        helper.make_node(
            "MatMulNBits", inputs, ["main"], "main", domain=domain, K=256, N=128, bits=4, block_size=32
        )
    )
    return "main"


_NO_ZERO = "zero point"
_SPLIT = "expanded by a layer of their own"


def _int4(rule: str, build: Callable[[GraphBuilder], str], wanted: str, **more: Any) -> _Case:
    return _Case(rule, build, wanted, **{"scheme": "int4-64", "rest": "fp16", **more})


CASES = [
    *(_Case("INT8 of every opset", _plain, "int8", opset=opset) for opset in (13, 17, 19, 21, 23, 25)),
    *(_Case("scales of the graph's type", _plain, "int8", rest=rest) for rest in ("fp16", "bf16")),
    _Case("INT8 weights per tensor", _per_tensor, "int8"),
    _Case("activations with a zero point", _activation(zero=3), _NO_ZERO),
    _Case("uint8 activations around 128", _activation(zero=128, codes=_U8), _NO_ZERO),
    _Case("uint8 activations without a zero point", _activation(codes=_U8), "int8", warns="UINT8"),
    _Case("uint8 weights", _weight(_U8), "reads UINT8"),
    _Case("int16 weights", _weight(_I16), "is INT16"),
    _Case("uint16 weights", _weight(_U16), "is UINT16"),
    _Case("uint4 weights", _weight(_U4), "type that TensorRT has not"),
    _Case("FP8 E5M2 weights", _weight(_E5M2), "type that TensorRT has not", sm=89),
    _Case("int16 activations", _activation(codes=_I16), "is INT16"),
    _Case("uint16 activations", _activation(codes=_U16), "is UINT16"),
    _Case("FP8 E5M2 activations", _activation(codes=_E5M2), "type that TensorRT has not", sm=89),
    _Case("int32 bias", _integer_bias, "INT32"),
    _Case("a scale of zero", _weight_scale(0.0), "not above 0"),
    _Case("a negative scale", _weight_scale(-0.01), "not above 0"),
    _Case("an activation's scale of zero", _activation(scale=0.0), "not above 0"),
    _Case("two scales of one pair", _activation(other_scale=0.03), "int8"),
    _Case("convolution, axis 0", _plain, "int8"),
    _Case("depthwise convolution, axis 0", _grouped(32, 32, 1, 3, 3), "int8"),
    _Case("grouped convolution, axis 0", _grouped(2, 32, 16, 3, 3), "int8"),
    _Case("1-D convolution, axis 0", _spatial(1), "int8"),
    _Case("3-D convolution, axis 0", _spatial(3), "int8"),
    _Case("Gemm with transB, axis 0", _product("Gemm", (128, 256), 0, transB=1), "int8"),
    _Case("MatMul, axis 1", _product("MatMul", (256, 128), 1), "int8"),
    _Case("convolution, wrong axis", _weight(_I8, 127, 1), "fp32"),
    _Case("Gemm with transB, wrong axis", _product("Gemm", (128, 256), 1, transB=1), "fp32"),
    _Case("MatMul, wrong axis", _product("MatMul", (256, 128), 0), "fp32"),
    _Case("activations per channel", _activation(scale=np.full(16, 0.02), axis=1), "fp32"),
    _Case("only activations", _one_side("activations"), "fp32"),
    _Case("only weights", _one_side("weights"), "fp32"),
    _Case("a product's scale at run time", _run_time_product, "fp32"),
    _Case("a convolution's scale at run time", _run_time_scale, "SIGSEGV"),
    _Case("transposed convolution", _transposed, "fp32"),
    _Case("SM75: convolution", _plain, "fp16", sm=75, rest="fp16"),
    _Case("SM75: MatMul of an FP16 graph", _product("MatMul", (256, 128), 1), "int8", sm=75, rest="fp16"),
    _Case("SM75: MatMul of an FP32 graph", _product("MatMul", (256, 128), 1), "FP32 GEMM", sm=75),
    _Case("SM75: FP32 product", _float_gemm, "FP32 GEMM", sm=75, scheme="float"),
    _Case("MaxPool before", _between("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), "int8"),
    _Case("Transpose before a convolution", _between("Transpose", perm=[0, 1, 3, 2]), "int8"),
    _Case("Transpose before MatMul", _transpose_before, "int8"),
    _Case("Resize before", _between("Resize", (("", 0), ("scales", [1, 1, 2, 2])), mode="nearest"), "fp32"),
    _Case("Relu before", _between("Relu"), "fp32"),
    _Case("FP32 scale in an FP16 graph", _wide_scale, "types Float and Half", rest="fp16"),
    *(
        _int4(f"INT4 in blocks of {block}", _blocked("MatMul", (256, 128), 0, block), "int4", rest=rest)
        for block in (16, 32, 64, 128)
        for rest in ("fp16", "fp32", "bf16")
    ),
    _int4("INT4 Gemm", _blocked("Gemm", (128, 256), 1, 64, transB=1), "int4"),
    *(
        _int4("INT4 on this GPU", _blocked("MatMul", (256, 128), 0, 128), "int4", sm=sm)
        for sm in (80, 89, 120)
    ),
    _int4("INT4 per channel", _weights_only("MatMul", (256, 128), 1), "fp16", reason=_SPLIT),
    _int4("INT4 per tensor", _weights_only("MatMul", (256, 128), None), "fp16", reason=_SPLIT),
    _int4("INT4 with a zero point", _blocked("MatMul", (256, 128), 0, 64, zero=1), "zero point"),
    _int4("INT4 blocks of a convolution", _weight(_I4, 7, 1, block=16), "last two dimensions", rest="fp32"),
    _int4("INT4 on Turing", _blocked("MatMul", (256, 128), 0, 64), "INT4 does not run on SM75", sm=75),
    _int4("INT4 convolution per channel", _weights_only("Conv", (32, 16, 3, 3), 0), "fp16", reason=_SPLIT),
    _int4("INT4, a block that is not full", _blocked("MatMul", (200, 128), 0, 64, depth=200), "int4"),
    _int4(
        "INT4 weights, INT8 activations",
        _blocked("MatMul", (256, 128), 0, 64, rounded=True),
        "int8",
        rest="fp32",
    ),
    _int4(
        "INT4 Gemm, INT8 activations",
        _blocked("Gemm", (128, 256), 1, 64, rounded=True, transB=1),
        "is_constant",
        rest="fp32",
    ),
    _Case(
        "INT8 weights alone, per channel",
        _weights_only("Gemm", (256, 128), 1),
        "int8-weight",
        scheme="int8-weight",
        rest="fp16",
        reason="float",
    ),
    _Case(
        "INT8 weights alone, in blocks",
        _blocked("Gemm", (256, 128), 0, 128, codes=_I8, largest=127),
        "int8-weight",
        scheme="int8-weight",
        rest="fp16",
        reason=_SPLIT,
    ),
    *(
        _Case("FP8 product", _product("MatMul", (256, 128), 1), "fp8", scheme="fp8", rest="fp16", sm=sm)
        for sm in (89, 120)
    ),
    _Case("FP8 on Ampere", _two_activations, "FP8 does not run on SM86", scheme="fp8", rest="fp16", sm=86),
    _Case("FP4 on Blackwell", _nvfp4, "fp4", opset=23, rest="fp16", sm=120),
    _Case("FP4 on Ada", _nvfp4, "does not run on SM89", opset=23, rest="fp16", sm=89),
    _Case("dynamic quantization", _dynamic, "no such op"),
    *(
        _Case(f"{op} is no op of it", _integer_op(op), "no such op")
        for op in ("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")
    ),
    _Case("MatMulNBits is no op of it", _matmul_nbits, "no op"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[int, BuildReport | TargetError]:
    folder = tmp_path_factory.mktemp("rules")
    requests = []
    for index, case in enumerate(CASES):
        path = folder / f"{index}.onnx"
        onnx.save(case.model(), path)
        requests.append(request(path, case.sm))
    return dict(enumerate(build_many(requests, timeout=60)))


@pytest.mark.parametrize("index", range(len(CASES)), ids=[str(case) for case in CASES])
def test_rule(index: int, built: dict[int, BuildReport | TargetError]) -> None:
    case, report = CASES[index], built[index]
    if isinstance(report, TargetError):
        assert re.search(case.wanted, str(report)), report
        return
    found = _result(case, report)
    assert found.actual == case.wanted, found
    assert case.reason in found.reason
    assert case.warns in " ".join(message.text for message in report.messages)
    assert found.missed == (case.wanted in ("fp16", "fp32"))


def _result(case: _Case, report: BuildReport) -> NodeResult:
    table = parse_table(report.tables[case.sm], case.sm)
    model = case.model()
    results = node_results([table], ir.from_proto(model), planned(model, case.scheme))
    return next(result for result in results if result.name == "main")


def test_the_scales_of_int4_blocks_behind_int8_activations(
    built: dict[int, BuildReport | TargetError],
) -> None:
    """The scales of all 4 blocks are multiplied with the sum over the blocks: results are wrong."""
    index = next(i for i, case in enumerate(CASES) if case.rule == "INT4 weights, INT8 activations")
    report = built[index]
    assert isinstance(report, BuildReport)
    last = parse_table(report.tables[86], 86).layers[-1]
    assert [tensor.shape for tensor in last.inputs] == [(8, 128)]
    assert [tensor.shape for tensor in last.constants] == [(1, 4 * 128)]


def test_the_compiler_remembers_a_refusal_for_turing(tmp_path: Path) -> None:
    """Builds are right only in a process of their own, or a fresh one after such a refusal."""
    refused = next(case for case in CASES if case.rule == "SM75: FP32 product")
    plain = CASES[0]
    for name, case in (("refused", refused), ("plain", plain)):
        onnx.save(case.model(), tmp_path / f"{name}.onnx")
    reports = build_many([request(tmp_path / "refused.onnx", 75), request(tmp_path / "plain.onnx", 86)])
    assert isinstance(reports[0], TargetError)
    assert isinstance(reports[1], BuildReport)
    assert _result(plain, reports[1]).actual == "int8"


# What of attention is rounded (q, k, v, probabilities, output; m: with a mask, which is not) → one kernel or
# not, its two products.
ATTENTION = {
    "qkvpo": (True, ["int8", "int8"]),
    "qkvpom": (True, ["int8", "int8"]),
    "qkvp": (False, ["int8", "int8"]),
    "qk": (False, ["int8", "fp16"]),
    "pvo": (False, ["fp16", "int8"]),
    "": (True, ["fp16", "fp16"]),
    "m": (True, ["fp16", "fp16"]),
}


def test_attention_is_one_kernel_when_all_of_it_is_rounded_or_nothing(tmp_path: Path) -> None:
    models = []
    for index, rounded in enumerate(ATTENTION):
        b = GraphBuilder("int8", "fp16")
        b.output(attention(rounded, masked="m" in rounded)(b, "main"))
        models.append(b.model())
        onnx.save(models[-1], tmp_path / f"{index}.onnx")
    reports = build_many([request(tmp_path / f"{index}.onnx", 86) for index in range(len(models))])
    for built, report, wanted in zip(models, reports, ATTENTION.items(), strict=True):
        assert isinstance(report, BuildReport)
        table = parse_table(report.tables[86], 86)
        results = node_results([table], ir.from_proto(built), planned(built, "int8"))
        products = [result.actual for result in results if result.op_type == "MatMul"]
        fused = any("mha" in layer.name for layer in table.layers)
        assert (wanted[0], (fused, products)) == wanted
