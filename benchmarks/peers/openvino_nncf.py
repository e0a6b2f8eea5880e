"""INT8 on OpenVINO through the tool: edgeq's quantizer beside NNCF's (``-O quantizer=nncf``), as a table.

    EDGEQ_DATA=../shared/data python benchmarks/peers/openvino_nncf.py FOLDER [--sets kws,vww]

Both have the same calibration arrays and samples. Every compile is a process of its own; artefacts of a
set are evaluated on every sample and timed in turns, in one process with one thread. Artefacts and what
their compiles took are kept in FOLDER and not made again. ``--scheme int8-weight`` compares that scheme.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import metric, sqnr
from fresh import fresh, peak_mib
from labelled import SETS, LabelledSet
from turns import median_ms

METHODS = {
    "edgeq": {},
    "nncf": {"target_options": {"quantizer": "nncf"}},
    "nncf-saturating": {"target_options": {"quantizer": "nncf"}, "recipe": {"saturation_safe": False}},
}
ROUNDS, WARM_UP = 200, 10
BATCH = 25
HEADER = (
    "| set | quantizer | metric % | flips | SQNR dB | p50 ms | x FP32 | kB | compile s | peak MiB |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def compile_(name: str, scheme: str, method: str, folder: str) -> dict[str, Any]:
    """Seconds and peak memory of one ``edgeq.compile``, or the sentence that refuses it."""
    import edgeq
    from edgeq.compiler.recipe import Recipe

    data, chosen = SETS[name](), METHODS.get(method, {})
    start = time.perf_counter()
    try:
        edgeq.compile(
            data.model,
            target="openvino",
            recipe=Recipe(scheme=scheme, **chosen.get("recipe", {})),  # type: ignore[arg-type]
            target_options=chosen.get("target_options"),
            calibration=data.calibration if scheme == "int8-static" else None,
            output=Path(folder).with_name(Path(folder).name.removesuffix("-openvino")),
            force=True,
            threads=1,
            bench=None,
        )
    except edgeq.EdgeqError as error:
        return {"refused": error.what}
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}


def evaluate(name: str, *folders: str) -> list[dict[str, Any]]:
    """One row per artefact, FP32's first: metric, flips, distance, latency, bytes."""
    from edgeq.targets.openvino.runner import OpenVINORunner

    data = SETS[name]()
    runners = [OpenVINORunner(Path(folder), threads=1) for folder in folders]
    scores = [_scores(runner, data) for runner in runners]
    times = _interleaved(runners, data)
    return [
        {
            "metric": 100 * metric(found, data),
            "flips": int((found.argmax(1) != scores[0].argmax(1)).sum()),
            "sqnr_db": sqnr(scores[0], found),
            "p50_ms": taken,
            "bytes": sum((Path(folder) / file).stat().st_size for file in ("model.xml", "model.bin")),
        }
        for folder, found, taken in zip(folders, scores, times, strict=True)
    ]


def _feed(runner: Any, data: LabelledSet, first: int, last: int) -> dict[str, Any]:
    return {spec.name: data.evaluation[spec.name][first:last] for spec in runner.inputs}


def _scores(runner: Any, data: LabelledSet) -> np.ndarray[Any, Any]:
    """The first output for every sample, [samples, classes]; models with a fixed batch take one at a time."""
    count, output = len(data.labels), runner.outputs[0].name
    step = BATCH if all(spec.shape and spec.shape[0] is None for spec in runner.inputs) else 1
    parts = [runner.run(_feed(runner, data, i, i + step))[output] for i in range(0, count, step)]
    return np.concatenate(parts).reshape(count, -1)


def _interleaved(runners: list[Any], data: LabelledSet) -> list[float]:
    calls = [partial(runner.run, _feed(runner, data, 0, 1)) for runner in runners]
    return median_ms(calls, ROUNDS, WARM_UP)


def one_set(name: str, scheme: str, kept: Path) -> Iterator[str]:
    """The rows of one labelled set; a method that is refused says why."""
    costs, folders = {}, {}
    for method in ("fp32", *METHODS):
        folder = kept / f"{name}-{method if method == 'fp32' else f'{scheme}-{method}'}-openvino"
        record = folder.with_suffix(".json")
        if not record.exists():
            asked = "fp32" if method == "fp32" else scheme
            found = fresh([sys.executable, __file__, "--child", "compile", name, asked, method, str(folder)])
            record.write_text(json.dumps(found))
        costs[method] = json.loads(record.read_text())
        if "seconds" in costs[method]:
            folders[method] = str(folder)
        else:
            yield f"| {name} | {method} | {costs[method].get('refused') or costs[method]['error']} |"
    found = fresh([sys.executable, __file__, "--child", "evaluate", name, *folders.values()])
    for method, row in zip(folders, found["rows"], strict=True):
        yield _row(name, method, row, found["rows"][0], costs[method])


def _row(name: str, method: str, row: dict[str, Any], fp32: dict[str, Any], cost: dict[str, Any]) -> str:
    cells = [name, method, f"{row['metric']:.2f}", str(row["flips"])]
    cells += [f"{row['sqnr_db']:.1f}" if method != "fp32" else "", f"{row['p50_ms']:.2f}"]
    cells += [f"{row['p50_ms'] / fp32['p50_ms']:.2f}", f"{row['bytes'] / 1000:.0f}"]
    cells += [f"{cost['seconds']:.1f}", f"{cost['peak_mib']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--scheme", default="int8-static")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(HEADER)
    for name in arguments.sets.split(","):
        for line in one_set(name, arguments.scheme, arguments.folder):
            print(line, flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    if sys.argv[1] == "--child":
        job, *given = sys.argv[2:]
        print(json.dumps(compile_(*given) if job == "compile" else {"rows": evaluate(*given)}))
    else:
        main()
