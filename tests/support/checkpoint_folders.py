"""Tiny Llamas compiled to folders, and the checks that all formats of folders pass."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.recipe import Override, Recipe
from edgeq.compiler.weights.grid import GridRules
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.result import CompileResult
from edgeq.targets.language.model import build_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.verify import verify
from tests.support.tiny_llama import token_ids


def compiled(model: Path, output: Path, target: str, scheme: str, **arguments: Any) -> CompileResult:
    """The result of compiling for ``target``; nothing is measured.

    ``override``: pattern → precision; ``options``: of the target; ``calibration``: data; the rest: of the
    recipe.
    """
    overrides = tuple(Override(match=m, precision=p) for m, p in arguments.pop("override", {}).items())
    options, calibration = arguments.pop("options", {}), arguments.pop("calibration", None)
    recipe = Recipe(scheme=scheme, overrides=overrides, **arguments)  # type: ignore[arg-type]
    return edgeq.compile(
        str(model),
        target=target,
        recipe=recipe,
        calibration=calibration,
        target_options=options,
        output=output,
        bench=None,
    )


def passed(result: CompileResult) -> bool:
    """Whether the build's checks and those of a second proof hold."""
    again = verify(result.folder)
    return all(check.passed for check in result.manifest.checks) and again.passed and len(again.checks) == 4


def failing(folder: Path) -> list[str]:
    """Names of the checks that fail when the artefact is proved again."""
    return [check.name for check in verify(folder).checks if not check.passed]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest and the report, which hold times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("edgeq.json", "report.html")
    }


def rounded_logits(model: Path, spec: WeightSpec, ids: np.ndarray, **rules: Any) -> np.ndarray:
    """What ``model`` computes with its decoder's matrices rounded to nearest, without any format."""
    checkpoint = Checkpoint(model)

    def read(name: str) -> np.ndarray:
        values = checkpoint.float32(name)
        if values.ndim < 2 or "embed" in name or name.startswith("lm_head"):
            return values
        return quantize_rtn(values, spec, GridRules(**rules)).dequantize()

    module = build_model(model, checkpoint.architecture, list(checkpoint.tensors), read)
    return LanguageRunner(module, threads=1).run({"input_ids": ids})["logits"]


def logits_of(result: CompileResult, ids: np.ndarray) -> np.ndarray:
    """What the target's runner computes of the artefact."""
    from edgeq.targets.registry import get_target

    runner = get_target(result.manifest.target).runner(result.folder, threads=1)
    try:
        return runner.run({"input_ids": ids})["logits"]
    finally:
        runner.close()


IDS = token_ids(2, 24, seed=5)
