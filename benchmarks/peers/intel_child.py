"""One measurement of one artefact in this process, for ``intel.py``; prints one JSON line.

python benchmarks/peers/intel_child.py compile MODEL TARGET SCHEME FOLDER
python benchmarks/peers/intel_child.py accuracy MODEL TARGET FOLDER FP32_FOLDER
python benchmarks/peers/intel_child.py latency TARGET FOLDER FEED.npz THREADS…
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from fresh import peak_mib

WARM_UP_SECONDS, SECONDS, RUNS = 0.2, 0.5, 20


def compile_(name: str, target: str, scheme: str, folder: str) -> dict[str, Any]:
    """Seconds and memory of ``edgeq.compile``, or the sentence that refuses it."""
    from intel_models import MODELS

    import edgeq

    data = MODELS[name]()
    before = peak_mib()
    start, cpu = time.perf_counter(), _cpu_seconds()
    try:
        result = edgeq.compile(
            data.source,
            target=target,
            scheme=scheme,
            calibration=data.calibration if scheme == "int8-static" else None,
            output=Path(folder).with_name(Path(folder).name.removesuffix(f"-{target}")),
            force=True,
            bench=None,
        )
    except edgeq.EdgeqError as error:
        return {"refused": str(error.what), "fix": str(error.fix or "")}
    found = {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu}
    found |= {"process_mib": peak_mib(), "before_mib": before}
    manifest = result.manifest
    digest = sha256("".join(entry.sha256 for entry in manifest.files).encode()).hexdigest()
    return {**found, "bytes": manifest.size, "sha256": digest, "missed": len(manifest.missed)}


def _cpu_seconds() -> float:
    """Of this process and of the ended ones that it started (a C++ compiler)."""
    return sum(os.times()[:4])


def accuracy(name: str, target: str, folder: str, baseline: str) -> dict[str, Any]:
    """The metric on all samples one by one, and the distance of the outputs from FP32's in ONNX Runtime."""
    from intel_models import MODELS

    from edgeq.benchmarks.harness import BenchOptions, Subject, measure
    from edgeq.calibration.data import DataOptions, open_data
    from edgeq.manifest import Manifest

    data = MODELS[name]()
    files = tuple(entry.path for entry in Manifest.read(Path(folder)).files)
    subject = Subject(target, Path(folder), files, threads=1)
    fp32 = Subject("onnxruntime", Path(baseline), ("model.onnx",), threads=1)
    with subject.open() as runner:  # type: ignore[attr-defined]
        inputs = runner.inputs
    names = {spec.name for spec in inputs} | {"label"}
    arrays = {key: values for key, values in data.evaluation.items() if key in names}
    source = open_data(arrays, inputs, options=DataOptions(task=data.task))  # type: ignore[arg-type]
    options = BenchOptions(parts=("accuracy",))
    found = measure(subject, fp32, source=source, metrics=(data.metric, "sqnr"), options=options)
    metric, sqnr = found[data.metric], found["sqnr"]
    return {"metric": data.metric, "value": metric.value, "fp32": metric.baseline, "sqnr_db": sqnr.value}


def latency(target: str, folder: str, feed: str, *threads: str) -> dict[str, Any]:
    """Median milliseconds of one sample by number of threads."""
    from edgeq.targets.registry import get_target

    arrays = dict(np.load(feed))
    found = {}
    for count in threads:
        runner = get_target(target).runner(Path(folder), threads=int(count))
        names = {spec.name for spec in runner.inputs}
        found[count] = _median({name: values for name, values in arrays.items() if name in names}, runner)
        runner.close()
    return {"p50_ms": found}


def _median(feed: dict[str, Any], runner: Any) -> float:
    _times(runner, feed, WARM_UP_SECONDS, 3)
    return 1000 * float(np.median(_times(runner, feed, SECONDS, RUNS)))


def _times(runner: Any, feed: dict[str, Any], seconds: float, runs: int) -> list[float]:
    times: list[float] = []
    while sum(times) < seconds or len(times) < runs:
        start = time.perf_counter()
        runner.run(feed)
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    jobs = {"compile": compile_, "accuracy": accuracy, "latency": latency}
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
