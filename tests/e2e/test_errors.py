"""Bad input on the command line: the exit code, two short lines, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeq.targets.registry import target_names
from tests.support.cli import Workspace, command, environment, hear_interrupts

COMPILE = ("compile", "model.onnx", "--scheme", "int8-dynamic", "--no-bench")

# Arguments, exit code, what stderr must be.
GOLDEN = [
    (
        ("compile", "model.onnx", "--scheme", "int8-statc"),
        2,
        "error: Unknown scheme 'int8-statc'.\n"
        "fix:   Did you mean int8-static? Known schemes: fp32, fp16, int8-static, fp8-static, "
        "int8-dynamic, int8-weight, int4-weight, int3-weight, int2-weight, nf4-weight, palettize-6, "
        "palettize-4.\n",
    ),
    (
        ("compile", "model.onnx", "--scheme", "fp32", "--target", "toaster"),
        2,
        f"error: Unknown target 'toaster'.\nfix:   Known targets: {', '.join(target_names())}. "
        "Several at once: all-cpu.\n",
    ),
    (
        ("compile", "model.onnx", "--scheme", "fp32", "--budget", "siez <= 1MB"),
        2,
        "error: Unknown metric 'siez' in a budget.\nfix:   Did you mean size or cosine or mse?\n",
    ),
    (
        ("compile", "model.onnx", "--scheme", "fp32", "--budget", "size >= 1MB"),
        2,
        "error: Budget 'size >= 1MB': size is better when lower, so a budget on it takes <=.\n"
        "fix:   Write size <= 1MB.\n",
    ),
    (
        ("compile", "model.onnx", "--scheme", "int8-static"),
        3,
        "error: Scheme 'int8-static' needs calibration data and none was given.\n"
        "fix:   Give representative samples with --calibration (a folder of images, .npz, text, …), or "
        "choose a scheme without data: int8-dynamic, int8-weight, int4-weight.\n",
    ),
    (
        (*COMPILE, "--budget", "size <= 1MB"),
        2,
        "error: Budgets were given and measuring is switched off.\nfix:   Drop the budgets, or measure.\n",
    ),
    (
        (*COMPILE, "--block-size", "32"),
        2,
        "error: --block-size has no effect with scheme 'int8-dynamic'.\n"
        "fix:   Leave it out, or choose a scheme that reads it: int8-weight, int4-weight, int3-weight, "
        "int2-weight, nf4-weight.\n",
    ),
    (
        ("compile", "model.onnx", "--scheme", "int4-weight", "--block-size", "48"),
        2,
        "error: edgeq compile: block_size = 48 is not valid.\nfix:   Allowed: -1, 16, 32, 64, 128 or 256.\n",
    ),
    (
        ("compile", "model.onnx", "--scheme", "int8-static", "--percentile", "99.9"),
        2,
        "error: --percentile has no effect with range method 'auto'.\n"
        "fix:   Set --range-method to percentile, or leave it out.\n",
    ),
    (
        (*COMPILE, "--override", "op:Conv=int5"),
        2,
        "error: Override 'op:Conv=int5' is not MATCH=PRECISION.\n"
        "fix:   Write a glob on node names or op:Type, then = and one of fp32, fp16, int8, fp8, int4, "
        "int3, int2, nf4, pal6, pal4.\n",
    ),
    (
        (*COMPILE, "--preprocess", "imagnet"),
        2,
        "error: Unknown preprocessing 'imagnet'.\n"
        "fix:   Known presets: imagenet, imagenet-caffe-bgr, unit, none.\n",
    ),
    (
        (*COMPILE, "--data-option", "label=y"),
        2,
        "error: --data-option: unknown key label.\nfix:   Did you mean labels? Allowed: labels, classes, "
        "columns, input, text, header, tokenizer, max_length, padding, window, stride, max_tokens, split, "
        "task, select.\n",
    ),
    (("check",), 2, "error: edgeq.toml does not exist.\nfix:   Write one with: edgeq init MODEL\n"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), GOLDEN, ids=[" ".join(g[0][-2:]) for g in GOLDEN])
def test_golden_message(work: Workspace, arguments: tuple[str, ...], code: int, message: str) -> None:
    run = work.edgeq(*arguments)
    assert (run.returncode, run.stderr, run.stdout) == (code, message, "")
    assert not (work.folder / "build").exists()


def test_usage_errors_of_the_parser_exit_with_2(work: Workspace) -> None:
    for arguments in (("compile",), ("compile", "model.onnx"), ("compile", "model.onnx", "--no-such-option")):
        run = work.edgeq(*arguments)
        assert run.returncode == 2
        assert "Usage: edgeq compile" in run.stderr


def test_an_existing_artefact_needs_force(work: Workspace) -> None:
    assert work.edgeq(*COMPILE).returncode == 0
    folder = work.folder / "build" / "model-onnxruntime"
    before = (folder / "model.onnx").read_bytes()
    run = work.edgeq(*COMPILE)
    assert run.returncode == 2
    assert run.stderr.endswith("fix:   Give --force to replace it, or another folder.\n")
    assert (folder / "model.onnx").read_bytes() == before
    assert work.edgeq(*COMPILE, "--force").returncode == 0


def test_a_foreign_folder_is_never_replaced(work: Workspace) -> None:
    folder = work.folder / "build" / "model-onnxruntime"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    run = work.edgeq(*COMPILE, "--force")
    assert run.returncode == 2
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_broken_model(work: Workspace) -> None:
    whole = (work.folder / "model.onnx").read_bytes()
    (work.folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    _assert_two_lines(work.edgeq(*COMPILE), 3, "model.onnx")


def test_a_missing_model(work: Workspace) -> None:
    _assert_two_lines(work.edgeq("compile", "nothing.onnx", "--scheme", "fp32"), 3, "nothing.onnx")


@pytest.mark.parametrize("case", ["empty", "shape", "nan", "missing"])
def test_bad_data(work: Workspace, case: str) -> None:
    good = np.zeros((4, 3, 8, 8), np.float32)
    arrays = {"empty": good[:0], "shape": good[:, :, :4], "nan": np.where(good == 0, np.nan, good)}
    if case != "missing":
        np.savez(work.folder / "bad.npz", x=arrays[case])
    run = work.edgeq(
        "compile", "model.onnx", "--scheme", "int8-static", "--calibration", "bad.npz", "--no-bench"
    )
    _assert_two_lines(run, 3, "bad.npz" if case in ("empty", "missing") else "'x'")
    assert work.leftovers() == []


def test_a_metric_that_does_not_fit_the_data(work: Workspace) -> None:
    run = work.edgeq(
        "compile", "model.onnx", "--scheme", "fp32", "--evaluation", "data.npz", "--metric", "perplexity"
    )
    _assert_two_lines(run, 2, "perplexity")


def test_errors_are_json_with_json(work: Workspace) -> None:
    run = work.edgeq("compile", "model.onnx", "--scheme", "int8-static", "--json")
    assert run.returncode == 3
    error = json.loads(run.stdout)["error"]
    assert error["type"] == "DataError"
    assert error["exit_code"] == 3
    assert error["what"] in run.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("torch", ("compile", "factory:build", "--scheme", "fp32", "--no-bench"), "torch"),
        (
            "PIL",
            ("compile", "model.onnx", "--scheme", "int8-static", "--calibration", "images", "--no-bench"),
            "image",
        ),
    ],
)
def test_a_missing_extra_names_the_one_command(
    work: Workspace, module: str, arguments: tuple[str, ...], extra: str
) -> None:
    work.write("factory.py", "def build():\n    raise AssertionError('not reached')\n")
    (work.folder / "images").mkdir()
    (work.folder / "images" / "a.png").write_bytes(b"\x89PNG")
    blocked = _without(work.folder, module)
    run = work.edgeq(*arguments, env={"PYTHONPATH": str(blocked)})
    _assert_two_lines(run, 4, "not installed")
    assert run.stderr.endswith(f"fix:   Install it with: pip install 'edgeq[{extra}]'\n")


def _without(folder: Path, module: str) -> Path:
    """A folder that, on PYTHONPATH, makes ``module`` impossible to import: as if not installed."""
    path = folder / "blocker"
    path.mkdir()
    (path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker)\n"
    )
    return path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_the_middle_leaves_nothing(work: Workspace, number: signal.Signals, code: int) -> None:
    arguments = ("compile", "model.onnx", "--scheme", "int8-dynamic", "--evaluation", "data.npz")
    process = subprocess.Popen(
        command(*arguments),
        cwd=work.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("Timing"):
            break
    # As a terminal does: to the whole group, the fresh processes of the harness included.
    os.killpg(process.pid, number)
    stdout, rest = process.communicate(timeout=60)
    assert process.returncode == code, said + rest
    assert "Traceback" not in said + rest
    if number == signal.SIGINT:
        assert rest.endswith("Interrupted: unfinished work was discarded.\n")
    assert stdout == ""
    assert not (work.folder / "build" / "model-onnxruntime").exists()
    assert work.leftovers() == []


def test_a_metric_of_the_users_that_raises(work: Workspace) -> None:
    work.write("mine.py", "def metric(outputs, labels):\n    return 1 / 0\n")
    run = work.edgeq(
        *("compile", "model.onnx", "--scheme", "fp32", "--evaluation", "data.npz"),
        *("--metric", "mine:metric", "--measure", "accuracy"),
    )
    _assert_two_lines(run, 2, "division by zero")


def _assert_two_lines(run: subprocess.CompletedProcess[str], code: int, word: str) -> None:
    assert run.returncode == code, run.stderr + run.stdout
    lines = [line for line in run.stderr.splitlines() if line.startswith(("error: ", "fix:   "))]
    assert 1 <= len(lines) <= 2
    assert run.stderr.splitlines()[-len(lines) :] == lines
    assert word in lines[0]
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
