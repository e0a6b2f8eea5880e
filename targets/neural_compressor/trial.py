"""The process that tries an artefact out: loads the package, runs the samples, tells what ran.

Its standard output is oneDNN's own account of the kernels that it executes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.targets.neural_compressor.process import end_with_parent
from edgeq.targets.neural_compressor.runner import PackageRunner
from edgeq.targets.reference import load_samples, save_samples

# Names between this process and the one that has started it.
RESULTS, TOLD = "results.npz", "told.json"
# What must not be needed to run a package.
COMPILERS = ("neural_compressor", "torchao", "transformers", "torch._inductor", "torch._dynamo")


def main(arguments: Sequence[str]) -> None:
    """``FOLDER WORKING THREADS`` (0: every usable CPU)."""
    folder, working, threads = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    end_with_parent(working)
    told: dict[str, object]
    try:
        with PackageRunner(folder, threads=threads or None) as runner:
            results = [runner.run(sample) for sample in load_samples(folder)]
        save_samples(results, working, RESULTS)
        told = {"compilers": [name for name in COMPILERS if name in sys.modules]}
    except EdgeqError as error:
        told = {"error": error.what, "fix": error.fix, "kind": type(error).__name__}
    (working / TOLD).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
