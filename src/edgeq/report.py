"""The report ``report.html``: one self-contained page, made of the manifest alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.metric_info import RESOURCES
from edgeq.benchmarks.protocol import Protocol
from edgeq.benchmarks.tables import MetricRow, metric_rows
from edgeq.benchmarks.units import format_difference, format_value
from edgeq.benchmarks.verdicts import Verdict
from edgeq.compiler.weights.findings import Diagnosis, LayerDiagnosis
from edgeq.machine import Machine
from edgeq.manifest import Compiling, Manifest, Measured
from edgeq.report_charts import cost_bars, latency_histogram, legend
from edgeq.report_html import Html, document, el, join, pairs, table
from edgeq.targets.base import REMOVED, UNPROVEN, NodeResult

_CHARTED = ("size", "latency_p50", "latency_p99", "load_time", "peak_memory")
# A longer node table is folded.
_NODES_SHOWN = 40
_SMOOTHING = (
    "Smoothing: SmoothQuant's migration strength in what the layer reads; 0: none helped, empty: nothing "
    "before the layer can be divided. Outliers are those that it has left."
)


def write_report(manifest: Manifest, path: Path) -> None:
    """Write the page to ``path``; the same manifest gives the same bytes."""
    path.write_text(render_report(manifest), encoding="utf-8", newline="\n")


def render_report(manifest: Manifest) -> str:
    """The page's HTML: no script, nothing loaded from outside."""
    title = f"{model_name(manifest)} on {manifest.target}: edgeq report"
    found = manifest.measured.as_measurements() if manifest.measured else Measurements()
    sections = (
        _header(manifest),
        *(el("p", f"✗ {finding}", class_="bad") for finding in found.findings),
        _tiles(manifest.measured),
        _budgets(manifest.measured),
        _measurements(manifest.measured),
        _protocol(manifest.measured),
        _charts(manifest.measured),
        _checks(manifest),
        _nodes(manifest.nodes),
        _diagnosis(manifest.diagnosis),
        _notes(manifest),
        _how(manifest),
        _provenance(manifest),
        el("footer", f"Written by edgeq {manifest.edgeq}. All of this is in edgeq.json."),
    )
    return document(title, *sections)


def model_name(manifest: Manifest) -> str:
    """The last part of what the user gave."""
    location = manifest.source.location.rstrip("/")
    return location.replace("\\", "/").rpartition("/")[2] or manifest.source.location


def _header(manifest: Manifest) -> Html:
    title = el("h1", model_name(manifest), el("span", f" → {manifest.target}"))
    machine = manifest.machine if manifest.measured is None else manifest.measured.machine
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    where = f"{manifest.recipe.scheme} on {machine.cpu}, {cores}"
    return el("header", el("div", title, el("p", where, class_="soft")), _badge(manifest.measured))


def _badge(measured: Measured | None) -> Html:
    if measured is None:
        return el("div", "Not measured", class_="badge")
    if not measured.verdicts:
        return el("div", "No budgets given", class_="badge")
    missed = sum(not verdict.passed for verdict in measured.verdicts)
    total = len(measured.verdicts)
    if missed:
        return el("div", f"{missed} of {total} budget{_s(total)} missed", class_="badge fail")
    return el("div", "Budget kept" if total == 1 else f"All {total} budgets kept", class_="badge pass")


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _tiles(measured: Measured | None) -> Html | None:
    """The four numbers that people ask for first."""
    if measured is None:
        return None
    found = measured.as_measurements()
    qualities = [name for name in found if name not in RESOURCES]
    wanted = ["size", "latency_p50", "peak_memory", *qualities[:1]]
    tiles = [_tile(found[name]) for name in wanted if name in found]
    return el("div", *tiles, class_="tiles") if tiles else None


def _tile(found: Measurement) -> Html:
    return el(
        "div",
        el("div", found.metric.replace("_", " "), class_="name"),
        el("div", format_value(found.value, found.unit), class_="value"),
        el("div", _beside(found), class_="soft"),
        class_="tile",
    )


def _beside(found: Measurement) -> str:
    """The value beside the baseline's: ``FP32 73.69 % (-0.46 points)``, ``FP32 4.95 MB (x 0.26)``."""
    if found.baseline is None or found.difference is None:
        return "no FP32 baseline" if found.metric in RESOURCES else "against FP32"
    base = f"FP32 {format_value(found.baseline, found.unit)}"
    if found.metric not in RESOURCES:
        return f"{base} ({format_difference(found.difference, found.unit)})"
    return base if found.ratio is None else f"{base} (x {found.ratio:.2f})"


