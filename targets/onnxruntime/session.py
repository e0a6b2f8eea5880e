"""ONNX Runtime sessions as edgeq uses them: CPU only, quiet, a fixed number of threads, clear errors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from edgeq.errors import TargetError
from edgeq.machine import usable_cores

PROVIDERS = ["CPUExecutionProvider"]
_SILENT = 4  # ORT's severity "fatal": errors reach the user as exceptions, not as log lines

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (?P<kind>[A-Z_]+) : ")
_SOURCE_LINE = re.compile(r"(?:/\S+|\w:\\\S+)\.(?:cc|h|cpp):\d+\s+.*?(?=\s[A-Z]|$)")

# Optimizers that break models of other targets (ONNX Runtime 1.31): the first drops a Relu before a
# QuantizeLinear to FP8, whose zero point it reads as an integer; the second crashes on LSTMs in float16; the
# others fold factors and summands into weights and biases and round these to float16 again.
_WRONG_OPTIMIZERS = (
    "ReluQuantRewrite",
    "FuseFp16InitializerToFp32NodeTransformer",
    "ConvMulFusion",
    "ConvAddFusion",
)


def session_options(threads: int | None, *, in_float: bool = False) -> Any:
    """The options of every session: measuring, verifying and running see the same graph.

    ``threads`` None uses every CPU that this process may run on. ``in_float`` keeps integer kernels out of
    QDQ models.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        disabled = ";".join(_WRONG_OPTIMIZERS)
        options.add_session_config_entry("optimization.disable_specified_optimizers", disabled)
    return options


def open_session(model: Path | bytes, options: Any, *, name: str = "the model") -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU, without fallback to anything else.

    ``model`` is a file or a serialized model; ``name`` is what errors call the latter.

    Raises:
        TargetError: ONNX Runtime cannot load the model.
    """
    import onnxruntime as ort

    if isinstance(model, Path):
        if not model.is_file():
            raise TargetError(
                f"There is no ONNX model at {model}.", fix="Give the path of an artefact folder."
            )
        name = model.name
    source = os.fspath(model) if isinstance(model, Path) else model
    try:
        session = ort.InferenceSession(source, sess_options=options, providers=PROVIDERS)
    except Exception as error:  # ORT's exceptions share no base class but Exception
        raise TargetError(f"ONNX Runtime cannot load {name}: {explain(error)}") from error
    session.disable_fallback()
    return session


def explain(error: Exception) -> str:
    """ORT's message as one sentence: without its error number, source files and backtrace."""
    text = str(error).strip().splitlines()
    message = _PREFIX.sub("", text[0] if text else type(error).__name__)
    message = _SOURCE_LINE.sub("", message).strip()
    return message if message.endswith(".") else message + "."
