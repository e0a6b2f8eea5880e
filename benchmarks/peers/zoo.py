"""Compile every model of the zoo in three schemes on random inputs: does it work, at which SQNR?

    EDGEQ_DATA=../shared/data python benchmarks/peers/zoo.py [--models espcn_op11,…]

The zoo has no data: the benchmark makes random inputs from the declared shapes itself, for calibration
and for comparing. So SQNR here shows numerical agreement on noise, not task accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from zoo_models import random_samples, zoo_models

import edgeq
from edgeq.errors import EdgeqError

SCHEMES = ("int8-static", "int8-dynamic", "int4-weight")


def one(path: Path, scheme: str) -> str:
    """One Markdown row: how it ended, SQNR against FP32, sizes, nodes."""
    inputs = random_samples(path)
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = edgeq.compile(
                path,
                scheme=scheme,
                calibration=inputs,
                evaluation=inputs,
                metrics=["sqnr"],
                budgets=[],
                output=Path(folder) / "out",
                bench=edgeq.BenchOptions(parts=("size", "accuracy")),
            )
            size = result.measurements["size"]
            sqnr = result.measurements.get("sqnr")
            planned = [n for n in result.nodes if n.planned in ("int8", "int4")]
            missed = [n for n in result.nodes if n.missed]
    except EdgeqError as error:
        return f"| {path.stem} | {scheme} | refused: {error} | | | | |"
    shown = f"{sqnr.value:.1f}" if sqnr else "not measured"
    ratio = f"{size.value / (size.baseline or size.value):.2f}"
    seconds = f"{time.perf_counter() - start:.1f}"
    nodes = f"{len(planned)} ({len(missed)} missed)"
    return f"| {path.stem} | {scheme} | compiled | {shown} | {ratio} | {nodes} | {seconds} |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="")
    wanted = parser.parse_args().models
    print("| model | scheme | outcome | SQNR dB | size / FP32 | quantized nodes | seconds |")
    print("|---|---|---|---|---|---|---|")
    for path in zoo_models(wanted):
        for scheme in SCHEMES:
            print(one(path, scheme), flush=True)


if __name__ == "__main__":
    main()
