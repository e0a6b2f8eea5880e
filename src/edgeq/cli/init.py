"""``edgeq init``: write a commented ``edgeq.toml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.terminal import DebugFlag, QuietFlag, Terminal, session
from edgeq.errors import OutputExistsError

if TYPE_CHECKING:
    from edgeq.calibration.types import TensorSpec

TEMPLATE = """\
# edgeq.toml: what `edgeq check` builds, measures and gates. Relative paths are relative to this file.
model = {model}
output = {output}   # each target goes to OUTPUT-NAME-TARGET
overwrite = true    # artefacts of an earlier check are replaced
# threads = 2       # fixed threads make latencies comparable
# strict = true     # a node that was asked to be quantized and is not becomes an error

# Budgets of every target. % is relative to FP32 in the same run, a sign is a difference from it.
budgets = [
    "size <= 60%",
    # "top1 >= 99%",
    # "top1 >= -0.005",
    # "latency_p95 <= 20ms",
    # "peak_memory <= 200MB",
]

[data]
# {inputs}
# A folder of images, .npz, .npy, .tsv, .csv, .jsonl, .txt, Parquet, a datasets folder, or module:callable.
# calibration = "data/calibration"
# evaluation = "data/evaluation"
# metrics = ["top1"]
# preprocess = "imagenet"          # or a table: preprocess = {{ scale = 0.00392156862745098, mean = [0.5] }}
# tokenizer = "tokenizer.json"

# [bench]
# quick = true                     # seconds instead of tens of seconds: wider intervals
# parts = ["size", "accuracy"]     # of size, load, latency, generation, memory, accuracy

[report]
junit = "build/edgeq-junit.xml"
json = "build/edgeq-check.json"

[[targets]]
target = "onnxruntime"
scheme = "int8-dynamic"

# Needs calibration data, and is usually the fastest for convolutions.
# [[targets]]
# target = "onnxruntime"
# scheme = "int8-static"
# range_method = "auto"            # minmax, percentile, entropy, mse
# exclude = ["op:Softmax"]         # stays in float: a glob on node names, or op:Type
# budgets = ["size <= 30%", "speedup >= 1.5x"]

# Smallest weights.
# [[targets]]
# target = "onnxruntime"
# scheme = "int4-weight"
# block_size = 32

# A Core ML package for iOS 16, macOS 13 and later (pip install 'edgeq[coreml]'; docs/coreml.md).
# [[targets]]
# target = "coreml"
# scheme = "palettize-4"
# options = {{ compute_units = "cpu-and-ne" }}

# A language model's folder as GGUF (pip install 'edgeq[llama-cpp]'; docs/llm.md, docs/gguf.md).
# [[targets]]
# target = "gguf"
# scheme = "int4-weight"
# weight_method = "gptq"           # learns from the calibration text; rtn needs none
# budgets = ["perplexity <= +0.5", "kl <= 0.05"]
"""


def init(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="What edgeq compile takes: a file, a folder, module:factory."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "edgeq.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write a commented edgeq.toml for MODEL."""
    with session(quiet=quiet, debug=debug) as terminal:
        if output.exists() and not force:
            raise OutputExistsError(f"{output} is there.", fix="Give --force to replace it.")
        _write(output, _text(model, output))
        _say(terminal, output)


def _text(model: str, output: Path) -> str:
    stem = Path(model.partition(":")[0] if not Path(model).exists() else model.rstrip("/")).stem
    return TEMPLATE.format(
        model=_quoted(_relative(model, output)), output=_quoted(f"build/{stem}"), inputs=_inputs(model)
    )


def _relative(model: str, output: Path) -> str:
    """The model's path as seen from the file; ``module:factory`` stays as it is."""
    if not Path(model).exists():
        return model
    return Path(os.path.relpath(Path(model).resolve(), output.resolve().parent)).as_posix()


def _inputs(model: str) -> str:
    """The inputs, where reading the model runs none of the user's code."""
    from edgeq.compiler.load import load
    from edgeq.errors import ConfigError

    path = Path(model)
    if path.suffix == ".onnx":
        return "The model's inputs: " + ", ".join(_described(spec) for spec in load(path).inputs)
    if not path.exists() and ":" not in model:
        raise ConfigError(f"{model} does not exist.", fix="Give a model file, a folder or module:factory.")
    return "Calibration and evaluation data:"


def _described(spec: TensorSpec) -> str:
    from edgeq.calibration.preprocess import shape_text

    return f"{spec.name} {spec.dtype} {shape_text(spec.shape)}"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write(path: Path, text: str) -> None:
    from edgeq.errors import UsageError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", fix="Give another file.") from error


def _say(terminal: Terminal, path: Path) -> None:
    if not terminal.quiet:
        terminal.show(f"Wrote {path}. Next: edgeq check {path}")
