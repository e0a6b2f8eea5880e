"""The layer table: read as the compiler prints it, kept in a file, and what it proves about single nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.errors import ModelError, TargetError
from edgeq.targets.base import NodeResult
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.layers.coverage import coverage, coverages
from edgeq.targets.tensorrt.layers.evidence import rank
from edgeq.targets.tensorrt.layers.file import read_layers, write_layers
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.layers.table import Layer, LayerTable, LayerTensor
from tests.support.tensorrt import needs_rtx, request
from tests.support.tensorrt_models import GraphBuilder, planned
from tests.support.tensorrt_ops import attention, conv

_AFTER = (
    "\n\nI/O Tensors:\n Name: x, IOMode: Input, DataType: Float\n\nEngine Metadata:\n Multi-Device: Disabled"
)
_CONV = (
    "Name: c1_U18_myl0_1, LayerType: correlation, Inputs: [ { Name: x_q, Dimensions: [1,16,8,8], Strides: "
    "[1024,1,128,16], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
    "Constants: [ { Name: w, Dimensions: [32,16,3,3], Strides: [144,1,48,16], StrideOrder: [3,0,2,1], "
    "Datatype: Int8, Format: (NHWC) Channel major format }, { Name: s, Dimensions: [], Strides: [], "
    "StrideOrder: [], Datatype: Float, Format: (Arbitrary) Format with stride order = [1,0] }], Outputs: "
    "[ { Name: y, Dimensions: [-1,32,8,8], Strides: [2048,1,256,32], StrideOrder: [3,0,2,1], Datatype: Half, "
    "Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: "
    "[ONNX Layer: c1]\x1f[ONNX Layer: x_DQ]\x1f[ONNX Layer: c1]"
)
_SIGNAL = (
    "Name: exit^bb^signal^1_myl0_93, LayerType: signal, Inputs: [], Constants: [], Outputs: [], "
    "TacticName: , StreamId: 1, EventId: 20, Metadata: "
)


def _text(*lines: str) -> str:
    return "Layers:\n" + "\n".join(lines) + _AFTER


def test_a_line_of_the_table() -> None:
    table = parse_table(_text(_CONV, _SIGNAL), 86)
    assert table.sm == 86
    assert table.layers[0] == Layer(
        name="c1_U18_myl0_1",
        kind="correlation",
        inputs=(LayerTensor(name="x_q", dtype="Int8", shape=(1, 16, 8, 8)),),
        constants=(
            LayerTensor(name="w", dtype="Int8", shape=(32, 16, 3, 3)),
            LayerTensor(name="s", dtype="Float", shape=()),
        ),
        outputs=(LayerTensor(name="y", dtype="Half", shape=(-1, 32, 8, 8)),),
        nodes=("c1", "x_DQ"),
        tactic="__myelin_CASK_STUB",
    )
    assert (table.layers[1].kind, table.layers[1].nodes) == ("signal", ())


def test_a_layer_that_hands_sizes_to_the_gpu() -> None:
    line = (
        "Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { "
        "Name: /m/Gather_3, Location: Device, Dimensions: [1], Datatype: Int64, "
        "Format: Format not available due to dynamic shapes }], ParameterType: ShapeH2D, "
        "shapeValues0: [-5], TacticValue: 0x0000000000000000, StreamId: 0, Metadata: "
    )
    (layer,) = parse_table(f"Layers:\n{line}\n", 86).layers
    assert (layer.name, layer.kind) == ("[ShapeHostToDeviceCopy 0]", "ShapeHostToDevice")
    assert layer.outputs == (LayerTensor(name="/m/Gather_3", dtype="Int64", shape=(1,)),)
    assert (layer.inputs, layer.constants, layer.nodes, layer.tactic) == ((), (), (), "")


def test_a_convolution_that_became_a_product() -> None:
    line = _CONV.replace("[ONNX Layer: x_DQ]", "[ONNX Layer: x_DQ]__gemm_from_conv1x1")
    for text in (line, f"{line}__gemm_from_conv1x1"):
        assert parse_table(_text(text), 86).layers[0].nodes == ("c1", "x_DQ")


def test_an_engine_without_layers() -> None:
    assert parse_table("Layers:\n" + _AFTER, 86).layers == ()


@pytest.mark.parametrize(
    "broken",
    [
        "Name: x, LayerType: kgen",
        "something new",
        _CONV.replace("Datatype", "Type"),
        _CONV.replace("[ONNX Layer: c1]", "c1", 1),
        _CONV.replace(" }], Outputs", " }, Outputs"),
    ],
)
def test_an_unreadable_line_is_shown(broken: str) -> None:
    with pytest.raises(TargetError) as refused:
        parse_table(_text(_SIGNAL, broken, _CONV), 86)
    assert broken[:60] in str(refused.value)


def test_a_text_that_is_no_table_is_refused() -> None:
    with pytest.raises(TargetError, match="Engine Metadata"):
        parse_table("Engine Metadata:\n", 86)


def test_a_second_table_is_not_dropped() -> None:
    with pytest.raises(TargetError, match="Layers:"):
        parse_table(_text(_CONV) + "\n" + _text(_SIGNAL), 86)


# What a name may hold: everything but the compiler's own separator of nodes.
_TEXTS = st.text(
    st.one_of(st.sampled_from(list(" ,:[]{}()/+\n\t=ä日")), st.characters(exclude_characters="\x1e\x1f\r")),
    max_size=12,
)
_TENSOR_NAMES = _TEXTS | st.sampled_from(["x, Dimensions: [1,2]", " }], Outputs: [", "x [profile 1]"])
_NAMES = _TEXTS | st.sampled_from(["a][ONNX Layer: b", "c, LayerType: gemm, Inputs: [ { Name: q"])
_TENSORS = st.builds(
    LayerTensor,
    name=_TENSOR_NAMES,
    dtype=st.sampled_from(["Int8", "Half", "BFloat16", "Int4"]),
    shape=st.lists(st.integers(-1, 4096), max_size=5).map(tuple),
)
_TENSOR_LISTS = st.lists(_TENSORS, max_size=3).map(tuple)
_LAYERS = st.builds(
    Layer,
    name=_NAMES,
    kind=st.sampled_from(["kgen", "correlation", "runtime_fusion"]),
    inputs=_TENSOR_LISTS,
    constants=_TENSOR_LISTS,
    outputs=_TENSOR_LISTS,
    nodes=st.lists(_NAMES, max_size=4, unique=True).map(tuple),
    tactic=st.sampled_from(["", "__myelin_CASK_STUB", "_gemm_mha_v2_0xb448e29d"]),
)


@given(st.lists(_LAYERS, max_size=3))
def test_any_name_survives(layers: list[Layer]) -> None:
    text = _text(*(_line(layer) for layer in layers))
    assert parse_table(text, 120) == LayerTable(sm=120, layers=tuple(layers))


def _line(layer: Layer) -> str:
    nodes = "\x1f".join(f"[ONNX Layer: {name}]" for name in layer.nodes)
    return (
        f"Name: {layer.name}, LayerType: {layer.kind}, Inputs: {_list(layer.inputs)}, "
        f"Constants: {_list(layer.constants)}, Outputs: {_list(layer.outputs)}, "
        f"TacticName: {layer.tactic}, StreamId: 0, Metadata: {nodes}"
    )


def _list(tensors: tuple[LayerTensor, ...]) -> str:
    texts = [
        f"{{ Name: {t.name}, Dimensions: [{_sizes(t)}], Strides: [{_sizes(t)}], StrideOrder: [], "
        f"Datatype: {t.dtype}, Format: (Arbitrary) Format with stride order = [1,0] }}"
        for t in tensors
    ]
    return f"[ {', '.join(texts)}]" if texts else "[]"


def _sizes(tensor: LayerTensor) -> str:
    return ",".join(map(str, tensor.shape))


# As TensorRT's documentation shows it, and as users post it (NVIDIA/TensorRT issues 3737 and 4020).
_INSPECTOR = """
{"Layers": [{
  "Name": "Reformatting CopyNode for Input Tensor 0 to conv + relu", "LayerType": "Reformat",
  "Inputs": [{"Name": "data", "Location": "Device", "Dimensions": [1,3,8,8],
              "Format/Datatype": "Row major linear FP32"}],
  "Outputs": [{"Name": "data8", "Location": "Device", "Dimensions": [1,3,8,8],
               "Format/Datatype": "Row major Int8 format"}],
  "ParameterType": "Reformat", "TacticValue": "0x00000000000003e8", "StreamId": 0, "Metadata": ""
},{
  "Name": "conv + relu", "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "data8", "Location": "Device", "Dimensions": [1,3,8,8],
              "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
  "Outputs": [{"Name": "y", "Location": "Device", "Dimensions": [1,16,8,8],
               "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
  "ParameterType": "Convolution", "Weights": {"Type": "Int8", "Count": 432},
  "Bias": {"Type": "Float", "Count": 16}, "TacticName": "sm80_xmma_fprop_i8i8", "StreamId": 0,
  "Metadata": "[ONNX Layer: conv]\\u001e[ONNX Layer: relu]"
}], "Bindings": ["data", "y"]}
"""


def test_layers_of_the_engine_inspector() -> None:
    reformat, convolution = parse_table(_INSPECTOR, 0).layers
    assert [tensor.dtype for tensor in (*reformat.inputs, *reformat.outputs)] == ["Float", "Int8"]
    assert convolution.nodes == ("conv", "relu")
    assert [tensor.dtype for tensor in convolution.inputs] == ["Int8"]
    assert [(tensor.dtype, tensor.shape) for tensor in convolution.constants] == [
        ("Int8", (432,)),
        ("Float", (16,)),
    ]
    assert [tensor.dtype for tensor in convolution.outputs] == ["Half"]


@pytest.mark.parametrize(
    ("kind", "tactic", "dtype", "actual"),
    [
        ("CaskConvolution", "sm80_xmma_fprop_implicit_gemm_i8i8", "Int8", "int8"),
        ("CaskConvolution", "sm80_xmma_fprop_implicit_gemm_f16", "FP16", "fp16"),
        ("fusion", "sm80_xmma_gemm_i8f32_i8i32_f32_by_fusion_tactic", "Int8", "int8"),
        ("fusion", "sm80_xmma_gemm_f16f16_f16f32", "Int8", "fp16"),
        ("PointWise", "", "Int8", "fp16"),
    ],
)
def test_evidence_of_the_engine_inspector(kind: str, tactic: str, dtype: str, actual: str) -> None:
    b = GraphBuilder("int8", "fp16")
    b.output(conv(b, "conv", b.quantized(b.input("x", [1, 16, 8, 8]))))
    text = _INSPECTOR.replace("CaskConvolution", kind).replace("sm80_xmma_fprop_i8i8", tactic)
    text = text.replace("row major Int8 format", f"row major {dtype} format")
    found = _results([parse_table(text, 0)], b.model(), planned(b.model(), "int8"))["conv"]
    assert (found.actual, found.missed) == (actual, actual == "fp16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"Layers": ["conv + relu", "pool"], "Bindings": []}', "only the names"),
        ('{"Layers": [{"Name": "conv"}]}', "LayerType"),
        ('{"Bindings": []}', "Layers"),
        ('{"Layers": ', "JSONDecodeError"),
    ],
)
def test_an_unreadable_answer_of_the_inspector(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_table(text, 0)


def _model() -> onnx.ModelProto:
    """A convolution and a matrix product, both INT8, around Relu and pooling."""
    b = GraphBuilder()
    first = conv(b, "first", b.quantized(b.input("x", [1, 16, 8, 8])))
    pooled = b.op("GlobalAveragePool", [b.quantized(b.op("Relu", [first], "relu"))], "pool")
    flat = b.quantized(b.op("Flatten", [pooled], "flat"))
    b.output(b.op("MatMul", [flat, b.weights("last_w", (16, 10), 1)], "last"))
    return b.model()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[BuildReport]:
    """The same engine, built twice in two processes, and once for Turing."""
    path = tmp_path_factory.mktemp("layers") / "model.onnx"
    onnx.save(_model(), path)
    built = [*build_many([request(path, 86)]), *build_many([request(path, 86)])]
    return [report for report in built if isinstance(report, BuildReport)]


def _results(tables: list[LayerTable], model: onnx.ModelProto, plan: Plan) -> dict[str, NodeResult]:
    return {result.name: result for result in node_results(tables, ir.from_proto(model), plan)}


@needs_rtx
def test_equal_builds_have_equal_files(reports: list[BuildReport], tmp_path: Path) -> None:
    model = ir.from_proto(_model())
    for name, report in zip("ab", reports, strict=True):
        folder = tmp_path / name
        folder.mkdir()
        tables = [parse_table(report.tables[86], 86)]
        plan = planned(_model(), "int8")
        results, covered = node_results(tables, model, plan), coverages(tables, model, plan)
        write_layers(folder, report, tables, results, covered)
    first, second = ((tmp_path / name / "layers.json").read_bytes() for name in "ab")
    assert first == second


@needs_rtx
def test_the_file_comes_back(reports: list[BuildReport], tmp_path: Path) -> None:
    table = parse_table(reports[0].tables[86], 86)
    model, plan = ir.from_proto(_model()), planned(_model(), "int8")
    results, covered = node_results([table], model, plan), coverages([table], model, plan)
    assert write_layers(tmp_path, reports[0], [table], results, covered) == "layers.json"
    found = read_layers(tmp_path)
    assert found.tables == (table,)
    assert (found.schema_version, found.backend, found.version) == (1, "tensorrt-rtx", reports[0].version)
    assert [(n.name, n.actual, n.layer) for n in found.nodes] == [
        (r.name, r.actual, r.kernel) for r in results
    ]
    assert found.coverage[0].planned == found.coverage[0].proven == 2
    assert found.coverage[0].check().passed


@pytest.mark.parametrize("content", [None, "", '{"schema_version": 2}'])
def test_a_file_that_cannot_be_read(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "layers.json").write_text(content)
    with pytest.raises(ModelError, match=r"layers\.json"):
        read_layers(tmp_path)


@needs_rtx
def test_coverage_counts_bytes_and_kinds(reports: list[BuildReport]) -> None:
    table = parse_table(reports[0].tables[86], 86)
    results = node_results([table], ir.from_proto(_model()), planned(_model(), "int8"))
    found = coverage(table, results)
    assert (found.kinds["correlation"], found.kinds["gemm"]) == (1, 1)
    assert sum(found.kinds.values()) == len(table.layers)
    # The convolution reads its rounded input and its weights, the product those of its own.
    assert found.moved["Int8"] >= 16 * 8 * 8 + 16 * 16 * 9 + 16 + 160
    assert found.share == 1.0


def test_coverage_of_a_table_by_hand() -> None:
    def tensor(dtype: str, *shape: int) -> LayerTensor:
        return LayerTensor(name="t", dtype=dtype, shape=shape)

    layer = Layer(
        name="l",
        kind="runtime_fusion",
        inputs=(tensor("Half", 8, 256),),
        constants=(tensor("Int4", 256, 128), tensor("Int4", 3)),
        outputs=(tensor("Half", -1, 128),),
        nodes=("m",),
    )
    results = [_result("m", "int4", "fp16"), _result("n", "int4", "int4"), _result("o", "fp32", "fp16")]
    found = coverage(LayerTable(sm=86, layers=(layer,)), results)
    assert found.moved == {"Half": 2 * (8 * 256 + 128), "Int4": 256 * 128 // 2 + 2}
    assert (found.planned, found.proven, found.share) == (2, 1, 0.5)
    assert not coverage(LayerTable(sm=86, layers=()), results).check().passed


def _result(name: str, planned_precision: str, actual: str) -> NodeResult:
    return NodeResult(name, "MatMul", planned_precision, actual, "", "")


@needs_rtx
def test_a_node_that_no_layer_names_is_unproven(reports: list[BuildReport]) -> None:
    table = parse_table(reports[0].tables[86], 86)
    silent = [layer.model_copy(update={"nodes": ()}) for layer in table.layers]
    found = _results([LayerTable(sm=86, layers=tuple(silent))], _model(), planned(_model(), "int8"))
    assert (found["first"].actual, found["first"].missed) == ("unproven", True)
    assert (found["last"].actual, found["last"].missed) == ("unproven", True)


@needs_rtx
def test_a_planned_node_that_the_model_lost_is_unproven(reports: list[BuildReport]) -> None:
    table = parse_table(reports[0].tables[86], 86)
    nodes = {name: NodePlan(name, "Conv", p, "", True) for name, p in (("gone", "int8"), ("idle", "fp32"))}  # type: ignore[arg-type]
    found = _results([table], _model(), Plan(nodes=nodes))
    assert (found["gone"].actual, found["gone"].missed) == ("unproven", True)
    assert (found["idle"].actual, found["idle"].missed) == ("removed", False)


@needs_rtx
def test_the_worst_compute_capability_counts(reports: list[BuildReport]) -> None:
    good = parse_table(reports[0].tables[86], 86)
    worse = LayerTable(sm=75, layers=tuple(map(_in_float, good.layers)))
    plan = planned(_model(), "int8")
    found = _results([good, worse], _model(), plan)["first"]
    assert (found.actual, found.missed) == ("fp32", True)
    assert "fp32 on SM 75" in found.reason
    assert "SM" not in _results([good], _model(), plan)["first"].reason
    later = LayerTable(sm=89, layers=good.layers)
    covered = coverages([worse, good, later], ir.from_proto(_model()), plan)
    assert [(c.sm, c.planned, c.proven) for c in covered] == [(75, 2, 0), (86, 2, 2), (89, 2, 2)]


def _in_float(layer: Layer) -> Layer:
    wide: dict[str, Any] = {
        side: tuple(t.model_copy(update={"dtype": "Float"}) for t in getattr(layer, side))
        for side in ("inputs", "constants", "outputs")
    }
    return layer.model_copy(update=wide)


def test_the_worst_of_several_layers_counts() -> None:
    """A convolution that the compiler cut in two, of which it computes one part in float."""
    b = GraphBuilder("int8", "fp16")
    b.output(conv(b, "c1", b.quantized(b.input("x", [1, 16, 8, 8]))))
    whole = parse_table(_text(_CONV), 86).layers[0]
    wide = tuple(tensor.model_copy(update={"dtype": "Half"}) for tensor in whole.inputs)
    part = whole.model_copy(update={"inputs": wide})
    for layers in ((whole, part), (part, whole)):
        found = _results([LayerTable(sm=86, layers=layers)], b.model(), planned(b.model(), "int8"))
        assert (found["c1"].actual, found["c1"].missed) == ("fp16", True)


def test_precisions_are_ranked_by_how_much_of_the_plan_they_keep() -> None:
    ranks = [rank(actual) for actual in ("int4", "int8", "int8-weight", "fp16", "fp32", "unproven")]
    assert ranks == sorted(set(ranks))


@needs_rtx
@pytest.mark.parametrize("side", ["inputs", "constants"])
def test_one_float_operand_is_enough_to_miss(side: str, reports: list[BuildReport]) -> None:
    table = parse_table(reports[0].tables[86], 86)
    layers = [
        layer.model_copy(update={side: getattr(_in_float(layer), side)}) if layer.kind != "kgen" else layer
        for layer in table.layers
    ]
    found = _results([LayerTable(sm=86, layers=tuple(layers))], _model(), planned(_model(), "int8"))
    assert (found["first"].actual, found["last"].actual) == ("fp32", "fp32")


@pytest.mark.parametrize(
    ("inputs", "actual"),
    [
        (("Int8", "Int8", "Half", "Int8"), "int8"),
        (("Int8", "Int8", "Half", "Half"), "fp16"),
        (("Half", "Half", "Half", "Int8"), "fp16"),
    ],
)
def test_fused_attention_reads_every_rounded_operand_in_int8(inputs: tuple[str, ...], actual: str) -> None:
    """Query, key, mask and value: one that comes in as a float leaves both products in float."""
    b = GraphBuilder("int8", "fp16")
    b.output(attention("qkvp", masked=True)(b, "main"))
    model = b.model()
    before = {"main_q_Q", "main_k_Q", "main_v_Q"}
    layer = Layer(
        name="_gemm_mha_v2_myl0_1",
        kind="kgen",
        inputs=tuple(LayerTensor(name="t", dtype=dtype, shape=(1, 12, 64, 32)) for dtype in inputs),
        constants=(),
        outputs=(LayerTensor(name="y", dtype="Half", shape=(1, 12, 64, 32)),),
        nodes=tuple(node.name for node in model.graph.node if node.name not in before),
    )
    found = _results([LayerTable(sm=86, layers=(layer,))], model, planned(model, "int8"))
    assert (found["main_scores"].actual, found["main"].actual) == (actual, actual)


@pytest.mark.parametrize(("columns", "actual"), [(96, "int4"), (95, "fp16")])
def test_products_of_one_value_share_a_constant(columns: int, actual: str) -> None:
    b = GraphBuilder("int4-64", "fp16")
    x = b.input("x", [4, 128])
    for name, size in (("gate", 64), ("up", 32)):
        b.output(b.op("MatMul", [x, b.weights(f"{name}_w", (128, size), 1, along=0)], name))
    tensor = LayerTensor(name="w", dtype="Int4", shape=(128, columns))
    layer = Layer(
        name="l",
        kind="runtime_fusion",
        inputs=(LayerTensor(name="x", dtype="Half", shape=(4, 128)),),
        constants=(tensor,),
        outputs=(LayerTensor(name="y", dtype="Half", shape=(4, columns)),),
        nodes=("up_w_DQ", "up", "gate"),
    )
    found = _results([LayerTable(sm=86, layers=(layer,))], b.model(), planned(b.model(), "int4-64"))
    assert found["gate"].actual == actual
    assert found["up"].actual == "int4"


def test_what_reads_constants_only_is_folded() -> None:
    b = GraphBuilder("float")
    b.op("Add", [b.constant("one", [1.0]), b.constant("two", [2.0])], "folded")
    b.op("Mul", ["folded", b.constant("three", [3.0])], "also")
    b.output(b.op("Identity", [b.op("Mul", [b.input("x", [4]), "also"], "kept")], "idle"))
    found = _results([LayerTable(sm=86, layers=())], b.model(), planned(b.model(), "float"))
    assert "folded into constants" in found["folded"].reason
    assert "folded into constants" in found["also"].reason
    assert "folded" not in found["idle"].reason
    assert {found[name].actual for name in ("folded", "also", "idle")} == {"removed"}


@needs_rtx
def test_nothing_is_guessed_about_a_node_that_the_compiler_dropped(tmp_path: Path) -> None:
    """Of two equal products the compiler computes one, from weights that a layer of their own expands."""
    b = GraphBuilder("int4-64", "fp16")
    x, w = b.input("x", [8, 256]), b.weights("w", (256, 128), 1)
    b.output(b.op("Add", [b.op("MatMul", [x, w], "one"), b.op("MatMul", [x, w], "two")], "sum"))
    onnx.save(b.model(), tmp_path / "twins.onnx")
    (report,) = build_many([request(tmp_path / "twins.onnx", 86)])
    assert isinstance(report, BuildReport)
    found = _results([parse_table(report.tables[86], 86)], b.model(), planned(b.model(), "int4-64"))
    assert sorted(found[name].actual for name in ("one", "two")) == ["fp16", "unproven"]
    assert all(found[name].missed for name in ("one", "two"))
