"""Compile every model of the zoo for Core ML in three schemes: verified, or refused for which reason.

    EDGEQ_DATA=../shared/data python benchmarks/peers/coreml_zoo.py [--models espcn_op11,…] [--schemes fp16]

No data is needed: the packages are verified on random inputs against ONNX Runtime, as ``edgeq compile`` does
it. float32 is the largest difference of the package's program without float16 rounding.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from zoo_models import target_options, with_character_model

import edgeq
from edgeq.errors import EdgeqError

SCHEMES = ("fp16", "int8-weight", "int4-weight")


def one(path: Path, scheme: str) -> tuple[str, str]:
    """How it ended (``verified`` or ``refused``), and a Markdown row."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = edgeq.compile(
                path,
                target="coreml",
                scheme=scheme,
                target_options=target_options(path),
                output=Path(folder) / "out",
                bench=None,
            )
        except EdgeqError as error:
            outcome = "not verified" if "does not verify" in str(error) else "refused"
            return outcome, f"| {path.stem} | {scheme} | {outcome}: {error} | | | | |"
        size = result.manifest.size
    seconds = time.perf_counter() - start
    checks = {check.name: check.found for check in result.manifest.checks}
    exact = checks["float32 numbers"].partition(" on ")[0].removeprefix("largest difference ")
    half = checks["float16 numbers"].partition(" to ONNX")[0]
    explained = checks["float32 numbers"].partition("; ")[2]
    cells = (exact + (f"; {explained}" if explained else ""), half, f"{size / path.stat().st_size:.2f}")
    return "verified", f"| {path.stem} | {scheme} | verified | {' | '.join(cells)} | {seconds:.1f} |"


def main() -> None:
    """Print the table and the counts as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="")
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[tuple[str, str]] = Counter()
    print("| model | scheme | outcome | float32 difference | float16 | size / ONNX file | seconds |")
    print("|---|---|---|---|---|---|---|")
    for path in with_character_model(arguments.models):
        for scheme in arguments.schemes.split(","):
            outcome, row = one(path, scheme)
            counts[scheme, outcome] += 1
            print(row, flush=True)
    print()
    for (scheme, outcome), count in counts.items():
        print(f"- {scheme}: {count} {outcome}")


if __name__ == "__main__":
    main()
