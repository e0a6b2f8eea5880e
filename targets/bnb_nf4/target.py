"""The target ``bnb-nf4``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError
from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.language.folder_target import FolderTarget
from edgeq.targets.option_values import parse_pairs

if TYPE_CHECKING:
    from edgeq.targets.language.format import Format

_RULES = WeightRules(
    bits=(),
    group_sizes=(64, 128, 256),
    group_size=64,
    symmetric=(True,),
    methods=("rtn",),
    scale_dtype="float32",
    half_floats=True,
)


class BnbNf4Target(FolderTarget):
    """A Hugging Face folder that transformers loads with bitsandbytes."""

    name = "bnb-nf4"
    title = "NF4 checkpoint (transformers with bitsandbytes)"
    extra: str | None = "bnb"
    packages = ("bitsandbytes", "transformers", "torch", "safetensors", "accelerate")

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, ("nf4-weight",), weights=_RULES)

    def options(self, given: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
        """``double_quant``: ``yes`` rounds the scales to 8 bits, ``no`` (the default) keeps float32."""
        found = parse_pairs(self.name, given, {"double_quant": _yes_or_no}, {})
        return {"double_quant": found.get("double_quant", "no")}

    def texts(self, options: Any) -> dict[str, str]:
        return dict(options)

    def form(self, options: Mapping[str, str]) -> Format:
        from edgeq.targets.bnb_nf4.format import Nf4Format

        return Nf4Format(double=options.get("double_quant") == "yes")


def _yes_or_no(key: str, text: str) -> str:
    word = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}.get(text.strip().lower())
    if word is None:
        raise ConfigError(f"The option {key!r} cannot be {text!r}.", fix="It is yes or no.")
    return word
