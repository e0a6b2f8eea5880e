"""The Core ML interpreter's time beside ONNX Runtime's on the same inputs, threads and machine.

    python benchmarks/peers/coreml_interpreter.py model.onnx … [--batch 1] [--threads 1] [--size name=64]

Every model is lowered and written as a package in float32 and in float16; ONNX Runtime runs the FP32 model
with its default optimizations. The runs alternate (interpreter, ONNX Runtime, interpreter, …) and the
medians are compared. Arrays are random: times do not depend on them here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from labelled import Arrays
from threadpoolctl import threadpool_limits

from edgeq.calibration.random_inputs import random_inputs
from edgeq.compiler.load import load
from edgeq.compiler.model import Model
from edgeq.compiler.normalize import normalize
from edgeq.errors import EdgeqError
from edgeq.targets.coreml.dynamic import resolve_dimensions
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.runner import InterpreterRunner
from edgeq.targets.dimensions import Dimension

IOS = 18


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds, and the largest difference relative to ONNX Runtime's largest number."""

    arithmetic: str
    ours: float
    theirs: float
    difference: float

    def __str__(self) -> str:
        ratio = self.ours / self.theirs
        return (
            f"{self.arithmetic} | {self.ours:.2f} | {self.theirs:.2f} | {ratio:.2f} | {self.difference:.1e}"
        )


def main() -> None:
    arguments = _arguments()
    sizes = {name: int(size) for name, _, size in (text.partition("=") for text in arguments.size)}
    print(f"batch {arguments.batch}, {arguments.threads} thread(s), ONNX Runtime {onnxruntime.__version__}\n")
    print("| model | arithmetic | interpreter ms | ONNX Runtime ms | ratio | difference |")
    print("|---|---|---|---|---|---|")
    for path in arguments.models:
        try:
            for row in rows(path, arguments.batch, sizes, arguments.threads, arguments.repeats):
                print(f"| {path.stem} | {row} |", flush=True)
        except EdgeqError as error:
            print(f"| {path.stem} | {error} |", flush=True)


def rows(path: Path, batch: int, sizes: Mapping[str, int], threads: int, repeats: int) -> list[Row]:
    """One row per arithmetic."""
    model = normalize(load(path)).model
    dimensions = _dimensions(model, batch, sizes)
    dims = {name: dimension.initial for name, dimension in dimensions.items()}
    inputs = dict(random_inputs(model.inputs, seed=0, dims=dims))
    session = _session(model, threads)
    found = []
    for arithmetic in ("float32", "float16"):
        with tempfile.TemporaryDirectory() as folder, threadpool_limits(threads):
            package = Path(folder) / "model.mlpackage"
            lowered = lower(model, ios=IOS, dimensions=dimensions)
            write_package(lowered, package, ios=IOS, arithmetic=arithmetic)
            runner = InterpreterRunner(package)
            ours, theirs = alternately(
                lambda runner=runner: runner.run(inputs), lambda: session.run(None, inputs), repeats
            )
            names = [output.name for output in session.get_outputs()]
            wanted = dict(zip(names, session.run(None, inputs), strict=True))
            found.append(Row(arithmetic, ours, theirs, difference(runner.run(inputs), wanted)))
    return found


def alternately(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median milliseconds of both, after two runs that are not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 2):
        for run, taken in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[0][2:])), float(np.median(times[1][2:]))


def difference(found: Arrays, wanted: Arrays) -> float:
    """Largest difference of any output, relative to its largest number."""
    return max(
        float(np.abs(found[name].astype(np.float64) - array).max(initial=0))
        / max(1e-12, float(np.abs(array.astype(np.float64)).max(initial=0)))
        for name, array in wanted.items()
    )


def _dimensions(model: Model, batch: int, sizes: Mapping[str, int]) -> dict[str, Dimension]:
    given = {name: Dimension(size, size) for name, size in sizes.items()}
    known = {size for spec in model.inputs for size in spec.shape or ()}
    given = {name: dimension for name, dimension in given.items() if name in known}
    chosen, _ = resolve_dimensions(model, given)
    return {name: d if name in given else Dimension(batch, batch) for name, d in chosen.items()}


def _session(model: Model, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    content = ir.to_proto(model.ir).SerializeToString()
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--batch", type=int, default=1, help="size of a dynamic batch dimension")
    parser.add_argument("--size", action="append", default=[], help="NAME=SIZE of another dynamic dimension")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    main()
