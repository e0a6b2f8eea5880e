"""Options that several commands share, and how what was typed becomes values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.errors import ConfigError

if TYPE_CHECKING:
    from edgeq.benchmarks.options import BenchOptions
    from edgeq.calibration.data.options import DataOptions
    from edgeq.calibration.preprocess import Preprocessing

DATA = "Data"
QUANTIZATION = "Quantization"
MEASUREMENT = "Measurement and budgets"
OUTPUT = "Output"

EvaluationOption = Annotated[
    str | None,
    typer.Option(
        "--evaluation",
        metavar="DATA",
        rich_help_panel=DATA,
        help="Data to measure accuracy on: a folder of images, .npz, .npy, .tsv, .csv, .jsonl, .txt, "
        "Parquet, a datasets folder, or module:callable.",
    ),
]
PreprocessOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocess",
        metavar="SPEC",
        rich_help_panel=DATA,
        help="How images or arrays become the model's input: a preset (imagenet, imagenet-caffe-bgr, unit, "
        "none), FIELD=VALUE, or a .json or .toml file. Repeatable: a preset, then what differs from it.",
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data-option",
        metavar="KEY=VALUE",
        rich_help_panel=DATA,
        help="How the data is read, repeatable: labels, classes, columns, input, text, header, padding, "
        "window, stride, max_tokens, split, task, select (see docs/data.md).",
    ),
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="PATH",
        rich_help_panel=DATA,
        help="tokenizer.json, or a folder with one, for text.",
    ),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option("--max-length", metavar="N", min=1, rich_help_panel=DATA, help="Tokens per text at most."),
]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        "-b",
        metavar="BUDGET",
        rich_help_panel=MEASUREMENT,
        help="What must be kept, repeatable: 'size <= 5MB', 'top1 >= 99%' (of FP32), 'speedup >= 1.5x'. "
        "A missed one makes the exit code 1.",
    ),
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        rich_help_panel=MEASUREMENT,
        help="What to measure on the evaluation data, repeatable: top1, top5, accuracy, f1, f1_macro, "
        "perplexity, kl, kl_p99, top1_agreement, psnr, cosine, sqnr, mse, or module:callable. Without it: "
        "what the data allows.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, rich_help_panel=MEASUREMENT, help="Threads of the runtime."
    ),
]
QuickFlag = Annotated[
    bool,
    typer.Option(
        "--quick",
        rich_help_panel=MEASUREMENT,
        help="Measure for seconds, not tens of seconds: wider intervals.",
    ),
]
MeasureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        metavar="PART",
        rich_help_panel=MEASUREMENT,
        help="Measure only these, repeatable: size, load, latency, generation, memory, accuracy. "
        "Without it: all.",
    ),
]

TasksOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--lm-eval-tasks",
        metavar="FILE",
        rich_help_panel=MEASUREMENT,
        help="A task of lm-eval to measure a language model on, YAML with its data in local files, "
        "repeatable. Its results are metrics: lm_eval/TASK/acc. Needs the extra eval.",
    ),
]

TARGET = "Target"
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target-option",
        "-O",
        metavar="KEY=VALUE",
        rich_help_panel=TARGET,
        help="An option that only the target has, repeatable: deployment_target=iOS18 (see docs/coreml.md, "
        "docs/tensorrt.md). With several targets it goes to all that have it, TARGET.KEY=VALUE to one.",
    ),
]
DimensionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dimension",
        metavar="NAME=SIZES",
        rich_help_panel=TARGET,
        help="Sizes of a dynamic dimension where the target needs them, repeatable: batch=1, "
        "sequence=1..128, sequence=32,64,128.",
    ),
]
SmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sm",
        metavar="LIST",
        rich_help_panel=TARGET,
        help="tensorrt: compute capabilities of the GPUs to build for, repeatable: 86,89,120 (the same as "
        "-O sm=86,89,120).",
    ),
]
ImageInputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--image-input",
        metavar="SPEC",
        rich_help_panel=TARGET,
        help="coreml: the input is an image, repeatable: 'data: color=RGB scale=1/255 bias=-0.5,-0.5,-0.5'.",
    ),
]
ClassLabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--class-labels",
        metavar="FILE",
        rich_help_panel=TARGET,
        help="coreml: names of the classes, one per line or a JSON list.",
    ),
]

# Fields of DataOptions that hold several values, written with commas; columns are NAME:COLUMN pairs.
_LISTS = ("classes", "text")
_PAIRS = ("columns",)


def preprocessing_from(specs: list[str] | None) -> Preprocessing | None:
    """The declared preprocessing, None when nothing was declared.

    Raises:
        ConfigError: it is not valid.
    """
    from edgeq.config import read_preprocessing

    return None if not specs else read_preprocessing(" ".join(specs))


def target_options_from(
    pairs: list[str] | None,
    dimensions: list[str] | None,
    image_input: list[str] | None,
    class_labels: Path | None,
    sm: list[str] | None = None,
) -> dict[str, str]:
    """The target's own options as KEY → VALUE.

    Raises:
        ConfigError: a text that is not KEY=VALUE, or a key that is given twice.
    """
    given = [("--target-option", text) for text in pairs or []]
    given += [("--dimension", text) for text in dimensions or []]
    options: dict[str, str] = {}
    for option, text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"{option} {text!r} is not KEY=VALUE.", fix=f"Write {_TARGET_EXAMPLES[option]}."
            )
        _add(
            options, key.strip() if option == "--target-option" else f"dimension.{key.strip()}", value.strip()
        )
    if image_input:
        _add(options, "image_input", "; ".join(image_input))
    if class_labels is not None:
        _add(options, "class_labels", str(class_labels))
    if sm:
        _add(options, "sm", ",".join(sm))
    return options


_TARGET_EXAMPLES = {
    "--target-option": "--target-option deployment_target=iOS18",
    "--dimension": "--dimension sequence=1..128",
}


def _add(options: dict[str, str], key: str, value: str) -> None:
    if key in options:
        raise ConfigError(f"The target's option {key!r} is given twice.", fix="Give it once.")
    options[key] = value


def bench_options_from(quick: bool, parts: list[str] | None, tasks: list[Path] | None = None) -> BenchOptions:
    """How thorough to measure, and what.

    Raises:
        UsageError: an unknown part.
    """
    from dataclasses import replace

    from edgeq.benchmarks.options import BenchOptions

    options = BenchOptions.quick() if quick else BenchOptions()
    options = replace(options, tasks=tuple(str(path) for path in tasks or ()))
    return replace(options, parts=tuple(parts)) if parts else options  # type: ignore[arg-type]  # checked there


def data_options_from(
    pairs: list[str] | None, tokenizer: Path | None, max_length: int | None
) -> DataOptions | None:
    """How data is read, None when nothing was given.

    Raises:
        ConfigError: an unknown key or a value that is not valid.
    """
    fields: dict[str, Any] = dict(_pair(text) for text in pairs or ())
    if tokenizer is not None:
        fields["tokenizer"] = tokenizer
    if max_length is not None:
        fields["max_length"] = max_length
    if not fields:
        return None
    return _data_options(fields)


def _data_options(fields: dict[str, Any]) -> DataOptions:
    from pydantic import ValidationError

    from edgeq.calibration.data.options import DataOptions
    from edgeq.validation import config_error

    try:
        return DataOptions.model_validate(fields)
    except ValidationError as error:
        raise config_error(error, where="--data-option", allowed=list(DataOptions.model_fields)) from error


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--data-option {text!r} is not KEY=VALUE.", fix="Write for example labels=y.")
    if key in _LISTS:
        return key, tuple(value.split(","))
    if key in _PAIRS:
        return key, dict(item.partition(":")[::2] for item in value.split(","))
    return key, value
