"""How fast a language model reads a prompt and writes text, the artefact and the FP32 baseline taking turns.

A round is one text: the prompt at once (its time is the time to the first token), then token by token, each
the likeliest one, through the engine's cache. Every round all models do it, in an order that changes, so
that whatever slows the machine hits all. Medians are over rounds; intervals come from resampling them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter_ns
from typing import Any

import numpy as np

from edgeq.benchmarks.intervals import MIN_BLOCKS, Statistic, Times, block_bootstrap
from edgeq.benchmarks.latency import collector_off
from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource
from edgeq.benchmarks.metrics.windows import token_input
from edgeq.benchmarks.options import BenchOptions
from edgeq.calibration.types import Array, DataSource
from edgeq.machine import usable_cores
from edgeq.progress import Progress
from edgeq.targets.base import GeneratingRunner, Runner


@dataclass(frozen=True)
class Prompts:
    """Token ids int64 [tokens] of prompts, all of the same length, and in words where they came from."""

    tokens: list[Array]
    origin: str


@dataclass(frozen=True)
class Rounds:
    """Seconds of reading the prompt and of writing all new tokens, [rounds] each."""

    prompt: Times
    writing: Times


def prompts_of(runner: Runner, source: DataSource | None, options: BenchOptions) -> Prompts:
    """The beginnings of the evaluation text's windows, else random tokens, which ``origin`` says."""
    if source is not None and source.task == "language-model":
        batches = islice(source.batches(1, options.latency_samples), options.latency_samples)
        inputs = [batch.inputs for batch in batches]
        name = token_input(inputs[0]) if inputs else None
        if name is not None:
            tokens = [one[name][0, : options.prompt_tokens].astype(np.int64) for one in inputs]
            return Prompts(tokens, "of the evaluation text")
    generator = np.random.default_rng(options.seed)
    vocabulary = (runner.outputs[0].shape or (2,))[-1]
    highest = vocabulary if isinstance(vocabulary, int) else 2
    return Prompts([generator.integers(0, highest, options.prompt_tokens)], "at random")


def time_generation(
    runners: Sequence[GeneratingRunner], prompts: Prompts, options: BenchOptions, progress: Progress
) -> list[Rounds]:
    """The times of every runner; round i of all is one turn.

    They go on until each model has had ``min_seconds`` and :data:`MIN_BLOCKS` rounds, or ``max_seconds``.

    Raises:
        TargetError: one of them cannot go on.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in runners]
    with collector_off(), progress.task("Generating", None) as advance:
        for runner in runners:
            # A first text warms caches and is not counted.
            _one_text(runner, prompts.tokens[0], options.new_tokens)
        while not _enough(found, options):
            turn = len(found[0])
            prompt = prompts.tokens[turn % len(prompts.tokens)]
            order = range(len(runners)) if turn % 2 == 0 else reversed(range(len(runners)))
            for which in order:
                found[which].append(_one_text(runners[which], prompt, options.new_tokens))
            advance(1)
    return [Rounds(*np.array(times).T) for times in found]


def _one_text(runner: GeneratingRunner, prompt: Array, new_tokens: int) -> tuple[float, float]:
    """Seconds until the first token is known, and from there until ``new_tokens`` more are."""
    begin = perf_counter_ns()
    token = int(runner.start(prompt, new_tokens).argmax())
    first = perf_counter_ns()
    for _ in range(new_tokens):
        token = int(runner.step(token).argmax())
    return (first - begin) / 1e9, (perf_counter_ns() - first) / 1e9


def _enough(found: Sequence[Sequence[tuple[float, float]]], options: BenchOptions) -> bool:
    seconds = [sum(map(sum, times)) for times in found]
    if max(seconds) >= options.max_seconds:
        return True
    return len(found[0]) >= MIN_BLOCKS and min(seconds) >= options.min_seconds


def generation_measurements(
    ours: Rounds, theirs: Rounds | None, prompts: Prompts, options: BenchOptions, *, threads: int | None
) -> list[Measurement]:
    """Tokens per second of reading and writing, and the time to the first token."""
    read = len(prompts.tokens[0])
    detail = {
        "threads": threads or usable_cores(),
        "rounds": len(ours.prompt),
        "prompt_tokens": read,
        "prompt": prompts.origin,
        "new_tokens": options.new_tokens,
    }
    other = ours if theirs is None else theirs
    wanted = (
        ("prompt_tokens_per_s", ours.prompt, other.prompt, _per_second(read)),
        ("generation_tokens_per_s", ours.writing, other.writing, _per_second(options.new_tokens)),
        ("ttft", ours.prompt, other.prompt, _median),
    )
    return [
        _measurement(name, a, None if theirs is None else b, statistic, detail, options.seed)
        for name, a, b, statistic in wanted
    ]


def _measurement(
    name: str,
    ours: Times,
    theirs: Times | None,
    statistic: Statistic,
    detail: dict[str, Any],
    seed: int,
) -> Measurement:
    other = ours if theirs is None else theirs
    estimate = block_bootstrap(ours[:, None], other[:, None], {name: statistic}, seed=seed)[name]
    baseline = None if theirs is None else statistic(theirs, theirs)
    return resource(name, estimate.value, baseline, interval=estimate.interval, detail=detail)


def _per_second(tokens: int) -> Statistic:
    return lambda ours, _theirs: tokens / float(np.median(ours))


def _median(ours: Times, _theirs: Times) -> float:
    return float(np.median(ours))
