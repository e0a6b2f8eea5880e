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
QuantizedBy = Literal["edgeq", "nncf"]
ModelType = Literal["auto", "transformer", "other"]
Preset = Literal["auto", "performance", "mixed"]
Correction = Literal["full", "fast"]


class OpenVINOOptions(BaseModel):
    """Options of the target ``openvino``.

    ``mode``: one inference at a time over all threads, or several beside each other. ``precision`` is that of
    the float arithmetic. ``rest``: how the weights that are not quantized are stored. ``dimensions`` is keyed
    by the symbolic name, or ``input:axis``; what it does not name stays dynamic.

    ``quantizer``: whose methods quantize. ``model_type``, ``preset`` and ``correction`` (of biases) are
    parameters of ``nncf.quantize``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "latency"
    # bf16 and f16 are rounded at every operation, and CPUs that have them would choose them silently.
    precision: Precision = "f32"
    rest: Rest = "fp16"
    dimensions: Mapping[str, Dimension] = Field(default_factory=dict)
    quantizer: QuantizedBy = "edgeq"
    model_type: ModelType = "auto"
    preset: Preset = "auto"
    correction: Correction = "fast"

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
        for name in ("model_type", "preset", "correction"):
            if getattr(self, name) == type(self).model_fields[name].default:
                continue
            if self.quantizer != "nncf" or scheme != "int8-static":
                raise ConfigError(
                    f"The option {name!r} has no effect: it is one of NNCF's static INT8.",
                    fix="Leave it out, or choose the scheme int8-static with -O quantizer=nncf.",
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
    "quantizer": choice("edgeq", "nncf"),
    "model_type": choice("auto", "transformer", "other"),
    "preset": choice("auto", "performance", "mixed"),
    "correction": choice("full", "fast"),
}
