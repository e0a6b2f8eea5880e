"""The target as a whole: options, numbers, evidence, shapes, bad input, and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeq.compiler.model import Model
from edgeq.compiler.pipeline import refuse_missed
from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.quantize.saturation import worst_pair
from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, DataError, ModelError, StrictError, TargetError, UsageError
from edgeq.targets.base import NodeResult
from edgeq.targets.openvino.prove import prove_again
from edgeq.targets.openvino.runner import OpenVINORunner
from edgeq.targets.openvino.target import OpenVINOTarget
from tests.support.cli import make_workspace
from tests.support.openvino import build, images
from tests.support.static_models import graph, normal

pytest.importorskip("openvino")

TARGET = OpenVINOTarget()


def net() -> Model:
    """An odd number of input channels, a node whose name has a comma, a dynamic batch."""
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {}),
        ("Gemm", ["f", "v", "b"], ["y"], {}),
    ]
    weights = {"w": normal(16, 3, 3, 3, scale=0.3), "v": normal(16, 40, seed=2), "b": normal(40, seed=3)}
    return graph(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    build(net(), "int8-static", folder, images(3, 8, 8))
    return folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"colour": "red"}, "no option 'colour'"),
        ({"mode": "fast"}, "'mode' cannot be 'fast'"),
        ({"precision": "fp16"}, "'precision' cannot be 'fp16'"),
        ({"rest": "bf16"}, "'rest' cannot be 'bf16'"),
        ({"dimension": "4"}, "'dimension' lacks a name"),
        ({"dimension.n": "1,2,4"}, "none that OpenVINO has"),
        ({"dimension.n": "1..8@4"}, "none that OpenVINO has"),
    ],
)
def test_bad_options_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TARGET.options(given, Recipe(scheme="int8-static"))


@pytest.mark.parametrize("scheme", ["fp32", "fp16"])
def test_the_form_of_the_rest_is_refused_where_there_is_none(scheme: str) -> None:
    with pytest.raises(ConfigError, match="no effect"):
        TARGET.options({"rest": "fp32"}, Recipe(scheme=scheme))  # type: ignore[arg-type]


def test_dynamic_int8_is_refused_with_the_way_out() -> None:
    with pytest.raises(TargetError, match="int8-static") as error:
        check_recipe(Recipe(scheme="int8-dynamic"), TARGET.capabilities())
    assert "VNNI" in error.value.what


def test_a_precision_that_this_cpu_lacks_is_refused(tmp_path: Path) -> None:
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has it")
    with pytest.raises(TargetError, match="no bf16 arithmetic"):
        build(net(), "fp32", tmp_path, precision="bf16")


def test_unknown_dimensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no dynamic dimension 'm'"):
        build(net(), "fp32", tmp_path, **{"dimension.m": "4"})


def test_sizes_that_a_model_cannot_have_are_refused(tmp_path: Path) -> None:
    nodes = [("Reshape", ["x", "shape"], ["r"], {}), ("MatMul", ["r", "w"], ["y"], {})]
    model = graph(nodes, {"x": [2, "n"]}, ["y"], {"shape": np.array([4, 6]), "w": normal(6, 3)})
    with pytest.raises(TargetError, match="these sizes"):
        build(model, "fp32", tmp_path, **{"dimension.n": "13"})


def test_random_inputs_that_do_not_fit_say_what_to_give(tmp_path: Path) -> None:
    nodes = [("Reshape", ["x", "shape"], ["r"], {}), ("MatMul", ["r", "w"], ["y"], {})]
    model = graph(nodes, {"x": [2, "n"]}, ["y"], {"shape": np.array([4, 6]), "w": normal(6, 3)})
    with pytest.raises(TargetError) as error:
        build(model, "fp32", tmp_path)
    assert "dimension.NAME" in str(error.value.fix)


def test_the_numbers_are_those_of_onnx_runtime_and_are_proved_again(static: Path) -> None:
    checks = {check.name: check for check in prove_again(static, 1)}
    assert set(checks) == {"model", "int8 numbers"}
    assert all(check.passed for check in checks.values()), checks


def test_a_changed_weight_is_found(static: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(static, tmp_path / "copy")
    weights = folder / "model.bin"
    content = bytearray(weights.read_bytes())
    # the middle of the file holds the weights, its ends hold scales and shapes
    for place in range(len(content) // 2, len(content) // 2 + 200):
        content[place] ^= 0xFF
    weights.write_bytes(content)
    assert [check.passed for check in prove_again(folder, 1)] == [False, False]


def test_two_builds_give_the_same_bytes(static: Path, tmp_path: Path) -> None:
    build(net(), "int8-static", tmp_path, images(3, 8, 8))
    for name in ("model.xml", "model.bin"):
        assert (tmp_path / name).read_bytes() == (static / name).read_bytes(), name


def test_weights_are_stored_in_one_byte_each(static: Path) -> None:
    assert (static / "model.bin").stat().st_size < 1.6 * (16 * 27 + 16 * 40) + 4 * (16 + 40 + 40)


def test_kernels_do_not_saturate_on_inputs_at_the_top_of_their_range(tmp_path: Path) -> None:
    """Pairs of large weights: without the limit, an AVX2 kernel clips their sums at 32767."""
    weights = np.full((8, 3, 3, 3), 1.0, np.float32)
    nodes = [("Conv", ["x", "w"], ["y"], {})]
    model = graph(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {"w": weights})
    data = images(3, 8, 8)
    data.arrays["x"] = np.ones_like(data.arrays["x"])
    built = build(model, "int8-static", tmp_path, data)
    with OpenVINORunner(tmp_path, threads=1) as runner:
        y = runner.run({"x": np.ones((1, 3, 8, 8), np.float32)})["y"]
    np.testing.assert_allclose(y, 27, rtol=0.01)
    assert built.actual("Conv") == ["int8"]


def test_pairs_are_limited_within_kernel_positions(tmp_path: Path) -> None:
    model = graph(
        [("Conv", ["x", "w"], ["y"], {})], {"x": ["n", 3, 8, 8]}, ["y"], {"w": np.abs(normal(8, 3, 3, 3)) + 1}
    )
    build(model, "int8-static", tmp_path, images(3, 8, 8))
    import onnx_ir as ir

    initializers = ir.load(tmp_path / "reference.onnx").graph.initializers.values()
    codes = next(
        v.const_value.numpy() for v in initializers if v.const_value and len(v.const_value.shape) == 4
    )
    positions = codes.astype(np.int16).transpose(0, 2, 3, 1).reshape(-1, 3)
    assert worst_pair(positions) <= 128


@pytest.mark.parametrize(("size", "taken", "refused"), [("2", 2, 3), ("1..4", 4, 5)])
def test_dimensions_are_kept(size: str, taken: int, refused: int, tmp_path: Path) -> None:
    build(net(), "fp32", tmp_path, **{"dimension.n": size})
    with OpenVINORunner(tmp_path, threads=1) as runner:
        assert runner.run({"x": np.zeros((taken, 3, 8, 8), np.float32)})["y"].shape == (taken, 40)
        with pytest.raises((DataError, TargetError)):
            runner.run({"x": np.zeros((refused, 3, 8, 8), np.float32)})


@pytest.mark.parametrize(("order", "actual"), [((0, 2, 3, 1), "int8-weight"), ((0, 3, 2, 1), "fp16-weight")])
def test_pointwise_convolutions_before_a_transpose_are_computed_right(
    order: tuple[int, ...], actual: str, tmp_path: Path
) -> None:
    """OpenVINO 2026.4 takes every Transpose behind one with 8-bit weights for that to channels last."""
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Transpose", ["c"], ["y"], {"perm": list(order)})]
    model = graph(nodes, {"x": [1, 48, 6, 6]}, ["y"], {"w": normal(40, 48, 1, 1, scale=0.1)})
    built = build(model, "int8-weight", tmp_path)
    assert [check.passed for check in built.result.checks] == [True]
    assert built.actual("Conv") == [actual]
    if actual != "int8-weight":
        assert "computes it wrongly" in built.nodes["Conv_c"].reason


@pytest.mark.parametrize("directions", [1, 2])
def test_recurrences_are_told_by_their_weights(directions: int, tmp_path: Path) -> None:
    """OpenVINO numbers the layers of a recurrence, and those of two directions again when it compiles."""
    nodes = [
        ("GRU", ["x", "w", "r", "b"], ["s"], {
            "hidden_size": 32, "direction": "forward" if directions == 1 else "bidirectional",
            "linear_before_reset": 1,
        }),
        ("Transpose", ["s"], ["t"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["t", "shape"], ["y"], {}),
    ]  # fmt: skip
    weights = {
        "w": normal(directions, 96, 24, scale=0.2),
        "r": normal(directions, 96, 32, scale=0.2, seed=1),
        "b": normal(directions, 192, seed=2),
        "shape": np.array([5, 1, 32 * directions]),
    }
    built = build(graph(nodes, {"x": [5, 1, 24]}, ["y"], weights), "int8-weight", tmp_path)
    assert built.actual("GRU") == ["int8-weight"]


def test_throughput_mode_is_a_hint_of_the_artefact(tmp_path: Path) -> None:
    built = build(net(), "fp32", tmp_path, mode="throughput")
    assert built.result.load_hints["PERFORMANCE_HINT"] == "THROUGHPUT"
    assert "NUM_STREAMS" not in built.result.load_hints
    assert any("one at a time" in note for note in built.result.notes)


def test_runners_refuse_what_does_not_fit(static: Path) -> None:
    with pytest.raises(UsageError):
        OpenVINORunner(static, threads=0)
    with OpenVINORunner(static, threads=1) as runner:
        assert (runner.inputs[0].name, runner.inputs[0].shape) == ("x", (None, 3, 8, 8))
        assert [spec.name for spec in runner.outputs] == ["y"]
        with pytest.raises(DataError, match="missing"):
            runner.run({})
        with pytest.raises(DataError, match="shape"):
            runner.run({"x": np.zeros((1, 3, 8), np.float32)})
    with pytest.raises(TargetError, match="closed"):
        runner.run({"x": np.zeros((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize("file", ["model.xml", "openvino.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "noise"])
def test_damaged_artefacts_are_named(static: Path, tmp_path: Path, file: str, damage: str) -> None:
    folder = shutil.copytree(static, tmp_path / "copy")
    if damage == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_text("" if damage == "empty" else "<net><layers>")
    with pytest.raises(ModelError, match=file):
        OpenVINORunner(folder, threads=1)


def test_strict_refuses_planned_int8_that_runs_in_float() -> None:
    node = NodeResult("n", "Conv", "int8", "fp32", "Convolution", "no kernel", asked=True)
    with pytest.raises(StrictError, match="runs in fp32"):
        refuse_missed([node])


def test_every_planned_int8_node_is_proved(static: Path) -> None:
    built = build(net(), "int8-static", static.with_name("again"), images(3, 8, 8))
    refuse_missed(list(built.nodes.values()))
    assert built.actual("Conv") + built.actual("Gemm") == ["int8", "int8"]


def test_the_command_compiles_measures_and_verifies(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    made = workspace.edgeq(
        "compile", "model.onnx", "--target", "openvino", "--scheme", "int8-static",
        "--calibration", "calib.npz", "--evaluation", "data.npz", "--threads", "1",
        "--output", str(tmp_path / "a"), "-O", "mode=latency", "--strict",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "a-openvino"
    manifest = json.loads((folder / "edgeq.json").read_text())
    assert manifest["load_hints"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert {file["path"] for file in manifest["files"]} == {"model.xml", "model.bin"}
    assert workspace.edgeq("verify", str(folder)).returncode == 0
