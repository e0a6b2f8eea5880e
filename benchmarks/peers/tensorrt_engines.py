"""What TensorRT's compiler makes of a QDQ file, whoever wrote it: precisions, bytes moved, size, time.

    python benchmarks/peers/tensorrt_engines.py FILE.onnx … [--sm 86,120]

Nothing is taken from the tool that wrote the file: what was meant to be quantized is read off the file, what
is quantized off the compiler's layer table.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx_ir as ir
from records import Row

from edgeq.calibration.types import Arrays
from edgeq.compiler.load import load
from edgeq.compiler.plan import NodePlan, Plan, Precision
from edgeq.errors import EdgeqError
from edgeq.targets.tensorrt.backend.build import build_engine
from edgeq.targets.tensorrt.backend.request import BuildRequest
from edgeq.targets.tensorrt.files import ENGINE
from edgeq.targets.tensorrt.layers.coverage import coverage
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.layers.quantized import QuantizedGraph
from edgeq.targets.tensorrt.profiles import make_profiles
from edgeq.targets.tensorrt.settings import Settings

SM = (86, 120)
PRODUCTS = ("Conv", "Gemm", "MatMul")


def engine(path: Path, samples: Iterable[Arrays], sm: int, folder: Path) -> Row:
    """Build one engine; profiles are derived from ``samples``, single inferences, as ``edgeq compile`` does.

    A file that the compiler refuses has only ``error``; see :func:`facts` for the others.
    """
    try:
        profiles, _ = make_profiles(load(path), {}, samples)
        return facts(
            BuildRequest(
                backend="tensorrt-rtx", model=path, engine=folder / ENGINE, sm=(sm,), profiles=profiles
            )
        )
    except EdgeqError as error:
        return {"sm": sm, "error": str(error)}


def built(artefact: Path, sm: int, folder: Path) -> Row:
    """Build the engine of an artefact again, for one compute capability."""
    request = Settings.read(artefact).request(artefact, engine=True)
    return facts(request.model_copy(update={"sm": (sm,), "engine": folder / ENGINE}))


def facts(request: BuildRequest) -> Row:
    """Build for one compute capability.

    ``planned``: Conv, Gemm and MatMul nodes whose inputs the file rounds or whose weights it stores in
    integers; ``actual``: precision → how many of all of them; ``moved``: type → bytes read and written.
    """
    report = build_engine(request)
    (sm,) = request.sm
    table, graph = parse_table(report.tables[sm], sm), ir.load(request.model)
    results = node_results([table], graph, Plan(nodes={plan.name: plan for plan in _plans(graph)}))
    found = coverage(table, results)
    return {
        "sm": sm,
        "products": len(results),
        "planned": sum(result.asked for result in results),
        "actual": dict(Counter(result.actual for result in results)),
        "missed": [result.name for result in results if result.missed],
        "moved": found.moved,
        "bytes": report.engine_bytes,
        "seconds": report.seconds,
        "peak_mb": report.peak_mb,
    }


def _plans(graph: ir.Model) -> Iterator[NodePlan]:
    """What the file itself asks for."""
    quantized = QuantizedGraph(graph)
    for name, node in quantized.nodes.items():
        if node.op_type in PRODUCTS:
            stored = {weight.dtype for weight in quantized.stored_weights(node)}
            computed = quantized.computed(node)
            rounded = bool(computed) and all(quantized.rounded(value) is not None for value in computed)
            precision: Precision = "int4" if ir.DataType.INT4 in stored else "int8" if rounded else "fp16"
            yield NodePlan(name, node.op_type, precision, "", rounded or bool(stored))


def products(found: Row) -> str:
    """In words: how many Conv, Gemm and MatMul nodes run quantized, and of how many that were to."""
    if "error" in found:
        return f"refused: {found['error'][:200]}".replace("|", "/")
    actual = found["actual"]
    ours = " + ".join(f"{actual[p]} {p}" for p in ("int8", "fp8", "int4", "int8-weight") if p in actual)
    missed = f" ({len(found['missed'])} missed)" if found["missed"] else ""
    return f"{ours or 'none'} of {found['products']}{missed}"


def findings(found: list[tuple[str, str, str]]) -> str:
    """In words: how many findings of which rule the linter has, from rules and outcomes."""
    counts = Counter(f"{rule} ({outcome})" for rule, outcome, *_ in found)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


def main() -> None:
    """Print one JSON line per file and compute capability."""
    import tempfile

    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--sm", default=",".join(map(str, SM)))
    arguments = parser.parse_args()
    for path in arguments.files:
        for sm in map(int, arguments.sm.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps({"file": path.name, **engine(path, (), sm, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
