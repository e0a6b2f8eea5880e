"""INT8 static, edgeq against ONNX Runtime's quantizer and NNCF, on every labelled set: the accuracy table.

    EDGEQ_DATA=../shared/data python benchmarks/peers/accuracy.py [--sets kws,vww] [--cache DIR]

Each quantizer runs in a process of its own with its defaults, on the same calibration arrays. All results run
on ONNX Runtime CPU with one thread, and latencies of one set are taken interleaved in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fresh import fresh
from labelled import SETS
from quantizers import METHODS

HERE = Path(__file__).parent


def quantize(method: str, name: str, cache: Path) -> dict[str, Any]:
    """Quantize one set by one method; a failure is recorded in words."""
    output = cache / f"{name}-{method}.onnx"
    record = output.with_suffix(".json")
    if record.exists() and method != "edgeq":
        return dict(json.loads(record.read_text()))
    command = [sys.executable, str(HERE / "quantizers.py"), method, name, str(output)]
    result = fresh(command)
    record.write_text(json.dumps(result))
    return result


def file_of(name: str, method: str, cache: Path) -> Path:
    """The quantized file of one method."""
    return cache / f"{name}-{method}.{'xml' if method.endswith('openvino') else 'onnx'}"


def evaluate(name: str, files: list[Path]) -> list[dict[str, Any]]:
    """Metric, flips, SQNR and latency of FP32 (first) and of each file."""
    command = [sys.executable, str(HERE / "evaluate.py"), name, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def row(method: str, result: dict[str, Any], cost: dict[str, Any]) -> str:
    """One Markdown row."""
    metric = result.get("top1", result.get("f1"))
    seconds = f"{cost['seconds']:.1f}" if "seconds" in cost else ""
    peak = f"{cost['peak_mib']:.0f}" if "peak_mib" in cost else ""
    cells = [
        result["set"],
        method,
        f"{metric:.2f}",
        f"{result['precise']:.2f}",
        str(result["flips"]),
        f"{result['sqnr_db']:.1f}" if method != "fp32" else "",
        f"{result['p50_ms']:.2f}",
        f"{result['size'] / 1000:.0f}",
        seconds,
        peak,
    ]
    return "| " + " | ".join(cells) + " |"


def one_set(name: str, methods: list[str], cache: Path) -> list[str]:
    """All rows of one labelled set."""
    costs = {method: quantize(method, name, cache) for method in methods}
    made = [method for method in methods if "error" not in costs[method]]
    results = evaluate(name, [file_of(name, method, cache) for method in made])
    rows = [row("fp32", results[0], {})]
    rows += [row(m, r, costs[m]) for m, r in zip(made, results[1:], strict=True)]
    rows += [f"| {name} | {m} | failed: {costs[m]['error']} |" for m in methods if m not in made]
    return rows


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--cache", type=Path, help="keep the quantized files here; peers are not run again")
    arguments = parser.parse_args()
    cache = arguments.cache or Path(tempfile.mkdtemp())
    cache.mkdir(parents=True, exist_ok=True)
    print(
        "| set | quantizer | metric % | no saturation | flips | SQNR dB | p50 ms | kB | seconds | peak MiB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.sets.split(","):
        for line in one_set(name, arguments.methods.split(","), cache):
            print(line, flush=True)


if __name__ == "__main__":
    main()
