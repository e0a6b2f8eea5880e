"""The target ``onnxruntime-genai``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Capabilities, Check, NodeResult, Runner, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(
    bits=(4, 8), group_sizes=(32, 64, 128), group_size=32, negative_scales=True, head=True, mixed=True
)


class OnnxRuntimeGenaiTarget(CheckpointTarget):
    """ONNX Runtime GenAI (decoder with KV cache)."""

    name = "onnxruntime-genai"
    title = "ONNX Runtime GenAI (decoder with KV cache)"
    extra: str | None = "genai"

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, ("fp32", "fp16", "int8-weight", "int4-weight"), weights=_RULES)

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        raise NotImplementedError

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        raise NotImplementedError

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        raise NotImplementedError

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        raise NotImplementedError
