"""``edgeq compare``: a language model by several methods in several formats, and which one to ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli.options import (
    DATA,
    OUTPUT,
    QUANTIZATION,
    BudgetOption,
    DataOption,
    EvaluationOption,
    MeasureOption,
    MetricOption,
    QuickFlag,
    TasksOption,
    ThreadsOption,
    bench_options_from,
    data_options_from,
)
from edgeq.cli.terminal import DebugFlag, JsonFlag, QuietFlag, session
from edgeq.errors import UsageError

PLACE = "Where it is to run"


def compare(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A local Hugging Face folder with safetensors files.")
    ],
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            "--calibration",
            metavar="TEXT",
            rich_help_panel=DATA,
            help="Text that gptq, awq and importance matrices look at. Repeatable: several are compared, "
            "such as text like that of your application and general text.",
        ),
    ] = None,
    evaluation: EvaluationOption = None,
    data_option: DataOption = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            metavar="LIST",
            rich_help_panel=QUANTIZATION,
            help="Of rtn, gptq, awq, nf4 and smoothquant (W8A8), by commas. Default: the first four (gptq "
            "and awq with --calibration).",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--formats",
            metavar="LIST",
            rich_help_panel=QUANTIZATION,
            help="Of gguf, onnxruntime-genai, vllm, hf-gptq, hf-awq, bnb-nf4, by commas. Default: all that "
            "can be written here (see: edgeq targets).",
        ),
    ] = None,
    bits: Annotated[
        list[str] | None,
        typer.Option(
            "--bits",
            metavar="LIST",
            rich_help_panel=QUANTIZATION,
            help="Of 8, 4, 3, 2, by commas. Default: 4.",
        ),
    ] = None,
    block_size: Annotated[
        list[str] | None,
        typer.Option(
            "--block-size",
            metavar="LIST",
            rich_help_panel=QUANTIZATION,
            help="Inputs that share a scale, by commas; -1: a whole output channel. Default: the format's.",
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--types",
            metavar="LIST",
            rich_help_panel=QUANTIZATION,
            help="Also types of GGUF files that llama.cpp makes by itself, by commas: q4_k_m, iq3_s.",
        ),
    ] = None,
    asymmetric: Annotated[
        bool,
        typer.Option("--asymmetric", rich_help_panel=QUANTIZATION, help="Groups with zero points."),
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(
            "--calibration-samples",
            metavar="N",
            min=1,
            rich_help_panel=QUANTIZATION,
            help="Windows of the calibration text that are used.",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="LAYER=PRECISION",
            rich_help_panel=QUANTIZATION,
            help="Precision of some layers in every row: 'model.layers.0.*=int8'. Repeatable.",
        ),
    ] = None,
    budget: BudgetOption = None,
    metric: MetricOption = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="KIND",
            rich_help_panel=PLACE,
            help="Recommend what an engine runs there: cpu, gpu (NVIDIA), apple, phone.",
        ),
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(
            "--ram",
            metavar="SIZE",
            rich_help_panel=PLACE,
            help="Memory that weights and cache may take: 8GB.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="TOKENS",
            min=1,
            rich_help_panel=PLACE,
            help="Tokens in the cache. Default: what the model was made for, 4096 at most.",
        ),
    ] = None,
    threads: ThreadsOption = None,
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
            help="Artefact folders are PATH-METHOD-BITS-GROUP-FORMAT, the pages PATH-comparison.html, .md "
            "and .json. Default: build/MODEL.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            rich_help_panel=OUTPUT,
            help="Make and measure again what is there. Without it, finished rows of the same order stay.",
        ),
    ] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compile a language MODEL by every method in every format, measure each, and recommend one.

    The table says what each costs (size, tokens/s, memory) and what it keeps (perplexity, divergence from
    FP32); the recommendation names the best trade among the rows that keep every budget, and why. Without
    budgets a row must keep 'perplexity <= 105%' of FP32. Killed and started again, it goes on.
    """
    with session(json=json, quiet=quiet, debug=debug) as terminal:
        import edgeq
        from edgeq.cli.language_tables import language_view
        from edgeq.language.pages import to_document
        from edgeq.recipes import parse_override

        fields: dict[str, Any] = {
            "symmetric_weights": False if asymmetric else None,
            "calibration_samples": samples,
            "overrides": tuple(parse_override(text) for text in override or ()) or None,
        }
        with terminal.progress() as progress:
            found = edgeq.compare(
                model,
                evaluation=evaluation,
                calibration=tuple(calibration or ()),
                methods=_listed(methods),
                formats=_listed(formats),
                bits=_numbers(bits, "--bits"),
                block_sizes=_numbers(block_size, "--block-size"),
                types=_listed(types),
                recipe_fields={key: value for key, value in fields.items() if value is not None},
                budgets=budget or (),
                metrics=metric or (),
                hardware=hardware,
                ram=None if ram is None else _bytes(ram),
                context=context,
                data_options=data_options_from(data_option, None, None),
                output=output,
                force=force,
                threads=threads,
                bench=_bench(quick, measure, lm_eval_tasks),
                progress=progress,
            )
        terminal.show(language_view(found, terminal.said, debug=terminal.debug))
        terminal.emit(to_document(found))
        if found.exit_code:
            raise typer.Exit(found.exit_code)


def _bench(quick: bool, parts: list[str] | None, tasks: list[Path] | None) -> Any:
    from dataclasses import replace

    from edgeq.language.measures import default_parts

    options = bench_options_from(quick, parts, tasks)
    return options if parts else replace(options, parts=default_parts())


def _listed(texts: list[str] | None) -> tuple[str, ...]:
    """Values from lists with commas, each once."""
    return tuple(dict.fromkeys(part.strip() for text in texts or () for part in text.split(",")))


def _numbers(texts: list[str] | None, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in _listed(texts))
    except ValueError as error:
        raise UsageError(
            f"{option} takes whole numbers, and {error.args[0].rpartition(':')[2].strip()} is none.",
            fix=f"Write for example {option} 4,8.",
        ) from error


def _bytes(text: str) -> int:
    """A size such as ``8GB``.

    Raises:
        ConfigError: it is no number with a unit.
    """
    from edgeq.benchmarks.budgets import parse_budget
    from edgeq.errors import ConfigError

    try:
        return int(parse_budget(f"size <= {text}").bound)
    except ConfigError as error:
        raise ConfigError(f"--ram {text!r} is no size.", fix="Write a number with a unit: 8GB.") from error
