"""The target ``hf-gptq``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Capabilities, Check, NodeResult, Runner, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(
    bits=(2, 3, 4, 8), group_sizes=(-1, 32, 64, 128), lowest_zero_point=1, outputs_multiple=32
)


class HfGptqTarget(CheckpointTarget):
    """A Hugging Face folder that GPTQ kernels load."""

    name = "hf-gptq"
    title = "GPTQ checkpoint (TGI, vLLM, ExLlamaV2, transformers)"
    extra: str | None = "hf"
    packages = ("transformers", "torch", "safetensors")

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(
            self.name, ("int4-weight", "int8-weight", "int3-weight", "int2-weight"), weights=_RULES
        )

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write the folder; raises TargetError."""
        from edgeq.targets.hf_gptq.write import write_folder

        return write_folder(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        return [
            NodeResult(n.name, n.op_type, n.precision, n.precision, "", n.reason, n.asked)
            for n in plan.nodes.values()
        ]

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        return []

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """The artefact in ``folder``; raises ModelError."""
        from edgeq.targets.hf_gptq.read import open_folder

        return open_folder(folder, threads=threads)
