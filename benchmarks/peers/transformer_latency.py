"""Transformers on ONNX Runtime beside OpenVINO: what the target's fusions bring, and where the time goes.

    python benchmarks/peers/transformer_latency.py --models minilm-sst2,books-llama,bert-4 --threads 1,2

All of a model run in turns in one process. "before" is the same recipe with attention in INT8 and nothing
fused by edgeq. Per artefact: the median of the wall clock, that of the CPU time of the process (which other
processes disturb less), and with --nodes the time per op type of ONNX Runtime's own profile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from labelled import DATA, SETS

import edgeq
from edgeq.targets.onnxruntime import build, capabilities
from edgeq.targets.onnxruntime.session import open_session, session_options
from edgeq.targets.registry import get_target

Arrays = dict[str, np.ndarray[Any, Any]]
SEQUENCE = 64


@dataclass(frozen=True)
class Case:
    """A model, what calibrates it, and how many sequences it is timed on at once."""

    model: Path
    calibration: Any
    batch: int = 1
    fixed: bool = False


def _minilm() -> Case:
    labelled = SETS["minilm-sst2"]()
    return Case(labelled.model, labelled.calibration)


def _llama() -> Case:
    return Case(DATA / "models" / "books-llama", DATA / "text" / "books-valid.txt")


def _bert(fixed: bool) -> Case:
    """4 layers of BERT base with random weights, 4 sequences at once."""
    folder = Path(tempfile.gettempdir()) / "edgeq-peers-bert-4"
    if not (folder / "model.onnx").exists():
        _export_bert(folder)
    rng = np.random.default_rng(0)
    shape = (64, SEQUENCE)
    tokens = {
        "input_ids": rng.integers(0, 8000, shape),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    model = folder / "model.onnx"
    return Case(_fixed(model, (4, SEQUENCE)) if fixed else model, tokens, 4, fixed)


def _export_bert(folder: Path) -> None:
    import torch
    import transformers
    from optimum.exporters.onnx import main_export

    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=4, num_labels=3, vocab_size=8000)
    model = transformers.BertForSequenceClassification(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases of zero would be left out
            torch.nn.init.normal_(parameter, float(parameter.mean() > 0.5), 0.05)
    model.save_pretrained(folder)
    main_export(str(folder), folder, task="text-classification", do_validation=False)


def _fixed(model: Path, shape: tuple[int, int]) -> Path:
    """A copy of ``model`` whose inputs have this shape only."""
    import onnx

    proto = onnx.load(model)
    for value in proto.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = size
    path = model.with_name("fixed.onnx")
    onnx.save(proto, path)
    return path


CASES: dict[str, Callable[[], Case]] = {
    "minilm-sst2": _minilm,
    "books-llama": _llama,
    "bert-4": lambda: _bert(fixed=False),
    "bert-4-fixed": lambda: _bert(fixed=True),
}


@contextmanager
def _before() -> Iterator[None]:
    """The target without its fusions, and with attention in INT8."""
    rules = dict(capabilities.CAPABILITIES.int8_static)
    rules["MatMul"] = replace(rules["MatMul"], of_weights=False)
    old = replace(capabilities.CAPABILITIES, int8_static=rules)
    with ExitStack() as stack:
        stack.enter_context(patch.object(capabilities, "CAPABILITIES", old))
        stack.enter_context(patch.object(build, "fuse_kernels", lambda model: model))
        yield


def _compile(case: Case, target: str, scheme: str, output: Path) -> Path:
    calibration = case.calibration if scheme == "int8-static" else None
    return edgeq.compile(
        case.model,
        target=target,
        scheme=scheme,
        calibration=calibration,
        output=output,
        bench=None,
        force=True,
    ).folder


def _artefacts(case: Case, folder: Path) -> dict[str, tuple[str, Path]]:
    """Label → (target, folder)."""
    made = {"FP32": ("onnxruntime", _compile(case, "onnxruntime", "fp32", folder / "fp32"))}
    for scheme in ("int8-static", "int8-dynamic"):
        with _before():
            old = _compile(case, "onnxruntime", scheme, folder / f"{scheme}-before")
        made[f"{scheme} before"] = ("onnxruntime", old)
        made[f"{scheme} after"] = ("onnxruntime", _compile(case, "onnxruntime", scheme, folder / scheme))
    made["OpenVINO int8-static"] = (
        "openvino",
        _compile(case, "openvino", "int8-static", folder / "openvino"),
    )
    return made


def _inputs(specs: list[Any], batch: int) -> Arrays:
    rng = np.random.default_rng(0)
    shape = (batch, SEQUENCE)
    known = {
        "input_ids": rng.integers(5, 1000, shape),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        "position_ids": np.tile(np.arange(SEQUENCE), (batch, 1)),
    }
    return {spec.name: known[spec.name] for spec in specs}


def _time(case: Case, made: dict[str, tuple[str, Path]], threads: int, runs: int) -> dict[str, list[float]]:
    """Label → medians of wall clock and CPU time in ms, runs in turns."""
    runners = {label: get_target(name).runner(path, threads=threads) for label, (name, path) in made.items()}
    feeds = {label: _inputs(runner.inputs, case.batch) for label, runner in runners.items()}
    wall: dict[str, list[float]] = {label: [] for label in runners}
    busy: dict[str, list[float]] = {label: [] for label in runners}
    for turn in range(runs + 3):
        for label, runner in runners.items():
            start, used = time.perf_counter(), time.process_time()
            runner.run(feeds[label])
            if turn >= 3:
                wall[label].append(time.perf_counter() - start)
                busy[label].append(time.process_time() - used)
    return {label: [1e3 * float(np.median(times[label])) for times in (wall, busy)] for label in runners}


def _nodes(path: Path, batch: int, folder: Path) -> dict[str, tuple[int, float]]:
    """Op type → how many kernels, and the sum of their times in ms, by ONNX Runtime's profile."""
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = open_session(path / "model.onnx", options)
    feeds = _inputs(session.get_inputs(), batch)
    for _ in range(30):
        session.run(None, feeds)
    times: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
    counts: Counter[str] = Counter(op for op, _ in times)
    # The lower quartile: what a busy machine adds is no property of the kernel.
    sums = {op: sum(float(np.percentile(t, 25)) for (o, _), t in times.items() if o == op) for op in counts}
    ordered = sorted(sums, key=lambda op: -sums[op])
    return {op: (counts[op], sums[op] / 1e3) for op in ordered}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--nodes", action="store_true", help="time per op type of the ONNX Runtime artefacts")
    arguments = parser.parse_args()
    for name in arguments.models.split(","):
        case = CASES[name]()
        with tempfile.TemporaryDirectory() as kept:
            made = _artefacts(case, Path(kept))
            for threads in map(int, arguments.threads.split(",")):
                print(f"\n{name}, batch {case.batch}, {threads} threads | ms p50 | CPU ms p50")
                for label, (wall, busy) in _time(case, made, threads, arguments.runs).items():
                    print(f"| {label} | {wall:.2f} | {busy:.2f} |", flush=True)
            for label, (target, path) in made.items() if arguments.nodes else ():
                if target == "onnxruntime":
                    print(f"\n{name}, {label}: op type | kernels | ms")
                    for op, (count, ms) in _nodes(path, case.batch, Path(kept)).items():
                        print(f"| {op} | {count} | {ms:.3f} |")


if __name__ == "__main__":
    main()
