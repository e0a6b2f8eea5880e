"""Declared preprocessing of images and arrays: what stands between the stored data and the model's input.

The arithmetic is that of every framework, in float32 and in this order::

    y = (x * scale - mean) / std

with ``mean`` and ``std`` in the channel order *after* ``channels`` was applied (so Caffe's BGR means are
written blue first). Sizes are (height, width). Resizing follows torchvision: an int is the length of the
shorter side, the longer becomes ``int(size * long / short)``; Pillow's filters antialias when they shrink.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.calibration.types import Array, TensorSpec
from edgeq.errors import ConfigError, DataError

Layout = Literal["nchw", "nhwc"]
Size = tuple[int, int]

# Axis of the channels in a batch of either layout.
CHANNEL_AXIS: dict[Layout, int] = {"nchw": 1, "nhwc": -1}


class Preprocessing(BaseModel):
    """How stored images or arrays become a model input. A value: it is stored in the manifest.

    Attributes:
        resize: shorter side in pixels, exact (height, width), ``cover`` (aspect ratio kept, just large
            enough for the model's input), ``model`` (exactly the model's input size), or None. Images only.
        interpolation: Pillow's filter for resizing.
        crop: centre crop: a square's side, (height, width), ``model`` (the model's input size) or None.
            Images only.
        channels: order of the channels that the model wants, from images or arrays stored as RGB. None
            leaves arrays as they are, and means RGB (or gray for a model with one channel) for images.
        layout: of the model's input. None takes it from the model's input shape.
        array_layout: of stored arrays, when it is not the model's (images are always decoded as NHWC).
        scale: factor on the stored values, such as 1/255.
        mean: subtracted after scaling, one for all channels or one for each.
        std: divisor after that, one for all channels or one for each.
        dtype: of the result; None takes the model's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: int | Size | Literal["cover", "model"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop: int | Size | Literal["model"] | None = None
    channels: Literal["rgb", "bgr", "gray"] | None = None
    layout: Layout | None = None
    array_layout: Layout | None = None
    scale: float = Field(default=1.0, allow_inf_nan=False)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: Literal["float32", "float16", "uint8", "int8", "int32", "int64"] | None = None

    def model_post_init(self, _context: Any) -> None:
        if any(value == 0 for value in self.std):
            raise ValueError("std must not be 0")

    @property
    def arithmetic(self) -> bool:
        """Whether values change at all."""
        return self.scale != 1.0 or bool(self.mean) or bool(self.std)


PRESETS: dict[str, Preprocessing] = {
    # torchvision's classification models: RGB / 255, normalized.
    "imagenet": Preprocessing(
        resize=256, crop="model", channels="rgb", scale=1 / 255,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    ),
    # Caffe's: BGR 0..255 minus the mean colour.
    "imagenet-caffe-bgr": Preprocessing(resize=256, crop="model", channels="bgr", mean=(104.0, 117.0, 123.0)),
    # 0..1, the model's size.
    "unit": Preprocessing(resize="cover", crop="model", scale=1 / 255),
    # Values as they are stored, sizes too.
    "none": Preprocessing(),
}  # fmt: skip


def preset(name: str, **changes: Any) -> Preprocessing:
    """The preset called ``name``, with some fields changed.

    Raises:
        ConfigError: there is no such preset or field, or a value is not valid.
    """
    if name not in PRESETS:
        raise ConfigError(f"Unknown preprocessing {name!r}.", fix=f"Known presets: {', '.join(PRESETS)}.")
    return _made(PRESETS[name].model_dump() | changes)


def parse_preprocessing(text: str) -> Preprocessing:
    """Preprocessing from one line: an optional preset, then ``field=value`` words.

    Examples: ``imagenet``, ``imagenet-caffe-bgr resize=none``, ``scale=1/255 mean=0.485,0.456,0.406``,
    ``resize=240,320 layout=nhwc``.

    Raises:
        ConfigError: a word is neither a preset nor a valid field.
    """
    words = text.split()
    name = words.pop(0) if words and "=" not in words[0] else "none"
    changes: dict[str, Any] = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"Preprocessing {text!r}: {word!r} is no field=value.", fix=_FIELDS)
        changes[field] = _value(field, value)
    return preset(name, **changes)


