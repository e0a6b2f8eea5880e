"""The Python API of the linter: what a target would make of a quantized ONNX model, without building."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.compiler.load.onnx_file import read_onnx
from edgeq.compiler.load.source import recognise
from edgeq.compiler.model import Model
from edgeq.compiler.recipe import Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.targets.base import Finding
from edgeq.targets.registry import get_target, target_names

# Findings of these kinds mean that the model does not do what it was quantized for.
FAULTS = ("fails", "wrong", "float")
# A model that is quantized already follows no recipe; options are read without one's limits.
_ANY_RECIPE = Recipe(scheme="int8-static")


@dataclass(frozen=True)
class LintResult:
    """What was found in a model, in the order of its graph."""

    model: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing fails, is wrong, or runs in float although it is quantized."""
        return not any(finding.outcome in FAULTS for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Outcome → number of findings."""
        return dict(Counter(finding.outcome for finding in self.findings))


def lint(model: Path | str, *, target: str, target_options: Mapping[str, str] | None = None) -> LintResult:
    """Find what ``target`` would refuse, run in float or get wrong in the quantized ONNX file ``model``.

    Nothing is built, run or changed, and weights are not read; the file may come from any tool.

    Raises:
        UsageError: an unknown target, or ``model`` is no ONNX file.
        ModelError: the file cannot be read.
        TargetError: the target has no linter.
    """
    chosen = get_target(target)
    options = chosen.options(target_options or {}, _ANY_RECIPE)
    location = recognise(model)
    if location.kind != "onnx":
        raise UsageError(
            f"{location.text} is no ONNX file, and only these are linted.", fix="Export it to ONNX first."
        )
    read = read_onnx(location.path)
    findings = chosen.lint(read, options)
    if findings is None:
        raise TargetError(
            f"The target {target!r} has no linter.", fix=f"Targets with one: {', '.join(_with_linter(read))}."
        )
    return LintResult(str(model), target, tuple(findings))


def _with_linter(model: Model) -> Iterator[str]:
    for name in target_names():
        target = get_target(name)
        if target.capabilities().weights is not None:
            continue
        if target.lint(model, target.options({}, _ANY_RECIPE)) is not None:
            yield name
