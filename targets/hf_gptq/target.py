"""The target ``hf-gptq``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.language.folder_target import FolderTarget
from edgeq.targets.language.target import NO_KERNELS

if TYPE_CHECKING:
    from edgeq.targets.language.format import Format

# Kernels read whole words of inputs and of outputs; 3 bits fill them only 32 at a time. Zero points are
# stored minus one, and readers disagree on what a stored -1 is.
_RULES = WeightRules(
    bits=(2, 3, 4, 8),
    group_sizes=(-1, 32, 64, 128),
    lowest_zero_point=1,
    mixed=True,
    keeps_bfloat16=True,
    half_floats=True,
    outputs_multiple=32,
)


class HfGptqTarget(FolderTarget):
    """A Hugging Face folder that GPTQ kernels load."""

    name = "hf-gptq"
    title = "GPTQ checkpoint (TGI, vLLM, ExLlamaV2, transformers)"
    extra: str | None = "llm"
    packages = ("transformers", "torch", "safetensors")

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(
            self.name,
            ("int4-weight", "int8-weight", "int3-weight", "int2-weight"),
            unused_options=NO_KERNELS,
            weights=_RULES,
        )

    def form(self, options: Mapping[str, str]) -> Format:
        from edgeq.targets.hf_gptq.format import GptqFormat

        return GptqFormat()

    def runner_kind(self) -> str:
        return "edgeq's own reader of GPTQ folders, in PyTorch"