_FIELDS = f"Fields: {', '.join(Preprocessing.model_fields)}. Presets: {', '.join(PRESETS)}."
_FRACTION = re.compile(r"([0-9.eE+-]+)/([0-9.eE+-]+)")


def _value(field: str, text: str) -> Any:
    if text == "none":
        return () if field in ("mean", "std") else None
    if field == "scale" and (match := _FRACTION.fullmatch(text)):
        return _divided(*match.groups())
    if field in ("mean", "std"):
        return tuple(text.split(","))
    if field in ("resize", "crop"):
        parts = [int(part) if part.isdecimal() else part for part in text.split(",")]
        return parts[0] if len(parts) == 1 else tuple(parts)
    return text


def _divided(above: str, below: str) -> float | str:
    try:
        return float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        return f"{above}/{below}"


def _made(fields: dict[str, Any]) -> Preprocessing:
    try:
        return Preprocessing.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1]) or "value"
        raise ConfigError(f"Preprocessing field {where!r}: {first['msg']}.", fix=_FIELDS) from error


def assumed_preprocessing(spec: TensorSpec) -> tuple[Preprocessing, str]:
    """What images get when nothing was declared, and a sentence that says so.

    Values are scaled to 0..1 for float inputs and left at 0..255 for integer inputs.
    """
    layout = input_layout(spec)
    scale = 1.0 if np.issubdtype(spec.dtype, np.integer) else 1 / 255
    height, width = input_size(spec, layout)
    made = Preprocessing(resize="cover", crop="model", layout=layout, scale=scale)
    values = "values 0..255" if scale == 1.0 else "values scaled by 1/255"
    note = (
        f"No preprocessing was declared: assumed {layout.upper()}, resized and centre-cropped to "
        f"{height}x{width}, {values}, no mean or std."
    )
    return made, note


def input_layout(spec: TensorSpec) -> Layout:
    """Layout of an image input, from where its 1, 3 or 4 channels are.

    Raises:
        DataError: the input is no image, or its shape does not tell.
    """
    shape = spec.shape
    if shape is None or len(shape) != 4:
        raise DataError(
            f"Input {spec.name!r} has shape {shape_text(shape)}, which is no batch of images.",
            fix="Images need an input [N, C, H, W] or [N, H, W, C]; give arrays (.npz) for other inputs.",
        )
    if shape[1] in (1, 3, 4):
        return "nchw"
    if shape[3] in (1, 3, 4):
        return "nhwc"
    raise DataError(
        f"Input {spec.name!r} has shape {shape_text(shape)}, which does not tell its layout.",
        fix="Declare it: preprocessing with layout=nchw or layout=nhwc.",
    )


def input_size(spec: TensorSpec, layout: Layout) -> Size:
    """(height, width) of an image input.

    Raises:
        DataError: the model does not fix them.
    """
    height, width = spec.shape[2:] if layout == "nchw" else spec.shape[1:3]  # type: ignore[index]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    raise DataError(
        f"Input {spec.name!r} has shape {shape_text(spec.shape)}: the model does not fix the image size.",
        fix="Declare it: preprocessing with resize=HEIGHT,WIDTH.",
    )


def input_channels(spec: TensorSpec, layout: Layout) -> int | None:
    """Number of channels of an image input, None when the model does not fix it."""
    if spec.shape is None or len(spec.shape) != 4:
        return None
    channels = spec.shape[CHANNEL_AXIS[layout]]
    return channels if isinstance(channels, int) else None


def apply_to_array(array: Array, preprocessing: Preprocessing, spec: TensorSpec) -> Array:
    """Preprocess stored arrays [samples, ...] for the input ``spec``: layout, channels, values, dtype.

    Raises:
        DataError: resize or crop was declared (they are for images), or channels do not fit.
    """
    if preprocessing.resize is not None or preprocessing.crop is not None:
        raise DataError(
            f"Preprocessing declares resize or crop, which arrays for input {spec.name!r} do not get.",
            fix="Store the arrays in the model's size and set resize=none crop=none.",
        )
    layout = preprocessing.layout
    if array.ndim == 4 and (layout is not None or preprocessing.array_layout is not None):
        stored = preprocessing.array_layout or layout or "nhwc"
        layout = layout or input_layout(spec)
        array = _to_layout(array, stored, layout)
    axis = 1 if layout == "nchw" else -1
    if preprocessing.channels is not None:
        array = _with_channels(array, preprocessing.channels, axis, spec)
    return normalize(array, preprocessing, axis, spec)


