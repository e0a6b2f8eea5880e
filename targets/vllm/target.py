"""The target ``vllm``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Capabilities, Check, NodeResult, Runner, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(bits=(4, 8), group_sizes=(-1, 32, 64, 128), mixed=True)


class VllmTarget(CheckpointTarget):
    """compressed-tensors checkpoint (vLLM, transformers)."""

    name = "vllm"
    title = "compressed-tensors checkpoint (vLLM, transformers)"
    extra: str | None = "vllm"

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, ("int4-weight", "int8-weight", "int8-dynamic"), weights=_RULES)

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        raise NotImplementedError

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        raise NotImplementedError

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        raise NotImplementedError

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        raise NotImplementedError
