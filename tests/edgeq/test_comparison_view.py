"""A comparison is readable in every width, and its pages hold what the terminal shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.candidates import Candidate
from edgeq.cli.comparison_tables import comparison_view
from edgeq.comparison import Comparison, Row
from edgeq.comparison_report import comparison_document, render_html, render_markdown
from edgeq.comparison_table import columns
from edgeq.compiler.recipe import Recipe
from edgeq.errors import InternalError, TargetError
from edgeq.manifest import Compiling
from edgeq.result import CompileResult
from edgeq.winner import Winner
from tests.support.manifests import manifest

REASON = "Target 'neural-compressor' takes PyTorch models, and m<1>.onnx is an ONNX model."


def one_thread() -> Measurements:
    found = Measurements()
    found.add(Measurement("latency_p50", 0.002, 0.006, "s", False))
    return found


def compiled(folder: Path, target: str, variant: str | None = None) -> Row:
    made = manifest()
    assert made.measured is not None
    found = made.measured.as_measurements()
    cost = Compiling(seconds=12.5, peak_memory=450_000_000, added_memory=None)
    result = CompileResult(folder / f"m-{target}", made, found, made.measured.verdicts, cost)
    return Row(Candidate(target, variant=variant), "edgeq", result, one_thread=one_thread())


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    rows = (
        compiled(tmp_path, "onnxruntime"),
        compiled(tmp_path, "openvino", "edgeq"),
        compiled(tmp_path, "openvino", "nncf"),
        Row(Candidate("neural-compressor"), error=TargetError(REASON, fix="Take another."), refused=True),
        Row(Candidate("coreml"), error=InternalError("Unexpected RuntimeError: a defect")),
    )
    recipe = Recipe(scheme="int8-static")
    return Comparison("m<1>", recipe, tmp_path / "m", 2, rows, Winner(None, "No winner: for a test."))


def shown(comparison: Comparison, width: int) -> list[str]:
    console = Console(width=width, record=True, file=None, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(comparison_view(comparison, said=()))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [50, 80, 100, 120, 400])
def test_every_number_is_whole_in_every_width(comparison: Comparison, width: int) -> None:
    lines = shown(comparison, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for column in columns(comparison):
        for cell in filter(None, (column.baseline, *column.cells)):
            assert cell in text, (column.title, cell)
    for name in ("onnxruntime", "openvino (edgeq)", "openvino (nncf)"):
        assert name in text


def test_wide_terminals_have_a_row_for_each(comparison: Comparison) -> None:
    lines = shown(comparison, 400)
    marks = {line.split()[1]: line.split()[0] for line in lines[3:8]}
    assert marks == {"onnxruntime": "✗", "openvino": "✗", "neural-compressor": "-", "coreml": "✗"}
    assert "refused" in next(line for line in lines if line.startswith("-"))
    assert any(line.startswith(f"neural-compressor: {REASON}") for line in lines)


def test_narrow_terminals_have_a_column_for_each(comparison: Comparison) -> None:
    lines = shown(comparison, 80)
    heads = [line.split() for line in lines if line.strip().startswith("FP32")]
    assert heads == [["FP32", "onnxruntime", "openvino", "(edgeq)", "openvino", "(nncf)"]]
    assert any(line.startswith("p50, 1 thread ") and line.count("2 ms") == 3 for line in lines)
    halves = [line for line in shown(comparison, 50) if line.strip().startswith("FP32")]
    assert len(halves) > 1


def test_pages_say_why_a_row_is_empty(comparison: Comparison) -> None:
    page, text = render_html(comparison), render_markdown(comparison)
    assert "refused: Target &#x27;neural-compressor&#x27; takes PyTorch models, and m&lt;1&gt;.onnx" in page
    assert '<a href="m-onnxruntime/report.html">onnxruntime</a>' in page
    assert "m<1>" not in page
    assert "→ 3 artefacts</span>" in page
    assert "m&lt;1&gt;.onnx is an ONNX model." in text
    assert "failed: Unexpected RuntimeError: a defect" in text
    assert text.startswith("## m&lt;1&gt;, int8-static\n")


def test_the_document_names_states_and_codes(comparison: Comparison) -> None:
    rows = comparison_document(comparison)["rows"]
    assert [(row["state"], row["exit_code"]) for row in rows] == [
        ("compiled", 1), ("compiled", 1), ("compiled", 1), ("refused", 4), ("failed", 5),
    ]  # fmt: skip
    assert rows[0]["compiling"] == {"seconds": 12.5, "peak_memory": 450_000_000, "added_memory": None}
    assert rows[0]["quantized_nodes"] == {"planned": 2, "ran": 1}
    assert (comparison.exit_code, comparison.passed) == (5, False)


def test_a_refusal_counts_only_alone(comparison: Comparison) -> None:
    refused = comparison.rows[3]
    assert replace(comparison, rows=(refused,)).exit_code == 4
    fine = Row(Candidate("onnxruntime"), result=replace(comparison.rows[0].result, verdicts=[]))  # type: ignore[type-var]
    assert replace(comparison, rows=(fine, refused)).exit_code == 0
