"""What the user can choose about an OpenVINO model, from ``KEY=VALUE`` texts to one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import ConfigError
from edgeq.targets.dimensions import Dimension, parse_dimension
from edgeq.targets.option_values import Named, Parser, choice, parse_pairs

Mode = Literal["latency", "throughput"]
# The names of OpenVINO's INFERENCE_PRECISION_HINT.
Precision = Literal["f32", "bf16", "f16"]
Rest = Literal["fp16", "fp32"]


class OpenVINOOptions(BaseModel):
    """Options of the target ``openvino``.

    ``mode``: one inference at a time over all threads, or several beside each other. ``precision`` is that of
    the float arithmetic. ``rest``: how the weights that are not quantized are stored. ``dimensions`` is keyed
    by the symbolic name, or ``input:axis``; what it does not name stays dynamic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "latency"
    # bf16 and f16 are rounded at every operation, and CPUs that have them would choose them silently.
    precision: Precision = "f32"
    rest: Rest = "fp16"
    dimensions: Mapping[str, Dimension] = Field(default_factory=dict)

    def rest_of(self, scheme: str) -> Rest:
        """The form of float weights: schemes without quantization are one by themselves."""
        return "fp32" if scheme == "fp32" else self.rest

    def refuse_unused(self, scheme: str) -> None:
        """Refuse options that would do nothing.

        Raises:
            ConfigError: naming the option, and what it belongs to.
        """
        if self.rest != "fp16" and scheme in ("fp32", "fp16"):
            raise ConfigError(
                f"The option 'rest' has no effect with the scheme {scheme!r}, which is one by itself.",
                fix="Leave it out, or choose a quantized scheme.",
            )


def parse_options(pairs: Mapping[str, str]) -> OpenVINOOptions:
    """The options from ``KEY=VALUE`` texts; keys may be written with ``-`` or ``_``.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return OpenVINOOptions(**parse_pairs("openvino", pairs, _PARSERS, _NAMED))


def _dimension(name: str, text: str) -> Dimension:
    """A size or a range: OpenVINO knows no list of sizes, and prepares for none of a range."""
    found = parse_dimension(name, text)
    if found.choices or found.default is not None:
        raise ConfigError(
            f"The size {text!r} of the dimension {name!r} is none that OpenVINO has: sizes or ranges.",
            fix=f"Write {found.largest} (fixed) or {found.smallest}..{found.largest} (a range).",
        )
    return found


_NAMED: Named = {"dimension": ("dimensions", _dimension)}
_PARSERS: Mapping[str, Parser] = {
    "mode": choice("latency", "throughput"),
    "precision": choice("f32", "bf16", "f16"),
    "rest": choice("fp16", "fp32"),
}
