"""The target ``tensorrt`` through the real command: compile, verify, bench, check, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeq
from edgeq.manifest import Manifest, file_entries
from edgeq.targets.base import Check
from edgeq.verify import verify
from tests.support.cli import Workspace, make_workspace
from tests.support.tensorrt import COMPILE, needs_rtx, without_gpu

pytestmark = [needs_rtx, without_gpu]

GPUS = (86, 120)
NOT_RUN = "the compiler's layer table; numbers of the quantized model in ONNX Runtime CPU, not the engine's"
STATIC = (*COMPILE, "--scheme", "int8-static", "--calibration", "calib.npz", "--dimension", "batch=1..4@2")
CONFIG = """\
model = "model.onnx"
output = "build/net"
[data]
calibration = "calib.npz"
evaluation = "data.npz"
[report]
json = "check.json"
[[targets]]
name = "again"
target = "tensorrt"
scheme = "int8-static"
options = { sm = "86,120", "dimension.batch" = "1..4@2" }
budgets = ["top1 >= 90%"]
[[targets]]
name = "half"
target = "tensorrt"
scheme = "fp16"
options = { sm = "86,120" }
budgets = ["size <= 1%"]
[[targets]]
name = "turing"
target = "tensorrt"
scheme = "int8-static"
options = { sm = "75" }
[[targets]]
name = "strict"
target = "tensorrt"
scheme = "int8-static"
strict = true
options = { sm = "75" }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace where ``edgeq compile`` wrote ``int8-tensorrt``, and ``run.json`` is what it said."""
    work = make_workspace(tmp_path_factory.mktemp("tensorrt"))
    run = work.edgeq(
        *STATIC, "--sm", "86,120", "--evaluation", "data.npz", "--output", "int8", "--json",
        "--budget", "size <= 4MB", "--budget", "top1 >= 90%",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    work.write("run.json", run.stdout)
    return work


@pytest.fixture(scope="module")
def checked(compiled: Workspace) -> Workspace:
    """The workspace after ``edgeq check`` of :data:`CONFIG`; ``check.txt`` is what it said."""
    compiled.write("edgeq.toml", CONFIG)
    run = compiled.edgeq("check")
    assert run.returncode == 4, run.stdout + run.stderr
    compiled.write("check.txt", run.stdout)
    return compiled


@pytest.fixture
def artefact(compiled: Workspace, tmp_path: Path) -> Path:
    """A copy of the artefact that a test may damage."""
    return shutil.copytree(compiled.folder / "int8-tensorrt", tmp_path / "int8-tensorrt")


# --- compile --------------------------------------------------------------------------------------------


def test_compile_proves_the_precision_and_keeps_budgets(compiled: Workspace) -> None:
    document = json.loads((compiled.folder / "run.json").read_text())
    assert document["passed"] is True
    manifest = document["manifest"]
    assert (manifest["target"], manifest["proved_by"]) == ("tensorrt", NOT_RUN)
    assert {check["name"]: check["passed"] for check in manifest["checks"]} == {
        "float16 numbers": True,
        "layer table of SM 86": True,
        "layer table of SM 120": True,
    }
    assert {n["op_type"]: n["actual"] for n in manifest["nodes"] if n["planned"] == "int8"} == {
        "Conv": "int8",
        "Gemm": "int8",
    }
    assert manifest["load_hints"]["compute_capabilities"] == "8.6, 12.0"
    assert manifest["load_hints"]["backend"].startswith("tensorrt-rtx 1.")
    assert manifest["measured"]["runner"] == "the quantized ONNX model in ONNX Runtime CPU, not the engine"
    assert {m["metric"] for m in manifest["measured"]["measurements"]} == {"size", "top1", "sqnr"}


def test_only_the_engine_ships_and_the_evidence_lies_beside_it(compiled: Workspace) -> None:
    folder = compiled.folder / "int8-tensorrt"
    manifest = Manifest.read(folder)
    assert [entry.path for entry in manifest.files] == ["model.engine"]
    assert {entry.path for entry in manifest.evidence} == {"layers.json", "model.onnx", "settings.json"}
    assert {path.name for path in folder.iterdir()} == {
        *("edgeq.json", "report.html", "model.engine"),
        *("layers.json", "model.onnx", "settings.json"),
    }
    assert manifest.measured is not None
    size = manifest.measured.as_measurements()["size"]
    assert size.value == (folder / "model.engine").stat().st_size


def test_layers_say_what_each_gpu_runs(compiled: Workspace) -> None:
    layers = json.loads((compiled.folder / "int8-tensorrt" / "layers.json").read_text())
    assert [(c["sm"], c["planned"], c["proven"]) for c in layers["coverage"]] == [(sm, 3, 3) for sm in GPUS]
    for table in layers["tables"]:
        products = [layer for layer in table["layers"] if layer["kind"] in ("correlation", "gemm")]
        assert len(products) == 3
        assert {layer["inputs"][0]["dtype"] for layer in products} == {"Int8"}
    settings = json.loads((compiled.folder / "int8-tensorrt" / "settings.json").read_text())
    shapes = [[batch, 3, 8, 8] for batch in (1, 2, 4)]
    assert settings["profiles"] == [{"x": dict(zip(("min", "opt", "max"), shapes, strict=True))}]


def test_the_linter_finds_no_fault_in_what_was_compiled(checked: Workspace) -> None:
    for name in ("int8-tensorrt", "build/net-half-tensorrt"):
        found = edgeq.lint(checked.folder / name / "model.onnx", target="tensorrt")
        assert found.passed, found
        assert {finding.rule for finding in found.findings} <= {"dynamic-shape"}
    run = checked.edgeq("lint", "int8-tensorrt/model.onnx", "-t", "tensorrt", "--dimension", "batch=1..4")
    assert (run.returncode, run.stdout) == (0, "int8-tensorrt/model.onnx for tensorrt: nothing found\n")


# --- verify, bench, inspect ---------------------------------------------------------------------------------


def test_verify_proves_it_again(compiled: Workspace) -> None:
    run = compiled.edgeq("verify", "int8-tensorrt", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert (found["passed"], found["how"]) == (True, NOT_RUN)
    names = [check["name"] for check in found["checks"]]
    assert names == ["files", "layers of SM 86", "layers of SM 120", "precision"]


def test_verify_finds_another_engine(compiled: Workspace, artefact: Path) -> None:
    engine = artefact / "model.engine"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(bytes(content))
    run = compiled.edgeq("verify", str(artefact))
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stderr == ""
    assert "✗ files" in run.stdout
    assert "model.engine" in run.stdout
    assert "3 of 4 checks passed" in run.stdout


def _edit_layers(folder: Path) -> None:
    """A convolution of SM 120 that reads floats."""
    path = folder / "layers.json"
    layers = json.loads(path.read_text())
    layer = next(layer for layer in layers["tables"][1]["layers"] if layer["kind"] == "correlation")
    layer["inputs"][0]["dtype"] = "Half"
    path.write_text(json.dumps(layers))


def _cut_layers(folder: Path) -> None:
    path = folder / "layers.json"
    path.write_text(path.read_text()[:-100])


def _scale(folder: Path) -> None:
    """Another scale of the first QuantizeLinear: the same layers, other numbers."""
    _edit_model(
        folder, lambda model: _times(_initializer(model, _first(model, "QuantizeLinear").input[1]), 2)
    )


def _unquantized(folder: Path) -> None:
    """A float weight in place of the dequantized one: the convolution is float."""

    def edit(model: onnx.ModelProto) -> None:
        conv = _first(model, "Conv")
        model.graph.initializer.append(
            numpy_helper.from_array(np.ones((32, 3, 3, 3), np.float16), "float_weight")
        )
        conv.input[1] = "float_weight"

    _edit_model(folder, edit)


@pytest.mark.parametrize(
    ("damage", "forged", "failed"),
    [
        (_edit_layers, False, {"files", "layers of SM 120", "precision"}),
        (_edit_layers, True, {"layers of SM 120", "precision"}),
        (_cut_layers, True, {"target", "precision"}),
        (_scale, False, {"files"}),
        (_unquantized, True, {"layers of SM 86", "layers of SM 120"}),
    ],
    ids=["layers", "layers and digests", "half a table", "scale", "float weights and digests"],
)
def test_verify_finds_other_evidence(
    artefact: Path, damage: Callable[[Path], None], forged: bool, failed: set[str]
) -> None:
    """``forged``: the digests in the manifest are those of the damaged files."""
    damage(artefact)
    if forged:
        _sign(artefact)
    checks = verify(artefact).checks
    assert {check.name for check in checks if not check.passed} == failed, checks


def test_verify_needs_the_settings(artefact: Path) -> None:
    (artefact / "settings.json").write_text("{}")
    failed: dict[str, Check] = {c.name: c for c in verify(artefact).checks if not c.passed}
    assert set(failed) == {"files", "target"}
    assert "settings.json cannot be read" in failed["target"].found


def test_bench_measures_again_and_gates(compiled: Workspace, artefact: Path) -> None:
    run = compiled.edgeq(
        "bench", str(artefact), "--evaluation", "data.npz", "--budget", "size <= 10%",
        "--budget", "top1 >= 90%", "--json",
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    measured = json.loads(run.stdout)["manifest"]["measured"]
    first = Manifest.read(compiled.folder / "int8-tensorrt").measured
    assert first is not None
    values = {found["metric"]: found["value"] for found in measured["measurements"]}
    assert values == {metric: found.value for metric, found in first.as_measurements().items()}
    assert {v["metric"]: v["status"] for v in measured["verdicts"]} == {"size": "fail", "top1": "pass"}
    assert any(note.startswith("Not measured here (load, latency, memory):") for note in measured["notes"])


def test_inspect_says_how_it_was_proved(compiled: Workspace) -> None:
    run = compiled.edgeq("inspect", "int8-tensorrt")
    assert run.returncode == 0, run.stderr
    assert NOT_RUN in run.stdout
    assert "layer table of SM 120" in run.stdout
    assert "3 of 3 products as planned" in run.stdout
    engine = next(line for line in run.stdout.splitlines() if line.startswith("model.engine"))
    assert engine.endswith("verified")


# --- check, strict, and the same bytes again ----------------------------------------------------------------


def test_check_gates_tensorrt_targets(checked: Workspace) -> None:
    document = json.loads((checked.folder / "check.json").read_text())
    outcomes = {outcome["name"]: outcome for outcome in document["outcomes"]}
    assert {name: outcome["passed"] for name, outcome in outcomes.items()} == {
        "again": True,
        "half": False,
        "turing": True,
        "strict": False,
    }
    assert (
        "--strict: 2 node(s) asked to be quantized are not: Conv 'conv1' runs in fp16"
        in outcomes["strict"]["error"]
    )
    build = checked.folder / "build"
    assert not (build / "net-strict-tensorrt").exists()
    said = (checked.folder / "check.txt").read_text()
    assert "size is" in said
    assert "missed" in said


def test_each_target_runs_as_its_gpus_can(checked: Workspace) -> None:
    build = checked.folder / "build"
    assert set(_products(build / "net-half-tensorrt").values()) == {"fp16"}
    assert _products(build / "net-turing-tensorrt") == {"conv1": "fp16", "conv2": "fp16", "head": "int8"}


def test_what_the_compiler_left_in_float_is_listed(checked: Workspace) -> None:
    run = checked.edgeq("inspect", "build/net-turing-tensorrt")
    assert "2 planned node(s) run in float instead:" in run.stdout
    assert "int8 → fp16" in run.stdout
    assert "SM75 runs quantized convolutions in float" in run.stdout


def test_a_repeated_compile_writes_the_same_bytes(checked: Workspace) -> None:
    first, again = checked.folder / "int8-tensorrt", checked.folder / "build" / "net-again-tensorrt"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    # Of some hundred builds on an overloaded machine one had another number of an inner tensor (a thread of
    # the compiler came late): what a third build says is then what counts.
    if (first / "model.engine").read_bytes() != (again / "model.engine").read_bytes():
        run = checked.edgeq(*STATIC, "--sm", "86,120", "--no-bench", "--output", "third")
        assert run.returncode == 0, run.stderr
        again = checked.folder / "third-tensorrt"
    for name in ("model.engine", "layers.json", "model.onnx", "settings.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    one, other = (json.loads((folder / "edgeq.json").read_text()) for folder in (first, again))
    for key in ("nodes", "checks", "files", "evidence", "notes", "load_hints", "recipe"):
        assert one[key] == other[key], key


def test_int4_weights_pass_strict(work: Workspace) -> None:
    """Blocks of 16 along K, in a model whose products need no more than a plain ``--strict``."""
    _save_products(work.folder / "products.onnx")
    run = work.edgeq(
        "compile", "products.onnx", "--target", "tensorrt", "--scheme", "int4-weight", "--block-size", "16",
        "--sm", "86,120", "--strict", "--no-bench", "--output", "products",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    folder = work.folder / "products-tensorrt"
    assert _products(folder) == {"first": "int4", "second": "int4"}
    assert edgeq.lint(folder / "model.onnx", target="tensorrt").findings == ()
    constants = {tensor.data_type for tensor in onnx.load(folder / "model.onnx").graph.initializer}
    assert TensorProto.INT4 in constants


def test_strict_refuses_a_node_that_stays_in_float(work: Workspace) -> None:
    """A transposed convolution that the recipe asks for by name."""
    _save_transposed(work.folder / "up.onnx")
    run = work.edgeq(
        "compile", "up.onnx", "--target", "tensorrt", "--scheme", "int8-static", "--calibration", "calib.npz",
        "--sm", "86", "--override", "up=int8", "--strict", "--no-bench", "--output", "up",
    )  # fmt: skip
    assert run.returncode == 4, run.stderr
    assert run.stderr.endswith(
        "error: --strict: 1 node(s) asked to be quantized are not: ConvTranspose 'up' runs in fp16: TensorRT "
        "runs transposed convolutions in float, quantized or not.\n"
        "fix:   Exclude them in the recipe (--exclude NODE) or compile without --strict.\n"
    )
    assert not (work.folder / "up-tensorrt").exists()
    assert work.leftovers() == []


def test_targets_lists_tensorrt(work: Workspace) -> None:
    found = json.loads(work.edgeq("targets", "--json").stdout)["targets"]
    tensorrt = next(target for target in found if target["name"] == "tensorrt")
    assert tensorrt["ready"]
    assert "SM120" in tensorrt["detail"]
    assert set(tensorrt["schemes"]) == {
        *("fp32", "fp16", "int8-static", "fp8-static", "int8-weight", "int4-weight")
    }


# --- helpers ------------------------------------------------------------------------------------------------


def _products(folder: Path) -> dict[str, str]:
    """The precision that each convolution and matrix product of an artefact runs in."""
    nodes = Manifest.read(folder).nodes
    return {node.name: node.actual for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")}


def _edit_model(folder: Path, edit: Callable[[onnx.ModelProto], Any]) -> None:
    model = onnx.load(folder / "model.onnx")
    edit(model)
    onnx.save(model, folder / "model.onnx")


def _first(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in model.graph.node if node.op_type == op_type)
    return found


def _initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return found


def _times(tensor: onnx.TensorProto, factor: float) -> None:
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), tensor.name))


def _sign(folder: Path) -> None:
    """Give the manifest the digests of the files that lie there."""
    manifest = Manifest.read(folder)
    evidence = file_entries(folder, [entry.path for entry in manifest.evidence])
    manifest.model_copy(update={"evidence": evidence}).write(folder)


def _save_products(path: Path) -> None:
    """Two matrix products with a Relu between them: [4, 64] to itself."""
    _save(
        path,
        [
            helper.make_node("MatMul", ["x", "first.weight"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("MatMul", ["b", "second.weight"], ["y"], "second"),
        ],
        (4, 64),
        {"first.weight": (64, 128), "second.weight": (128, 64)},
    )


def _save_transposed(path: Path) -> None:
    """Conv, Relu and ConvTranspose: [1, 3, 8, 8] to itself."""
    _save(
        path,
        [
            helper.make_node("Conv", ["x", "down.weight"], ["a"], "down", pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("ConvTranspose", ["b", "up.weight"], ["y"], "up", strides=[2, 2]),
        ],
        (1, 3, 8, 8),
        {"down.weight": (32, 3, 3, 3), "up.weight": (32, 3, 2, 2)},
    )


def _save(
    path: Path, nodes: list[onnx.NodeProto], shape: tuple[int, ...], weights: dict[str, tuple[int, ...]]
) -> None:
    """A model from ``x`` to ``y``, both of ``shape``, with random weights."""
    rng = np.random.default_rng(0)
    arrays = {name: (0.2 * rng.normal(size=size)).astype(np.float32) for name, size in weights.items()}
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
