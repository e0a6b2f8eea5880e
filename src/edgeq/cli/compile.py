"""``edgeq compile``: one model for one target, measured and judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.options import (
    DATA,
    MEASUREMENT,
    OUTPUT,
    QUANTIZATION,
    TARGET,
    BudgetOption,
    ClassLabelsOption,
    DataOption,
    DimensionOption,
    EvaluationOption,
    ImageInputOption,
    MaxLengthOption,
    MeasureOption,
    MetricOption,
    PreprocessOption,
    QuickFlag,
    SmOption,
    TargetOption,
    TasksOption,
    ThreadsOption,
    TokenizerOption,
    bench_options_from,
    data_options_from,
    preprocessing_from,
    target_options_from,
)
from edgeq.cli.terminal import DebugFlag, JsonFlag, QuietFlag, Terminal, session
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.compiler.recipe import Recipe

DEFAULT_TARGET = "onnxruntime"
# Field of the recipe → the option that sets it, for messages.
_SPELLED = {
    "symmetric_weights": "--asymmetric",
    "overrides": "--exclude/--override",
    "weight_method": "--method",
}


def compile_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An .onnx file, a .pt2 exported program, module:factory of a torch model, or a local "
            "Hugging Face folder.",
        ),
    ],
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme",
            "-s",
            metavar="NAME",
            help="fp32, fp16, int8-static, fp8-static (these two need calibration data), int8-dynamic, "
            "int8-weight, int4-weight, int3-weight, int2-weight, nf4-weight, palettize-4, palettize-6 (see: "
            "edgeq targets).",
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="NAME",
            help="What to compile for (see: edgeq targets). Several, by commas or repeated, are compared "
            "in one table; all-cpu is onnxruntime,openvino,neural-compressor. Default: onnxruntime.",
        ),
    ] = None,
    quantizer: Annotated[
        str | None,
        typer.Option(
            "--quantizer",
            metavar="NAME",
            rich_help_panel=TARGET,
            help="openvino: whose methods quantize, edgeq or nncf; 'edgeq,nncf' compares both.",
        ),
    ] = None,
    target_option: TargetOption = None,
    dimension: DimensionOption = None,
    image_input: ImageInputOption = None,
    class_labels: ClassLabelsOption = None,
    sm: SmOption = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="NAME", help="Task of a Hugging Face model, where its files do not tell."
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            metavar="DATA",
            rich_help_panel=DATA,
            help="Representative samples for static schemes, or text for language models' methods; the same "
            "forms as --evaluation.",
        ),
    ] = None,
    evaluation: EvaluationOption = None,
    preprocess: PreprocessOption = None,
    tokenizer: TokenizerOption = None,
    max_length: MaxLengthOption = None,
    data_option: DataOption = None,
    range_method: Annotated[
        str | None,
        typer.Option(
            "--range-method",
            metavar="METHOD",
            rich_help_panel=QUANTIZATION,
            help="How activation ranges are chosen: auto, minmax, percentile, entropy or mse.",
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            "--percentile",
            metavar="PERCENT",
            rich_help_panel=QUANTIZATION,
            help="For --range-method percentile.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--calibration-samples",
            metavar="N",
            min=1,
            rich_help_panel=QUANTIZATION,
            help="Calibration samples used.",
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(
            "--block-size",
            metavar="N",
            rich_help_panel=QUANTIZATION,
            help="int4-weight (int8-weight with --accuracy-level 4; checkpoints): weights that share a "
            "scale, 16, 32, 64, 128 or 256; -1 in checkpoints: a whole output channel. Default: the "
            "target's, 32 or (tensorrt, checkpoints) 128.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            rich_help_panel=QUANTIZATION,
            help="How weights are rounded. int4-weight of graphs (onnxruntime, openvino): rtn or gptq. "
            "Language models' checkpoints (hf-gptq, vllm, gguf, …): rtn, gptq or awq; int8-dynamic (vllm): "
            "rtn or smoothquant. All but rtn learn from --calibration data. Default: rtn.",
        ),
    ] = None,
    damping: Annotated[
        float | None,
        typer.Option(
            "--damping",
            metavar="FRACTION",
            rich_help_panel=QUANTIZATION,
            help="--method gptq: the part of the Hessian's mean diagonal that is added to it (0.01).",
        ),
    ] = None,
    act_order: Annotated[
        bool | None,
        typer.Option(
            "--act-order/--no-act-order",
            rich_help_panel=QUANTIZATION,
            help="--method gptq: round the columns with the largest inputs first (the default), or in order.",
        ),
    ] = None,
    asymmetric: Annotated[
        bool,
        typer.Option("--asymmetric", rich_help_panel=QUANTIZATION, help="Blocks with zero points."),
    ] = False,
    accuracy_level: Annotated[
        int | None,
        typer.Option(
            "--accuracy-level",
            metavar="N",
            rich_help_panel=QUANTIZATION,
            help="int4-weight and int8-weight: 0 computes in float, 4 in int8 blocks (often faster).",
        ),
    ] = None,
    no_bias_correction: Annotated[
        bool,
        typer.Option(
            "--no-bias-correction",
            rich_help_panel=QUANTIZATION,
            help="int8-static without correcting biases.",
        ),
    ] = False,
    no_smoothing: Annotated[
        bool,
        typer.Option(
            "--no-smoothing",
            rich_help_panel=QUANTIZATION,
            help="int8-static without evening out the channels of activations and moving outliers into the "
            "weights.",
        ),
    ] = False,
    saturating: Annotated[
        bool,
        typer.Option(
            "--allow-saturation",
            rich_help_panel=QUANTIZATION,
            help="int8-static and int8-dynamic, for CPUs with VNNI or dot product only: weights use the full "
            "range, which saturates on others.",
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="NODE",
            rich_help_panel=QUANTIZATION,
            help="Keep nodes in float: a glob on names, or op:Type. Repeatable.",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="NODE=PRECISION",
            rich_help_panel=QUANTIZATION,
            help="Precision of some nodes: 'op:Gemm=int8'. Repeatable; the last match wins.",
        ),
    ] = None,
    budget: BudgetOption = None,
    metric: MetricOption = None,
    threads: ThreadsOption = None,
    no_bench: Annotated[
        bool,
        typer.Option(
            "--no-bench",
            rich_help_panel=MEASUREMENT,
            help="Measure nothing; budgets are refused then.",
        ),
    ] = False,
    quick: QuickFlag = False,
    measure: MeasureOption = None,
    lm_eval_tasks: TasksOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            rich_help_panel=OUTPUT,
            help="The artefact folder is PATH-TARGET; without it build/MODEL-TARGET. A comparison is "
            "PATH-comparison.html, .md and .json beside them.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Replace an artefact that is there.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=QUANTIZATION,
            help="Fail when a node that the scheme wants quantized is not.",
        ),
    ] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compile MODEL for a target, measure the artefact against FP32 and judge it by its budgets.

    With several targets or quantizers: compile it for each, compare the artefacts in one table and name the
    winner by budgets. A target that is not installed or does not take the model is a row with its reason; any
    other error of a target makes the exit code, and does not stop the others.
    """
    with session(json=json, quiet=quiet, debug=debug) as terminal:
        given = {
            "range_method": range_method,
            "percentile": percentile,
            "calibration_samples": samples,
            "block_size": block_size,
            "weight_method": method,
            "damping": damping,
            "act_order": act_order,
            "symmetric_weights": False if asymmetric else None,
            "accuracy_level": accuracy_level,
            "bias_correction": False if no_bias_correction else None,
            "smoothing": False if no_smoothing else None,
            "saturation_safe": False if saturating else None,
        }
        recipe = _recipe(scheme, given, exclude or [], override or [])
        preprocessing = preprocessing_from(preprocess)
        data_options = data_options_from(data_option, tokenizer, max_length)
        options = None if no_bench else bench_options_from(quick, measure, lm_eval_tasks)
        if no_bench and (quick or measure or lm_eval_tasks):
            raise UsageError(
                "--no-bench measures nothing.", fix="Leave out --quick, --measure and --lm-eval-tasks."
            )

        given_options = target_options_from(target_option, dimension, image_input, class_labels, sm)
        common: dict[str, Any] = {
            "recipe": recipe,
            "calibration": calibration,
            "evaluation": evaluation,
            "preprocessing": preprocessing,
            "data_options": data_options,
            "budgets": budget or (),
            "metrics": metric or (),
            "output": output,
            "force": force,
            "strict": strict,
            "threads": threads,
            "bench": options,
            "task": task,
        }
        quantizers = [] if quantizer is None else [name.strip() for name in quantizer.split(",")]
        _run(terminal, model, target or [DEFAULT_TARGET], quantizers, given_options, common)


