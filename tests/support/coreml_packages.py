"""Models written as packages, and packages run by the interpreter."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.targets.coreml.frontend.lower import lower
from edgeq.targets.coreml.options import Arithmetic, CoreMLOptions, parse_options
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.runner import InterpreterRunner


def package(
    model: Model, path: Path, pairs: dict[str, str] | None = None, *, ios: int = 17, **write: Any
) -> Path:
    """``model`` as package at ``path``, with options as KEY → VALUE."""
    options: CoreMLOptions = parse_options(pairs or {})
    lowered = lower(model, ios=ios, dimensions=options.dimensions)
    arithmetic: Arithmetic = write.pop("arithmetic", "float16")
    write_package(lowered, path, ios=ios, arithmetic=arithmetic, options=options, **write)
    return path


def run_package(path: Path, **inputs: Array) -> list[Array]:
    """The outputs, in the model's order."""
    runner = InterpreterRunner(path)
    found = runner.run(inputs)
    return [found[spec.name] for spec in runner.outputs]


def digests(folder: Path) -> dict[str, str]:
    """Relative path → hash of every file."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
