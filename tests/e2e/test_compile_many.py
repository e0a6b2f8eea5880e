"""``edgeq compile`` for several targets and quantizers, as a user runs it."""

from __future__ import annotations

import json

import pytest

from tests.support.cli import Workspace

pytest.importorskip("openvino")

STATIC = ("--scheme", "int8-static", "--calibration", "calib.npz", "--evaluation", "data.npz")
SIZES = ("--measure", "size", "--measure", "accuracy")


def test_one_table_with_a_row_for_every_target_and_the_winner(work: Workspace) -> None:
    budgets = ("-b", "size <= 60%", "-b", "top1 >= 90%")
    run = work.edgeq("compile", "model.onnx", *STATIC, *SIZES, "--target", "all-cpu", *budgets)
    assert run.returncode == 1, run.stderr
    lines = run.stdout.splitlines()
    cells = {line.split()[1]: line for line in lines[1:6] if line.split()[1:]}
    assert cells["onnxruntime"].startswith("✓")
    assert cells["onnxruntime"].rstrip().endswith("2 of 2 kept")
    assert cells["openvino"].startswith("✗")
    assert cells["neural-compressor"].split() == ["-", "neural-compressor", "refused"]
    assert "neural-compressor: Target 'neural-compressor' takes PyTorch models" in run.stdout
    assert "openvino: size is" in run.stdout
    assert "report    build/model-comparison.html" in run.stdout
    assert lines[-1] == "Winner: onnxruntime, the only artefact that keeps every budget."
    found = sorted(p.name for p in (work.folder / "build").iterdir())
    assert found == [
        "model-comparison.html", "model-comparison.json", "model-comparison.md",
        "model-onnxruntime", "model-openvino",
    ]  # fmt: skip
    assert work.leftovers() == []


def test_json_of_a_comparison_is_the_page_beside_the_artefacts(work: Workspace) -> None:
    run = work.edgeq(
        "compile", "model.onnx", "--scheme", "int8-dynamic", "--no-bench", "--json", "--quiet",
        "-t", "onnxruntime,openvino", "-t", "onnxruntime", "-o", "out/m",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document == json.loads((work.folder / "out" / "m-comparison.json").read_text())
    states = {row["name"]: (row["state"], row["exit_code"]) for row in document["rows"]}
    assert states == {"onnxruntime": ("compiled", 0), "openvino": ("refused", 4)}
    assert "has no scheme 'int8-dynamic'" in document["rows"][1]["reason"]


def test_a_single_target_of_a_list_is_compiled_as_ever(work: Workspace) -> None:
    run = work.edgeq(
        "compile", "model.onnx", "--scheme", "fp32", "--no-bench", "--json",
        "-t", "openvino,openvino", "-O", "openvino.mode=throughput",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["manifest"]["options"] == {"mode": "throughput"}
    assert [p.name for p in (work.folder / "build").iterdir()] == ["model-openvino"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--quantizer", "nncf"), "error: The target 'onnxruntime' has no option 'quantizer'."),
        (
            ("-t", "openvino", "--quantizer", "sideways"),
            "error: The option 'quantizer' cannot be",
        ),
        (("-t", "all-cpu", "-O", "sm=86"), "error: None of the targets onnxruntime, openvino, "),
        (("-t", "openvino", "-O", "coreml.mode=x"), "error: The option 'coreml.mode' is for 'coreml'"),
    ],
)
def test_what_no_target_takes_is_refused_in_a_sentence(
    work: Workspace, arguments: tuple[str, ...], said: str
) -> None:
    run = work.edgeq("compile", "model.onnx", *STATIC, *arguments)
    assert run.returncode == 2
    assert run.stderr.startswith(said), run.stderr
    assert not (work.folder / "build").exists()
