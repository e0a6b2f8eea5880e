"""INT8 static for Core ML on every labelled set, and FP16 conversion beside onnxsim's: two Markdown tables.

    EDGEQ_DATA=../shared/data python benchmarks/peers/coreml_models.py [--sets kws,vww] [--samples N] [--json]

Every compilation and conversion runs in a fresh process. The package is evaluated by the interpreter with
float16 rounding as on the device; FP32 is ONNX Runtime. ``--samples`` evaluates on so many samples, spread
over the set. Peak memory is that of the process until its package is verified, before the evaluation.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fresh import fresh, peak_mib
from labelled import SETS

# The sizes that the peer's conversion and ours are given; batch is 1.
SIZES = {"minilm-sst2": {"sequence_length": 64}}
CONVERTED = ("squeezenet-ts11", "resnet20", "minilm-sst2")
CONVERTERS = ("edgeq", "onnxsim")


# --- in a process of its own --------------------------------------------------------------------------------


def compile_set(name: str, samples: int | None, folder: Path) -> dict[str, Any]:
    """Compile one set to INT8 and evaluate the package."""
    import edgeq

    data = SETS[name]()
    options = {f"dimension.{axis}": str(size) for axis, size in SIZES.get(name, {}).items()}
    start = time.perf_counter()
    result = edgeq.compile(
        data.model,
        target="coreml",
        scheme="int8-static",
        calibration=data.calibration,
        target_options=options,
        output=folder / "out",
        bench=None,
    )
    seconds, peak = time.perf_counter() - start, peak_mib()
    checks = {check.name: check.found for check in result.manifest.checks}
    found = edgeq.bench(
        result.folder,
        evaluation=data.labelled_evaluation(samples),
        metrics=[data.metric, "sqnr"],
        options=edgeq.BenchOptions(parts=("size", "accuracy")),
    ).measurements
    accuracy, size = found[data.metric], found["size"]
    return {
        "metric": data.metric,
        "fp32": accuracy.baseline,
        "package": accuracy.value,
        "samples": accuracy.detail["samples"],
        "flips": accuracy.detail["flips"]["changed"],
        "sqnr_db": found["sqnr"].value,
        "float32": checks["float32 numbers"],
        "float16": checks["float16 numbers"],
        "bytes": size.value,
        "ratio": size.value / (size.baseline or size.value),
        "missed": len(result.manifest.missed),
        "seconds": seconds,
        "peak_mib": peak,
    }


def convert_by_edgeq(name: str, _samples: int | None, folder: Path) -> dict[str, Any]:
    """Load, normalize, lower and write in float16, without verification."""
    from edgeq.compiler.load import load
    from edgeq.compiler.normalize import normalize
    from edgeq.targets.coreml.dynamic import resolve_dimensions
    from edgeq.targets.coreml.frontend.lower import lower
    from edgeq.targets.coreml.options import CoreMLOptions
    from edgeq.targets.coreml.package.write import write_package
    from edgeq.targets.coreml.toolkit import coremltools
    from edgeq.targets.dimensions import Dimension

    coremltools()

    def run(path: Path) -> None:
        model = normalize(load(path)).model
        fixed = {axis: Dimension(size, size) for axis, size in SIZES.get(name, {}).items()}
        dimensions, _ = resolve_dimensions(model, fixed)
        lowered = lower(model, ios=16, dimensions=dimensions)
        options = CoreMLOptions(dimensions=dimensions)
        write_package(lowered, folder / "model.mlpackage", ios=16, options=options)

    return _converted(name, run, folder)


def convert_by_onnxsim(name: str, _samples: int | None, folder: Path) -> dict[str, Any]:
    """``onnxsim.simplify`` and ``onnxsim.export_coreml`` in float16."""
    import coremltools as ct
    import onnx
    import onnxsim

    def run(path: Path) -> None:
        model = onnx.load(path)
        shapes = {port.name: _shape(port, name) for port in model.graph.input}
        model, _ = onnxsim.simplify(model, overwrite_input_shapes=shapes)
        package = onnxsim.export_coreml(
            model, minimum_deployment_target=ct.target.iOS16, compute_precision=ct.precision.FLOAT16
        )
        package.save(str(folder / "model.mlpackage"))

    return _converted(name, run, folder)


def _shape(port: Any, name: str) -> list[int]:
    sizes = {"sequence_length": 1, **SIZES.get(name, {})}
    return [axis.dim_value or sizes.get(axis.dim_param, 1) for axis in port.type.tensor_type.shape.dim]


def _converted(name: str, run: Callable[[Path], None], folder: Path) -> dict[str, Any]:
    """Time and memory of ``run`` after its imports, and the package's size."""
    path = SETS[name]().model
    before, start = peak_mib(), time.perf_counter()
    run(path)
    seconds, peak = time.perf_counter() - start, peak_mib()
    package = folder / "model.mlpackage"
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    return {"seconds": seconds, "imported_mib": before, "peak_mib": peak, "bytes": size}


