"""Every labelled model for TensorRT by scheme, as a Markdown table: accuracy, and what the compiler chose.

    EDGEQ_DATA=../shared/data python benchmarks/peers/tensorrt_models.py [--models kws,vww]
        [--schemes 'int8-static;int4-weight, 64'] [--samples N] [--json OUT.jsonl]

Every compilation runs in a fresh process; seconds and peak memory are those of the whole ``edgeq compile``
for two compute capabilities, before anything is evaluated. Accuracy is that of the quantized model in ONNX
Runtime on the CPU, against FP32. Then one engine per compute capability is built by itself: size, time and
memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fresh import fresh, peak_mib
from labelled import DATA, SETS, LabelledSet
from records import Records, Row
from tensorrt_engines import SM, built, products

FLOAT = ("fp32", "fp16")
INT4 = {"int4-weight, 128": ("int4-weight", 128), "int4-weight, 64": ("int4-weight", 64)}
SCHEMES: Mapping[str, tuple[str, int | None]] = {
    **{scheme: (scheme, None) for scheme in (*FLOAT, "int8-static", "int8-weight", "fp8-static")},
    **INT4,
}
# FP8 needs Ada or newer.
SM_OF = {"fp8-static": (89, 120)}
ROWS = {
    **dict.fromkeys(SETS, (*FLOAT, "int8-static")),
    "minilm-sst2": tuple(SCHEMES),
    "books-llama": tuple(SCHEMES),
}
HEADER = (
    "| model | scheme | metric | flips | dB | products as planned, SM 86 (FP8: 89) | SM 120 | MB moved "
    "| engine kB | SM 120 | build s | build peak MB | compile s | compile peak MiB |"
)


@dataclass(frozen=True)
class Task:
    """A model with data as the API takes them."""

    model: Path
    calibration: Any
    evaluation: Any
    metric: str
    sizes: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)


def _labelled(data: LabelledSet, samples: int | None) -> Task:
    sizes = {"sequence_length": "64"} if data.name.startswith("minilm") else {}
    return Task(data.model, data.calibration, data.labelled_evaluation(samples), data.metric, sizes)


def _books(_samples: int | None) -> Task:
    return Task(
        DATA / "models" / "books-llama",
        DATA / "text" / "wikitext2-valid.txt",
        DATA / "text" / "books-valid.txt",
        "perplexity",
        sizes={"batch_size": "1", "sequence_length": "1..256@256"},
        reading={"window": 256, "max_tokens": 40_000},
    )


TASKS: dict[str, Callable[[int | None], Task]] = {
    **{name: lambda samples, name=name: _labelled(SETS[name](), samples) for name in SETS},  # type: ignore[misc]
    "books-llama": _books,
}


# --- in a process of its own --------------------------------------------------------------------------------


def measure(name: str, scheme: str, samples: int | None, folder: Path) -> Row:
    """Compile one model by one scheme, evaluate it, build its engines one by one."""
    import edgeq
    from edgeq.calibration.data import DataOptions
    from edgeq.compiler.recipe import Recipe

    task = TASKS[name](samples)
    quantized, block = SCHEMES[scheme]
    sm = SM_OF.get(scheme, SM)
    reading = DataOptions(**task.reading)
    recipe = Recipe(scheme=quantized, **({} if block is None else {"block_size": block}))
    options = {f"dimension.{axis}": sizes for axis, sizes in task.sizes.items()}
    before, start = peak_mib(), time.perf_counter()
    result = edgeq.compile(
        task.model,
        target="tensorrt",
        recipe=recipe,
        calibration=task.calibration if quantized.endswith("static") else None,
        data_options=reading,
        target_options={**options, "sm": ",".join(map(str, sm))},
        output=folder / "out",
        bench=None,
    )
    seconds, peak = time.perf_counter() - start, peak_mib()
    found = edgeq.bench(
        result.folder,
        evaluation=task.evaluation,
        metrics=[task.metric, "sqnr"],
        data_options=reading,
        options=edgeq.BenchOptions(parts=("size", "accuracy")),
    ).measurements
    accuracy = found[task.metric]
    return {
        "metric": task.metric,
        "fp32": accuracy.baseline,
        "quantized": accuracy.value,
        "flips": accuracy.detail.get("flips", {}).get("changed"),
        "samples": accuracy.detail["samples"],
        "sqnr_db": found["sqnr"].value,
        "engine_bytes_all": found["size"].value,
        "missed": [(node.name, node.planned, node.actual) for node in result.manifest.missed],
        "checks": {check.name: check.found for check in result.manifest.checks},
        "notes": result.manifest.notes,
        "seconds": seconds,
        "process_mib": peak,
        "peak_mib": peak - before,
        "engines": [built(result.folder, one, folder) for one in sm],
    }


# --- the table ----------------------------------------------------------------------------------------------


def markdown(name: str, scheme: str, found: Row) -> str:
    """One Markdown row."""
    if "error" in found:
        return f"| {name} | {scheme} | failed: {found['error']} |"
    engines: list[Row] = found["engines"]
    percent = 100 if found["metric"] in ("top1", "f1") else 1
    flips = "" if found["flips"] is None else f"{found['flips']} of {found['samples']}"
    cells = [
        name,
        scheme,
        f"{percent * found['quantized']:.2f} {found['metric']} (FP32 {percent * found['fp32']:.2f})",
        flips,
        f"{found['sqnr_db']:.1f}",
        *map(products, engines),
        f"{sum(engines[0]['moved'].values()) / 1e6:.2f}",
        *(f"{one['bytes'] / 1e3:.0f}" for one in engines),
        f"{engines[0]['seconds']:.1f}",
        f"{engines[0]['peak_mb']:.0f}",
        f"{found['seconds']:.1f}",
        f"{found['process_mib']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def in_its_own_process(name: str, scheme: str, samples: int | None) -> Row:
    """One row; a failure is recorded in words."""
    command = [sys.executable, __file__, "--child", "--models", name, "--schemes", scheme]
    return fresh([*command, *(["--samples", str(samples)] if samples else [])])


def main() -> None:
    """Print the table, or be one of its processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(ROWS))
    parser.add_argument("--schemes", default="", help="';' between them; only these")
    parser.add_argument("--samples", type=int, help="evaluate on so many, spread over the set")
    parser.add_argument("--json", type=Path, help="rows are kept here and not measured again")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as folder:
            found = measure(arguments.models, arguments.schemes, arguments.samples, Path(folder))
        print(json.dumps(found))
        return
    wanted = {scheme for scheme in arguments.schemes.split(";") if scheme}
    records = Records(arguments.json)
    print(HEADER)
    print("|---" * HEADER.count(" | ") + "|---|")
    for name in arguments.models.split(","):
        for scheme in (s for s in ROWS[name] if not wanted or s in wanted):
            found = records.row(
                f"{name} {scheme}",
                lambda n=name, s=scheme: in_its_own_process(n, s, arguments.samples),  # type: ignore[misc]
            )
            print(markdown(name, scheme, found), flush=True)


if __name__ == "__main__":
    main()
