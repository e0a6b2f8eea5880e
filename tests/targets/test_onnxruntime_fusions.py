"""What the target makes of transformers' products, attention and normalizations before it writes them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import edgeq
from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan
from edgeq.compiler.planner import make_plan
from edgeq.compiler.quantize.dynamic import quantize_dynamic
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import Editor
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import ConfigError, TargetError
from edgeq.targets.base import BuildJob, BuildResult, NodeResult
from edgeq.targets.onnxruntime import fusions, versions
from edgeq.targets.onnxruntime.capabilities import CAPABILITIES
from edgeq.targets.onnxruntime.files import EXPECTED
from edgeq.targets.onnxruntime.fusions import fuse_kernels
from edgeq.targets.onnxruntime.target import OnnxRuntimeTarget
from edgeq.targets.reference import load_samples, save_samples
from edgeq.targets.registry import get_target
from tests.support.language_models import random_model
from tests.support.static_models import Node, Samples, graph, normal, optimized_ops, quantize, run, sqnr

WIDTH, HEADS = 32, 4
SIZES = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 128, "max_position_embeddings": 64}  # fmt: skip
FIXED, DYNAMIC = [4, 8, WIDTH], ["n", "s", WIDTH]


def feed_forward(shape: list[int | str], bias: Array | None = None) -> Model:
    """Two products with biases and a Gelu between them, a residual and a normalization."""
    nodes: list[Node] = [
        ("MatMul", ["x", "w1"], ["p1"], {}),
        ("Add", ["b1", "p1"], ["a1"], {}),
        ("Gelu", ["a1"], ["g"], {}),
        ("MatMul", ["g", "w2"], ["p2"], {}),
        ("Add", ["p2", "b2"], ["a2"], {}),
        ("Add", ["a2", "x"], ["r"], {}),
        ("LayerNormalization", ["r", "scale", "shift"], ["y"], {"axis": -1}),
    ]
    weights = {
        "w1": normal(WIDTH, 64, scale=0.3),
        "b1": normal(64, seed=1) if bias is None else bias,
        "w2": normal(64, WIDTH, scale=0.3, seed=2),
        "b2": normal(WIDTH, seed=3),
        "scale": normal(WIDTH, seed=4),
        "shift": normal(WIDTH, seed=5),
    }
    return graph(nodes, {"x": shape}, ["y"], weights)


def attention(mask: list[int | str] | None, *, kept: bool = False) -> Model:
    """Attention of a BERT, and the normalization behind it; ``kept``: the probabilities are an output."""
    nodes: list[Node] = []
    for name in "qkv":
        nodes.append(("MatMul", ["x", f"w{name}"], [f"p{name}"], {}))
        nodes.append(("Add", [f"p{name}", f"b{name}"], [f"a{name}"], {}))
        nodes.append(("Reshape", [f"a{name}", "heads"], [f"r{name}"], {}))
        perm = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        nodes.append(("Transpose", [f"r{name}"], [f"t{name}"], {"perm": perm}))
    scores = "masked" if mask else "scores"
    nodes.append(("MatMul", ["tq", "tk"], ["scores"], {}))
    nodes += [("Add", ["scores", "mask"], ["masked"], {})] if mask else []
    nodes += [
        ("Softmax", [scores], ["probabilities"], {"axis": -1}),
        ("MatMul", ["probabilities", "tv"], ["context"], {}),
        ("Transpose", ["context"], ["moved"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["moved", "rows"], ["joined"], {}),
        ("MatMul", ["joined", "wo"], ["po"], {}),
        ("Add", ["po", "bo"], ["ao"], {}),
        ("Add", ["ao", "x"], ["residual"], {}),
        ("LayerNormalization", ["residual", "scale", "shift"], ["y"], {"axis": -1}),
    ]
    weights: dict[str, Array] = {
        "heads": np.array([0, 0, HEADS, WIDTH // HEADS]),
        "rows": np.array([0, 0, WIDTH]),
        "scale": normal(WIDTH, seed=8),
        "shift": normal(WIDTH, seed=9),
    }
    for seed, name in enumerate("qkvo"):
        weights[f"w{name}"] = normal(WIDTH, WIDTH, scale=0.2, seed=seed)
        weights[f"b{name}"] = normal(WIDTH, scale=0.2, seed=seed + 4)
    inputs = {"x": DYNAMIC, **({"mask": mask} if mask else {})}
    return graph(nodes, inputs, ["y", *(["probabilities"] if kept else [])], weights)


def data(model: Model) -> dict[str, Array]:
    """8 sequences of 8 rows; the last three keys are masked."""
    arrays: dict[str, Array] = {"x": normal(8, 8, WIDTH, seed=20)}
    for spec in model.inputs[1:]:
        rows = 1 if spec.shape is not None and spec.shape[2] == 1 else 8
        arrays["mask"] = np.zeros((8, 1, rows, 8), np.float32)
        arrays["mask"][..., 5:] = -1e4
    return arrays


def built(quantized: Quantized, folder: Path) -> dict[str, NodeResult]:
    """What runs of every planned node, after a build."""
    target = OnnxRuntimeTarget()
    recipe = Recipe(scheme="int8-static")
    target.build(BuildJob(quantized.model, quantized.plan, recipe), folder)
    return {node.name: node for node in target.verify(folder, quantized.plan)}


def written_ops(folder: Path) -> Counter[str]:
    return Counter(node.op_type for node in ir.load(folder / "model.onnx").graph)


def test_products_of_fixed_sizes_keep_int8_kernels(tmp_path: Path) -> None:
    quantized = quantize(feed_forward(FIXED), Samples(x=normal(16, 8, WIDTH)))
    # The reason for the fusion: ONNX Runtime itself turns such products into float ones.
    assert not optimized_ops(quantized.model).keys() & {"MatMulIntegerToFloat", "QLinearMatMul"}
    found = built(quantized, tmp_path)
    for name in ("MatMul_p1", "MatMul_p2"):
        assert (found[name].actual, found[name].kernel) == ("int8", "MatMulIntegerToFloat")
        assert not found[name].missed
    assert found["Add_a2"].actual == "removed"
    assert "MatMulIntegerToFloat" in found["Add_a2"].reason
    assert found["LayerNormalization_y"].kernel == "LayerNormalization"


def test_normalizations_of_fixed_sizes_stay_apart_from_additions() -> None:
    model = feed_forward(FIXED)
    assert optimized_ops(model)["SkipLayerNormalization"] == 1
    fused = fuse_kernels(model)
    assert optimized_ops(fused)["SkipLayerNormalization"] == 0
    x = normal(*FIXED[:2], WIDTH)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        run(fused, {"x": x}, optimize=False)[0], run(model, {"x": x}, optimize=False)[0]
    )


@pytest.mark.parametrize("shape", [(64,), (1, 1, 64), (1,)])
def test_biases_of_every_shape_keep_their_numbers(shape: tuple[int, ...]) -> None:
    x = normal(8, 8, WIDTH, seed=20)
    quantized = quantize(feed_forward(DYNAMIC, normal(*shape, seed=1)), Samples(x=x))
    fused = fuse_kernels(quantized.model)
    # One number for all columns is not folded into the product.
    assert optimized_ops(fused)["MatMulIntegerToFloat"] == 2
    assert sqnr(run(quantized.model, {"x": x})[0], run(fused, {"x": x})[0]) > 80


@pytest.mark.parametrize("mask", [None, ["n", 1, "s", "s"], ["n", 1, 1, "s"]])
@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic"])
def test_attention_is_one_kernel_with_the_same_numbers(scheme: str, mask: list[int | str] | None) -> None:
    model = attention(mask)
    arrays = data(model)
    if scheme == "int8-static":
        quantized = quantize(model, Samples(**arrays)).model
    else:
        quantized = quantize_dynamic(model, CAPABILITIES, Recipe(scheme="int8-dynamic")).model
    fused = fuse_kernels(quantized)
    ops = optimized_ops(fused)
    assert ops["Attention"] == 1
    assert not ops.keys() & {"Softmax", "Transpose", "Reshape"}
    assert sqnr(run(quantized, arrays)[0], run(fused, arrays)[0]) > 60


def test_attention_in_the_table_of_nodes(tmp_path: Path) -> None:
    model = attention(["n", 1, "s", "s"])
    found = built(quantize(model, Samples(**data(model))), tmp_path)
    for name in ("MatMul_scores", "Softmax_probabilities", "MatMul_context", "Transpose_tk"):
        assert found[name].actual == "removed"
        assert "Attention" in found[name].reason
    for name in ("MatMul_pq", "MatMul_pk", "MatMul_pv", "MatMul_po"):
        assert found[name].actual == "int8"
    assert not any(node.missed for node in found.values())
    assert written_ops(tmp_path)["Sum"] == 1


@pytest.mark.parametrize("mask", [["s", "s"], ["n", 2, "s", "s"]])
def test_masks_without_a_kernel_stay_as_they_are(mask: list[int | str]) -> None:
    model = attention(mask)
    assert "Attention" not in Counter(node.op_type for node in fuse_kernels(model).ir.graph)


def test_probabilities_that_are_read_elsewhere_stay() -> None:
    model = attention(None, kept=True)
    fused = fuse_kernels(model)
    assert Counter(node.op_type for node in fused.ir.graph)["Attention"] == 0
    arrays = data(model)
    for before, after in zip(run(model, arrays), run(fused, arrays), strict=True):
        assert sqnr(before, after) > 100


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_exported_language_models(name: str, tmp_path: Path) -> None:
    for module in ("torch", "transformers", "optimum.exporters.onnx"):
        pytest.importorskip(module)
    random_model(name, SIZES).save_pretrained(tmp_path / name)
    rng = np.random.default_rng(0)
    tokens = {
        "input_ids": rng.integers(0, 256, (8, 16)),
        "attention_mask": (np.arange(16) < np.arange(9, 17)[:, None]).astype(np.int64),
        "token_type_ids": np.zeros((8, 16), np.int64),
        "position_ids": np.tile(np.arange(16), (8, 1)),
    }
    outputs = []
    for scheme in ("fp32", "int8-static"):
        result = edgeq.compile(
            tmp_path / name,
            scheme=scheme,
            calibration=tokens if scheme == "int8-static" else None,
            output=tmp_path / scheme,
            strict=True,
            bench=None,
            threads=1,
        )
        with OnnxRuntimeTarget().runner(result.folder, threads=1) as runner:
            outputs.append(runner.run({spec.name: tokens[spec.name] for spec in runner.inputs})["logits"])
    assert written_ops(result.folder)["Attention"] == (2 if name == "bert" else 0)
    assert sqnr(*outputs) > 20


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildResult]:
    """The folder and the result of a build with fused attention, with the evidence it left."""
    model = attention(["n", 1, "s", "s"])
    arrays = data(model)
    quantized = quantize(model, Samples(**arrays))
    folder = tmp_path_factory.mktemp("proved")
    singles = tuple({name: array[i : i + 1] for name, array in arrays.items()} for i in range(2))
    job = BuildJob(
        quantized.model,
        quantized.plan,
        Recipe(scheme="int8-static"),
        samples=singles,
        sampled_from="2 samples",
    )
    return folder, OnnxRuntimeTarget().build(job, folder)


def test_a_build_compares_fused_kernels_with_the_model_before(proved: tuple[Path, BuildResult]) -> None:
    folder, result = proved
    assert [(check.name, check.passed) for check in result.checks] == [
        ("loads", True),
        ("int8 numbers", True),
    ]
    assert result.checks[1].found.endswith("dB to the model before the fusions on 2 samples")
    assert result.load_hints["onnxruntime"] == ">=1.24"
    assert {path.name for path in folder.iterdir()} == {*result.files, *result.evidence}
    assert OnnxRuntimeTarget().check(folder, threads=1) == list(result.checks)


@pytest.mark.parametrize("tampered", ["weights", "results"])
def test_other_numbers_are_found_again(
    tampered: str, proved: tuple[Path, BuildResult], tmp_path: Path
) -> None:
    shutil.copytree(proved[0], tmp_path, dirs_exist_ok=True)
    if tampered == "results":
        save_samples([{"y": -sample["y"]} for sample in load_samples(tmp_path, EXPECTED)], tmp_path, EXPECTED)
    else:
        model = ir.load(tmp_path / "model.onnx")
        attend = next(node for node in model.graph if node.op_type == "Attention")
        attend.attributes["scale"] = ir.AttrFloat32("scale", 4.0)
        ir.save(model, tmp_path / "model.onnx")
    found = OnnxRuntimeTarget().check(tmp_path, threads=1)
    assert [(check.name, check.passed) for check in found] == [("loads", True), ("int8 numbers", False)]


def test_a_fusion_with_other_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(node: ir.Node, edit: Editor) -> bool:
        return node.op_type == "LayerNormalization" and _blur(node)

    monkeypatch.setattr(fusions, "FUSIONS", (wrong,))
    job = BuildJob(feed_forward(DYNAMIC), Plan(), Recipe(scheme="fp32"))
    with pytest.raises(TargetError, match="does not verify: float32 numbers") as caught:
        OnnxRuntimeTarget().build(job, tmp_path)
    assert caught.value.fix == "Compile without them (-O fusions=off)."


def _blur(node: ir.Node) -> bool:
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 10.0)
    return True


def test_fusions_can_be_switched_off(tmp_path: Path) -> None:
    target = OnnxRuntimeTarget()
    recipe = Recipe(scheme="fp32")
    job = BuildJob(attention(None), Plan(), recipe, target.options({"fusions": "off"}, recipe))
    result = target.build(job, tmp_path)
    assert written_ops(tmp_path).keys().isdisjoint({"Attention", "Sum"})
    assert (result.checks, result.evidence) == ((), ())
    assert result.load_hints["onnxruntime"] == ">=1.22"
    with pytest.raises(ConfigError, match="It is on or off"):
        target.options({"fusions": "maybe"}, recipe)


def test_kernels_that_cannot_be_compared_are_not_fused(tmp_path: Path) -> None:
    # The sample lacks the mask.
    result = OnnxRuntimeTarget().build(
        BuildJob(attention(["n", 1, "s", "s"]), Plan(), Recipe(scheme="fp32"), samples=({"x": np.ones(1)},)),
        tmp_path,
    )
    assert written_ops(tmp_path)["Attention"] == 0
    assert result.notes[0].startswith("No kernels were fused, as their numbers could not be compared: ")


def test_old_runtimes_get_no_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "open_session", _refuse)
    ops = Counter(node.op_type for node in fuse_kernels(attention(None)).ir.graph)
    assert (ops["Attention"], ops["Sum"], ops["Softmax"]) == (0, 1, 1)


def _refuse(*_: object, **__: object) -> None:
    raise TargetError("ONNX Runtime cannot load the probe")


def test_weights_of_two_gigabytes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.compiler.model.EXTERNAL_DATA_THRESHOLD", 1000)
    result = OnnxRuntimeTarget().build(BuildJob(attention(None), Plan(), Recipe(scheme="fp32")), tmp_path)
    assert result.files == ("model.onnx", "model.onnx.data")
    assert [check.passed for check in result.checks] == [True, True]
    assert {path.name for path in tmp_path.iterdir()} == {*result.files, *result.evidence}


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_products_of_activations_are_no_missed_int8(target: str) -> None:
    capabilities = get_target(target).capabilities()
    plan = make_plan(attention(None), capabilities, Recipe(scheme="int8-static"))
    for name in ("MatMul_scores", "MatMul_context"):
        assert (plan.nodes[name].precision, plan.nodes[name].asked) == ("fp32", False)
    override = (Override(match="MatMul_scores", precision="int8"),)
    plan = make_plan(attention(None), capabilities, Recipe(scheme="int8-static", overrides=override))
    assert plan.nodes["MatMul_scores"].asked
