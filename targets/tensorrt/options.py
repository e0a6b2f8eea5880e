"""What the user can choose about a TensorRT engine, from ``KEY=VALUE`` texts to one frozen value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import ConfigError
from edgeq.targets.dimensions import Dimension, parse_dimension
from edgeq.targets.tensorrt.architectures import ARCHITECTURES

Backend = Literal["auto", "tensorrt", "tensorrt-rtx"]
HighPrecision = Literal["fp16", "bf16", "fp32"]

# What TensorRT takes as the size of its workspace: bytes in 64 bits.
_MOST_MB = 2**44 - 1

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
    fields: dict[str, Any] = {"dimensions": {}}
    for key, text in pairs.items():
        plain, _, name = key.partition(".")
        plain = plain.replace("-", "_")
        if plain in _PARSERS and plain in fields:
            raise ConfigError(f"The option {plain!r} is given twice.", fix="Give it once.")
        if plain == "dimension" and name:
            fields["dimensions"][name] = parse_dimension(name, text)
        elif plain in _PARSERS and not name:
            fields[plain] = _PARSERS[plain](plain, text.strip())
        else:
            known = ", ".join(sorted([*_PARSERS, "dimension.NAME"]))
            raise ConfigError(f"The target 'tensorrt' has no option {key!r}.", fix=f"It has: {known}.")
    return TensorRTOptions(**fields)


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


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def parse(key: str, text: str) -> str:
        if text not in allowed:
            raise ConfigError(f"The option {key!r} cannot be {text!r}.", fix=f"It is {' or '.join(allowed)}.")
        return text

    return parse


def _switch(key: str, text: str) -> bool:
    return _choice("true", "false")(key, text.lower()) == "true"


def _whole(lowest: int, highest: int) -> Callable[[str, str], int]:
    def parse(key: str, text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise ConfigError(
                f"The option {key!r} cannot be {text!r}.", fix=f"Give a whole number, {lowest} to {highest}."
            )
        return int(text)

    return parse


def _path(key: str, text: str) -> Path:
    if not text:
        raise ConfigError(f"The option {key!r} is empty.", fix="Give the path of a file.")
    return Path(text)


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "backend": _choice("auto", "tensorrt", "tensorrt-rtx"),
    "sm": parse_sm,
    "precision": _choice("fp16", "bf16", "fp32"),
    "weight_streaming": _switch,
    "optimization_level": _whole(0, 5),
    "workspace_mb": _whole(1, _MOST_MB),
    "timing_cache": _path,
    "cuda_graph": _switch,
}
