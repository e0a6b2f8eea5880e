"""The target ``hf-awq``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Capabilities, Check, NodeResult, Runner, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(bits=(4,), group_sizes=(32, 64, 128), outputs_multiple=8)


class HfAwqTarget(CheckpointTarget):
    """AWQ checkpoint (TGI, vLLM, transformers)."""

    name = "hf-awq"
    title = "AWQ checkpoint (TGI, vLLM, transformers)"
    extra: str | None = "llm"

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, ("int4-weight",), weights=_RULES)

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        raise NotImplementedError

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        raise NotImplementedError

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        raise NotImplementedError

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        raise NotImplementedError
