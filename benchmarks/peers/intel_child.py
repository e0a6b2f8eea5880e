"""One measurement of one artefact in this process, for ``intel.py``; prints one JSON line.

    python benchmarks/peers/intel_child.py compile MODEL TARGET SCHEME FOLDER
    python benchmarks/peers/intel_child.py accuracy MODEL TARGET FOLDER FP32_FOLDER
    python benchmarks/peers/intel_child.py latency TARGET FOLDER FEED.npz THREADS…

Accuracy is of every sample, one by one, with one thread.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from fresh import cpu_seconds, peak_mib

WARM_UP_SECONDS, SECONDS, RUNS = 0.1, 0.4, 20


def compile_(name: str, target: str, scheme: str, folder: str) -> dict[str, Any]:
    """Seconds and memory of ``edgeq.compile``, or the sentence that refuses it."""
    from intel_models import MODELS

    import edgeq

    data = MODELS[name]()
    before = peak_mib()
    start, cpu = time.perf_counter(), cpu_seconds()
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
    found = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu}
    found |= {"process_mib": peak_mib(), "before_mib": before}
    manifest = result.manifest
    digest = sha256("".join(entry.sha256 for entry in manifest.files).encode()).hexdigest()
    return {**found, "bytes": manifest.size, "sha256": digest, "missed": len(manifest.missed)}


def accuracy(name: str, target: str, folder: str, baseline: str) -> dict[str, Any]:
    """The metric on all samples one by one, and the distance of the outputs from FP32's in ONNX Runtime."""
    from intel_models import MODELS
    from judging import judged

    return judged(_run(target, folder), _run("onnxruntime", baseline), MODELS[name]())


def _run(target: str, folder: str) -> Callable[[dict[str, Any]], Any]:
    """The first output of the artefact's runner; inputs that it has not are left out."""
    runner = _open(target, folder, threads=1)
    names = [spec.name for spec in runner.inputs]
    output = runner.outputs[0].name
    return lambda sample: runner.run({name: sample[name] for name in names})[output]


def _open(target: str, folder: str, threads: int) -> Any:
    from edgeq.targets.registry import get_target

    return get_target(target).runner(Path(folder), threads=threads)


def latency(target: str, folder: str, feed: str, *threads: str) -> dict[str, Any]:
    """Median milliseconds of one sample by number of threads."""
    arrays = dict(np.load(feed))
    found = {}
    for count in threads:
        runner = _open(target, folder, int(count))
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
