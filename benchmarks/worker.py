"""The fresh process that loads a model and runs it: ``python -m edgeq.benchmarks.worker REQUEST RESULT``.

Both arguments are paths of JSON files. The modules named in the request are imported first, so that neither
the load time nor the memory contains the runtime's own code.
"""

from __future__ import annotations

import gc
import json
import resource
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

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # man 5 proc: resets VmHWM to the current resident set size


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


def reset_peak() -> tuple[int, int]:
    """The resident set now and its peak so far, in bytes; from here on the peak counts anew where it can."""
    peak = peak_bytes()
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    return _status("VmRSS") or peak, peak


def peak_bytes() -> int:
    """The highest resident set size of this process."""
    # ru_maxrss counts from the parent's size at the fork on Linux, so /proc comes first.
    from_status = _status("VmHWM")
    if from_status is not None:
        return from_status
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes (it says kB and means KiB); None where there is no /proc."""
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
