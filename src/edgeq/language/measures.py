"""What is measured of a language model's artefact, and how rows are read from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from edgeq.benchmarks.budgets import parse_budget
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metrics import METRIC_NAMES
from edgeq.benchmarks.options import PARTS, BenchOptions, Part
from edgeq.benchmarks.verdicts import Verdict
from edgeq.comparison import Row
from edgeq.language.engines import FORMATS
from edgeq.language.pareto import UNKNOWN, Point, Spread
from edgeq.language.recommendation import Option
from edgeq.language.run_memory import RunMemory, run_memory
from edgeq.targets.registry import get_target

PERPLEXITY = "perplexity"
QUALITIES = ("perplexity", "kl", "kl_p99", "top1_agreement")
PROMPT, GENERATION, FIRST_TOKEN = "prompt_tokens_per_s", "generation_tokens_per_s", "ttft"
# What single turns on a busy machine differ by, at most.
VAGUE = 1.5
_ASKED = ("size", "memory", "accuracy", "generation")
# They take running the engine itself; what stands in for it would give numbers of something else.
_OF_ENGINES = ("memory", "generation")


def default_metrics() -> tuple[str, ...]:
    """The qualities of a language model."""
    return tuple(name for name in QUALITIES if name in METRIC_NAMES)


def default_parts() -> tuple[Part, ...]:
    """What is measured when nobody says: no latency of windows, which nobody generates with."""
    return tuple(part for part in PARTS if part in _ASKED)


def options_for(format: str, options: BenchOptions) -> BenchOptions:
    """``options`` without the parts that would measure what stands in for the format's engine."""
    if engine_runs(format):
        return options
    return replace(options, parts=tuple(part for part in options.parts if part not in _OF_ENGINES))


def engine_runs(format: str) -> bool:
    """Whether what runs the format here is the engine that serves it."""
    return FORMATS[format].measured and get_target(format).runner_kind() == "runtime"


def quality(found: Measurement | None) -> Spread:
    """A metric that is compared with the baseline on the same samples."""
    if found is None or not math.isfinite(found.value):
        return UNKNOWN
    if found.interval is None:
        return Spread.exactly(found.value)
    shift = 0.0 if found.interval_of == "value" else found.baseline or 0.0
    low, high = (end + shift for end in found.interval)
    return Spread(found.value, min(low, found.value), max(high, found.value))


def speed(measurements: Measurements) -> Spread:
    """Generated tokens/s as a multiple of FP32's in the same turns.

    Rows are timed one after the other, and tokens/s of a machine that others use too differ by more between
    them than rows do; whatever slows a turn slows FP32 in it as well. FP32 may vary as much as the row, to
    the other side. Without an interval (too few turns) it is taken to lie within :data:`VAGUE` of the truth.
    """
    found = measurements.get(GENERATION)
    if found is None or not found.baseline or not math.isfinite(found.value) or found.value <= 0:
        return UNKNOWN
    ratio = found.value / found.baseline
    if found.interval is None:
        return Spread(ratio, ratio / VAGUE, ratio * VAGUE)
    low, high = found.interval
    return Spread(ratio, ratio * (low / found.value) ** 2, ratio * (high / found.value) ** 2)


def point_of(row: Row) -> Point | None:
    """Where a measured row stands; None: it has no perplexity."""
    if row.result is None or row.error is not None:
        return None
    found = row.result.measurements
    if PERPLEXITY not in found:
        return None
    engine_speed = speed(found) if engine_runs(row.candidate.target) else UNKNOWN
    return Point(row.candidate.name, row.result.manifest.size, quality(found[PERPLEXITY]), engine_speed)


def memory_of(row: Row, config: dict[str, Any], context: int | None) -> RunMemory | None:
    """What the artefact takes where it runs: its files, or more where its engine was seen to take more."""
    if row.result is None:
        return None
    engine = FORMATS[row.candidate.target]
    weights = row.result.manifest.size
    peak = row.result.measurements.get("peak_memory")
    if engine_runs(row.candidate.target) and peak is not None and math.isfinite(peak.value):
        weights = max(weights, int(peak.value))
    return run_memory(config, weights, context, engine.cache_bytes)


def option_of(row: Row, memory: RunMemory) -> Option | None:
    """The row for the recommendation; None: it was not measured."""
    point = point_of(row)
    if point is None or row.result is None:
        return None
    missed = [verdict for verdict in row.result.verdicts if not verdict.passed]
    return Option(
        point.name,
        row.candidate.target,
        row.result.manifest.recipe.scheme,
        point.size,
        point.perplexity,
        memory,
        point.speed,
        tuple(verdict.sentence for verdict in missed),
        max((excess(verdict, row.result.measurements) for verdict in missed), default=0.0),
    )


def excess(verdict: Verdict, measurements: Measurements) -> float:
    """How far a missed budget is beyond its bound, as a part of the bound; inf where nothing was measured."""
    found = measurements.get(verdict.metric)
    if found is None or not math.isfinite(found.value):
        return math.inf
    budget = parse_budget(verdict.budget)
    bound = budget.bound
    if budget.kind != "absolute" and found.baseline is not None:
        bound = found.baseline * bound if budget.kind == "relative" else found.baseline + bound
    return abs(found.value - bound) / max(abs(bound), 1e-12)