def preprocessed_input(
    inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, named: str | None
) -> str | None:
    """The input that declared preprocessing is for: the ``named`` one, or the only one.

    Raises:
        DataError: the model has several inputs and none of them, or another one, is named.
    """
    names = [spec.name for spec in inputs]
    if named is not None and named not in names:
        raise DataError(
            f"The option input names {named!r}, which the model does not have.",
            fix=f"Its inputs are: {', '.join(names)}.",
        )
    if preprocessing is None or named is not None or len(names) == 1:
        return named or (names[0] if len(names) == 1 else None)
    raise DataError(
        f"Preprocessing is for one input, and the model has {len(names)}.",
        fix=f"Set the option input to one of: {', '.join(names)}.",
    )


def _to_layout(array: Array, stored: Layout, wanted: Layout) -> Array:
    if stored == wanted:
        return array
    return array.transpose(0, 3, 1, 2) if wanted == "nchw" else array.transpose(0, 2, 3, 1)


def _with_channels(array: Array, channels: str, axis: int, spec: TensorSpec) -> Array:
    if channels == "rgb":
        return array
    if array.ndim != 4 or array.shape[axis] != 3:
        raise DataError(
            f"Preprocessing wants {channels} channels, but the array for input {spec.name!r} "
            f"has shape {shape_text(array.shape)}.",
            fix="Give three RGB channels, or set channels=none.",
        )
    if channels == "bgr":
        return np.flip(array, axis)
    # ITU-R 601 luma, as Pillow's mode L.
    red, green, blue = np.moveaxis(array.astype(np.float32), axis, 0)
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return np.expand_dims(luma, axis)


def normalize(array: Array, preprocessing: Preprocessing, axis: int, spec: TensorSpec) -> Array:
    """(x * scale - mean) / std along channel ``axis``, in float32, then the declared dtype.

    Without arithmetic the values keep their dtype, which the input check converts or refuses.
    """
    if preprocessing.arithmetic:
        array = array.astype(np.float32) * np.float32(preprocessing.scale)
        if preprocessing.mean:
            array = array - _per_channel(preprocessing.mean, array, axis, spec)
        if preprocessing.std:
            array = array / _per_channel(preprocessing.std, array, axis, spec)
    if preprocessing.dtype is None:
        return array
    return _cast(array, np.dtype(preprocessing.dtype), spec)


def _per_channel(values: tuple[float, ...], array: Array, axis: int, spec: TensorSpec) -> Array:
    if len(values) == 1:
        return np.asarray(values[0], dtype=np.float32)
    if array.ndim < 2 or array.shape[axis] != len(values):
        raise DataError(
            f"Preprocessing has {len(values)} means or stds, but input {spec.name!r} "
            f"has shape {shape_text(array.shape)}.",
            fix="Give one value, or one for each channel, and the right layout.",
        )
    shape = [1] * array.ndim
    shape[axis] = len(values)
    return np.asarray(values, dtype=np.float32).reshape(shape)


def _cast(array: Array, dtype: np.dtype[Any], spec: TensorSpec) -> Array:
    if not np.issubdtype(dtype, np.integer):
        return array.astype(dtype)
    rounded = np.rint(array) if np.issubdtype(array.dtype, np.floating) else array
    limits = np.iinfo(dtype)
    if rounded.size and (rounded.min() < limits.min or rounded.max() > limits.max):
        raise DataError(
            f"Preprocessing for input {spec.name!r} gives values outside {dtype}'s range "
            f"{limits.min}..{limits.max}.",
            fix="Correct scale, mean, std or dtype.",
        )
    return rounded.astype(dtype)


def shape_text(shape: tuple[int | str | None, ...] | None) -> str:
    """A shape as messages show it: ``[N, 3, 224, 224]``."""
    if shape is None:
        return "unknown"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
