"""edgeq: one model, every edge target, inside your budgets, with the proof.

import edgeq
result = edgeq.compile("model.onnx", scheme="int8-static", calibration="images/", evaluation="images/",
                       budgets=["size <= 100MB", "top1 >= 99%"])
result.passed, result.folder, result.measurements["top1"]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgeq.api import bench, compile
    from edgeq.benchmarks.options import BenchOptions
    from edgeq.calibration.data import DataOptions
    from edgeq.calibration.preprocess import Preprocessing
    from edgeq.comparison import Comparison
    from edgeq.compiler.recipe import Override, Recipe
    from edgeq.errors import EdgeqError
    from edgeq.language.compare import compare
    from edgeq.language.comparison import LanguageComparison
    from edgeq.linting import LintResult, lint
    from edgeq.result import CompileResult
    from edgeq.several import compile_many

__all__ = [
    "BenchOptions",
    "Comparison",
    "CompileResult",
    "DataOptions",
    "EdgeqError",
    "LanguageComparison",
    "LintResult",
    "Override",
    "Preprocessing",
    "Recipe",
    "__version__",
    "bench",
    "compare",
    "compile",
    "compile_many",
    "lint",
]

# Imported when first used: the command line answers --help without loading ONNX Runtime or numba.
_HOME = {
    "BenchOptions": "edgeq.benchmarks.options",
    "Comparison": "edgeq.comparison",
    "CompileResult": "edgeq.result",
    "DataOptions": "edgeq.calibration.data",
    "EdgeqError": "edgeq.errors",
    "LanguageComparison": "edgeq.language.comparison",
    "LintResult": "edgeq.linting",
    "Override": "edgeq.compiler.recipe",
    "Preprocessing": "edgeq.calibration.preprocess",
    "Recipe": "edgeq.compiler.recipe",
    "bench": "edgeq.api",
    "compare": "edgeq.language.compare",
    "compile": "edgeq.api",
    "compile_many": "edgeq.several",
    "lint": "edgeq.linting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
