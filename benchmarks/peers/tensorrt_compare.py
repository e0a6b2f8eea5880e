"""Quantizers for TensorRT beside each other on the labelled sets: one row per set and method.

Each quantizer runs in a process of its own on the same calibration arrays. Every file is judged alike: its
metric in ONNX Runtime on the CPU with float arithmetic between its roundings (no engine runs here), and what
TensorRT's compiler makes of it, by :mod:`tensorrt_engines`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import metric, outputs, session, sqnr
from fresh import fresh
from labelled import SETS, Arrays, LabelledSet
from records import Records, Row
from tensorrt_engines import SM, engine, findings, products

from edgeq.linting import lint

HERE = Path(__file__).parent
MODELOPT = "modelopt-"
HEADER = (
    "| set | quantizer | metric % | flips | dB to FP32 | "
    + " | ".join(f"SM {sm}: INT8/INT4 of all" for sm in SM)
    + " | MB moved | engine kB | file kB | engine s | seconds | peak MiB | of it above data | linter |"
)


def main(description: str, methods: Mapping[str, Sequence[str]]) -> None:
    """Print the table of ``methods`` (set → methods) as Markdown."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(methods), help="labelled sets")
    parser.add_argument("--methods", default="", help="only these")
    parser.add_argument("--json", type=Path, help="rows are kept here and not measured again")
    parser.add_argument("--files", type=Path, help="keep the quantized files in this folder")
    arguments = parser.parse_args()
    wanted = {name for name in arguments.methods.split(",") if name}
    records = Records(arguments.json)
    print(HEADER)
    print("|---" * HEADER.count(" | ") + "|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or Path(folder)
        files.mkdir(parents=True, exist_ok=True)
        for name in arguments.models.split(","):
            for method in (m for m in methods[name] if not wanted or m in wanted):
                found = records.row(f"{name} {method}", lambda n=name, m=method: one(n, m, files))  # type: ignore[misc]
                print(markdown(name, method, found), flush=True)


def one(name: str, method: str, files: Path) -> Row:
    """Quantize by one method, evaluate the file, build its engines."""
    output = files / f"{name}-{method}.onnx"
    cost = _quantize(name, method, output, files)
    if "error" in cost:
        return cost
    data = _set(name)
    reference, scores = _reference(name), outputs(session(output, in_float=True), data)
    engines = [engine(output, _samples(data), sm, files) for sm in SM]
    return {
        **cost,
        "metric": data.metric,
        "fp32": metric(reference, data),
        "quantized": metric(scores, data),
        "flips": int((scores.argmax(1) != reference.argmax(1)).sum()),
        "samples": len(data.labels),
        "sqnr_db": sqnr(reference, scores),
        "file_bytes": output.stat().st_size,
        "engines": engines,
        "lint": _findings(output),
    }


def _findings(path: Path) -> list[tuple[str, str, str]]:
    options = {"sm": ",".join(map(str, SM))}
    found = lint(path, target="tensorrt", target_options=options).findings
    return [(finding.rule, finding.outcome, finding.node) for finding in found]


@cache
def _set(name: str) -> LabelledSet:
    return SETS[name]()


@cache
def _reference(name: str) -> np.ndarray[Any, Any]:
    return outputs(session(_set(name).model), _set(name))


def _samples(data: LabelledSet) -> Iterator[Arrays]:
    yield {name: values[:1] for name, values in data.calibration.items()}


def _quantize(name: str, method: str, output: Path, files: Path) -> Row:
    if not method.startswith(MODELOPT):
        return fresh([sys.executable, str(HERE / "tensorrt_quantizers.py"), method, name, str(output)])
    arrays, data = files / f"{name}.npz", _set(name)
    np.savez(arrays, **data.calibration)
    mode, how = method.removeprefix(MODELOPT).split("-")
    command = [modelopt(), str(HERE / "tensorrt_modelopt_child.py"), str(data.model), str(arrays), mode, how]
    found = fresh([*command, str(output)])
    arrays.unlink()
    return found


def modelopt() -> str:
    """The Python of the virtual environment that Model Optimizer is in."""
    path = os.environ.get("EDGEQ_MODELOPT", "")
    if not Path(path).is_file():
        raise SystemExit("EDGEQ_MODELOPT names no Python; tensorrt_modelopt.py --help says how to make one.")
    return path


def markdown(name: str, method: str, found: Row) -> str:
    """One Markdown row."""
    if "error" in found:
        return f"| {name} | {method} | failed: {found['error']} |"
    engines: list[Row] = found["engines"]
    first = next((e for e in engines if "error" not in e), None)
    cells = [
        name,
        method,
        f"{100 * found['quantized']:.2f} {found['metric']} of {100 * found['fp32']:.2f}",
        f"{found['flips']} of {found['samples']}",
        f"{found['sqnr_db']:.1f}",
        *map(products, engines),
        f"{sum(first['moved'].values()) / 1e6:.2f}" if first else "",
        f"{first['bytes'] / 1e3:.0f}" if first else "",
        f"{found['file_bytes'] / 1e3:.0f}",
        f"{first['seconds']:.1f}" if first else "",
        f"{found['seconds']:.1f}",
        f"{found['process_mib']:.0f}",
        f"{found['peak_mib']:.0f}",
        findings(found["lint"]),
    ]
    return "| " + " | ".join(cells) + " |"