JOBS: dict[str, Callable[[str, int | None, Path], dict[str, Any]]] = {
    "compile": compile_set,
    "edgeq": convert_by_edgeq,
    "onnxsim": convert_by_onnxsim,
}


# --- the tables ---------------------------------------------------------------------------------------------


def in_its_own_process(job: str, name: str, samples: int | None) -> dict[str, Any]:
    """Run one job in a process of its own; a failure is recorded in words."""
    command = [sys.executable, __file__, "--job", job, "--sets", name]
    command += ["--samples", str(samples)] if samples else []
    return {"set": name, "job": job, **fresh(command)}


def accuracy_row(found: dict[str, Any]) -> str:
    """One Markdown row of the accuracy table."""
    if "error" in found:
        return f"| {found['set']} | failed: {found['error']} |"
    missed = f" ({found['missed']} nodes in float)" if found["missed"] else ""
    cells = [
        found["set"] + missed,
        f"{100 * found['fp32']:.2f} {found['metric']}",
        f"{100 * found['package']:.2f}",
        f"{found['flips']} of {found['samples']}",
        found["float32"].removesuffix(" on 2 random inputs").partition(" to ONNX Runtime on")[0],
        found["float16"].partition(" to ONNX")[0],
        f"{found['sqnr_db']:.1f}",
        f"{found['bytes'] / 1000:.0f}",
        f"{found['ratio']:.2f}",
        f"{found['seconds']:.1f}",
        f"{found['peak_mib']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def conversion_row(found: dict[str, Any]) -> str:
    """One Markdown row of the conversion table."""
    if "error" in found:
        return f"| {found['set']} | {found['job']} | failed: {found['error']} |"
    cells = (found["set"], found["job"], f"{found['seconds']:.2f}", f"{found['peak_mib']:.0f}")
    more = (f"{found['peak_mib'] - found['imported_mib']:.0f}", f"{found['bytes'] / 1000:.0f}")
    return "| " + " | ".join(cells + more) + " |"


def print_tables(names: list[str], samples: int | None, as_json: bool) -> None:
    """Rows as they are made: first accuracy of INT8, then conversion to FP16."""
    if not as_json:
        print(
            "| set | FP32 % | package % | flips | float32 difference | float16 to INT8 model | "
            "dB to FP32 | kB | ratio | seconds | peak MiB |\n|---|---|---|---|---|---|---|---|---|---|---|"
        )
    for name in names:
        found = in_its_own_process("compile", name, samples)
        print(json.dumps(found) if as_json else accuracy_row(found), flush=True)
    if not as_json:
        print("\n| set | FP16 by | seconds | peak MiB | above imports MiB | kB |\n|---|---|---|---|---|---|")
    for name in (name for name in names if name in CONVERTED):
        for converter in CONVERTERS:
            found = in_its_own_process(converter, name, None)
            print(json.dumps(found) if as_json else conversion_row(found), flush=True)


def main() -> None:
    """Print the tables, or be one of their processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--samples", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is None:
        print_tables(arguments.sets.split(","), arguments.samples, arguments.json)
        return
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        found = JOBS[arguments.job](arguments.sets, arguments.samples, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
