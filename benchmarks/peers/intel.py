"""The targets for CPUs beside each other: every labelled model in three schemes on three targets.

    EDGEQ_DATA=../shared/data python benchmarks/peers/intel.py FOLDER [--only kws,digits] [--again latency]

Artefacts and results are kept in FOLDER, one JSON file per model, target, scheme and stage, and are not made
again, so that a run goes on where another one stopped; ``--again compile,latency`` measures those stages anew
(on a quiet machine). Every compile and every timing is a process of its own. The timings of a model's
artefacts take turns, ``--rounds`` times. A cell that cannot exist holds the sentence that refuses it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from fresh import fresh
from intel_models import DATA, MODELS, ROOT
from page_tables import put
from process_tree import fresh_tree

from edgeq.machine import library_versions, this_machine

CHILD = Path(__file__).with_name("intel_child.py")
TARGETS = ("onnxruntime", "openvino", "neural-compressor")
SCHEMES = ("fp32", "int8-static", "int8-dynamic")
STAGES = ("compile", "accuracy", "latency")
THREADS = ("1", "2")
LIBRARIES = ("openvino", "neural-compressor", "torch", "torchao")
HEADER = (
    "| model | target | scheme | metric | dB to FP32 | kB | ms, 1 thread | x FP32 | ms, 2 threads | x FP32 "
    "| compile CPU s | peak MiB |"
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One model on one target in one scheme."""

    folder: Path
    model: str
    target: str
    scheme: str

    @property
    def artefact(self) -> Path:
        return self.folder / self.model / f"{self.scheme}-{self.target}"

    @property
    def fp32(self) -> Cell:
        """What accuracy is compared with."""
        return Cell(self.folder, self.model, "onnxruntime", "fp32")

    def file(self, stage: str) -> Path:
        return self.folder / self.model / f"{self.target}-{self.scheme}.{stage}.json"

    def read(self, stage: str) -> Row:
        """What a stage found; empty before it has run."""
        file = self.file(stage)
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def write(self, stage: str, row: Row) -> None:
        self.file(stage).write_text(json.dumps(row))

    @property
    def exists(self) -> bool:
        return "bytes" in self.read("compile")

    @property
    def judged(self) -> bool:
        """Whether the accuracy is that of this very artefact."""
        return self.read("accuracy").get("sha256") == self.read("compile")["sha256"]


@dataclass(frozen=True)
class Run:
    """All cells of one run."""

    folder: Path
    models: tuple[str, ...]
    targets: tuple[str, ...]
    schemes: tuple[str, ...]
    rounds: int
    workers: int

    def cells(self, model: str) -> list[Cell]:
        return [Cell(self.folder, model, t, s) for t in self.targets for s in self.schemes]

    @cached_property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}

    def compile(self, model: str, anew: bool) -> None:
        """Make the artefacts that are missing (or all ``anew``), without the caches of PyTorch's compiler."""
        (self.folder / model).mkdir(parents=True, exist_ok=True)
        cells = self.cells(model)
        wanted = [cell for cell in cells if not cell.file("compile").exists() or (anew and cell.exists)]
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(self._compile, wanted))

    def _compile(self, cell: Cell) -> None:
        command = ["compile", cell.model, cell.target, cell.scheme, str(cell.artefact)]
        with tempfile.TemporaryDirectory() as cache:
            environment = {**self.environment, "TORCHINDUCTOR_CACHE_DIR": cache}
            _keep(cell, "compile", fresh_tree(_child(command), environment, ROOT))

    def accuracy(self, model: str, anew: bool) -> None:
        """Evaluate the artefacts that are not yet, or have changed since."""
        wanted = [cell for cell in self.cells(model) if cell.exists and (anew or not cell.judged)]
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(self._judge, wanted))

    def _judge(self, cell: Cell) -> None:
        command = ["accuracy", cell.model, cell.target, str(cell.artefact), str(cell.fp32.artefact)]
        sha = cell.read("compile")["sha256"]
        _keep(cell, "accuracy", {**fresh(_child(command), self.environment), "sha256": sha})

    def latency(self, model: str, anew: bool) -> None:
        """Time a model's artefacts in turns: a ratio holds only between artefacts of the same run."""
        cells = [cell for cell in self.cells(model) if cell.exists]
        if not anew and all(cell.file("latency").exists() for cell in cells):
            return
        feed = self._feed(model)
        found: dict[Cell, list[Row]] = {cell: [] for cell in cells}
        for index in range(self.rounds):
            threads = THREADS if index % 2 == 0 else tuple(reversed(THREADS))
            for cell in cells if index % 2 == 0 else list(reversed(cells)):
                command = ["latency", cell.target, str(cell.artefact), str(feed), *threads]
                found[cell].append(fresh(_child(command), self.environment))
        for cell, rows in found.items():
            wrong = next((row for row in rows if "error" in row), None)
            _keep(cell, "latency", wrong or {"rounds": [row["p50_ms"] for row in rows]})

    def _feed(self, model: str) -> Path:
        path = self.folder / model / "feed.npz"
        if not path.exists():
            np.savez(path, **MODELS[model]().feed())
        return path


