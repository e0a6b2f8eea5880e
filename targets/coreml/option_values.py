"""Values of the options of the target ``coreml``, from the texts that users write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import ConfigError
from edgeq.targets.option_values import Parser, choice, path_value, text_value, whole

ComputeUnits = Literal["all", "cpu", "cpu-and-gpu", "cpu-and-ne"]
Color = Literal["RGB", "BGR", "grayscale"]

COMPUTE_UNITS: tuple[ComputeUnits, ...] = ("all", "cpu", "cpu-and-gpu", "cpu-and-ne")

# Apple's names of one generation of Core ML: macOS 13 and iOS 16 appeared together.
GENERATIONS = {
    **{f"iOS{ios}": ios for ios in (16, 17, 18)},
    **{f"macOS{ios - 3}": ios for ios in (16, 17, 18)},
    **{f"watchOS{ios - 7}": ios for ios in (16, 17, 18)},
    **{f"tvOS{ios}": ios for ios in (16, 17, 18)},
}


class ImageInput(BaseModel):
    """An input given as an image: Core ML computes ``scale * pixel + bias`` per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    color: Color = "RGB"
    scale: float = Field(default=1.0, allow_inf_nan=False)
    bias: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels that the model's input must have."""
        return 1 if self.color == "grayscale" else 3


# --- values of single options -----------------------------------------------------------------------------


def _deployment_target(key: str, text: str) -> str:
    del key
    names = {name.lower(): name for name in GENERATIONS}
    if text.strip().lower() not in names:
        raise ConfigError(
            f"The deployment target {text!r} is unknown.", fix=f"Choose one of: {', '.join(GENERATIONS)}."
        )
    return names[text.strip().lower()]


def _identifier(key: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text.strip()):
        raise ConfigError(
            f"The option {key!r} cannot be {text!r}.", fix="Use letters, digits and underscores."
        )
    return text.strip()


def _images(key: str, text: str) -> tuple[ImageInput, ...]:
    parts = [part for part in text.split(";") if part.strip()]
    if not parts:
        raise _bad_image(key, text, "it names no input")
    return tuple(_image(key, part) for part in parts)


def _image(key: str, text: str) -> ImageInput:
    name, colon, rest = text.rpartition(":")
    if not colon:
        name, rest = text, ""
    fields: dict[str, Any] = {"name": name.strip()}
    for word in rest.split():
        field, equals, value = word.partition("=")
        if not equals or field not in _IMAGE_FIELDS or not fields["name"]:
            raise _bad_image(key, text, f"{word!r} is not understood")
        if field in fields:
            raise _bad_image(key, text, f"{field!r} is given twice")
        fields[field] = _IMAGE_FIELDS[field](key, value)
    image = ImageInput(**fields)
    if image.bias and len(image.bias) != image.channels:
        raise _bad_image(key, text, f"a {image.color} image has {image.channels} channel(s)")
    return image


def _color(key: str, text: str) -> str:
    colors = {"rgb": "RGB", "bgr": "BGR", "grayscale": "grayscale"}
    if text.lower() not in colors:
        raise _bad_image(key, text, f"{text!r} is no color layout")
    return colors[text.lower()]


def _scale(key: str, text: str) -> float:
    value = _number(key, text)
    if value == 0:
        raise _bad_image(key, text, "the scale 0 makes every pixel the same")
    return value


def _bias(key: str, text: str) -> tuple[float, ...]:
    return tuple(_number(key, part) for part in text.split(","))


def _number(key: str, text: str) -> float:
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise _bad_image(key, text, f"{text!r} is no number") from error
    if abs(value) == float("inf") or value != value:
        raise _bad_image(key, text, f"{text!r} is no finite number")
    return value


def _bad_image(key: str, text: str, what: str) -> ConfigError:
    return ConfigError(
        f"The option {key!r} cannot be {text!r}: {what}.",
        fix="Write for example: data: color=RGB scale=1/255 bias=-0.485,-0.456,-0.406",
    )


_IMAGE_FIELDS: Mapping[str, Parser] = {"color": _color, "scale": _scale, "bias": _bias}

# Option without a name of its own → what makes its value of (key, text).
PARSERS: Mapping[str, Parser] = {
    "deployment_target": _deployment_target,
    "arithmetic": choice("float16", "float32"),
    "activations": choice("affine", "symmetric"),
    "compute_units": choice(*COMPUTE_UNITS),
    "image_input": _images,
    "class_labels": path_value,
    "predicted_feature_name": _identifier,
    "probabilities_output": text_value,
    "palette_group": whole(1),
    "author": text_value,
    "license": text_value,
    "description": text_value,
    "version": text_value,
}
