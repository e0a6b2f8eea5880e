"""``edgeq bench``: measure an artefact again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.options import (
    BudgetOption,
    DataOption,
    EvaluationOption,
    MaxLengthOption,
    MeasureOption,
    MetricOption,
    PreprocessOption,
    QuickFlag,
    TasksOption,
    ThreadsOption,
    TokenizerOption,
    bench_options_from,
    data_options_from,
    preprocessing_from,
)
from edgeq.cli.terminal import DebugFlag, JsonFlag, QuietFlag, session


def bench(
    artefact: Annotated[
        Path, typer.Argument(metavar="ARTEFACT", help="The folder that edgeq compile wrote.")
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="MODEL",
            help="The FP32 model to compare with; without it the one that the artefact was compiled from.",
        ),
    ] = None,
    evaluation: EvaluationOption = None,
    preprocess: PreprocessOption = None,
    tokenizer: TokenizerOption = None,
    max_length: MaxLengthOption = None,
    data_option: DataOption = None,
    budget: BudgetOption = None,
    metric: MetricOption = None,
    threads: ThreadsOption = None,
    quick: QuickFlag = False,
    measure: MeasureOption = None,
    lm_eval_tasks: TasksOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure latency, memory, size and accuracy of ARTEFACT again, against FP32."""
    with session(json=json, quiet=quiet, debug=debug) as terminal:
        preprocessing = preprocessing_from(preprocess)
        data_options = data_options_from(data_option, tokenizer, max_length)

        import edgeq
        from edgeq.cli.results import show_result

        with terminal.progress() as progress:
            result = edgeq.bench(
                artefact,
                baseline=baseline,
                evaluation=evaluation,
                preprocessing=preprocessing,
                data_options=data_options,
                budgets=budget or (),
                metrics=metric or (),
                threads=threads,
                options=bench_options_from(quick, measure, lm_eval_tasks),
                progress=progress,
            )
        show_result(terminal, result)
