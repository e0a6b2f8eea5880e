"""Inputs and outputs as the package's description declares them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from edgeq.errors import ModelError
from edgeq.targets.coreml.interpreter.structure import Feature, FeatureKind

Message = Any

_ARRAY_DTYPES: Mapping[str, str] = MappingProxyType(
    {"FLOAT32": "float32", "FLOAT16": "float16", "INT32": "int32", "DOUBLE": "float64", "INT8": "int8"}
)
_CHANNELS: Mapping[str, int] = MappingProxyType({"GRAYSCALE": 1, "GRAYSCALE_FLOAT16": 1, "RGB": 3, "BGR": 3})


# Outputs of classifiers: kind and dtype.
_CLASSIFIER: Mapping[str, tuple[FeatureKind, str]] = MappingProxyType(
    {
        "dictionaryType": ("probabilities", "float32"),
        "int64Type": ("label", "int64"),
        "stringType": ("label", "string"),
    }
)


def feature(message: Message) -> Feature:
    """The :class:`Feature` of a ``FeatureDescription``."""
    kind = message.type.WhichOneof("Type")
    if kind == "multiArrayType":
        return _array(message.name, message.type.multiArrayType, message.type.isOptional)
    if kind == "imageType":
        return _image(message.name, message.type.imageType, message.type.isOptional)
    if kind in _CLASSIFIER:
        return Feature(message.name, *_CLASSIFIER[kind], ())
    raise ModelError(
        f"The package has {message.name!r} of the kind {kind}, and edgeq reads arrays and images."
    )


def _array(name: str, array: Message, optional: bool) -> Feature:
    dtype = _enum_name(array.ArrayDataType, array.dataType)
    if dtype not in _ARRAY_DTYPES:
        raise ModelError(f"The package has {name!r} of the data type {dtype}, which edgeq does not know.")
    default = array.WhichOneof("defaultOptionalValue")
    ranges, shapes = None, None
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "shapeRange":
        ranges = tuple(_range(size) for size in array.shapeRange.sizeRanges)
    elif flexible == "enumeratedShapes":
        shapes = tuple(tuple(int(d) for d in shape.shape) for shape in array.enumeratedShapes.shapes)
    return Feature(
        name,
        "array",
        _ARRAY_DTYPES[dtype],
        tuple(int(size) for size in array.shape),
        ranges,
        shapes,
        None,
        optional,
        getattr(array, default) if default else None,
    )


def _enum_name(enum: Message, number: int) -> str:
    """The name of a protobuf enum's value; the number when the enum does not have it."""
    return str(enum.Name(number)) if number in enum.values() else str(number)


def _range(size: Message) -> tuple[int, int | None]:
    return int(size.lowerBound), None if size.upperBound < 0 else int(size.upperBound)


def _image(name: str, image: Message, optional: bool) -> Feature:
    layout = _enum_name(image.ColorSpace, image.colorSpace)
    if layout not in _CHANNELS:
        raise ModelError(f"The package has the image {name!r} in {layout}, which edgeq does not know.")
    channels = _CHANNELS[layout]
    ranges, shapes = None, None
    flexible = image.WhichOneof("SizeFlexibility")
    if flexible == "imageSizeRange":
        size = image.imageSizeRange
        ranges = ((1, 1), (channels, channels), _range(size.heightRange), _range(size.widthRange))
    elif flexible == "enumeratedSizes":
        sizes = image.enumeratedSizes.sizes
        shapes = tuple((1, channels, int(size.height), int(size.width)) for size in sizes)
    dtype = "float16" if layout == "GRAYSCALE_FLOAT16" else "uint8"
    shape = (1, channels, int(image.height), int(image.width))
    return Feature(name, "image", dtype, shape, ranges, shapes, layout, optional)
