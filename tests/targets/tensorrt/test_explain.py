"""Builds that really fail, and what users read of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.explain import explain
from edgeq.targets.tensorrt.backend.plain import plain
from edgeq.targets.tensorrt.backend.request import BuildReport, Message
from tests.support.qdq_models import E4M3, E5M2, INT4, QDQ, UINT4, conv
from tests.support.tensorrt import needs_rtx, request

pytestmark = needs_rtx
Make = Callable[[QDQ], str]
F32, HALF = np.float32, np.float16


def image(g: QDQ) -> str:
    return g.input("x", 1, 8, 8, 8)


def rows(g: QDQ, width: int = 128) -> str:
    return g.input("x", 4, width)


def int8_conv(activation: object = 0, **weight: object) -> Make:
    """A convolution with one thing wrong: the zero point of the activation, or something of the weights."""
    zero = np.int8(activation) if isinstance(activation, int) else activation
    return lambda g: conv(g, g.qdq(image(g), "a", zero=zero), g.weight("w", (8, 8, 3, 3), **weight))  # type: ignore[arg-type]


def scaled_conv(scale: object) -> Make:
    return lambda g: conv(g, g.qdq(image(g), "a", scale=scale), g.weight("w", (8, 8, 3, 3)))


def product(
    dtype: object, *, axis: int = 1, block: int = 0, activation: object = None, zero: int = 0
) -> Make:
    """A MatMul by quantized weights."""

    def make(g: QDQ) -> str:
        x = rows(g) if activation is None else g.qdq(rows(g), "a", zero=np.zeros((), activation))
        return g.op("MatMul", [x, g.weight("w", (128, 64), axis, dtype, zero, block=block)], "mm")

    return make


def stacked(g: QDQ) -> str:
    """INT4 blocks along the first of three dimensions."""
    return g.op("MatMul", [g.input("x", 2, 4, 128), g.weight("w", (2, 128, 64), 0, INT4, block=2)], "mm")


def biased(g: QDQ) -> str:
    """ONNX Runtime's INT32 bias."""
    g.constant("b", np.zeros(8, np.int32))
    g.constant("bs", np.ones(8, np.float32))
    g.constant("bz", np.zeros(8, np.int32))
    bias = g.op("DequantizeLinear", ["b", "bs", "bz"], "b_dq", axis=0)
    return g.op("Conv", [g.qdq(image(g), "a"), g.weight("w", (8, 8, 3, 3)), bias], "conv")


def mixed(op: str, *shapes: tuple[int, ...], x: tuple[int, ...] = (4, 8)) -> Make:
    """An op of a float16 input and float32 constants."""

    def make(g: QDQ) -> str:
        constants = [g.constant(f"c{i}", np.ones(shape, np.float32)) for i, shape in enumerate(shapes)]
        return g.op(op, [g.input("x", *x), *constants], "mixed")

    return make


def single(op: str, domain: str = "", **attributes: object) -> Make:
    return lambda g: g.op(op, [rows(g)], "node", domain, **attributes)


def integers(op: str) -> Make:
    return lambda g: g.op(
        op, [g.input("x", 4, 8, dtype=np.int8), g.constant("w", np.ones((8, 8), np.int8))], op
    )


def nbits(g: QDQ) -> str:
    codes, scales = g.constant("w", np.zeros((8, 4, 16), np.uint8)), g.constant("s", np.ones(32, np.float32))
    return g.op(
        "MatMulNBits", [rows(g), codes, scales], "nb", "com.microsoft", K=128, N=8, bits=4, block_size=32
    )


def shaped(g: QDQ) -> str:
    """An input that is the shape of another."""
    return g.op("Reshape", [rows(g), g.input("shape", 2, dtype=np.int64)], "r")


def strings(g: QDQ) -> str:
    return g.op("Identity", [g.input("x", 2, dtype=np.object_)], "node")


def external(file: str) -> Make:
    """Weights that another file should hold."""

    def make(g: QDQ) -> str:
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[128, 8])
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=file)
        g.initializers.append(weights)
        return g.op("MatMul", [rows(g), "w"], "mm")

    return make


# Name → graph, its float type, compute capabilities, what is said, how it is mended.
CASES: dict[str, tuple[Make, type, tuple[int, ...], str, str]] = {
    "zero_point": (int8_conv(3), F32, (86,), "QuantizeLinear 'a_q': its zero point is not 0", "INT8"),
    "uint8": (int8_conv(np.uint8(128)), F32, (86,), "'a_q': its zero point is not 0", "not UINT8"),
    "weight_zero": (int8_conv(zero=3), F32, (86,), "DequantizeLinear 'w_dq': its zero point", "point 0"),
    "uint8_weights": (int8_conv(dtype=np.uint8), F32, (86,), "'w_dq': it reads UINT8", "as INT8"),
    "int16": (int8_conv(np.int16(0)), F32, (86,), "the constant 'a_z' is INT16", "INT8, INT4 or FP8"),
    "uint4": (product(UINT4, axis=0, block=64), F32, (86,), "the constant 'w_c' has a type", "INT4"),
    "e5m2": (product(E5M2, activation=E5M2), F32, (89,), "'a_z' has a type", "E4M3"),
    "scale_zero": (scaled_conv(0.0), F32, (86,), "'a_q': a scale of it is not above 0", "positive"),
    "scale_nan": (scaled_conv(np.float32("nan")), F32, (86,), "'a_q': a scale of it", "calibrate again"),
    "int32_bias": (biased, F32, (86,), "'b_dq': it dequantizes INT32", "bias in float"),
    "scale_type": (scaled_conv(np.float32(0.02)), HALF, (86,), "'conv': .* types Float and Half", "scale"),
    "matmul_types": (mixed("MatMul", (8, 8)), HALF, (86,), "MatMul 'mixed': .* types Half and Float", "one"),
    "gemm_types": (mixed("Gemm", (8, 8)), HALF, (86,), "types Half and Float", "Make them one"),
    "norm_types": (mixed("LayerNormalization", (8,)), HALF, (86,), "types Half and Float", "Make them one"),
    "add_types": (mixed("Add", (8,)), HALF, (86,), "Add 'mixed': .* types Half and Float", "Make them one"),
    "bias_type": (mixed("Conv", (8, 8, 3, 3), x=(1, 8, 8, 8)), HALF, (86,), "types Half and Float", "bias"),
    "dynamic": (single("DynamicQuantizeLinear"), F32, (86,), "this TensorRT has no such op", "static"),
    "integer": (integers("MatMulInteger"), F32, (86,), "MatMulInteger", "no dynamic INT8"),
    "missing_op": (single("Bernoulli"), F32, (86,), "Bernoulli 'node': .* no such op", "other ONNX ops"),
    "custom_op": (single("Mine", "com.acme"), F32, (86,), "Mine 'node': .* no such op", "other ONNX ops"),
    "nbits": (nbits, F32, (86,), "MatMulNBits 'nb'", "block_size"),
    "string": (single("Cast", to=TensorProto.STRING), F32, (86,), "'node': it casts", "Leave this part"),
    "strings": (strings, F32, (86,), "of a type that TensorRT has not, such as strings", "Leave this part"),
    "cycle": (lambda g: g.op("Add", [rows(g), "nowhere"], "r"), F32, (86,), "it reads a value", "checker"),
    "no_profile": (lambda g: g.op("Relu", [g.input("x", "n", 8)], "r"), F32, (86,), "dynamic", "--dimen"),
    "shape_input": (shaped, F32, (86,), "is itself a shape", "constant"),
    "plugin": (single("NonZero"), F32, (86,), "NonZero 'node': .* no such op", "other ONNX ops"),
    "fp8_sm86": (product(E4M3, activation=E4M3), F32, (86, 89), "FP8 does not run on SM86", "SM89 or"),
    "int4_sm75": (product(INT4, axis=0, block=64), HALF, (75,), "INT4 does not run on SM75", "SM80 or newer"),
    "int4_zero": (product(INT4, axis=0, block=64, zero=2), HALF, (86,), "zero point is not 0", "point 0"),
    "int4_axis": (stacked, F32, (86,), "'w_dq': its blocks are not along", "along K"),
    "int4_fp8": (product(INT4, axis=0, block=64, activation=E4M3), HALF, (89,), "two factors", "only the"),
    "gemm_sm75": (product(np.int8, activation=np.int8), F32, (75,), "FP32 GEMM, which SM75", "precision"),
    "sm90": (single("Relu"), F32, (90,), "SM90 is no compute capability", "lint"),
    "no_weights": (external("missing.bin"), F32, (86,), "missing.bin, which is not there", "beside"),
    "few_weights": (external("short.bin"), F32, (86,), "shorter than its shape", "export the model"),
    "invalid": (lambda g: g.op("Conv", [image(g)], "c"), F32, (86,), "Conv 'c': .* not say why", "attrib"),
    "other": (mixed("MatMul", (9, 8)), F32, (86,), "must match", "edgeq lint --target tensorrt"),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuildReport | TargetError]:
    folder = tmp_path_factory.mktemp("refused")
    (folder / "short.bin").write_bytes(b"short")
    requests = []
    for name, (make, dtype, sm, _, _) in CASES.items():
        graph = QDQ(dtype)
        onnx.save(graph.model(make(graph)), folder / f"{name}.onnx")
        requests.append(request(folder / f"{name}.onnx", *sm))
    (folder / "text.onnx").write_text("no protobuf")
    (folder / "empty.onnx").write_bytes(b"")
    files = ["text", "empty", "absent"]
    requests += [request(folder / f"{name}.onnx") for name in files]
    return dict(zip([*CASES, *files], build_many(requests, timeout=60), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_refused_builds_say_what_and_how_to_mend(
    name: str, outcomes: dict[str, BuildReport | TargetError]
) -> None:
    _, _, _, what, mend = CASES[name]
    error = outcomes[name]
    assert isinstance(error, TargetError)
    assert error.fix is not None
    assert mend in error.fix
    with pytest.raises(TargetError, match=what):
        raise error


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("text", "it is no ONNX"),
        ("empty", "it holds no network"),
        ("absent", r"there is no file .*absent\.onnx"),
    ],
)
def test_files_that_are_no_models(
    name: str, what: str, outcomes: dict[str, BuildReport | TargetError]
) -> None:
    error = outcomes[name]
    assert isinstance(error, TargetError)
    with pytest.raises(TargetError, match=what):
        raise error


def test_no_message_shows_the_inside_of_the_compiler(outcomes: dict[str, BuildReport | TargetError]) -> None:
    texts = [str(error) for error in outcomes.values()]
    for inside in ("cudaError", "Assertion", "/_src/", ".cpp", "Error Code", "::", "\n", "INVALID_"):
        assert not [text for text in texts if inside in text], inside


def test_silence_and_unknown_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    asked = request(tmp_path / "m.onnx")
    assert "does not say why" in explain(asked, ()).what
    texts = [Message(severity="error", text=text) for text in ("one.", "two", "one.")]
    warning = Message(severity="warning", text="Non-zero zero point is not supported")
    assert explain(asked, (warning, *texts)).what.endswith("m.onnx: one; two.")


def test_errors_of_the_compiler_itself_are_called_so(tmp_path: Path) -> None:
    text = (
        "Internal Error: Myelin (MyelinCheckException: bb.cpp:43: CHECK(append_to->parent() == this) failed."
    )
    error = explain(request(tmp_path / "m.onnx"), (Message(severity="error", text=text),))
    assert error.what.endswith("an error of its own, CHECK(append_to->parent() == this).")
    assert error.fix is not None
    assert "defect of this TensorRT" in error.fix


def test_the_more_telling_error_is_the_explanation(tmp_path: Path) -> None:
    """Whatever the order in which the compiler says them."""
    texts = ("no optimization profile has been defined", "Non-zero zero point is not supported")
    for order in (texts, texts[::-1]):
        messages = [Message(severity="error", text=text) for text in order]
        assert explain(request(tmp_path / "m.onnx"), messages).what.endswith("its zero point is not 0.")


def test_places_in_the_compilers_sources_are_left_out() -> None:
    text = (
        "INVALID_NODE in parseNode: Invalid Node - mm\nITensor::getDimensions: Error Code 4: API Usage Error "
        "(mm: 8 and 9 must match. In validate at /_src/optimizer/matrixMultiplyLayer.cpp:192)"
    )
    assert plain(text) == "mm: 8 and 9 must match"
