"""The fresh process that loads a model and runs it: ``python -m edgeq.benchmarks.worker REQUEST RESULT``.

Both arguments are paths of JSON files. The modules named in the request are imported first, so that neither
the load time nor the memory contains the runtime's own code.
"""

from __future__ import annotations

import gc
import json
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edgeq.benchmarks.subject import Subject
from edgeq.calibration.types import Array
from edgeq.errors import EdgeqError
from edgeq.memory import peak_bytes, reset_peak


def main(arguments: list[str]) -> None:
    """Do what the request says and write the result, or the error, to the result file."""
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        result = measure_here(request)
    except EdgeqError as error:
        result = {"error": error.what, "fix": error.fix, "kind": type(error).__name__}
    Path(arguments[1]).write_text(json.dumps(result), encoding="utf-8")


def measure_here(request: dict[str, Any]) -> dict[str, Any]:
    """Load and run in this process.

    Returns:
        ``load`` and ``first_run`` in seconds; ``peak``: bytes above the resident set before loading;
        ``peak_process``: bytes of the whole process; ``modules``: what loading and running imported.
    """
    _import_all(request["modules"])
    subject = Subject(request["target"], Path(request["path"]), threads=request["threads"])
    inputs = load_inputs(Path(request["inputs"]))
    known = set(sys.modules)
    gc.collect()
    before, imports_peak = reset_peak()
    begin = perf_counter()
    runner = subject.open()
    loaded = perf_counter()
    runner.run(inputs)
    ran = perf_counter()
    for _ in range(request["runs"] - 1):
        runner.run(inputs)
    peak = peak_bytes()
    runner.close()
    return {
        "load": loaded - begin,
        "first_run": ran - loaded,
        "peak": max(peak - before, 0),
        "peak_process": max(peak, imports_peak),
        "modules": sorted(set(sys.modules) - known),
    }


def _import_all(modules: list[str]) -> None:
    for name in modules:
        # Some modules are made by others and cannot be imported by name.
        with suppress(ImportError):
            import_module(name)


def save_inputs(path: Path, inputs: dict[str, Array]) -> None:
    """Write arrays to an ``.npz`` without pickle; strings (dtype object) as fixed-width text.

    Arrays are stored by position, since input names may hold any character.
    """
    arrays = [array.astype(np.str_) if array.dtype == object else array for array in inputs.values()]
    names = np.array(list(inputs), dtype=np.str_)
    np.savez(path, *arrays, names=names)


def load_inputs(path: Path) -> dict[str, Array]:
    """The inverse of :func:`save_inputs`."""
    with np.load(path, allow_pickle=False) as file:
        found = {str(name): file[f"arr_{i}"] for i, name in enumerate(file["names"])}
    return {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in found.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
