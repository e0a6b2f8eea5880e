"""Evaluate quantized files of one labelled set against its FP32 model: metric, flips, SQNR, p50 latency.

    python benchmarks/peers/evaluate.py SET FILE.onnx [FILE.onnx ...]

Prints one JSON line per file. Accuracy is given as ONNX Runtime runs the file by default on this CPU, and
with ``session.x64quantprecision=1`` (no saturating int16 sums on x86 without VNNI).
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from labelled import SETS, LabelledSet
from turns import median_ms

from edgeq.targets.onnxruntime.session import session_options

LATENCY_ROUNDS = 60


def session(path: Path, *, precise: bool = False, in_float: bool = False, threads: int = 1) -> Any:
    """An ONNX Runtime CPU session with fixed threads; OpenVINO for its IR (``.xml``).

    ``in_float``: float arithmetic between the roundings of a QDQ model, as the compiler of another target
    has it, instead of ONNX Runtime's integer kernels.
    """
    if path.suffix == ".xml":
        return OpenVino(path)
    options = session_options(threads, in_float=in_float)
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OpenVino:
    """An OpenVINO IR behind the two methods of an ONNX Runtime session that are used here."""

    def __init__(self, path: Path) -> None:
        import openvino

        config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = openvino.compile_model(path, "CPU", config)

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name=port.get_any_name()) for port in self.compiled.inputs]

    def run(self, _names: None, feed: dict[str, Any]) -> list[Any]:
        return [self.compiled(feed)[0]]


def outputs(runner: Any, data: LabelledSet, batch: int = 25) -> np.ndarray[Any, Any]:
    """The first output for all evaluation samples, [samples, classes]."""
    names = {i.name for i in runner.get_inputs()}
    count = len(data.labels)
    parts = [
        runner.run(None, {n: v[i : i + batch] for n, v in data.evaluation.items() if n in names})[0]
        for i in range(0, count, batch)
    ]
    return np.concatenate(parts).reshape(count, -1)


def metric(scores: np.ndarray[Any, Any], data: LabelledSet) -> float:
    """Top-1 accuracy, or binary F1 of class 1."""
    predicted = scores.argmax(1)
    if data.metric == "top1":
        return float((predicted == data.labels).mean())
    hits = int(((predicted == 1) & (data.labels == 1)).sum())
    return 2 * hits / (int((predicted == 1).sum()) + int((data.labels == 1).sum()))


def sqnr(reference: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """Signal-to-quantization-noise ratio in dB."""
    noise = float(((reference - scores) ** 2).sum())
    return float(10 * np.log10(float((reference**2).sum()) / max(noise, 1e-30)))


def latencies(runners: list[Any], data: LabelledSet) -> list[float]:
    """Median latency in ms of one sample, the runners interleaved."""
    names = {i.name for i in runners[0].get_inputs()}
    feed = {n: v[:1] for n, v in data.evaluation.items() if n in names}
    return median_ms([partial(runner.run, None, feed) for runner in runners], LATENCY_ROUNDS)


def main() -> None:
    """Print one JSON line for FP32 and for every file."""
    data = SETS[sys.argv[1]]()
    files = [Path(f) for f in sys.argv[2:]]
    reference = outputs(session(data.model), data)
    runners = [session(data.model), *(session(f) for f in files)]
    for path, runner, latency in zip([data.model, *files], runners, latencies(runners, data), strict=True):
        scores = outputs(runner, data)
        precise = outputs(session(path, precise=True), data)
        row = {
            "set": data.name,
            "file": path.name,
            data.metric: round(100 * metric(scores, data), 2),
            "precise": round(100 * metric(precise, data), 2),
            "flips": int((scores.argmax(1) != reference.argmax(1)).sum()),
            "flips_precise": int((precise.argmax(1) != reference.argmax(1)).sum()),
            "sqnr_db": round(sqnr(reference, scores), 2),
            "sqnr_precise_db": round(sqnr(reference, precise), 2),
            "p50_ms": round(latency, 3),
            "size": path.with_suffix(".bin" if path.suffix == ".xml" else path.suffix).stat().st_size,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
