"""Results as tables for people: FP32 against the artefact, budgets, precisions, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metric_info import GENERATION, RESOURCES
from edgeq.benchmarks.protocol import Protocol
from edgeq.benchmarks.tables import MetricRow, metric_rows
from edgeq.benchmarks.units import format_value
from edgeq.benchmarks.verdicts import Verdict
from edgeq.manifest import Manifest
from edgeq.result import CompileResult
from edgeq.targets.base import NodeResult

KEPT, MISSED, UNTRIED = "✓", "✗", "?"
# Percentiles between these two are shown only when a budget asks for them.
USUAL = ("size", "latency_p50", "latency_p99", "speedup", *GENERATION, "load_time", "peak_memory")
LABELS = {
    "load_time": "load time",
    "latency_p50": "latency p50",
    "latency_p90": "latency p90",
    "latency_p95": "latency p95",
    "latency_p99": "latency p99",
    "latency_mean": "latency mean",
    "prompt_tokens_per_s": "prompt",
    "generation_tokens_per_s": "generation",
    "ttft": "first token",
    "peak_memory": "peak memory",
    "peak_memory_process": "process memory",
}
MISSED_SHOWN = 10


def result_view(result: CompileResult, said: Iterable[str] = ()) -> RenderableType:
    """The whole result of a compile or a bench; notes in ``said`` were shown before."""
    parts: list[RenderableType | None] = [heading(result.manifest)]
    if result.measurements or result.measurements.failures:
        parts.append(measurement_table(result.measurements, {v.metric for v in result.verdicts}))
    parts += [protocol_line(result), failure_lines(result.measurements), verdict_lines(result.verdicts)]
    parts += [Text(f"{MISSED} {finding}", style="bold red") for finding in result.measurements.findings]
    parts += [precision_lines(result.nodes), check_lines(result.manifest), compiling_line(result)]
    parts += [note_lines(result_notes(result), said)]
    parts.append(Text.assemble(("artefact  ", "bold"), shown_path(result.folder)))
    return Group(*(part for part in parts if part is not None))


def shown_path(path: Path) -> str:
    """The path from the current folder when it lies below, else in full; never with ``..`` in it."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def heading(manifest: Manifest) -> Text:
    """What was made of what, for which target."""
    name = manifest.source.location.rstrip("/").rpartition("/")[2]
    return Text.assemble((name, "bold"), f" → {manifest.target}, ", (manifest.recipe.scheme, "bold"))


def measurement_table(measurements: Measurements, wanted: set[str]) -> RenderableType:
    """One row for each metric (baseline, artefact, change, 95 % interval), then what samples did."""
    shown = _in_order(measurements, wanted)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for title in ("FP32", "artefact", "change", "95 % interval"):
        table.add_column(title, justify="left" if title == "95 % interval" else "right")
    rows = metric_rows(shown)
    for row in rows:
        label = LABELS.get(row.metric, row.metric)
        table.add_row(label, row.baseline, row.value, _coloured(row), row.interval)
    remarks = [Text(f"{row.metric}: {row.remark}", style="dim") for row in rows if "flips" in row.remark]
    return Group(table, *remarks)


def _in_order(measurements: Measurements, wanted: set[str]) -> dict[str, Measurement]:
    costs = [*USUAL, *(name for name in RESOURCES if name in wanted and name not in USUAL)]
    qualities = [name for name in measurements if name not in RESOURCES]
    return {name: measurements[name] for name in (*costs, *qualities) if name in measurements}


def _coloured(row: MetricRow) -> Text:
    if row.better is None:
        return Text(row.change)
    return Text(row.change, style="green" if row.better else "yellow")


def protocol_line(result: CompileResult) -> RenderableType | None:
    """How running text was judged, where it was."""
    measured = result.manifest.measured
    protocol = None if measured is None else Protocol.of(measured.evaluation, result.measurements)
    return None if protocol is None else Text.assemble(("judged    ", "bold"), protocol.text())


def failure_lines(measurements: Measurements) -> RenderableType | None:
    """What could not be measured, and why."""
    if not measurements.failures:
        return None
    lines = [f"not measured  {metric}: {why}" for metric, why in measurements.failures.items()]
    return Group(*(Text(line, style="yellow") for line in lines))


def verdict_lines(verdicts: Sequence[Verdict]) -> RenderableType | None:
    """Each budget with its mark and its sentence."""
    if not verdicts:
        return None
    table = Table.grid(padding=(0, 1))
    for verdict in verdicts:
        table.add_row(mark(verdict.passed), Text(verdict.sentence))
    return Group("", table, "")


def mark(passed: bool | None) -> Text:
    """A check mark or a cross; None: what could not be tried."""
    if passed is None:
        return Text(UNTRIED, style="bold yellow")
    return Text(KEPT, style="bold green") if passed else Text(MISSED, style="bold red")


def precision_lines(nodes: Sequence[NodeResult]) -> RenderableType | None:
    """How many nodes run in which precision, and every node that runs in float against the plan."""
    if not nodes:
        return None
    counts = Counter(node.actual for node in nodes)
    shown = ", ".join(f"{count} {precision}" for precision, count in counts.most_common())
    parts: list[RenderableType] = [Text.assemble(("runs in   ", "bold"), f"{shown} ({len(nodes)} nodes)")]
    missed = [node for node in nodes if node.missed]
    if missed:
        parts.append(Text(f"{len(missed)} planned node(s) run in float instead:", style="yellow"))
        parts.append(missed_table(missed))
    return Group(*parts)


def check_lines(manifest: Manifest) -> RenderableType | None:
    """What was proved of the written files, and what ran them."""
    if not manifest.checks:
        return None
    table = Table.grid(padding=(0, 1))
    for check in manifest.checks:
        table.add_row(" ", mark(check.passed), check.name, check.found)
    return Group(Text(manifest.proved_by, style="bold"), table)


def missed_table(missed: Sequence[NodeResult]) -> RenderableType:
    """Nodes that were planned quantized and run in float, with the reason."""
    table = Table.grid(padding=(0, 2))
    for node in missed[:MISSED_SHOWN]:
        table.add_row(f"  {node.op_type}", node.name, f"{node.planned} → {node.actual}", node.reason)
    if len(missed) > MISSED_SHOWN:
        table.add_row("", f"and {len(missed) - MISSED_SHOWN} more: see edgeq.json", "", "")
    return table


def compiling_line(result: CompileResult) -> RenderableType | None:
    """What compiling has cost, where that is known."""
    cost = result.compiling
    if cost is None:
        return None
    memory = f", peak memory {format_value(cost.peak_memory, 'bytes')}" if cost.peak_memory else ""
    return Text.assemble(("compiled  ", "bold"), f"in {format_value(cost.seconds, 's')}{memory}")


def result_notes(result: CompileResult) -> list[str]:
    """Decisions and warnings of compiling and measuring, each once."""
    return list(dict.fromkeys([*result.manifest.notes, *result.measurements.notes]))


def note_lines(notes: Iterable[str], said: Iterable[str] = ()) -> RenderableType | None:
    """Notes that were not said while working."""
    fresh = [note for note in notes if note not in set(said)]
    if not fresh:
        return None
    return Group(*(Text.assemble(("note: ", "yellow"), note) for note in fresh))
