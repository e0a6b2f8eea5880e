"""OpenVINO as edgeq uses it: CPU only, every hint explicit, no cache of compiled models, clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, TargetError
from edgeq.machine import usable_cores
from edgeq.targets.openvino.options import OpenVINOOptions

# Inference precision → what OpenVINO calls a CPU that has it. It computes in f32, silently, on others.
_NEEDS = {"bf16": "BF16", "f16": "FP16"}


def refuse_missing(precision: str) -> None:
    """Refuse an inference precision that this CPU has not.

    Raises:
        TargetError: OpenVINO would compute in f32 instead.
    """
    import openvino

    if precision not in _NEEDS:
        return
    if _NEEDS[precision] not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise TargetError(
            f"This CPU has no {precision} arithmetic: OpenVINO would compute in f32 without a word.",
            fix="Use -O precision=f32 here.",
        )


def properties(options: OpenVINOOptions, threads: int | None) -> dict[str, Any]:
    """What a model is compiled with; ``threads`` None uses every CPU that this process may run on."""
    found: dict[str, Any] = {
        "PERFORMANCE_HINT": options.mode.upper(),
        "INFERENCE_PRECISION_HINT": options.precision,
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
        # By default OpenVINO rounds the activations of weight-only layers where the CPU has kernels for it.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "CACHE_DIR": "",
    }
    if options.mode == "latency":
        found["NUM_STREAMS"] = 1
    return found


def read_model(path: Path) -> Any:
    """The ``openvino.Model`` at ``path`` (IR or ONNX).

    Raises:
        ModelError: there is none, or it is damaged.
    """
    import openvino

    if not path.is_file():
        raise ModelError(f"There is no model at {path}.", fix="Give the path of an artefact folder.")
    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot read {path.name}: {explain(error)}") from error


def compile_model(path: Path, config: dict[str, Any]) -> Any:
    """The ``openvino.CompiledModel`` of the IR at ``path`` on the CPU.

    Raises:
        ModelError: the file cannot be read.
        TargetError: OpenVINO cannot compile it.
    """
    import openvino

    model = read_model(path)
    try:
        return openvino.Core().compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise TargetError(f"OpenVINO cannot compile {path.name}: {explain(error)}") from error


# How the lines begin that name OpenVINO's own source, not what is wrong.
_FRAMES = (
    "Exception from",
    "Check '",
    "While ",
    "FrontEnd API failed",
    "Errors during ONNX",
    "Model wasn't fully",
    "-- ",
)


def explain(error: Exception) -> str:
    """OpenVINO's message as one sentence: without its source files, checks and empty lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_FRAMES)]
    message = (told or [line for line in lines if line] or [type(error).__name__])[0]
    return message if message.endswith(".") else message + "."
