"""Neural Compressor's own quantization beside edgeq's on the same runtime: one row per model and method.

    EDGEQ_DATA=../shared/data python benchmarks/peers/torch_quantizers.py [--only digits] [--json OUT.jsonl]

Its own flow is the documented one (``StaticQuantConfig`` with ``minmax`` or ``kl``; ``DynamicQuantConfig``
without any forward), on the same model and the same calibration arrays. ``start`` is loading the artefact
and its first inference: with ``torch.compile`` what Neural Compressor saves is compiled at every start.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from page_tables import put
from process_tree import fresh_tree
from records import Records, Row
from torch_models import INPUTS

CHILD = Path(__file__).with_name("torch_quantizers_child.py")
ROOT = CHILD.parents[2]
STATIC = ("inc-minmax", "inc-kl", "edgeq-percentile", "edgeq-mse", "edgeq-entropy", "edgeq-auto")
METHODS = (*STATIC, "inc-dynamic", "edgeq-dynamic")
HEADER = (
    "| model | method | metric | dB to FP32 | kB | made CPU s | start CPU s | MiB | ms, 1 thread | x eager |"
)


def one(name: str, method: str) -> Row:
    """Quantize and measure in a process of its own, without the caches of PyTorch's compiler."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache",
            # Compilers that live on in a pool have CPU seconds that nobody can read.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        command = [sys.executable, str(CHILD), name, method, f"{folder}/artefact"]
        return fresh_tree(command, environment, ROOT)


def markdown(name: str, method: str, row: Row) -> str:
    """One Markdown row."""
    if "error" in row:
        return f"| {name} | {method} | failed: {row['error']} |"
    scale = 1 if row["metric"] == "perplexity" else 100
    cells = [
        name,
        method,
        f"{row['metric']} {scale * row['value']:.2f}",
        f"{row['sqnr_db']:.1f}",
        f"{row['bytes'] / 1e3:.0f}",
        f"{row['cpu_seconds']:.1f}",
        f"{row['start_cpu_seconds']:.1f}",
        f"{max(row['tree_mib'], row['process_mib']):.0f}",
        f"{row['p50_ms']:.2f}",
        f"{row['p50_ms'] / row['eager_ms']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(INPUTS), help="models")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--json", type=Path, help="rows are kept here and not measured again")
    parser.add_argument("--page", type=Path, help="a page whose table 'inc' is replaced")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    given = parser.parse_args()
    records = Records(given.json)
    cells = [(name, method) for name in given.only.split(",") for method in given.methods.split(",")]

    def measured(cell: tuple[str, str]) -> str:
        line = markdown(*cell, records.row(" ".join(cell), lambda: one(*cell)))
        print(line, file=sys.stderr, flush=True)
        return line

    with ThreadPoolExecutor(given.workers) as pool:
        lines = [HEADER, "|---" * HEADER.count(" | ") + "|---|", *pool.map(measured, cells)]
    print("\n".join(lines))
    if given.page:
        put(given.page, "inc", lines)


if __name__ == "__main__":
    main()
