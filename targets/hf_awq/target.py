"""The target ``hf-awq``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.language.folder_target import FolderTarget
from edgeq.targets.language.target import NO_KERNELS

if TYPE_CHECKING:
    from edgeq.targets.language.format import Format

# Eight outputs fill a word. Every group has a zero point: symmetric weights have 8 in all of them.
_RULES = WeightRules(
    bits=(4,), group_sizes=(32, 64, 128), outputs_multiple=8, keeps_bfloat16=True, half_floats=True
)


class HfAwqTarget(FolderTarget):
    """A Hugging Face folder that AWQ's GEMM kernels load."""

    name = "hf-awq"
    title = "AWQ checkpoint (TGI, vLLM, transformers)"
    extra: str | None = "llm"
    packages = ("transformers", "torch", "safetensors")

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, ("int4-weight",), unused_options=NO_KERNELS, weights=_RULES)

    def form(self, options: Mapping[str, str]) -> Format:
        from edgeq.targets.hf_awq.format import AwqFormat

        return AwqFormat()

    def runner_kind(self) -> str:
        return "edgeq's own reader of AWQ folders, in PyTorch"