def _budgets(measured: Measured | None) -> Html | None:
    if measured is None or not measured.verdicts:
        return None
    head = ("", "budget", "measured", "limit", "verdict")
    rows = [_verdict_row(verdict) for verdict in measured.verdicts]
    return _section("Budgets", table(head, rows, class_="tight", numeric=(2, 3)))


def _verdict_row(verdict: Verdict) -> tuple[Html | str, ...]:
    return (
        _mark(verdict.passed),
        el("code", verdict.budget),
        verdict.measured,
        verdict.limit,
        el("span", verdict.sentence, class_=None if verdict.passed else "bad"),
    )


def _measurements(measured: Measured | None) -> Html | None:
    if measured is None or not (measured.measurements or measured.failures):
        return None
    found = measured.as_measurements()
    head = ("metric", "FP32", "artefact", "change", "95 % interval", "how")
    rows = [_metric_row(row) for row in metric_rows(found)]
    rows += [
        (name, "", "", "", "", el("span", f"not measured: {why}", class_="bad"))
        for name, why in found.failures.items()
    ]
    explained = el(
        "p",
        "Intervals of latency and speedup are of the value itself (block bootstrap); those of accuracy "
        "metrics are of the difference to FP32 on the same samples.",
        class_="soft",
    )
    return _section("Measurements", explained, table(head, rows, numeric=(1, 2, 3, 4)))


def _metric_row(row: MetricRow) -> tuple[Html | str, ...]:
    kind = None if row.better is None else "good" if row.better else "bad"
    change = el("span", row.change, class_=kind)
    return (row.metric, row.baseline, row.value, change, row.interval, el("span", row.remark, class_="soft"))


def _protocol(measured: Measured | None) -> Html | None:
    """What a perplexity depends on beside the model."""
    protocol = None if measured is None else Protocol.of(measured.evaluation, measured.as_measurements())
    return None if protocol is None else _section("How the text was judged", pairs(protocol.values))


def _charts(measured: Measured | None) -> Html | None:
    if measured is None:
        return None
    found: Measurements = measured.as_measurements()
    bars = cost_bars([found[name] for name in _CHARTED if name in found])
    latency = found.get("latency_p50")
    histogram = None if latency is None else latency_histogram(latency)
    cards = [
        el("div", el("h3", title), legend(has_baseline), picture, class_="card")
        for title, picture, has_baseline in (
            ("Costs", bars, True),
            ("Time of one inference", histogram, latency is not None and latency.baseline is not None),
        )
        if picture is not None
    ]
    return _section("At a glance", el("div", *cards, class_="charts")) if cards else None


def _checks(manifest: Manifest) -> Html | None:
    if not manifest.checks:
        return None
    rows = [
        (_mark(check.passed), check.name, check.found, el("span", check.wanted, class_="soft"))
        for check in manifest.checks
    ]
    said = el("p", f"{manifest.proved_by[:1].upper()}{manifest.proved_by[1:]}.")
    return _section("What was proved of the files", said, table(("", "check", "found", "wanted"), rows))


def _mark(passed: bool | None) -> Html:
    if passed is None:
        return el("span", "?", class_="soft", title="not tried")
    return el("span", "✓" if passed else "✗", class_="good" if passed else "bad")


def _nodes(nodes: list[NodeResult]) -> Html | None:
    if not nodes:
        return None
    counts = Counter(node.actual for node in nodes)
    summary = ", ".join(
        f"{count} {actual}" if actual in (REMOVED, UNPROVEN) else f"{count} in {actual}"
        for actual, count in counts.most_common()
    )
    missed = sum(node.missed for node in nodes)
    unproven = " or unproven" if counts[UNPROVEN] else ""
    parts = [el("p", f"{len(nodes)} node{_s(len(nodes))}: {summary}.")]
    if missed:
        parts.append(el("p", f"{missed} planned quantized, but running in float{unproven}.", class_="bad"))
    head = ("node", "op", "planned", "runs in", "kernel", "reason")
    # Missed ones first; otherwise the order of the graph.
    content = table(head, map(_node_row, sorted(nodes, key=lambda node: not node.missed)), class_="nodes")
    if len(nodes) > _NODES_SHOWN:
        content = el("details", el("summary", f"All {len(nodes)} nodes"), content)
    return _section("What runs in which precision", *parts, content)


def _node_row(node: NodeResult) -> tuple[Html | str, ...]:
    kind = "bad" if node.missed else None
    return (
        el("code", node.name),
        node.op_type,
        node.planned,
        el("span", node.actual, class_=kind),
        node.kernel,
        el("span", node.reason, class_=kind),
    )