def _child(arguments: list[str]) -> list[str]:
    return [sys.executable, str(CHILD), *arguments]


def _keep(cell: Cell, stage: str, row: Row) -> None:
    """Keep a result; a failure is only shown, so that the next run tries again."""
    said = row.get("error") or row.get("refused") or "done"
    print(f"{cell.model} {cell.target} {cell.scheme} {stage}: {said}", file=sys.stderr, flush=True)
    if "error" not in row:
        cell.write(stage, row)


def rows(run: Run, model: str) -> Iterator[str]:
    """The Markdown rows of one model."""
    for target in run.targets:
        cells = [Cell(run.folder, model, target, scheme) for scheme in run.schemes]
        for sentence, schemes in _refusals(cells).items():
            yield f"| {model} | {target} | {', '.join(schemes)} | refused: {sentence} |"
        for cell in cells:
            if cell.exists:
                yield _row(cell)


def _refusals(cells: list[Cell]) -> dict[str, list[str]]:
    """Schemes by the sentence that refuses them."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if sentence := cell.read("compile").get("refused"):
            found.setdefault(sentence.replace(f"{DATA}/models/", ""), []).append(cell.scheme)
    return found


def _row(cell: Cell) -> str:
    compiled, judged = cell.read("compile"), cell.read("accuracy")
    cells = [cell.model, cell.target, cell.scheme]
    cells += [
        _metric(judged, cell.fp32.read("accuracy")),
        _distance(judged),
        f"{compiled['bytes'] / 1e3:.0f}",
    ]
    for threads in THREADS:
        cells += [_latency(cell, threads), _ratio(cell, threads)]
    cells += [f"{compiled['cpu_seconds']:.1f}", f"{max(compiled['tree_mib'], compiled['process_mib']):.0f}"]
    return "| " + " | ".join(cells) + " |"


def _metric(judged: Row, fp32: Row) -> str:
    """With its difference from FP32 in ONNX Runtime."""
    if not judged or not fp32:
        return ""
    value, reference = judged["value"], fp32["value"]
    if judged["metric"] == "perplexity":
        return f"ppl {value:.2f} ({value / reference:.4f} x)"
    return f"{judged['metric']} {100 * value:.2f} ({100 * (value - reference):+.2f})"


def _distance(judged: Row) -> str:
    """SQNR of the outputs; 200 dB stand for equal ones."""
    return f"{judged['sqnr_db']:.1f}" if judged and judged["sqnr_db"] < 200 else ""


def _rounds(cell: Cell, threads: str) -> list[float]:
    return [found[threads] for found in cell.read("latency").get("rounds", [])]


def _latency(cell: Cell, threads: str) -> str:
    found = _rounds(cell, threads)
    return f"{median(found):.2f}" if found else ""


def _ratio(cell: Cell, threads: str) -> str:
    """Median over the rounds of the latency as a part of FP32's on the same runtime in the same round."""
    own, fp32 = _rounds(cell, threads), _rounds(Cell(cell.folder, cell.model, cell.target, "fp32"), threads)
    if not own or len(own) != len(fp32) or cell.scheme == "fp32":
        return ""
    return f"{median(a / b for a, b in zip(own, fp32, strict=True)):.2f}"


def main() -> None:
    """Measure what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="keeps artefacts and results; outside of the repository")
    parser.add_argument("--only", type=_names, default=tuple(MODELS), help="models")
    parser.add_argument("--targets", type=_names, default=TARGETS)
    parser.add_argument("--schemes", type=_names, default=SCHEMES)
    parser.add_argument("--stages", type=_names, default=STAGES, help="of compile, accuracy, latency")
    parser.add_argument("--again", type=_names, default=(), help="stages to measure anew")
    parser.add_argument("--rounds", type=int, default=3, help="of timing")
    parser.add_argument("--workers", type=int, default=1, help="compiles, or evaluations, at a time")
    parser.add_argument("--page", type=Path, help="a page whose table 'intel' is replaced")
    given = parser.parse_args()
    where = given.folder.resolve()
    run = Run(where, given.only, given.targets, given.schemes, given.rounds, given.workers)
    stages: dict[str, Callable[[str, bool], None]] = {
        "compile": run.compile,
        "accuracy": run.accuracy,
        "latency": run.latency,
    }
    for model in run.models:
        for stage in STAGES:
            if stage in given.stages:
                stages[stage](model, stage in given.again)
    lines = list(page(run))
    print("\n".join(lines))
    if given.page:
        put(given.page, "intel", lines)


def page(run: Run) -> Iterator[str]:
    """The machine, and the table as Markdown."""
    machine = this_machine()
    versions = ", ".join(f"{name} {version}" for name, version in library_versions(LIBRARIES).items())
    yield f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.flags)}; {versions}."
    yield ""
    yield HEADER
    yield "|---" * HEADER.count(" | ") + "|---|"
    for model in run.models:
        yield from rows(run, model)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


if __name__ == "__main__":
    main()
