"""A comparison of language models as a table of texts: one wording for the terminal, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.tasks.names import PREFIX, is_task_metric
from edgeq.benchmarks.units import difference_number, format_difference, format_value
from edgeq.candidates import Candidate
from edgeq.comparison import Row
from edgeq.comparison_table import Column, state
from edgeq.compiler.weights.spec import BITS, OF_SCHEME, PER_CHANNEL
from edgeq.language.comparison import LanguageComparison
from edgeq.language.measures import FIRST_TOKEN, GENERATION, PERPLEXITY, PROMPT, engine_runs

WIDTHS = {scheme: str(BITS[kind]) for scheme, kind in OF_SCHEME.items()} | {"int8-dynamic": "8"}
# Columns of words; the others are numbers, which are aligned to the right.
WORDS = ("method", "bits", "group", "format", "calibration", "budgets", "front")


def columns(comparison: LanguageComparison) -> list[Column]:
    """Every column in which anything stands; a row without an artefact has empty cells."""
    rows = comparison.rows
    found = [Column(title, "", tuple(cell(row.candidate) for row in rows)) for title, cell in _NAMES.items()]
    if len(comparison.calibrations) < 2:
        found = [column for column in found if column.title != "calibration"]
    found += [_measured(rows, metric, title) for metric, title in _COSTS_FIRST.items()]
    found += [_measured(rows, PERPLEXITY, PERPLEXITY), _change(rows)]
    found += [_measured(rows, metric, title) for metric, title in _OTHERS.items()]
    found.append(Column("x FP32", "", tuple(map(_pace, rows))))
    found += [_budgeted(rows, metric) for metric in _also(comparison)]
    found.append(Column("runs in", "", tuple(_runs_in(comparison, row) for row in rows)))
    found.append(Column("front", "", tuple(_front(comparison, row) for row in rows)))
    return [column for column in found if column.baseline or any(column.cells)]


def method_of(candidate: Candidate) -> str:
    """Who rounded: edgeq's method, or the type that llama.cpp makes."""
    if "type" in candidate.options:
        return candidate.options["type"]
    recipe = candidate.recipe
    if recipe is None:
        return (candidate.variant or "").partition("-")[0]
    return "nf4" if recipe.scheme == "nf4-weight" else recipe.weight_method or "rtn"


def _bits(candidate: Candidate) -> str:
    return "" if candidate.recipe is None else WIDTHS.get(candidate.recipe.scheme, "")


def _group(candidate: Candidate) -> str:
    if candidate.recipe is not None and candidate.recipe.scheme == "int8-dynamic":
        return "channel"
    size = None if candidate.recipe is None else candidate.recipe.block_size
    return "" if size is None else "channel" if size == PER_CHANNEL else str(size)


_NAMES: dict[str, Callable[[Candidate], str]] = {
    "format": lambda candidate: candidate.target,
    "method": method_of,
    "bits": _bits,
    "group": _group,
    "calibration": lambda candidate: candidate.calibration or "",
}
_COSTS_FIRST = {"size": "size"}
_OTHERS = {
    "kl": "KL",
    "kl_p99": "KL p99",
    "top1_agreement": "top-1 agreement",
    PROMPT: "prompt",
    GENERATION: "generation",
    FIRST_TOKEN: "first token",
    "peak_memory": "peak memory",
}


def _found(row: Row, metric: str) -> Measurement | None:
    return None if row.result is None else row.result.measurements.get(metric)


def _measured(rows: Sequence[Row], metric: str, title: str) -> Column:
    found = [_found(row, metric) for row in rows]
    base = next((format_value(m.baseline, m.unit) for m in found if m and m.baseline is not None), "")
    return Column(title, base, tuple("" if m is None else format_value(m.value, m.unit) for m in found))


def _change(rows: Sequence[Row]) -> Column:
    return Column("- FP32 (95 %)", "", tuple(difference(_found(row, PERPLEXITY)) for row in rows))


def difference(found: Measurement | None) -> str:
    """``+0.10 (-0.02 to +0.22)``: the difference to FP32 and its interval."""
    if found is None or found.difference is None:
        return ""
    text = format_difference(found.difference, found.unit)
    if found.interval is None or found.interval_of != "difference":
        return text
    low, high = found.interval
    return f"{text} ({difference_number(low, found.unit)} to {format_difference(high, found.unit)})"


def _pace(row: Row) -> str:
    """Generated tokens/s by FP32's in the same turns: what rows are compared by."""
    found = _found(row, GENERATION)
    return "" if found is None or found.ratio is None else format_value(found.ratio, "x")


def _also(comparison: LanguageComparison) -> list[str]:
    """Beyond the usual columns: what budgets name, and the results of tasks."""
    shown = {PERPLEXITY, *_COSTS_FIRST, *_OTHERS}
    results = [row.result for row in comparison.rows if row.result is not None]
    judged = [verdict.metric for found in results for verdict in found.verdicts]
    tasks = [name for found in results for name in found.measurements if is_task_metric(name)]
    return [name for name in dict.fromkeys([*judged, *tasks]) if name not in shown]


def _budgeted(rows: Sequence[Row], metric: str) -> Column:
    title = metric.removeprefix(PREFIX) if is_task_metric(metric) else metric.replace("_", " ")
    return _measured(rows, metric, title)


def _runs_in(comparison: LanguageComparison, row: Row) -> str:
    memory = comparison.memory.get(row.candidate.name)
    return "" if memory is None else format_value(memory.total, "bytes")


def _front(comparison: LanguageComparison, row: Row) -> str:
    """``yes``, or which row beats this one."""
    name = row.candidate.name
    if name in comparison.beaten:
        return f"beaten by {number_of(comparison, comparison.beaten[name])}"
    return "yes" if name in comparison.front else ""


def number_of(comparison: LanguageComparison, name: str) -> int:
    """The row's number, from 1."""
    return [row.candidate.name for row in comparison.rows].index(name) + 1


def notes(comparison: LanguageComparison) -> list[str]:
    """What the reader must know of the rows: decisions, what was left out, who ran what."""
    found = list(comparison.notes)
    if comparison.left_out:
        why = "; ".join(f"{reason} ({count})" for reason, count in comparison.left_out.items())
        count = sum(comparison.left_out.values())
        found.append(f"{count} combination{'s' if count > 1 else ''} left out: {why}.")
    standing = [name for name in _formats(comparison) if not engine_runs(name)]
    if standing:
        found.append(
            f"{', '.join(standing)}: quality is that of the stored weights, read by transformers; the "
            "engines that serve them do not run here, so that they have no speed."
        )
    return found + artefact_notes(comparison)


def _formats(comparison: LanguageComparison) -> list[str]:
    return list(dict.fromkeys(row.candidate.target for row in comparison.rows if row.result is not None))


def artefact_notes(comparison: LanguageComparison) -> list[str]:
    """Each note of the artefacts once, with the numbers of the rows that it is about."""
    who: dict[str, list[str]] = {}
    for number, row in enumerate(comparison.rows, 1):
        if row.result is not None:
            for note in dict.fromkeys([*row.result.manifest.notes, *row.result.measurements.notes]):
                who.setdefault(note, []).append(str(number))
    count = sum(row.result is not None for row in comparison.rows)
    return [
        note if len(numbers) == count else f"{', '.join(numbers)}: {note}" for note, numbers in who.items()
    ]


def reason(row: Row) -> str:
    """The state, with the sentence that explains an empty row."""
    return state(row) if row.error is None else f"{state(row)}: {row.error.what}"
