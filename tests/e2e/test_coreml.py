"""The target ``coreml`` through the real command: compile, verify, check, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from tests.support.cli import CLASSES, Workspace, environment, make_workspace

if sys.platform == "darwin":
    pytest.skip("what is refused where Core ML does not run", allow_module_level=True)

COMPILE = ("compile", "model.onnx", "--target", "coreml")
NOT_RUN = "verified by interpreter, not run on Apple hardware"
PACKAGE = Path("model.mlpackage") / "Data" / "com.apple.CoreML"
CONFIG = """\
model = "model.onnx"
output = "build/net"
budgets = ["top1 >= 90%"]
[data]
calibration = "calib.npz"
evaluation = "data.npz"
[report]
json = "check.json"
[[targets]]
name = "half"
target = "coreml"
scheme = "fp16"
options = { "dimension.batch" = 1, compute_units = "cpu-and-ne", author = "tests" }
budgets = ["size <= 75%"]
[[targets]]
name = "palette"
target = "coreml"
scheme = "palettize-4"
options = { deployment_target = "iOS18", palette_group = 8 }
[[targets]]
name = "int8"
target = "coreml"
scheme = "int8-static"
[[targets]]
name = "blocks"
target = "coreml"
scheme = "int4-weight"
options = { deployment_target = "macOS14" }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace where ``edgeq compile`` wrote ``half-coreml``, and ``run.json`` is what it said."""
    work = make_workspace(tmp_path_factory.mktemp("coreml"))
    run = work.edgeq(
        *COMPILE, "--scheme", "fp16", "--evaluation", "data.npz", "--output", "half", "--json",
        "--budget", "size <= 75%", "--budget", "top1 >= 90%", "--dimension", "batch=1",
        "--target-option", "compute_units=cpu-and-ne", "-O", "author=tests",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    work.write("run.json", run.stdout)
    return work


@pytest.fixture
def artefact(compiled: Workspace, tmp_path: Path) -> Path:
    """A copy of the artefact that a test may damage."""
    return shutil.copytree(compiled.folder / "half-coreml", tmp_path / "half-coreml")


# --- compile --------------------------------------------------------------------------------------------


def test_compile_proves_the_package_and_keeps_budgets(compiled: Workspace) -> None:
    document = json.loads((compiled.folder / "run.json").read_text())
    assert document["passed"] is True
    manifest = document["manifest"]
    assert (manifest["target"], manifest["proved_by"]) == ("coreml", NOT_RUN)
    assert {check["name"]: check["passed"] for check in manifest["checks"]} == {
        "contents": True,
        "float32 numbers": True,
        "float16 numbers": True,
    }
    assert manifest["load_hints"]["compute_units"] == "cpu-and-ne"
    assert manifest["load_hints"]["deployment_target"] == "iOS16 (macOS13)"
    assert {node["actual"] for node in manifest["nodes"]} == {"fp16"}


def test_only_the_package_ships_and_the_evidence_lies_beside_it(compiled: Workspace) -> None:
    manifest = json.loads((compiled.folder / "half-coreml" / "edgeq.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} == {
        "model.mlpackage/Manifest.json",
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    }
    assert {entry["path"] for entry in manifest["evidence"]} == {
        "reference.onnx",
        "samples.npz",
        "package.json",
    }


def test_image_input_and_class_labels_without_torch(work: Workspace) -> None:
    """The extra needs no torch; the package takes pixels and gives names."""
    _write_pixels(work.folder)
    work.write("labels.txt", "zero\none\ntwo\nthree\nfour\n")
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from edgeq.cli.app import main\n"
        "main()\n"
    )
    arguments = [
        *COMPILE, "--scheme", "int8-weight", "--evaluation", "pixels.npz", "--output", "labelled",
        "--image-input", "x: color=BGR scale=1/255 bias=-0.5,-0.5,-0.5", "--class-labels", "labels.txt",
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=work.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "of the evaluation data" in run.stdout
    description = _spec(work.folder / "labelled-coreml").description
    image = description.input[0].type.imageType
    assert (image.width, image.height) == (8, 8)
    assert image.colorSpace == image.ColorSpace.Value("BGR")
    assert description.predictedFeatureName == "classLabel"


# --- verify and inspect ---------------------------------------------------------------------------------


def test_verify_proves_it_again(compiled: Workspace) -> None:
    run = compiled.edgeq("verify", "half-coreml", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert (found["passed"], found["how"]) == (True, NOT_RUN)
    names = [check["name"] for check in found["checks"]]
    assert names == ["files", "program", "contents", "float32 numbers", "float16 numbers", "precision"]


def test_verify_finds_one_damaged_byte(compiled: Workspace, artefact: Path) -> None:
    path = artefact / PACKAGE / "weights" / "weight.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40  # in the second convolution's weights
    path.write_bytes(bytes(content))
    run = compiled.edgeq("verify", str(artefact))
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stderr == ""
    assert "✗ files" in run.stdout
    assert "✗ program" in run.stdout
    assert NOT_RUN in run.stdout


def test_verify_of_a_package_needs_the_model_it_came_from(compiled: Workspace) -> None:
    package = "half-coreml/model.mlpackage"
    alone = compiled.edgeq("verify", package)
    assert (alone.returncode, alone.stderr.splitlines()[0]) == (
        2,
        "error: --reference belongs to an .mlpackage, and an .mlpackage needs it.",
    )
    run = compiled.edgeq("verify", package, "--reference", "model.onnx")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 of 1 checks passed" in run.stdout


def test_inspect_says_how_it_was_proved(compiled: Workspace) -> None:
    run = compiled.edgeq("inspect", "half-coreml")
    assert run.returncode == 0, run.stderr
    assert NOT_RUN in run.stdout
    assert "weights: 5 float16" in run.stdout
    document = json.loads(compiled.edgeq("inspect", "half-coreml", "--json").stdout)
    assert document["manifest"]["target"] == "coreml"


def test_targets_lists_coreml(work: Workspace) -> None:
    found = json.loads(work.edgeq("targets", "--json").stdout)["targets"]
    coreml = next(target for target in found if target["name"] == "coreml")
    assert coreml["ready"]
    assert "palettize-4" in coreml["schemes"]
    assert "int8-dynamic" not in coreml["schemes"]


# --- check, and the same bytes again ----------------------------------------------------------------------


def test_check_gates_coreml_targets_and_writes_the_same_bytes_again(compiled: Workspace) -> None:
    compiled.write("edgeq.toml", CONFIG)
    run = compiled.edgeq("check")
    assert run.returncode == 4, run.stdout + run.stderr
    document = json.loads((compiled.folder / "check.json").read_text())
    outcomes = {outcome["name"]: outcome for outcome in document["outcomes"]}
    assert {name: outcome["passed"] for name, outcome in outcomes.items()} == {
        "half": True,
        "palette": True,
        "int8": True,
        "blocks": False,
    }
    assert "the deployment target macOS14 has no 4-bit weights in blocks" in outcomes["blocks"]["error"]
    build = compiled.folder / "build"
    assert _actual(build / "net-int8-coreml") >= {"int8"}
    assert _actual(build / "net-palette-coreml") >= {"pal4"}
    first, again = compiled.folder / "half-coreml", build / "net-half-coreml"
    manifest = json.loads((first / "edgeq.json").read_text())
    for path in [*(entry["path"] for entry in manifest["files"]), "reference.onnx"]:
        assert (first / path).read_bytes() == (again / path).read_bytes(), path


# --- what is refused before any work ----------------------------------------------------------------------

REFUSED = [
    (
        ("--scheme", "fp16", "-O", "colour=red"),
        2,
        "error: The target 'coreml' has no option 'colour'.\n"
        "fix:   It has: activations, arithmetic, author, class_labels, compute_units, deployment_target, "
        "description, dimension.NAME, image_input, license, palette_group, predicted_feature_name, "
        "probabilities_output, user.NAME, version.\n",
    ),
    (
        ("--scheme", "fp16", "--dimension", "batch=3..1"),
        2,
        "error: The size '3..1' of the dimension 'batch' is empty.\n"
        "fix:   Write 1 (fixed), 1..128 (a range) or 32,64,128 (the only sizes), with @64 for another "
        "default.\n",
    ),
    (
        ("--scheme", "fp16", "-O", "deployment_target"),
        2,
        "error: --target-option 'deployment_target' is not KEY=VALUE.\n"
        "fix:   Write --target-option deployment_target=iOS18.\n",
    ),
    (
        ("--scheme", "int8-static", "-O", "deployment_target=iOS16"),
        4,
        "error: Core ML: the deployment target iOS16 has no quantized activations (quantize and "
        "dequantize), which the scheme 'int8-static' needs.\n"
        "fix:   Choose iOS17 (macOS14) or later, or another scheme.\n",
    ),
    (
        ("--scheme", "fp16", "-O", "palette_group=8"),
        2,
        "error: The option 'palette_group' has no effect with the scheme 'fp16'.\n"
        "fix:   Leave it out, or choose palettize-4 or palettize-6.\n",
    ),
    (
        ("--scheme", "int8-dynamic"),
        4,
        "error: Target 'coreml' has no scheme 'int8-dynamic': Core ML has constant scales only, so the "
        "range of an activation cannot be found at run time.\n"
        "fix:   Take int8-weight (INT8 weights, no data needed) or int8-static (with calibration data). It "
        "has: fp32, fp16, int8-static, int8-weight, int4-weight, palettize-6, palettize-4.\n",
    ),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_before_any_work(
    compiled: Workspace, arguments: tuple[str, ...], code: int, message: str
) -> None:
    run = compiled.edgeq(*COMPILE, *arguments, "--output", "refused")
    assert (run.returncode, run.stdout, run.stderr) == (code, "", message)
    assert not (compiled.folder / "refused-coreml").exists()


@pytest.mark.parametrize("budget", ["latency_p95 <= 20ms", "ane_share >= 90%"])
def test_budgets_that_need_macos_are_refused(compiled: Workspace, budget: str) -> None:
    run = compiled.edgeq(*COMPILE, "--scheme", "fp16", "--budget", budget, "--output", "refused")
    assert run.returncode == 4
    lines = [line for line in run.stderr.splitlines() if not line.startswith("Reading")]
    assert lines == [
        f"error: {budget.split()[0]} of target 'coreml' cannot be measured here: Core ML runs on macOS; on "
        "this machine the package is verified by an interpreter.",
        "fix:   Measure it there, or leave the budget or metric out.",
    ]
    assert not (compiled.folder / "refused-coreml").exists()


def test_a_dimension_that_the_model_has_not(compiled: Workspace) -> None:
    run = compiled.edgeq(*COMPILE, "--scheme", "fp16", "--dimension", "rows=2", "--output", "refused")
    assert run.returncode == 2
    assert run.stderr.endswith(
        "error: The model has no dynamic dimension 'rows'.\nfix:   Its dynamic dimensions: batch.\n"
    )


def test_what_core_ml_has_not_is_named(work: Workspace) -> None:
    """A node is refused with its name, and nothing is written."""
    graph = helper.make_graph(
        [helper.make_node("BitwiseAnd", ["x", "x"], ["y"], "masks")],
        "bits",
        [helper.make_tensor_value_info("x", TensorProto.INT32, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, work.folder / "model.onnx")
    run = work.edgeq(*COMPILE, "--scheme", "fp16", "--no-bench", "--output", "bits")
    assert run.returncode == 4
    assert "error: Core ML: BitwiseAnd 'masks': MIL has no bitwise operations on integers." in run.stderr
    assert "Traceback" not in run.stderr
    assert work.leftovers() == []
    assert not (work.folder / "bits-coreml").exists()


# --- helpers ----------------------------------------------------------------------------------------------


def _write_pixels(folder: Path) -> None:
    """Evaluation data that comes from pixels: 24 images of the tiny model's size."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8)).astype(np.float32)
    x: Array = pixels / np.float32(255) - np.float32(0.5)
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(None, {"x": x})[0])
    assert logits.shape[1] == CLASSES
    np.savez(folder / "pixels.npz", x=x, label=logits.argmax(1).astype(np.int64))


def _actual(folder: Path) -> set[str]:
    """The precisions that nodes of an artefact run in."""
    manifest = json.loads((folder / "edgeq.json").read_text())
    return {node["actual"] for node in manifest["nodes"]}


def _spec(folder: Path) -> Any:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((folder / PACKAGE / "model.mlmodel").read_bytes())
    return spec