def _run(
    terminal: Terminal,
    model: str,
    targets: list[str],
    quantizers: list[str],
    options: dict[str, str],
    common: dict[str, Any],
) -> None:
    """One artefact with its own report, or a comparison."""
    import edgeq
    from edgeq.candidates import candidates
    from edgeq.cli.results import show_comparison, show_result
    from edgeq.targets.registry import expand_targets

    names = expand_targets(targets)
    found = candidates(names, quantizers, options, common["recipe"])
    with terminal.progress() as progress:
        common["progress"] = progress
        if len(found) == 1:
            only = found[0]
            result = edgeq.compile(model, target=only.target, target_options=only.options, **common)
        else:
            comparison = edgeq.compile_many(
                model, targets=names, quantizers=quantizers, target_options=options, **common
            )
    if len(found) == 1:
        show_result(terminal, result)
    else:
        show_comparison(terminal, comparison)


def _recipe(scheme: str, given: dict[str, Any], exclude: list[str], override: list[str]) -> Recipe:
    from edgeq.recipes import exclusions, make_recipe, parse_override

    fields = {name: value for name, value in given.items() if value is not None}
    overrides = (*exclusions(exclude), *(parse_override(text) for text in override))
    if overrides:
        fields["overrides"] = overrides
    return make_recipe(scheme, fields, where="edgeq compile", spelled=_spelled)


def _spelled(field: str) -> str:
    return _SPELLED.get(field, "--" + field.replace("_", "-"))
