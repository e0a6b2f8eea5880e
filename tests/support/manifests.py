"""A manifest with everything in it, for the tests of manifest, artefact folder and report."""

from __future__ import annotations

from pathlib import Path

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.verdicts import judge
from edgeq.compiler.model import Source
from edgeq.compiler.recipe import Recipe
from edgeq.machine import Machine
from edgeq.manifest import Manifest, Measured, file_entries
from edgeq.targets.base import NodeResult

MACHINE = Machine(
    cpu="Test CPU", flags=("avx2",), cores=2, architecture="x86_64", system="Linux", python="3.11.7"
)


def measured() -> Measured:
    """Measurements with a kept and a missed budget."""
    found = Measurements(failures={"f1": "no labels"}, notes=["a measuring note"])
    histogram = {"edges": [0.001, 0.002, 0.004], "artefact": [3, 1], "baseline": [0, 4]}
    found.add(
        Measurement("size", 1.2e6, 4.8e6, "bytes", False),
        Measurement(
            "latency_p50", 0.001, 0.003, "s", False, (0.0009, 0.0012), detail={"histogram": histogram}
        ),
        Measurement("top1", 0.73, 0.74, "fraction", True, (-0.02, 0.01), "difference", {"samples": 650}),
        Measurement("sqnr", float("nan"), None, "dB", True),
    )
    verdicts = judge(parse_budgets(["size <= 2MB", "top1 >= 99%"]), found)
    return Measured.of(
        found, verdicts, machine=MACHINE, options=BenchOptions().to_json(), evaluation={"location": "val/"}
    )


def manifest(files: Path | None = None, *, name: str = "model.onnx") -> Manifest:
    """The manifest of an artefact whose files are in the folder ``files``."""
    return Manifest(
        target="onnxruntime",
        source=Source("onnx", f"models/{name}", "a" * 64, {"opset": 13}),
        recipe=Recipe(scheme="int8-static"),
        calibration={"kind": "images", "location": "images/", "sha256": "b" * 64, "samples": 200},
        files=[] if files is None else file_entries(files, ["model.onnx"]),
        libraries={"onnx": "1.23.2"},
        machine=MACHINE,
        nodes=[
            NodeResult("conv", "Conv", "int8", "int8", "QLinearConv", "int8 kernel", asked=True),
            NodeResult("resize<1>", "Resize", "int8", "fp32", "Resize", "no int8 kernel & slow", asked=True),
            NodeResult("softmax", "Softmax", "fp32", "fp32", "Softmax", "kept in float"),
        ],
        load_hints={"file": "model.onnx"},
        notes=["a note"],
        measured=measured(),
    )


def write_artefact(folder: Path, content: bytes = b"weights") -> Manifest:
    """An artefact folder with one file, its manifest and a report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    written = manifest(folder)
    written.write(folder)
    (folder / "report.html").write_text("<html></html>", encoding="utf-8")
    return written