def _diagnosis(found: Diagnosis | None) -> Html | None:
    """What quantizing has cost each layer, the costliest first."""
    if found is None:
        return None
    explained = el(
        "p",
        "Error: of the layer's outputs on the calibration text, squared, as a part of their square sum. "
        "Outliers: the largest input of any channel over that of the channel in the middle. Gain: how much "
        "of the error 8 bits would take away per megabyte that they add.",
        class_="soft",
    )
    advice = "No layer stands out: 8 bits anywhere would gain little."
    if found.overrides:
        advice = "Worth 8 bits, the best first: " + " ".join(f"--override '{o}'" for o in found.overrides)
    rows = [_layer_row(layer) for layer in sorted(found.layers, key=lambda layer: -layer.error)]
    head: tuple[str, ...] = ("layer", "precision", "error", "outliers", "gain")
    if any(layer.smoothing is not None for layer in found.layers):
        head = (*head, "smoothing")
        explained = el("div", explained, el("p", _SMOOTHING, class_="soft"))
    content = table(head, [row[: len(head)] for row in rows], numeric=(2, 3, 4, 5)[: len(head) - 2])
    if len(rows) > _NODES_SHOWN:
        content = el("details", el("summary", f"All {len(rows)} layers"), content)
    return _section("What quantizing has cost, layer by layer", el("p", advice), explained, content)


def _layer_row(layer: LayerDiagnosis) -> tuple[Html | str, ...]:
    gain = "" if layer.gain is None else f"{100 * layer.gain:.3g} %/MB"
    return (
        el("code", layer.layer),
        layer.precision,
        f"{100 * layer.error:.3g} %",
        f"x {layer.outliers:.1f}",
        gain,
        "" if layer.smoothing is None else f"{layer.smoothing:g}",
    )


def _notes(manifest: Manifest) -> Html | None:
    notes = [*manifest.notes, *(manifest.measured.notes if manifest.measured else [])]
    if not notes:
        return None
    return _section("Notes", el("ul", *(el("li", note) for note in dict.fromkeys(notes))))


def _how(manifest: Manifest) -> Html:
    cards = [_card("Recipe", manifest.recipe.model_dump(mode="json"))]
    if manifest.calibration is not None:
        cards.append(_card("Calibration data", manifest.calibration))
    measured = manifest.measured
    if measured is not None and measured.evaluation is not None:
        cards.append(_card("Evaluation data", measured.evaluation))
    if measured is not None and measured.compiling is not None:
        cards.append(_card("Compiling", _compiling(measured.compiling)))
    if manifest.load_hints:
        cards.append(_card("To load it", manifest.load_hints))
    if measured is not None and measured.options:
        cards.append(_card("How it was measured", {"run by": measured.runner, **measured.options}))
    return _section("How it was made", el("div", *cards, class_="charts"))


def _compiling(cost: Compiling) -> dict[str, Any]:
    memory = {"peak memory": cost.peak_memory, "memory added": cost.added_memory}
    shown = {name: format_value(value, "bytes") for name, value in memory.items() if value is not None}
    return {"time": format_value(cost.seconds, "s"), **shown}


def _card(title: str, values: Mapping[str, Any]) -> Html:
    return el("div", el("h3", title), _pairs(values), class_="card")


def _pairs(values: Mapping[str, Any]) -> Html:
    """Names and values; what is not set is left out."""
    return pairs((key, _value(value)) for key, value in values.items() if value not in (None, [], {}, ()))


def _value(value: Any) -> Html | str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list | tuple) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, list | tuple):
        return el("code", json.dumps(value, ensure_ascii=False))
    return str(value)


def _provenance(manifest: Manifest) -> Html:
    source = manifest.source
    rows: list[tuple[Html | str, ...]] = [
        ("source", f"{source.location} ({source.kind})", "", el("code", source.sha256))
    ]
    for label, data in (
        ("calibration data", manifest.calibration),
        ("evaluation data", manifest.measured.evaluation if manifest.measured else None),
    ):
        if data is not None:
            rows.append(
                (label, str(data.get("location", "")), "", el("code", str(data.get("sha256") or "-")))
            )
    for entry in manifest.files:
        size = format_value(float(entry.bytes), "bytes")
        rows.append(("file", entry.path, size, el("code", entry.sha256)))
    return _section(
        "Provenance",
        table(("", "what", "size", "SHA-256"), rows, numeric=(2,)),
        el("h3", "Built with"),
        pairs([*manifest.libraries.items(), *_machine(manifest.machine)]),
    )


def _machine(machine: Machine) -> list[tuple[str, Html | str]]:
    flags = ", ".join(machine.flags) or "none that matter"
    return [
        ("Python", machine.python),
        ("system", f"{machine.system} {machine.architecture}"),
        ("CPU", f"{machine.cpu}, {machine.cores} core{_s(machine.cores)}"),
        ("CPU flags", flags),
    ]


def _section(title: str, *content: Html | None) -> Html:
    return el("section", el("h2", title), join(content))
