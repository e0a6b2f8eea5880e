"""The target ``vllm``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.compiler.recipe import Recipe, Scheme
from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.language.folder_target import FolderTarget
from edgeq.targets.language.target import NO_KERNELS

if TYPE_CHECKING:
    from edgeq.targets.language.format import Format

_SCHEMES: tuple[Scheme, ...] = ("int4-weight", "int8-weight", "int8-dynamic")
_RULES = WeightRules(
    bits=(4, 8),
    group_sizes=(-1, 32, 64, 128),
    mixed=True,
    joined_alike=True,
    keeps_bfloat16=True,
    half_floats=True,
    integer_methods=("rtn", "smoothquant"),
)
_UNUSED = {**NO_KERNELS, "saturation_safe": "it is of INT8 kernels of CPUs"}


class VllmTarget(FolderTarget):
    """A Hugging Face folder in the format of compressed-tensors."""

    name = "vllm"
    title = "compressed-tensors checkpoint (vLLM, transformers)"
    extra: str | None = "vllm"
    packages = ("compressed-tensors", "transformers", "torch", "safetensors", "accelerate")

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, _SCHEMES, unused_options=_UNUSED, weights=_RULES)

    def options(self, given: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
        """None of its own; the scheme decides what is written."""
        super().options(given, recipe)
        return {"activations": "int8" if recipe.scheme == "int8-dynamic" else "float"}

    def texts(self, options: Any) -> dict[str, str]:
        return dict(options)

    def form(self, options: Mapping[str, str]) -> Format:
        from edgeq.targets.vllm.integers import IntegerFormat
        from edgeq.targets.vllm.packed import PackedFormat

        return IntegerFormat() if options.get("activations") == "int8" else PackedFormat()
