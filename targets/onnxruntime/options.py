"""What the user can choose about an ONNX Runtime model."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from edgeq.targets.option_values import Parser, choice, parse_pairs


class OnnxRuntimeOptions(BaseModel):
    """``fusions``: take the kernels that ONNX Runtime has and does not find by itself.

    Without them a model asks for no operator beyond those of its scheme, which older and reduced builds of
    ONNX Runtime, and other runtimes, may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fusions: bool = True


def parse_options(pairs: Mapping[str, str]) -> OnnxRuntimeOptions:
    """The options from ``KEY=VALUE`` texts.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return OnnxRuntimeOptions(**parse_pairs("onnxruntime", pairs, _PARSERS, {}))


def _on(key: str, text: str) -> bool:
    return choice("on", "off")(key, text.lower()) == "on"


_PARSERS: Mapping[str, Parser] = {"fusions": _on}
