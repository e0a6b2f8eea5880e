"""What enters and leaves a package: names, kinds, ranks, sizes and dtypes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.structure import Feature


def take(features: Sequence[Feature], given: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs as the program computes with them: float32, int32; checked against the description."""
    unknown = sorted(set(given) - {feature.name for feature in features})
    if unknown:
        raise TargetError(
            f"The package has no input {unknown[0]!r}.",
            fix=f"Its inputs: {', '.join(f.name for f in features)}.",
        )
    return {feature.name: _take(feature, given) for feature in features}


def _take(feature: Feature, given: Mapping[str, Array]) -> Array:
    if feature.name in given:
        array = np.asarray(given[feature.name])
        _check_shape(feature, array.shape)
        return _convert(feature, array)
    if feature.optional and feature.default is not None:
        return _convert(feature, np.full(feature.shape, feature.default))
    raise TargetError(f"The input {feature.name!r} of the package is missing.")


def _check_shape(feature: Feature, shape: tuple[int, ...]) -> None:
    if len(shape) != len(feature.shape):
        raise TargetError(
            f"The input {feature.name!r} has rank {len(shape)} {shape}, "
            f"the package takes rank {len(feature.shape)}."
        )
    if feature.shapes is not None:
        allowed = shape in feature.shapes
    elif feature.ranges is not None:
        allowed = all(_within(size, bounds) for size, bounds in zip(shape, feature.ranges, strict=True))
    else:
        allowed = shape == feature.shape
    if not allowed:
        raise TargetError(
            f"The input {feature.name!r} has the shape {shape}, the package takes {_sizes(feature)}."
        )


def _within(size: int, bounds: tuple[int, int | None]) -> bool:
    low, high = bounds
    return low <= size and (high is None or size <= high)


def _sizes(feature: Feature) -> str:
    if feature.shapes is not None:
        return " or ".join(map(str, feature.shapes))
    if feature.ranges is None:
        return str(feature.shape)
    return "x".join(
        str(low) if low == high else f"{low}..{'' if high is None else high}" for low, high in feature.ranges
    )


def _convert(feature: Feature, array: Array) -> Array:
    if feature.kind == "image":
        return _pixels(feature, array)
    if feature.kind != "array":
        raise TargetError(f"The input {feature.name!r} is no array, and edgeq runs arrays and images.")
    if feature.dtype.startswith("float"):
        if array.dtype.kind != "f":
            raise _wrong_dtype(feature, array)
        return array.astype(np.float32, copy=False)
    if array.dtype.kind not in "iub":
        raise _wrong_dtype(feature, array)
    bounds = np.iinfo(feature.dtype)
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        raise TargetError(f"The input {feature.name!r} has integers outside {feature.dtype}.")
    return array.astype(feature.dtype, copy=False)


def _pixels(feature: Feature, array: Array) -> Array:
    if array.dtype.kind not in "uif":
        raise _wrong_dtype(feature, array)
    if array.size and (array.min() < 0 or array.max() > 255):
        raise TargetError(f"The image {feature.name!r} has values outside 0 to 255.")
    return array.astype(np.float32, copy=False)


def _wrong_dtype(feature: Feature, array: Array) -> TargetError:
    return TargetError(f"The input {feature.name!r} is {array.dtype}, the package takes {feature.dtype}.")


def give(feature: Feature, value: Array, shared: Sequence[Array]) -> Array:
    """The output in the dtype of the description, in memory of its own."""
    if feature.kind == "label":
        return value
    dtype = np.dtype(np.float32 if feature.kind == "image" else feature.dtype)
    converted = value.astype(dtype, order="C", copy=False)
    alias = not converted.flags.writeable or any(np.may_share_memory(converted, other) for other in shared)
    return converted.copy() if alias else converted
