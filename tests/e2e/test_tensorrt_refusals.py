"""What the target ``tensorrt`` refuses, through the real command, in its own words."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec

import pytest

import edgeq
from edgeq.errors import EdgeqError
from tests.support.cli import Workspace
from tests.support.tensorrt import COMPILE, needs_rtx, without_gpu

pytestmark = [needs_rtx, without_gpu]

REFUSED: list[tuple[str, dict[str, str], int, str, str]] = [
    (
        "int8-dynamic",
        {},
        4,
        "Target 'tensorrt' has no scheme 'int8-dynamic': TensorRT has no operators of dynamic INT8 "
        "(DynamicQuantizeLinear, MatMulInteger, ConvInteger).",
        "Take int8-static (with calibration data) or int8-weight (INT8 weights, no data needed). It has: "
        "fp32, fp16, int8-static, fp8-static, int8-weight, int4-weight.",
    ),
    (
        "fp8-static",
        {"sm": "86,89"},
        4,
        "The scheme 'fp8-static' needs compute capability 8.9 or newer for FP8; the engine is for 8.6 too.",
        "Build it for newer GPUs alone: --sm 89, or choose another scheme.",
    ),
    (
        "int4-weight",
        {"sm": "75"},
        4,
        "The scheme 'int4-weight' needs compute capability 8.0 or newer for INT4; the engine is for 7.5 too.",
        "Build it for newer GPUs alone: --sm 80, or choose another scheme.",
    ),
    (
        "fp16",
        {"timing_cache": "times.bin", "backend": "tensorrt-rtx"},
        2,
        "The option 'timing_cache' has no effect with the backend 'tensorrt-rtx': it times nothing when it "
        "builds.",
        "Leave it out, or choose -O backend=tensorrt.",
    ),
    (
        "fp16",
        {"precision": "fp32"},
        2,
        "The option 'precision' has no effect with the scheme 'fp16', which is one by itself.",
        "Leave it out, or choose a quantized scheme.",
    ),
    (
        "fp16",
        {"colour": "red"},
        2,
        "The target 'tensorrt' has no option 'colour'.",
        "It has: backend, cuda_graph, dimension.NAME, optimization_level, precision, sm, timing_cache, "
        "weight_streaming, workspace_mb.",
    ),
    (
        "fp16",
        {"optimization_level": "6"},
        2,
        "The option 'optimization_level' cannot be '6'.",
        "Give a whole number, 0 to 5.",
    ),
    (
        "fp16",
        {"dimension.rows": "2"},
        2,
        "The model has no dynamic dimension 'rows'.",
        "Its dynamic dimensions: batch.",
    ),
]


@pytest.mark.parametrize(("scheme", "options", "code", "what", "fix"), REFUSED, ids=lambda v: str(v)[:30])
def test_refused(
    work: Workspace, scheme: str, options: dict[str, str], code: int, what: str, fix: str
) -> None:
    output = work.folder / "refused"
    with pytest.raises(EdgeqError) as refusal:
        edgeq.compile(
            work.folder / "model.onnx", target="tensorrt", scheme=scheme, target_options=options,
            calibration=work.folder / "calib.npz", output=output, bench=None,
        )  # fmt: skip
    assert (refusal.value.exit_code, refusal.value.what, refusal.value.fix) == (code, what, fix)
    assert not output.with_name("refused-tensorrt").exists()
    assert work.leftovers() == []


def test_a_gpu_that_nothing_builds_for(work: Workspace) -> None:
    _assert_refused(
        work.edgeq(*COMPILE, "--scheme", "fp16", "--sm", "90"),
        2,
        "error: The option 'sm': '90' is no compute capability that engines are built for.\n"
        "fix:   It has: 75 Turing, 80 Ampere (A100), 86 Ampere, 89 Ada, 120 Blackwell, 121 "
        "Blackwell (GB10).\n",
    )


def test_budgets_that_need_a_gpu_are_refused(work: Workspace) -> None:
    _assert_refused(
        work.edgeq(*COMPILE, "--scheme", "fp16", "--budget", "latency_p95 <= 20ms"),
        4,
        "error: latency_p95 of target 'tensorrt' cannot be measured here: an engine runs on an NVIDIA GPU, "
        "and this machine has none; accuracy is that of the quantized model it was built from, in ONNX "
        "Runtime on the CPU.\n"
        "fix:   Measure it there, or leave the budget or metric out.\n",
    )


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_backend_that_is_not_installed(work: Workspace) -> None:
    _assert_refused(
        work.edgeq(*COMPILE, "--scheme", "fp16", "-O", "backend=tensorrt", "--no-bench"),
        4,
        "error: The backend 'tensorrt' is not installed.\n"
        "fix:   Use NVIDIA's container (docs/tensorrt.md), or choose -O backend=tensorrt-rtx.\n",
    )
    assert not (work.folder / "build" / "model-tensorrt").exists()


def _assert_refused(run: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert (run.returncode, run.stdout) == (code, "")
    assert run.stderr.endswith(message), run.stderr
    assert run.stderr.count("error: ") == 1
