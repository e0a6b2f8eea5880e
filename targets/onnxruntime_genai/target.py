"""The target ``onnxruntime-genai``: a decoder with a key-value cache for ONNX Runtime and GenAI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Check, NodeResult, Runner
from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(
    bits=(2, 4, 8),
    group_sizes=(16, 32, 64, 128, 256),
    group_size=32,
    negative_scales=True,
    head=True,
    mixed=True,
    uneven=True,
)


class OnnxRuntimeGenaiTarget(CheckpointTarget):
    """A folder that onnxruntime-genai generates with, and whose graph plain ONNX Runtime runs."""

    name = "onnxruntime-genai"
    title = "ONNX Runtime GenAI (decoder with KV cache)"
    extra: str | None = "genai"
    packages = ("onnxruntime-genai", "transformers", "torch", "safetensors")

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(
            self.name, ("fp32", "fp16", "int8-weight", "int4-weight", "int2-weight"), weights=_RULES
        )

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write graph, ``genai_config.json`` and tokenizer, and the evidence that proves them.

        Raises:
            TargetError: there is no graph for the model, or what was written does not verify.
        """
        from edgeq.targets.onnxruntime_genai.build import build

        return build(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """Which kernel ONNX Runtime has for every planned layer; raises TargetError."""
        from edgeq.targets.onnxruntime.verify import verify
        from edgeq.targets.onnxruntime_genai.files import MODEL_FILE

        return verify(folder / MODEL_FILE, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """Weights, logits and generated tokens against the evidence."""
        from edgeq.targets.onnxruntime_genai.prove import prove

        return prove(folder, threads)

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """The artefact in ``folder``; raises TargetError."""
        from edgeq.targets.onnxruntime_genai.runner import GenaiRunner

        return GenaiRunner(folder, threads=threads)
