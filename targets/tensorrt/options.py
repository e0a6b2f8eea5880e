"""What the user can choose about a TensorRT engine, from ``KEY=VALUE`` texts to one frozen value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import ConfigError
from edgeq.targets.dimensions import Dimension
from edgeq.targets.option_values import Parser, choice, parse_pairs, path_value, switch, whole
from edgeq.targets.tensorrt.architectures import ARCHITECTURES

Backend = Literal["auto", "tensorrt", "tensorrt-rtx"]
HighPrecision = Literal["fp16", "bf16", "fp32"]

# The compiler takes bytes as a signed number of 64 bits.
_MOST_MB = 2**43 - 1


class TensorRTOptions(BaseModel):
    """Options of the target ``tensorrt``.

    ``sm`` empty: the GPU of this machine, or ``DEFAULT_SM`` on a machine without one. ``precision`` is
    that of everything that is not quantized. ``dimensions`` is keyed by the symbolic name, or ``input:axis``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend = "auto"
    sm: tuple[int, ...] = ()
    precision: HighPrecision = "fp16"
    dimensions: Mapping[str, Dimension] = Field(default_factory=dict)
    weight_streaming: bool = False
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    workspace_mb: int | None = Field(default=None, ge=1)
    timing_cache: Path | None = None
    cuda_graph: bool = True

    def refuse_unused(self, scheme: str) -> None:
        """Refuse options that would do nothing.

        Raises:
            ConfigError: naming the option, and what it belongs to.
        """
        if self.timing_cache is not None and self.backend == "tensorrt-rtx":
            raise ConfigError(
                "The option 'timing_cache' has no effect with the backend 'tensorrt-rtx': it times nothing "
                "when it builds.",
                fix="Leave it out, or choose -O backend=tensorrt.",
            )
        if self.precision != "fp16" and scheme in ("fp32", "fp16"):
            raise ConfigError(
                f"The option 'precision' has no effect with the scheme {scheme!r}, which is one by itself.",
                fix="Leave it out, or choose a quantized scheme.",
            )


def parse_options(pairs: Mapping[str, str]) -> TensorRTOptions:
    """The options from ``KEY=VALUE`` texts; keys may be written with ``-`` or ``_``.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return TensorRTOptions(**parse_pairs("tensorrt", pairs, _PARSERS))


def parse_sm(key: str, text: str) -> tuple[int, ...]:
    """``86,89,120`` (``sm86``, ``8.6`` are understood as well).

    Raises:
        ConfigError: it is no compute capability that TensorRT for RTX knows.
    """
    found = []
    for part in text.split(","):
        digits = re.fullmatch(r"(?:sm_?)?(\d+)(?:\.(\d))?", part.strip().lower())
        number = int(digits[1] + (digits[2] or "")) if digits else 0
        if number not in ARCHITECTURES:
            known = ", ".join(f"{sm} {name}" for sm, name in ARCHITECTURES.items())
            raise ConfigError(
                f"The option {key!r}: {part.strip()!r} is no compute capability that engines are built for.",
                fix=f"It has: {known}.",
            )
        found.append(number)
    return tuple(sorted(set(found)))


_PARSERS: Mapping[str, Parser] = {
    "backend": choice("auto", "tensorrt", "tensorrt-rtx"),
    "sm": parse_sm,
    "precision": choice("fp16", "bf16", "fp32"),
    "weight_streaming": switch,
    "optimization_level": whole(0, 5),
    "workspace_mb": whole(1, _MOST_MB),
    "timing_cache": path_value,
    "cuda_graph": switch,
}
