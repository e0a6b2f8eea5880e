"""The target ``gguf``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Capabilities, Check, NodeResult, Runner, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(
    bits=(4, 8),
    group_sizes=(32,),
    group_size=32,
    negative_scales=True,
    mixed=True,
    head=True,
    embeddings=True,
)


class GgufTarget(CheckpointTarget):
    """GGUF (llama.cpp, Ollama)."""

    name = "gguf"
    title = "GGUF (llama.cpp, Ollama)"
    extra: str | None = "gguf"

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(
            self.name, ("fp16", "int8-weight", "int4-weight", "int3-weight", "int2-weight"), weights=_RULES
        )

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        raise NotImplementedError

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        raise NotImplementedError

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        raise NotImplementedError

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        raise NotImplementedError
