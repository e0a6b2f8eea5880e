"""Compile every model of the zoo for TensorRT: built with which precisions, or refused for which reason.

    EDGEQ_DATA=../shared/data python benchmarks/peers/tensorrt_zoo.py [--models espcn_op11,…]
        [--schemes fp16,int8-static] [--json OUT.jsonl]

The zoo has no data. For int8-static the benchmark itself makes random inputs from the declared shapes, which
edgeq never does: that shows what builds and what runs in INT8, not accuracy. The linter reads the ONNX file
that the engine was built from.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from records import Records, Row
from tensorrt_engines import PRODUCTS, findings
from zoo_models import random_samples, target_options, with_character_model

import edgeq
from edgeq.errors import EdgeqError
from edgeq.linting import lint
from edgeq.targets.tensorrt.files import QDQ_MODEL

SCHEMES = ("fp16", "int8-static", "int8-weight", "int4-weight")
SM = "86,120"


def one(path: Path, scheme: str) -> Row:
    """Compile and lint one model; ``refused`` has the reason."""
    samples = random_samples(path) if scheme == "int8-static" else None
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = edgeq.compile(
                path,
                target="tensorrt",
                scheme=scheme,
                calibration=samples,
                target_options={**target_options(path), "sm": SM},
                output=Path(folder) / "out",
                bench=None,
            )
            seconds = time.perf_counter() - start
            found = lint(result.folder / QDQ_MODEL, target="tensorrt", target_options={"sm": SM})
        except EdgeqError as error:
            return {"refused": str(error), "fix": error.fix}
    nodes = [node for node in result.nodes if node.op_type in PRODUCTS]
    return {
        "products": len(nodes),
        "actual": dict(Counter(f"{node.planned} → {node.actual}" for node in nodes)),
        "missed": [(node.name, node.op_type, node.actual, node.reason) for node in result.manifest.missed],
        "lint": [(f.rule, f.outcome, f.node, f.what) for f in found.findings],
        "checks": {check.name: check.found for check in result.manifest.checks},
        "notes": result.manifest.notes,
        "bytes": result.manifest.size,
        "seconds": seconds,
    }


def markdown(path: Path, scheme: str, found: Row) -> str:
    """One Markdown row."""
    if "refused" in found:
        return f"| {path.stem} | {scheme} | refused: {found['refused']} | | | | |"
    kept = {name: count for name, count in found["actual"].items() if not name.startswith("fp")}
    products = ", ".join(f"{count} {name}" for name, count in kept.items()) or "none"
    cells = (
        f"{products}; of {found['products']}",
        str(len(found["missed"])),
        findings(found["lint"]),
        f"{found['bytes'] / 1e3:.0f}",
    )
    return f"| {path.stem} | {scheme} | built | {' | '.join(cells)} | {found['seconds']:.1f} |"


def main() -> None:
    """Print the table and the counts as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="")
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--json", type=Path, help="rows are kept here and not measured again")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    records, counts = Records(arguments.json), Counter[tuple[str, str]]()
    print("| model | scheme | outcome | products: planned → run | missed | linter | engine kB | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for path in with_character_model(arguments.models):
        for scheme in arguments.schemes.split(","):
            found = records.row(f"{path.stem} {scheme}", lambda p=path, s=scheme: one(p, s))  # type: ignore[misc]
            counts[scheme, "refused" if "refused" in found else "built"] += 1
            print(markdown(path, scheme, found), flush=True)
    print()
    for (scheme, outcome), count in counts.items():
        print(f"- {scheme}: {count} {outcome}")


if __name__ == "__main__":
    main()
