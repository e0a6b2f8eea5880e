"""What the user can choose about a Core ML package, from ``KEY=VALUE`` texts to one frozen value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import ConfigError, TargetError
from edgeq.targets.coreml.option_values import (
    COMPUTE_UNITS,
    GENERATIONS,
    PARSERS,
    ComputeUnits,
    ImageInput,
)
from edgeq.targets.dimensions import Dimension
from edgeq.targets.option_values import DIMENSIONS, Named, parse_pairs, text_value

__all__ = ["COMPUTE_UNITS", "Arithmetic", "CoreMLOptions", "ImageInput", "parse_options", "read_class_labels"]

Arithmetic = Literal["float16", "float32"]
Activations = Literal["affine", "symmetric"]

# Scheme → the first iOS whose Core ML has what it is made of, and what that is.
_NEEDS: Mapping[str, tuple[int, str]] = {
    "int8-static": (17, "quantized activations (quantize and dequantize)"),
    "int4-weight": (18, "4-bit weights in blocks (constexpr_blockwise_shift_scale)"),
}
_LOWEST = (16, "")
_GROUPED_PALETTES = (18, "lookup tables per group of channels")
_NAMED: Named = {**DIMENSIONS, "user": ("user", text_value)}


class CoreMLOptions(BaseModel):
    """Options of the target ``coreml``. None leaves the choice to the scheme.

    ``dimensions`` is keyed by the symbolic name, or ``input:axis``. ``class_labels`` is a file;
    ``probabilities_output`` names the ONNX output that it labels (the only one when left out).
    ``palette_group`` is the number of channels that share a lookup table (None: the whole weight).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment_target: str | None = None
    arithmetic: Arithmetic | None = None
    dimensions: Mapping[str, Dimension] = Field(default_factory=dict)
    activations: Activations = "affine"
    compute_units: ComputeUnits = "all"
    image_input: tuple[ImageInput, ...] = ()
    class_labels: Path | None = None
    predicted_feature_name: str = Field(default="classLabel", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    probabilities_output: str | None = None
    palette_group: int | None = Field(default=None, ge=1)
    author: str = ""
    license: str = ""
    description: str = ""
    version: str = ""
    user: Mapping[str, str] = Field(default_factory=dict)

    def ios(self, scheme: str) -> int:
        """The deployment target as iOS number: the given one, else the lowest that ``scheme`` needs.

        Raises:
            TargetError: the given one is lower than the scheme needs.
        """
        lowest, why = self._needed(scheme)
        if self.deployment_target is None:
            return lowest
        chosen = GENERATIONS[self.deployment_target]
        if chosen < lowest:
            raise TargetError(
                f"Core ML: the deployment target {self.deployment_target} has no {why}, which the scheme "
                f"{scheme!r} needs.",
                fix=f"Choose iOS{lowest} (macOS{lowest - 3}) or later, or another scheme.",
            )
        return chosen

    def arithmetic_of(self, scheme: str) -> Arithmetic:
        """The arithmetic of float operations: the given one, else float32 for ``fp32`` and float16."""
        if self.arithmetic is not None:
            return self.arithmetic
        return "float32" if scheme == "fp32" else "float16"

    def refuse_unused(self, scheme: str) -> None:
        """Refuse options that would do nothing.

        Raises:
            ConfigError: naming the option, and what it belongs to.
        """
        if self.palette_group is not None and not scheme.startswith("palettize"):
            raise ConfigError(
                f"The option 'palette_group' has no effect with the scheme {scheme!r}.",
                fix="Leave it out, or choose palettize-4 or palettize-6.",
            )
        if self.activations != "affine" and scheme != "int8-static":
            raise ConfigError(
                f"The option 'activations' has no effect with the scheme {scheme!r}.",
                fix="Leave it out, or choose int8-static.",
            )
        labels = {"probabilities_output": None, "predicted_feature_name": "classLabel"}
        unread = next((name for name, default in labels.items() if getattr(self, name) != default), None)
        if unread is not None and self.class_labels is None:
            raise ConfigError(
                f"The option {unread!r} has no effect without class labels.",
                fix="Leave it out, or give --class-labels FILE.",
            )

    def _needed(self, scheme: str) -> tuple[int, str]:
        needs = [_NEEDS.get(scheme, _LOWEST)]
        if self.palette_group is not None and scheme.startswith("palettize"):
            needs.append(_GROUPED_PALETTES)
        return max(needs, key=lambda need: need[0])


def parse_options(pairs: Mapping[str, str]) -> CoreMLOptions:
    """The options from ``KEY=VALUE`` texts; keys may be written with ``-`` or ``_``.

    ``dimension.NAME`` and ``user.NAME`` take a name after the dot.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return CoreMLOptions(**parse_pairs("coreml", pairs, PARSERS, _NAMED))


def read_class_labels(path: Path) -> tuple[str, ...]:
    """The labels of a text file (one per line) or of a JSON list of strings.

    Raises:
        ConfigError: the file cannot be read, is empty, or names a class twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The class labels {path} cannot be read: {error}.") from error
    labels = _json_labels(path, text) if text.lstrip().startswith("[") else _line_labels(text)
    if not labels:
        raise ConfigError(f"The class labels {path} are empty.", fix="Write one label per line.")
    twice = next((label for index, label in enumerate(labels) if label in labels[:index]), None)
    if twice is not None:
        # Core ML returns a dictionary label → probability
        raise ConfigError(
            f"The class labels {path} name {twice!r} twice.", fix="Give each class its own name."
        )
    return tuple(labels)


def _json_labels(path: Path, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"The class labels {path} are no valid JSON: {error}.") from error
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise ConfigError(f"The class labels {path} are no list of strings.")
    return found


def _line_labels(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines
