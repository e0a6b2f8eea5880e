"""Tables for people fit a terminal of 80 columns and say what was found."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.verdicts import judge
from edgeq.check import CheckResult, Outcome
from edgeq.cli.check_tables import check_view
from edgeq.cli.tables import result_view
from edgeq.compiler.model import Source
from edgeq.compiler.recipe import Recipe
from edgeq.config import load_config
from edgeq.errors import DataError
from edgeq.machine import this_machine
from edgeq.manifest import Manifest
from edgeq.result import CompileResult
from edgeq.targets.base import NodeResult

FILE = 'model = "m.onnx"\n' + "".join(
    f'[[targets]]\nname = "{name}"\nscheme = "int8-static"\n'
    for name in ("int8-static", "int8-narrow", "broken")
)


def _measurements() -> Measurements:
    found = Measurements(notes=["INT8 may be slower here."])
    found.add(
        Measurement("size", 372_600, 1_410_000, "bytes", higher_is_better=False),
        Measurement("latency_p50", 86.69e-6, 110.3e-6, "s", higher_is_better=False, interval=(8e-5, 9e-5)),
        Measurement("latency_p90", 90e-6, 120e-6, "s", higher_is_better=False),
        Measurement("speedup", 1.27, None, "x", interval=(1.19, 1.41)),
        Measurement(
            "top1", 0.7308, 0.7369, "fraction", interval=(-0.0165, 0.0041), interval_of="difference",
            detail={"samples": 650, "batch": 1, "flips": {"changed": 14, "lost": 7, "gained": 3}},
        ),
    )  # fmt: skip
    found.failures["f1"] = "the labels are not binary"
    return found


def _result(folder: Path, *budgets: str, nodes: int = 12) -> CompileResult:
    planned = [
        NodeResult(f"/layer/{i}/Conv", "Conv", "int8", "fp32", "Conv", "no kernel [for it]", asked=True)
        for i in range(nodes)
    ]
    manifest = Manifest(
        target="onnxruntime",
        source=Source("onnx", "/models/m.onnx", "0" * 64),
        recipe=Recipe(scheme="int8-static"),
        files=[],
        libraries={},
        machine=this_machine(),
        nodes=[*planned, NodeResult("head", "Gemm", "int8", "int8", "QGemm", "as planned", asked=True)],
        notes=["Dead channels: 3."],
    )
    found = _measurements()
    return CompileResult(folder, manifest, found, judge(parse_budgets(budgets), found))


def _rendered(view: object, width: int) -> str:
    console = Console(width=width, record=True, markup=False, emoji=False, highlight=False, file=None)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


@pytest.mark.parametrize("width", [80, 120])
def test_a_result(tmp_path: Path, width: int) -> None:
    result = _result(tmp_path, "size <= 30%", "top1 >= 99.9%", "latency_p90 <= 1ms", "f1 >= 0.5")
    text = _rendered(result_view(result), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "m.onnx → onnxruntime, int8-static" in text
    for row in ("size", "latency p50", "latency p90", "speedup", "top1"):
        assert f"\n{row} " in text
    assert "1.19x to 1.41x" in text
    assert "top1: 650 samples, 14 flips (7 lost, 3 gained)" in text
    assert (text.count("✓"), text.count("✗")) == (2, 2)
    assert "not measured  f1: the labels are not binary" in text
    assert "12 fp32, 1 int8 (13 nodes)" in text
    assert "12 planned node(s) run in float instead:" in text
    assert "and 2 more: see edgeq.json" in text
    assert "[for" in text
    assert "note: Dead channels: 3." in text
    assert "note: INT8 may be slower here." in text


def test_percentiles_that_nobody_asked_for_are_left_out(tmp_path: Path) -> None:
    assert "latency p90" not in _rendered(result_view(_result(tmp_path)), 80)


def test_notes_are_not_said_twice(tmp_path: Path) -> None:
    text = _rendered(result_view(_result(tmp_path), said={"Dead channels: 3."}), 80)
    assert "Dead channels" not in text
    assert "INT8 may be slower here." in text


@pytest.mark.parametrize("width", [80, 120])
def test_a_check(tmp_path: Path, width: int) -> None:
    (tmp_path / "edgeq.toml").write_text(FILE)
    config = load_config(tmp_path / "edgeq.toml")
    kept = _result(tmp_path / "a", "size <= 30%", nodes=1)
    missed = _result(tmp_path / "b", "size <= 30%", "top1 >= 99.9%", nodes=0)
    error = DataError("Sample 3 holds NaN.", fix="Remove it.")
    outcomes = (
        Outcome(config.targets[0], kept, None, 1.0),
        Outcome(config.targets[1], missed, None, 1.0),
        Outcome(config.targets[2], None, error, 1.0),
    )
    check = CheckResult(config, outcomes)
    text = _rendered(check_view(check, (), []), width)
    table, rest = text.split("\n\n", 1)
    assert all(len(line) <= width for line in text.splitlines())
    assert len(table.splitlines()) == 5
    assert table.splitlines()[1].split() == ["FP32", "1.41", "MB", "110.3", "us", "top1", "73.69", "%"]
    assert "372.6 KB (26%)" in table
    assert "top1 73.08 % (-0.61)" in table
    assert (table.count("✓"), table.count("✗")) == (1, 2)
    assert "int8-narrow: top1 is 73.08 %" in rest
    assert "broken: Sample 3 holds NaN. Remove it." in rest
    assert "int8-static: 1 planned node(s) run in float instead:" in rest
    assert "note: int8-static, int8-narrow: Dead channels: 3." in rest
    said = _rendered(check_view(check, {"Dead channels: 3."}, []), width)
    assert "Dead channels" not in said
    assert "1 of 3 artefacts failed, 1 of 3 budgets missed" in rest
    assert (check.passed, check.exit_code) == (False, 3)
